//! The settings that llama.cpp reads from a GGUF file, from a model's description.

use crate::Target;
use crate::config::Config;
use crate::config::rope::Scaling;
use crate::family::Family;
use crate::gguf::Value;
use crate::quant::narrow;

/// The version of ggml's quantized formats.
const QUANTIZATION_VERSION: u32 = 2;

/// The settings of the header but the tokenizer's.
pub(crate) fn of(config: &Config, name: &str, target: Target) -> Vec<(String, Value)> {
    let shape = &config.shape;
    let mut all = general(shape.family.architecture(), name, target);
    let mut put = |suffix: &str, value: Value| all.push((format!("{}.{suffix}", shape.family.architecture()), value));
    put("context_length", Value::U32(config.context));
    put("embedding_length", Value::U32(shape.hidden));
    put("block_count", Value::U32(shape.layers));
    put("feed_forward_length", Value::U32(shape.feed_forward));
    put("attention.head_count", Value::U32(shape.heads));
    put("attention.head_count_kv", Value::U32(shape.kv_heads));
    if shape.family.is_gemma() || shape.head_dim.checked_mul(shape.heads) != Some(shape.hidden) {
        put("attention.key_length", Value::U32(shape.head_dim));
        put("attention.value_length", Value::U32(shape.head_dim));
    }
    put("attention.layer_norm_rms_epsilon", Value::F32(narrow(config.norm_epsilon)));
    put("vocab_size", Value::U32(shape.vocabulary));
    if let Some(sliding) = config.sliding {
        put("attention.sliding_window", Value::U32(sliding.window));
        // Gemma 2 slides by turns in llama.cpp without being told.
        if shape.family == Family::Gemma3 {
            put("attention.sliding_window_pattern", Value::U32(sliding.pattern));
        }
    }
    if let Some(cap) = config.attention_cap {
        put("attn_logit_softcapping", Value::F32(narrow(cap)));
    }
    if let Some(cap) = config.final_cap {
        put("final_logit_softcapping", Value::F32(narrow(cap)));
    }
    rope(config, &mut put);
    all
}

/// What stands in the header of every model.
pub(crate) fn general(architecture: &str, name: &str, target: Target) -> Vec<(String, Value)> {
    let mut all = vec![
        ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
        ("general.type".to_owned(), Value::String("model".to_owned())),
        ("general.name".to_owned(), Value::String(name.to_owned())),
        ("general.file_type".to_owned(), Value::U32(file_type(target))),
    ];
    if target == Target::Q8_0 {
        all.push(("general.quantization_version".to_owned(), Value::U32(QUANTIZATION_VERSION)));
    }
    all
}

fn rope(config: &Config, put: &mut dyn FnMut(&str, Value)) {
    let rope = &config.rope;
    put("rope.dimension_count", Value::U32(rope.dimensions));
    put("rope.freq_base", Value::F32(narrow(rope.base)));
    if let Some(base) = rope.sliding_base {
        put("rope.freq_base_swa", Value::F32(narrow(base)));
    }
    match &rope.scaling {
        // The divisors of `Factors` are a tensor.
        Scaling::None | Scaling::Factors(_) => {}
        Scaling::Linear(factor) => {
            put("rope.scaling.type", Value::String("linear".to_owned()));
            put("rope.scaling.factor", Value::F32(narrow(*factor)));
        }
        Scaling::Yarn { factor, original } => {
            put("rope.scaling.type", Value::String("yarn".to_owned()));
            put("rope.scaling.factor", Value::F32(narrow(*factor)));
            put("rope.scaling.original_context_length", Value::U32(*original));
        }
        Scaling::Long { original, attention, .. } => {
            put("rope.scaling.original_context_length", Value::U32(*original));
            put("rope.scaling.attn_factor", Value::F32(narrow(*attention)));
        }
    }
}

/// llama.cpp's number for "mostly of this format".
fn file_type(target: Target) -> u32 {
    match target {
        Target::F32 => 0,
        Target::F16 => 1,
        Target::Q8_0 => 7,
        Target::Bf16 => 32,
    }
}
