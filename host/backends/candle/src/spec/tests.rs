//! What is read from configs, and what is refused.

use serde_json::{Value, json};

use super::*;

fn read(changes: &Value) -> Result<Spec, BackendError> {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    });
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    std::fs::write(&path, config.to_string()).expect("written");
    Spec::read(&Config::read(&path).expect("JSON").expect("there"))
}

fn refused(changes: &Value, word: &str) {
    let error = read(changes).expect_err("refused").to_string();
    assert!(error.contains(word), "{error}");
}

#[test]
fn families_have_their_own_defaults() {
    let llama = read(&json!({})).expect("a llama");
    assert_eq!((llama.head_dim, llama.kv_width(), llama.tied, llama.trained), (8, 16, false, 64));
    assert!((llama.scale - 1.0 / 8.0_f64.sqrt()).abs() < 1e-12);
    let qwen = read(&json!({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": false})).expect("a qwen");
    assert!(qwen.qkv_bias && !qwen.out_bias && qwen.windowed == [false; 4]);
    let qwen = json!({"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": true, "num_hidden_layers": 30});
    let windowed = read(&qwen).expect("a qwen").windowed;
    assert_eq!(windowed.iter().position(|is_windowed| *is_windowed), Some(28));
    let gemma =
        read(&json!({"model_type": "gemma2", "hidden_act": "gelu", "sliding_window": 8, "head_dim": 16})).expect("a gemma");
    assert!(gemma.tied && gemma.activation == Activation::GeluTanh && gemma.windowed == [true, false, true, false]);
    assert_eq!((gemma.score_cap, gemma.logit_cap, gemma.scale), (Some(50.0), Some(30.0), 1.0 / 16.0));
    let gemma = read(&json!({"model_type": "gemma2", "attn_logit_softcapping": null})).expect("a gemma");
    assert_eq!((gemma.score_cap, gemma.logit_cap), (None, Some(30.0)));
    let gemma = read(&json!({"model_type": "gemma3_text", "sliding_window": 8, "sliding_window_pattern": 2})).expect("a gemma");
    assert_eq!(gemma.windowed, [true, false, true, false]);
    assert_eq!(gemma.local_rope, Some(Frequencies::plain(10_000.0, 8)));
    assert_eq!(gemma.rope, Frequencies::plain(1_000_000.0, 8));
}

#[test]
fn both_ways_of_writing_rope_are_read() {
    let scaled = json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 500.0});
    let old = read(&scaled).expect("read").rope;
    let new = read(&json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}})).expect("read").rope;
    assert_eq!(old, new);
    assert!((old.inverse[0] - 0.5).abs() < 1e-6 && old.inverse.len() == 4);
    let kinds = json!({"full_attention": {"rope_type": "default", "rope_theta": 7.0}, "sliding_attention": {"rope_theta": 5.0}});
    let gemma = read(&json!({"model_type": "gemma3_text", "rope_parameters": kinds})).expect("read");
    assert_eq!((gemma.rope, gemma.local_rope), (Frequencies::plain(7.0, 8), Some(Frequencies::plain(5.0, 8))));
    let types = ["full_attention", "sliding_attention", "full_attention", "full_attention"];
    let mixed = read(&json!({"model_type": "mistral", "sliding_window": 8, "layer_types": types})).expect("read");
    assert_eq!((mixed.window, mixed.windowed), (8, vec![false, true, false, false]));
    let part = read(&json!({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})).expect("read").rope;
    assert_eq!(part, Frequencies::plain(10_000.0, 4));
    let kinds = json!({"full_attention": {"rope_type": "default", "partial_rotary_factor": 0.5}});
    assert_eq!(read(&json!({"rope_parameters": kinds})).expect("read").rope, part);
}

#[test]
fn long_ropes_stay_within_the_original_length() {
    let scaling = json!({"type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [9.0, 9.0]});
    let changes = json!({
        "model_type": "phi3", "partial_rotary_factor": 0.5, "rope_scaling": scaling, "original_max_position_embeddings": 16,
    });
    let phi = read(&changes).expect("a phi");
    assert_eq!(phi.trained, 16);
    let plain = Frequencies::plain(10_000.0, 4).inverse;
    assert_eq!(phi.rope.inverse, [plain[0], plain[1] / 2.0]);
    // ln 4 / ln 16 is a half.
    assert!((phi.rope.magnitude - 1.5_f32.sqrt()).abs() < 1e-6);
}

#[test]
fn what_cannot_be_computed_is_said() {
    refused(&json!({"model_type": "mamba"}), "mamba");
    refused(&json!({"quantization_config": {"bits": 4}}), "quantized");
    refused(&json!({"num_key_value_heads": 3}), "heads");
    refused(&json!({"head_dim": 7}), "even");
    refused(&json!({"vocab_size": 0}), "`vocab_size`");
    refused(&json!({"hidden_size": null}), "`hidden_size`");
    refused(&json!({"rope_scaling": {"rope_type": "yarn"}}), "yarn");
    refused(&json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}), "low_freq_factor");
    refused(&json!({"hidden_act": "prelu"}), "prelu");
    refused(&json!({"model_type": "mistral", "sliding_window": 4, "layer_types": ["full_attention"]}), "layer_types");
}
