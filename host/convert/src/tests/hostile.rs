//! Folders that are wrong, by mistake or on purpose: each is refused in words that say what and where.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Folder, safetensors, weights, write_json};
use crate::{Options, Target, convert};

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for (name, value, words) in [
        ("num_attention_heads", json!(0), "`config.json` has num_attention_heads 0; 1 to 4096 are taken"),
        ("num_attention_heads", json!(-4), "`config.json` is not understood"),
        ("num_attention_heads", json!(1e30), "`config.json` is not understood"),
        ("num_attention_heads", json!("4"), "`config.json` is not understood"),
        ("num_attention_heads", json!(null), "`config.json` has no num_attention_heads"),
        ("num_key_value_heads", json!(3), "which is no multiple of num_key_value_heads 3"),
        ("num_key_value_heads", json!(8), "num_key_value_heads 8; 1 to 4"),
        ("num_hidden_layers", json!(u64::MAX), "num_hidden_layers 18446744073709551615; 1 to 512"),
        ("num_hidden_layers", json!(0), "num_hidden_layers 0"),
        ("hidden_size", json!(4_294_967_296_u64), "hidden_size 4294967296"),
        ("hidden_size", json!(0), "hidden_size 0"),
        ("intermediate_size", json!(1_u64 << 40), "intermediate_size"),
        ("vocab_size", json!(1_u64 << 40), "vocab_size"),
        ("head_dim", json!(0), "head_dim 0"),
        ("head_dim", json!(15), "a head_dim of 15"),
        ("max_position_embeddings", json!(0), "max_position_embeddings 0"),
        ("rms_norm_eps", json!(0.0), "rms_norm_eps 0"),
        ("rope_theta", json!(-1.0), "rope_theta -1"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "stretched by `dynamic`"),
        ("rope_scaling", json!({"type": "linear"}), "without a factor"),
        ("rope_scaling", json!({"type": "linear", "factor": 0.0}), "a rope factor of 0"),
        ("rope_scaling", json!([1]), "rope settings that are not understood"),
        ("model_type", json!("mamba"), "its model_type is \"mamba\""),
        ("model_type", json!(null), "has no model_type"),
        ("architectures", json!(["LlamaForSequenceClassification"]), "LlamaForCausalLM is converted"),
        ("hidden_act", json!("relu\n"), "its activation is `relu\\n`"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantized already"),
        ("partial_rotary_factor", json!(0.5), "a part of each head"),
        ("final_logit_softcapping", json!(30.0), "caps its scores"),
        ("eos_token_id", json!(0), ""),
    ] {
        let folder = Folder::of("llama", 16).with(name, value.clone());
        if words.is_empty() {
            folder.converted(Target::F16);
            continue;
        }
        let refusal = folder.refusal();
        assert!(refusal.contains(words), "{name} {value}: {refusal}");
        assert!(!refusal.contains('\n'), "{refusal}");
    }
}

#[test]
fn what_llama_cpp_computes_otherwise_is_refused() {
    let gemma2 = || Folder::of("gemma2", 32).with("attn_logit_softcapping", json!(50.0));
    assert!(gemma2().refusal().contains("without final_logit_softcapping"));
    let capped = || gemma2().with("final_logit_softcapping", json!(30.0));
    assert!(capped().with("query_pre_attn_scalar", json!(144)).refusal().contains("computes with 32"));
    let turns = json!(["full_attention", "sliding_attention"]);
    assert!(capped().with("layer_types", turns).refusal().contains("layer"));
    assert!(Folder::of("qwen2", 32).refusal().contains("hidden_size = heads x head_dim"));
}

#[test]
fn tensors_have_to_be_those_that_config_json_asks_for() {
    let mut folder = Folder::of("llama", 16);
    folder.tensors.remove("model.layers.1.mlp.up_proj.weight");
    assert_eq!(folder.refusal(), "tensor `model.layers.1.mlp.up_proj.weight` is missing");
    let mut folder = Folder::of("llama", 16);
    folder.tensors.insert("model.layers.1.mlp.up_proj.weight".to_owned(), vec![64, 96]);
    let words = "tensor `model.layers.1.mlp.up_proj.weight` has the shape [64, 96]; config.json asks for [96, 64]";
    assert_eq!(folder.refusal(), words);
    let mut folder = Folder::of("llama", 16);
    folder.tensors.insert("model.layers.2.mlp.up_proj.weight".to_owned(), vec![96, 64]);
    assert!(folder.refusal().contains("`model.layers.2.mlp.up_proj.weight` is not one that llama.cpp's `llama` has a use for"));
    let mut folder = Folder::of("llama", 16);
    folder.tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![8]);
    folder.converted(Target::F16);
}

#[test]
fn values_that_cannot_be_stored_are_refused_and_the_file_is_removed() {
    let folder = Folder::of("llama", 16);
    folder.write();
    for (value, words) in [(f32::NAN, "infinite or not a number"), (1e6, "which f16 cannot store")] {
        let tensors = folder.tensors.iter().map(|(name, shape)| {
            let mut values = weights(name, shape);
            if name == "model.layers.1.mlp.down_proj.weight" {
                values[77] = value;
            }
            (name.clone(), shape.clone(), values)
        });
        safetensors(&folder.path().join("model.safetensors"), tensors.collect());
        let options = Options { name: "tiny".to_owned(), target: Target::F16 };
        let refusal = convert(folder.path(), &folder.out(), &options, &mut |_, _| ()).unwrap_err().to_string();
        assert!(refusal.contains("`model.layers.1.mlp.down_proj.weight`") && refusal.contains(words), "{refusal}");
        assert!(!folder.out().exists());
    }
}

#[test]
fn shards_are_read_and_a_wrong_index_is_refused() {
    let folder = Folder::of("llama", 16);
    folder.write();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let options = Options { name: "tiny".to_owned(), target: Target::F16 };
    let run = || convert(folder.path(), &folder.out(), &options, &mut |_, _| ()).map_err(|error| error.to_string());
    assert!(run().unwrap_err().contains("`model.safetensors` is missing"));
    let file_of = |name: &str| if name.contains("layers.1") { "model-2.safetensors" } else { "model-1.safetensors" };
    let mut map = serde_json::Map::new();
    for file in ["model-1.safetensors", "model-2.safetensors"] {
        let here = folder.tensors.iter().filter(|(name, _)| file_of(name) == file);
        safetensors(
            &folder.path().join(file),
            here.map(|(name, shape)| (name.clone(), shape.clone(), weights(name, shape))).collect(),
        );
    }
    folder.tensors.keys().for_each(|name| drop(map.insert(name.clone(), json!(file_of(name)))));
    let index = folder.path().join("model.safetensors.index.json");
    write_json(&index, &json!({"weight_map": map}));
    run().unwrap();
    std::fs::remove_file(folder.out()).unwrap();
    for (file, words) in [
        ("../model-1.safetensors", "no plain name"),
        ("/etc/passwd", "no plain name"),
        ("model-3.safetensors", "`model-3.safetensors` is missing"),
    ] {
        map.insert("model.norm.weight".to_owned(), json!(file));
        write_json(&index, &json!({"weight_map": map}));
        assert!(run().unwrap_err().contains(words), "{file}");
    }
    map.insert("model.norm.weight".to_owned(), json!("model-1.safetensors"));
    map.insert("more.weight".to_owned(), json!("model-1.safetensors"));
    write_json(&index, &json!({"weight_map": map}));
    assert!(run().unwrap_err().contains("tensor `more.weight` is listed"));
}

#[test]
fn missing_and_broken_files_are_named() {
    for (name, words) in [
        ("config.json", "`config.json` is missing from the model's folder"),
        ("tokenizer.json", "`tokenizer.json` is missing from the model's folder"),
    ] {
        let folder = Folder::of("llama", 16);
        folder.write();
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let options = Options { name: "tiny".to_owned(), target: Target::F16 };
        let refusal = convert(folder.path(), &folder.out(), &options, &mut |_, _| ()).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let refusal = convert(folder.path(), &folder.out(), &options, &mut |_, _| ()).unwrap_err().to_string();
        assert!(refusal.contains("is not a regular file"), "{refusal}");
    }
    let folder = Folder::of("llama", 16);
    let options = Options { name: "two\nlines".to_owned(), target: Target::F16 };
    assert!(convert(folder.path(), &folder.out(), &options, &mut |_, _| ()).is_err());
}

/// Any JSON of a few levels.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9 ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("type|factor|Regex|[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_of_any_field_is_a_panic(
        field in prop_oneof![
            Just("num_hidden_layers"), Just("hidden_size"), Just("head_dim"), Just("rope_scaling"), Just("rope_parameters"),
            Just("layer_types"), Just("sliding_window"), Just("eos_token_id"), Just("rms_norm_eps"), Just("partial_rotary_factor"),
        ],
        part in prop_oneof![Just("added_tokens"), Just("normalizer"), Just("pre_tokenizer"), Just("post_processor"), Just("model")],
        value in any_json(),
    ) {
        let folder = Folder::of("gemma3_text", 32).with(field, value.clone());
        let result = folder.convert(Target::F16);
        prop_assert_eq!(folder.out().exists(), result.is_ok());
        let mut folder = Folder::of("qwen2", 16);
        folder.tokenizer[part] = value;
        let result = folder.convert(Target::F16);
        prop_assert_eq!(folder.out().exists(), result.is_ok());
    }
}
