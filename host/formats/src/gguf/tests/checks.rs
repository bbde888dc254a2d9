//! What would make llama.cpp end the process.

use super::super::{Array, Kind, TensorType, Value, Values, check_adapter, check_model};
use super::open;
use crate::testing::{GgufFile, i32s, text, texts, u32s};

fn model(with: impl Fn(GgufFile) -> GgufFile) -> Result<(), String> {
    check_model(&open(&with(GgufFile::model()).bytes()).unwrap()).map_err(|error| error.to_string())
}

fn refused(key: &str, value: &Value, words: &str) {
    let said = model(|file| file.with(key, value.clone())).unwrap_err();
    assert!(said.contains(words), "{said:?} lacks {words:?}");
}

fn taken(keys: &[(&str, Value)]) {
    model(|file| keys.iter().fold(file, |file, (key, value)| file.with(key, value.clone()))).unwrap();
}

#[test]
fn sizes_out_of_range_are_refused() {
    taken(&[]);
    let cases = [
        ("general.architecture", text("Llama"), "it is 1 to 64 of a-z"),
        ("general.architecture", text(""), "it is 1 to 64 of a-z"),
        ("general.architecture", text("clip"), "image projector"),
        ("general.architecture", Value::U32(1), "not a text"),
        ("general.type", Value::U32(1), "not a text"),
        ("general.alignment", Value::U32(16), "mapped at multiples of 32"),
        ("split.count", Value::U32(2), "one of 2 parts of a model; merge them"),
        ("llama.block_count", Value::U32(0), "`block_count` is 0; it is 1 to 512"),
        ("llama.block_count", Value::U32(513), "`block_count` is 513"),
        ("llama.block_count", text("2"), "`block_count` is not a count"),
        ("llama.embedding_length", Value::U32(0), "`embedding_length` is 0"),
        ("llama.embedding_length", Value::U32(64), "by the metadata it is [64, 16]"),
        ("llama.context_length", Value::U32(u32::MAX), "`context_length` is 4294967295"),
        ("llama.nextn_predict_layers", Value::U32(3), "3 of 2 layers"),
        ("llama.attention.head_count", Value::U32(0), "`attention.head_count` is 0; it is 1 to 4096"),
        ("llama.attention.head_count", u32s(&[4]), "1 items for 2 layers"),
        ("llama.attention.head_count", texts(&["4", "4"]), "not an array of 32-bit counts"),
        ("llama.attention.head_count", i32s(&[4, -4]), "not an array of 32-bit counts"),
        ("llama.attention.head_count_kv", Value::U32(0), "`attention.head_count_kv` is 0; it is 1 to 4096"),
        ("llama.attention.head_count_kv", Value::U32(3), "3, which does not divide the 4 heads"),
        ("llama.attention.head_count_kv", u32s(&[2, 3]), "3, which does not divide the 4 heads"),
        ("llama.attention.key_length", Value::U32(0), "a head is 0 wide"),
        ("llama.rope.dimension_count", Value::U32(10), "even and at most the 8 of a head"),
        ("llama.rope.dimension_count", Value::U32(7), "even and at most the 8 of a head"),
        ("llama.rope.scaling.type", text("wide"), "one of none, linear, yarn, longrope"),
        ("llama.rope.freq_base", Value::F32(f32::INFINITY), "`llama.rope.freq_base` is inf"),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0), "it is 0 or more"),
        ("llama.pooling_type", Value::U32(5), "`pooling_type` is 5"),
        ("llama.expert_count", Value::U32(1_025), "`expert_count` is 1025"),
        ("llama.expert_count", Value::U32(8), "`expert_used_count` is 0 of 8 experts"),
        ("llama.expert_used_count", Value::U32(1), "1 of 0 experts"),
        ("llama.expert_group_count", Value::U32(1), "1 without experts"),
    ];
    for (key, value, words) in &cases {
        refused(key, value, words);
    }
    for key in ["llama.block_count", "llama.attention.head_count", "tokenizer.ggml.tokens", "tokenizer.ggml.model"] {
        assert!(model(|file| file.without(key)).unwrap_err().contains("is missing"), "{key}");
    }
}

#[test]
fn what_models_in_use_have_is_taken() {
    taken(&[("llama.attention.head_count", u32s(&[4, 0])), ("llama.attention.head_count_kv", i32s(&[2, 0]))]);
    taken(&[("llama.expert_count", Value::U32(8)), ("llama.expert_used_count", u32s(&[2, 4]))]);
    taken(&[("general.alignment", Value::U32(64)), ("split.count", Value::U32(1))]);
    model(|file| file.without("general.type").without("llama.attention.head_count_kv")).unwrap();
    let headless = |file: GgufFile| {
        let file = file.with("general.architecture", text("mamba")).with("mamba.attention.head_count", Value::U32(0));
        ["block_count", "embedding_length", "context_length"].iter().fold(file, |file, key| {
            let value = file.keys.iter().find(|(found, _)| *found == format!("llama.{key}")).unwrap().1.clone();
            file.with(&format!("mamba.{key}"), value)
        })
    };
    model(headless).unwrap();
}

#[test]
fn groups_of_experts_divide_them() {
    let groups = |count, used| {
        model(|file| {
            let file = file.with("llama.expert_count", Value::U32(8)).with("llama.expert_used_count", Value::U32(2));
            file.with("llama.expert_group_count", Value::U32(count)).with("llama.expert_group_used_count", Value::U32(used))
        })
    };
    groups(4, 2).unwrap();
    assert!(groups(3, 2).unwrap_err().contains("does not divide the 8 experts"));
    assert!(groups(8, 2).unwrap_err().contains("8 of 8 experts"));
    assert!(groups(4, 4).unwrap_err().contains("1 to less than 4"));
}

#[test]
fn a_vocabulary_has_distinct_words_and_ids_inside_it() {
    let mut words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    words[3] = "a";
    refused("tokenizer.ggml.tokens", &texts(&words), "the vocabulary has `a` twice");
    words[3] = "a\0x";
    refused("tokenizer.ggml.tokens", &texts(&words), "the vocabulary has `a\\0x` twice");
    words[3] = "";
    taken(&[("tokenizer.ggml.tokens", texts(&words))]);
    words[4] = "[EMPTY_3]";
    refused("tokenizer.ggml.tokens", &texts(&words), "the vocabulary has `[EMPTY_3]` twice");
    refused("tokenizer.ggml.tokens", &texts(&[]), "a vocabulary of 0 words");
    refused("tokenizer.ggml.model", &text("none"), "it has no vocabulary");
    refused("tokenizer.ggml.model", &text("rwkv"), "a tokenizer of the kind rwkv");
    refused("tokenizer.ggml.model", &text("new"), "is `new`; it is one of llama");
    refused("tokenizer.ggml.token_type", &i32s(&[1; 15]), "15 items for 16 words");
    refused("tokenizer.ggml.token_type", &u32s(&[1; 16]), "items of the kind U32");
    refused("tokenizer.ggml.scores", &i32s(&[1; 17]), "17 items for 16 words");
    refused("tokenizer.ggml.scores", &text(""), "is not an array");
    refused("tokenizer.ggml.token_type", &i32s(&[6; 16]), "the word `a` is typed as a byte");
    refused("tokenizer.ggml.bos_token_id", &Value::U32(16), "is 16; the vocabulary has 16 words");
    refused("tokenizer.ggml.eos_token_id", &Value::I32(-1), "is not a count");
    refused("tokenizer.ggml.model", &text("bert"), "`tokenizer.ggml.bos_token_id` is missing, and prompts get this token");
    refused("tokenizer.ggml.model", &text("llama"), "no word `<0x00>`");
}

#[test]
fn a_tokenizer_of_the_kind_llama_has_all_bytes() {
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect::<Vec<_>>();
    let words = ["<unk>", "<s>", "</s>"].into_iter().chain(bytes.iter().map(String::as_str)).collect::<Vec<_>>();
    let file = |words: &[&str]| {
        let kinds = words.iter().map(|word| if word.starts_with("<0x") { 6 } else { 3 }).collect::<Vec<_>>();
        let file = GgufFile::model().with("tokenizer.ggml.model", text("llama")).with("tokenizer.ggml.tokens", texts(words));
        let count = words.len() as u64;
        file.with("tokenizer.ggml.token_type", i32s(&kinds)).with_tensor("token_embd.weight", &[32, count], TensorType::F16)
    };
    model(|_| file(&words)).unwrap();
    assert!(model(|_| file(&words[..258])).unwrap_err().contains("no word `<0xFF>`"));
}

#[test]
fn a_charsmap_is_looked_into() {
    let map = |bytes: &[u8]| {
        let values = Values::U8(bytes.to_vec());
        let map = Value::Array(Array { kind: Kind::U8, len: bytes.len() as u64, values });
        model(|file| file.with("tokenizer.ggml.model", text("t5")).with("tokenizer.ggml.precompiled_charsmap", map.clone()))
    };
    map(b"\0\0\0\0\0").unwrap();
    assert!(map(b"\xff\0\0\0\0").unwrap_err().contains("cut short"));
    assert!(map(b"\x04\0\0\0\0\0\0\0\0").unwrap_err().contains("out of its trie"));
}

#[test]
fn tensors_have_types_that_ggml_computes_with() {
    let with = |name: &str, shape: &[u64], kind| model(|file| file.with_tensor(name, shape, kind));
    assert!(with("output_norm.weight", &[32], TensorType::Q8_0).unwrap_err().contains("such a tensor is f32"));
    assert!(with("output.weight", &[32, 16], TensorType::F64).unwrap_err().contains("f64, which ggml does not multiply with"));
    assert!(
        with("token_embd.weight", &[32, 15], TensorType::F16).unwrap_err().contains("[32, 15]; by the metadata it is [32, 16]")
    );
    with("blk.0.ffn_gate_tid2eid.weight", &[2, 16], TensorType::I32).unwrap();
    let bare = |mut file: GgufFile| {
        file.tensors.remove(0);
        file
    };
    assert!(model(bare).unwrap_err().contains("`token_embd.weight` is missing"));
}

#[test]
fn an_adapter_is_pairs_that_multiply() {
    let check = |with: &dyn Fn(GgufFile) -> GgufFile| {
        check_adapter(&open(&with(GgufFile::adapter()).bytes()).unwrap()).map_err(|error| error.to_string())
    };
    check(&|file| file).unwrap();
    let tensor =
        |name: &'static str, shape: &'static [u64], kind| check(&move |file| file.with_tensor(name, shape, kind)).unwrap_err();
    assert!(check(&|file| file.with("adapter.type", text("control"))).unwrap_err().contains("of adapters, `lora` is read"));
    assert!(check(&|file| file.with("adapter.lora.alpha", Value::U32(16))).unwrap_err().contains("not an f32"));
    assert!(check(&|file| file.with("adapter.lora.alpha", Value::F32(f32::NAN))).unwrap_err().contains("is NaN"));
    assert!(tensor("blk.0.attn_q.weight.lora_a", &[32, 3], TensorType::F32).contains("the ranks 3 and 2"));
    assert!(tensor("token_embd.weight.lora_a", &[4, 16], TensorType::F32).contains("the ranks 4 and 2"));
    assert!(tensor("blk.0.attn_q.weight.lora_a", &[32], TensorType::F32).contains("has 1 dimensions"));
    assert!(tensor("blk.0.attn_q.weight.lora_a", &[32, 2], TensorType::I8).contains("does not multiply"));
    assert!(tensor("blk.0.attn_k.weight.lora_a", &[32, 2], TensorType::F32).contains("`blk.0.attn_k.weight` has no `lora_b`"));
    assert!(tensor("blk.0.attn_k.weight", &[32, 2], TensorType::F32).contains("neither in `.lora_a` nor in `.lora_b`"));
    assert!(tensor("a.lora_b.lora_a", &[32, 2], TensorType::F32).contains("has its ending twice"));
    let bare = |file| GgufFile { tensors: Vec::new(), ..file };
    assert!(check(&bare).unwrap_err().contains("it has no tensors"));
}

#[test]
fn encoders_are_taken_and_told_from_decoders() {
    let bert = [
        ("general.architecture", text("bert")),
        ("bert.block_count", Value::U32(2)),
        ("bert.embedding_length", Value::U32(32)),
        ("bert.context_length", Value::U32(64)),
        ("bert.attention.head_count", Value::U32(4)),
        ("bert.attention.layer_norm_epsilon", Value::F32(1e-12)),
        ("bert.attention.causal", Value::Bool(false)),
        ("bert.pooling_type", Value::U32(1)),
        ("tokenizer.ggml.model", text("bert")),
        ("tokenizer.ggml.bos_token_id", Value::U32(0)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(1)),
    ];
    taken(&bert);
    let read = |file: GgufFile| open(&file.bytes()).unwrap();
    let encoder = read(bert.into_iter().fold(GgufFile::model(), |file, (key, value)| file.with(key, value)));
    assert!(encoder.is_encoder() && encoder.is_embedder());
    let decoder = read(GgufFile::model());
    assert!(!decoder.is_encoder() && !decoder.is_embedder());
    let pooled = read(GgufFile::model().with("llama.pooling_type", Value::U32(3)));
    assert!(!pooled.is_encoder() && pooled.is_embedder());
}

#[test]
fn a_model_that_ranks_has_a_head_for_it() {
    let ranking = |file: GgufFile| file.with("llama.pooling_type", Value::U32(4));
    assert!(model(ranking).unwrap_err().contains("`cls.output.weight` is missing"));
    let with = |shape: &[u64], labels: &[&str]| {
        model(|file| {
            let file = ranking(file).with_tensor("cls.output.weight", shape, TensorType::F32);
            if labels.is_empty() { file } else { file.with("llama.classifier.output_labels", texts(labels)) }
        })
    };
    with(&[32, 1], &[]).unwrap();
    with(&[32], &[]).unwrap();
    with(&[32, 2], &["yes", "no"]).unwrap();
    assert!(with(&[32, 1], &["yes", "no"]).unwrap_err().contains("1 scores for 2 labels"));
    assert!(with(&[32, 32], &[]).unwrap_err().contains("32 scores for 1 labels"));
}
