//! Tiny models with random weights of every family, against candle's own models: those keep one cache and give the logits of the
//! last row, so each row is compared with a pass of its own over all tokens before it.
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::{gemma, gemma2, gemma3, llama, mistral, phi3, qwen2, qwen3};
use serde_json::{Value, from_value, json};
use tollgate_backend::{Backend, Row, SequenceId, Token};
use tollgate_backend_candle::{Candle, Settings};

const WORDS: u32 = 48;
const PROMPT: [Token; 12] = [3, 14, 15, 9, 2, 6, 5, 35, 8, 9, 7, 9];
const NEAR: f32 = 1e-3;

/// The logits after some tokens, with nothing remembered.
type Oracle = Box<dyn Fn(&[Token]) -> Vec<f32>>;
/// Makes one from weights.
type Build = fn(Value, VarBuilder<'static>) -> Oracle;

fn config(kind: &str, changes: &Value) -> Value {
    let mut config = json!({
        "model_type": kind, "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0, "tie_word_embeddings": false, "attention_bias": false, "head_dim": 8,
    });
    let activation = if kind.starts_with("gemma") { ("hidden_activation", "gelu_pytorch_tanh") } else { ("hidden_act", "silu") };
    config[activation.0] = json!(activation.1);
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

/// Random numbers for whatever tensors a model asks for; the same each time.
fn weights(build: Build, config: &Value) -> HashMap<String, Tensor> {
    let asked = VarMap::new();
    drop(build(config.clone(), VarBuilder::from_varmap(&asked, DType::F32, &Device::Cpu)));
    let asked = asked.data().lock().expect("nobody else");
    let mut names: Vec<&String> = asked.keys().collect();
    names.sort();
    let mut state = 1_u64;
    let mut weights = HashMap::new();
    for name in names {
        let shape = asked[name].shape().clone();
        // Norms are near 1 (or near 0 where 1 is added), so that nothing vanishes on the way.
        let middle =
            if name.contains("norm") && !config["model_type"].as_str().expect("text").starts_with("gemma") { 1.0 } else { 0.0 };
        let numbers: Vec<f32> = (0..shape.elem_count())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let part = u16::try_from(state >> 48).expect("16 bits");
                (f32::from(part) / 65_536.0 - 0.5) * 0.8 + middle
            })
            .collect();
        weights.insert(name.clone(), Tensor::from_vec(numbers, shape, &Device::Cpu).expect("a tensor"));
    }
    weights
}

fn ids(tokens: &[Token]) -> Tensor {
    Tensor::new(tokens, &Device::Cpu).and_then(|tokens| tokens.unsqueeze(0)).expect("ids")
}

fn numbers(logits: candle_core::Result<Tensor>) -> Vec<f32> {
    logits.and_then(|logits| logits.flatten_all()?.to_vec1::<f32>()).expect("logits")
}

/// An oracle from a model that is cloned with an empty cache each time.
macro_rules! oracle {
    ($model:expr) => {{
        let model = $model.expect("a model");
        Box::new(move |tokens: &[Token]| numbers(model.clone().forward(&ids(tokens), 0)))
    }};
}

fn llama(config: Value, weights: VarBuilder<'static>) -> Oracle {
    let config = from_value::<llama::LlamaConfig>(config).expect("a config").into_config(false);
    let model = llama::Llama::load(weights, &config).expect("a model");
    Box::new(move |tokens| {
        let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).expect("a cache");
        numbers(model.forward(&ids(tokens), 0, &mut cache))
    })
}

/// candle's window is one token wider than what its name says.
fn mistral(mut config: Value, weights: VarBuilder<'static>) -> Oracle {
    if let Some(window) = config["sliding_window"].as_u64() {
        config["sliding_window"] = json!(window - 1);
    }
    oracle!(mistral::Model::new(&from_value(config).expect("a config"), weights))
}

fn qwen2(config: Value, weights: VarBuilder<'static>) -> Oracle {
    oracle!(qwen2::ModelForCausalLM::new(&from_value(config).expect("a config"), weights))
}

fn qwen3(config: Value, weights: VarBuilder<'static>) -> Oracle {
    oracle!(qwen3::ModelForCausalLM::new(&from_value(config).expect("a config"), weights))
}

fn gemma(config: Value, weights: VarBuilder<'static>) -> Oracle {
    oracle!(gemma::Model::new(false, &from_value(config).expect("a config"), weights))
}

fn gemma2(config: Value, weights: VarBuilder<'static>) -> Oracle {
    oracle!(gemma2::Model::new(false, &from_value(config).expect("a config"), weights))
}

fn gemma3(config: Value, weights: VarBuilder<'static>) -> Oracle {
    let model = gemma3::Model::new(false, &from_value(config).expect("a config"), weights).expect("a model");
    // candle's cache for it takes one token at a time.
    Box::new(move |tokens: &[Token]| {
        let mut model = model.clone();
        model.clear_kv_cache();
        let steps = tokens.iter().enumerate().map(|(at, token)| numbers(model.forward(&ids(&[*token]), at)));
        steps.last().expect("a token")
    })
}

fn phi3(config: Value, weights: VarBuilder<'static>) -> Oracle {
    oracle!(phi3::Model::new(&from_value(config).expect("a config"), weights))
}

fn load(directory: &Path) -> Candle {
    let folder = directory.to_owned();
    let settings = Settings { folder, context_tokens: Some(64), sequences: 2, step_rows: 32, threads: Some(1) };
    Candle::load(&settings).expect("the model loads")
}

fn decode(candle: &mut Candle, sequence: u16, start: usize, tokens: &[Token]) -> Vec<Vec<f32>> {
    let row = |(at, token): (usize, &Token)| Row {
        token: *token,
        position: u32::try_from(start + at).expect("short"),
        sequence: SequenceId(sequence),
        wants_logits: true,
    };
    let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
    candle.decode(&rows).expect("decoded");
    (0..rows.len()).map(|row| candle.logits(row).expect("logits").to_vec()).collect()
}

fn assert_near(one: &[f32], other: &[f32], what: &str) {
    let far = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    let most = other.iter().map(|logit| logit.abs()).fold(1.0, f32::max);
    assert!(one.len() == other.len() && far < NEAR * most, "{what}: {far} of {most}");
}

/// A model of the kind computes what candle's does, whole and in chunks, and the same each time.
fn check(kind: &str, changes: &Value, build: Build) {
    let config = config(kind, changes);
    let weights = weights(build, &config);
    let directory = tempfile::tempdir().expect("a directory");
    candle_core::safetensors::save(&weights, directory.path().join("model.safetensors")).expect("saved");
    std::fs::write(directory.path().join("config.json"), config.to_string()).expect("written");
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/hf/tokenizer.json");
    std::fs::copy(tokenizer, directory.path().join("tokenizer.json")).expect("copied");
    let oracle = build(config, VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu));

    let mut candle = load(directory.path());
    let whole = decode(&mut candle, 0, 0, &PROMPT);
    for (at, logits) in whole.iter().enumerate() {
        assert_near(logits, &oracle(&PROMPT[..=at]), &format!("{kind}, row {at}"));
    }
    let mut chunked = Vec::new();
    for (start, end) in [(0, 2), (2, 3), (3, 9), (9, 12)] {
        chunked.extend(decode(&mut candle, 1, start, &PROMPT[start..end]));
    }
    for (at, (one, other)) in chunked.iter().zip(&whole).enumerate() {
        assert_near(one, other, &format!("{kind} in chunks, row {at}"));
    }
    let again = decode(&mut load(directory.path()), 0, 0, &PROMPT);
    assert!(again == whole, "{kind} is the same to the last bit");
}

#[test]
fn llamas() {
    check("llama", &json!({}), llama);
    check("llama", &json!({"tie_word_embeddings": true}), llama);
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    check("llama", &json!({"rope_scaling": scaling}), llama);
}

#[test]
fn mistrals() {
    check("mistral", &json!({"sliding_window": null}), mistral);
    check("mistral", &json!({"sliding_window": 4, "head_dim": 16}), mistral);
}

#[test]
fn qwens() {
    // candle's qwen2 takes the head's weights if there are any, whatever its config says.
    let window = json!({"sliding_window": 64, "max_window_layers": 3, "use_sliding_window": false, "tie_word_embeddings": true});
    check("qwen2", &window, qwen2);
    let mut changes = window;
    changes["head_dim"] = json!(16);
    changes["tie_word_embeddings"] = json!(false);
    check("qwen3", &changes, qwen3);
    changes["attention_bias"] = json!(true);
    changes["tie_word_embeddings"] = json!(true);
    check("qwen3", &changes, qwen3);
}

#[test]
fn gemmas() {
    let tied = json!({"tie_word_embeddings": true, "head_dim": 16});
    check("gemma", &tied, gemma);
    let mut changes = tied;
    changes["query_pre_attn_scalar"] = json!(16);
    changes["sliding_window"] = json!(64);
    changes["attn_logit_softcapping"] = json!(5.0);
    changes["final_logit_softcapping"] = json!(3.0);
    check("gemma2", &changes, gemma2);
    changes["attn_logit_softcapping"] = json!(null);
    changes["final_logit_softcapping"] = json!(null);
    changes["sliding_window_pattern"] = json!(2);
    changes["rope_local_base_freq"] = json!(500.0);
    check("gemma3_text", &changes, gemma3);
}

#[test]
fn phis() {
    check("phi3", &json!({}), phi3);
    check("phi3", &json!({"partial_rotary_factor": 0.5, "tie_word_embeddings": true}), phi3);
}
