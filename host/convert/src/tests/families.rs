//! Tiny models of every family.

use serde_json::json;

use super::{Folder, HEADS, HIDDEN, KV_HEADS, values, weights};
use crate::Target;

#[test]
fn every_family_is_converted_in_every_format() {
    for (model_type, architecture, head_dim, tensors) in [
        ("llama", "llama", 16, 21),
        ("mistral", "llama", 32, 21),
        ("qwen2", "qwen2", 16, 27),
        ("qwen3", "qwen3", 32, 25),
        ("gemma", "gemma", 32, 20),
        ("gemma2", "gemma2", 32, 24),
        ("gemma3_text", "gemma3", 32, 28),
        ("phi3", "phi3", 16, 15),
    ] {
        for target in [Target::F32, Target::F16, Target::Bf16, Target::Q8_0] {
            let mut folder = Folder::of(model_type, head_dim);
            if model_type == "gemma2" {
                folder = folder.with("attn_logit_softcapping", json!(50.0)).with("final_logit_softcapping", json!(30.0));
            }
            let header = folder.converted(target);
            assert_eq!(header.architecture(), Some(architecture));
            assert_eq!(header.tensors.len(), tensors, "{model_type}: {:?}", header.tensors);
            assert_eq!(header.of_architecture("attention.head_count_kv"), Some(KV_HEADS));
            assert_eq!(header.of_architecture("rope.dimension_count"), Some(head_dim));
            let differs = head_dim * HEADS != HIDDEN || model_type.starts_with("gemma");
            assert_eq!(header.of_architecture("attention.key_length"), differs.then_some(head_dim), "{model_type}");
        }
    }
}

/// Row `row` of a head is dealt from its two halves by turns.
fn interleaved(rows: &[f32], heads: usize, row: usize) -> Vec<f32> {
    let head_rows = rows.len() / row / heads;
    let mut all = Vec::new();
    for head in rows.chunks(head_rows * row) {
        let (first, second) = head.split_at(head.len() / 2);
        first.chunks(row).zip(second.chunks(row)).for_each(|(one, other)| {
            all.extend_from_slice(one);
            all.extend_from_slice(other);
        });
    }
    all
}

#[test]
fn the_rows_of_queries_and_keys_are_reordered_for_llama_alone() {
    for (model_type, is_reordered) in [("llama", true), ("qwen3", false)] {
        let folder = Folder::of(model_type, 16);
        let header = folder.converted(Target::F32);
        for (source, name, heads) in
            [("self_attn.q_proj", "attn_q", 4), ("self_attn.k_proj", "attn_k", 2), ("self_attn.v_proj", "attn_v", 0)]
        {
            let source = format!("model.layers.1.{source}.weight");
            let original = weights(&source, &folder.tensors[&source]);
            let expected = if is_reordered && heads > 0 { interleaved(&original, heads, 64) } else { original };
            assert_eq!(values(&folder.out(), &header, &format!("blk.1.{name}.weight")), expected, "{model_type} {name}");
        }
    }
}

#[test]
fn biases_of_a_llama_are_reordered_with_its_rows() {
    let mut folder = Folder::of("llama", 16).with("attention_bias", json!(true));
    for layer in 0..2 {
        for (part, rows) in [("q", 64), ("k", 32), ("v", 32), ("o", 64)] {
            folder.tensors.insert(format!("model.layers.{layer}.self_attn.{part}_proj.bias"), vec![rows]);
        }
    }
    let header = folder.converted(Target::F16);
    let source = "model.layers.0.self_attn.q_proj.bias";
    let expected = interleaved(&weights(source, &[64]), 4, 1);
    assert_eq!(values(&folder.out(), &header, "blk.0.attn_q.bias"), expected);
    assert!(header.tensor("blk.1.attn_output.bias").is_some());
    folder.tensors.remove("model.layers.1.self_attn.k_proj.bias");
    std::fs::remove_file(folder.out()).unwrap();
    assert_eq!(folder.refusal(), "tensor `model.layers.1.self_attn.k_proj.bias` is missing");
}

#[test]
fn gemma_multiplies_by_one_more() {
    let folder = Folder::of("gemma3_text", 32)
        .with("sliding_window", json!(128))
        .with("rope_local_base_freq", json!(5000.0))
        .with("rope_scaling", json!({"rope_type": "linear", "factor": 8.0}))
        .with("query_pre_attn_scalar", json!(32));
    let header = folder.converted(Target::Q8_0);
    for (source, name) in [
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.self_attn.q_norm.weight", "blk.0.attn_q_norm.weight"),
        ("model.layers.1.pre_feedforward_layernorm.weight", "blk.1.ffn_norm.weight"),
        ("model.layers.1.post_attention_layernorm.weight", "blk.1.post_attention_norm.weight"),
    ] {
        let expected: Vec<f32> = weights(source, &folder.tensors[source]).into_iter().map(|value| value + 1.0).collect();
        assert_eq!(values(&folder.out(), &header, name), expected, "{name}");
    }
    assert_eq!(header.of_architecture("attention.sliding_window"), Some(128));
    assert_eq!(header.of_architecture("attention.sliding_window_pattern"), Some(6));
    assert_eq!(header.f64("gemma3.rope.freq_base_swa"), Some(5000.0));
    assert_eq!(header.string("gemma3.rope.scaling.type"), Some("linear"));
    assert_eq!(header.f64("gemma3.rope.scaling.factor"), Some(8.0));
}

#[test]
fn newer_files_say_layers_and_positions_otherwise() {
    let folder = Folder::of("gemma3_text", 32)
        .with("sliding_window", json!(128))
        .with("layer_types", json!(["sliding_attention", "full_attention"]))
        .with(
            "rope_parameters",
            json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default",
                "rope_theta": 7000.0}}),
        );
    let header = folder.converted(Target::F16);
    assert_eq!(header.of_architecture("attention.sliding_window_pattern"), Some(2));
    assert_eq!(header.f64("gemma3.rope.freq_base"), Some(1e6));
    assert_eq!(header.f64("gemma3.rope.freq_base_swa"), Some(7000.0));
}

#[test]
fn llama_3_gets_a_divisor_for_each_pair() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    let folder = Folder::of("llama", 16).with("rope_scaling", scaling);
    let header = folder.converted(Target::F16);
    let divisors = values(&folder.out(), &header, "rope_freqs.weight");
    assert_eq!(divisors.len(), 8);
    // In 64 positions the first pair turns 10 times, the next two 3.2 and 1.02 times, which is on the slope, the others less than once.
    assert_eq!(divisors[0], 1.0);
    assert!((divisors[1] - 1.0 / (0.2596 / 8.0 + 0.7404)).abs() < 1e-3, "{divisors:?}");
    assert!(divisors[2] > 7.0 && divisors[2] < 8.0, "{divisors:?}");
    assert_eq!(divisors[3..], [8.0; 5]);
}

#[test]
fn phi_gets_two_sets_of_divisors() {
    let factors: Vec<f64> = (1..=6).map(f64::from).collect();
    let folder = Folder::of("phi3", 16)
        .with("partial_rotary_factor", json!(0.75))
        .with("original_max_position_embeddings", json!(128))
        .with("rope_scaling", json!({"type": "longrope", "long_factor": factors, "short_factor": vec![1.0; 6]}));
    let header = folder.converted(Target::F16);
    assert_eq!(values(&folder.out(), &header, "rope_factors_long.weight"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(values(&folder.out(), &header, "rope_factors_short.weight"), [1.0; 6]);
    assert_eq!(header.of_architecture("rope.dimension_count"), Some(12));
    assert_eq!(header.of_architecture("rope.scaling.original_context_length"), Some(128));
    let expected = (1.0 + 4.0_f64.ln() / 128.0_f64.ln()).sqrt();
    assert!((header.f64("phi3.rope.scaling.attn_factor").unwrap() - expected).abs() < 1e-6);
}

#[test]
fn yarn_with_its_defaults_is_said_and_another_is_refused() {
    let scaling = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
    let header = Folder::of("qwen2", 16).with("rope_scaling", scaling).converted(Target::F16);
    assert_eq!(header.string("qwen2.rope.scaling.type"), Some("yarn"));
    assert_eq!(header.of_architecture("rope.scaling.original_context_length"), Some(128));
    let other = json!({"type": "yarn", "factor": 4.0, "beta_fast": 16.0});
    assert!(Folder::of("qwen2", 16).with("rope_scaling", other).refusal().contains("YaRN"));
}

#[test]
fn a_window_that_llama_cpp_would_not_keep_to_bounds_the_context() {
    let folder = Folder::of("mistral", 16).with("sliding_window", json!(256));
    let done = folder.convert(Target::F16).unwrap();
    assert!(done.notes[0].contains("the context is 256 tokens, not 512"), "{:?}", done.notes);
    assert_eq!(super::header(&folder.out()).of_architecture("context_length"), Some(256));
    // Qwen's files name a window that is not used.
    let header = Folder::of("qwen2", 16).with("sliding_window", json!(256)).converted(Target::F16);
    assert_eq!(header.of_architecture("context_length"), Some(512));
}

#[test]
fn a_tied_output_is_left_out_and_a_missing_one_is_missed() {
    let folder = Folder::of("llama", 16).with("tie_word_embeddings", json!(true));
    assert!(folder.converted(Target::F16).tensor("output.weight").is_none());
    let mut folder = Folder::of("llama", 16);
    folder.tensors.remove("lm_head.weight");
    assert_eq!(folder.refusal(), "tensor `lm_head.weight` is missing");
}
