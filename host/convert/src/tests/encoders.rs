//! Tiny models of BERT's kind: encoders with each pooling, and rerankers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Folder, data, values, weights, write_json};
use crate::Target;

const WORDS: u64 = 40;
const WIDTH: u64 = 32;
const INNER: u64 = 64;
const PLACES: u64 = 16;

/// A sound tiny encoder of two layers, whose tensors' names begin with `prefix`.
fn encoder(prefix: &str) -> Folder {
    let config = json!({
        "model_type": "bert", "architectures": ["BertModel"], "vocab_size": WORDS, "hidden_size": WIDTH,
        "intermediate_size": INNER, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": PLACES,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "position_embedding_type": "absolute",
    });
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[u64]| {
        tensors.insert(format!("{prefix}{name}.weight"), shape.to_vec());
        if !name.ends_with("_embeddings") {
            tensors.insert(format!("{prefix}{name}.bias"), shape[..1].to_vec());
        }
    };
    for (name, rows) in [("word", WORDS), ("position", PLACES), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings"), &[rows, WIDTH]);
    }
    add("embeddings.LayerNorm".to_owned(), &[WIDTH]);
    add("pooler.dense".to_owned(), &[WIDTH, WIDTH]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[u64]| add(format!("encoder.layer.{layer}.{name}"), shape);
        for part in ["query", "key", "value"] {
            add(&format!("attention.self.{part}"), &[WIDTH, WIDTH]);
        }
        add("attention.output.dense", &[WIDTH, WIDTH]);
        add("attention.output.LayerNorm", &[WIDTH]);
        add("intermediate.dense", &[INNER, WIDTH]);
        add("output.dense", &[WIDTH, INNER]);
        add("output.LayerNorm", &[WIDTH]);
    }
    let settings = json!({ "pad_token": "[PAD]", "mask_token": { "content": "[MASK]" }, "tokenizer_class": "BertTokenizer" });
    Folder { dir: TempDir::new().unwrap(), config, tensors, tokenizer: pieces(1), settings }
}

/// WordPiece as BERT has it, where the second text of a pair is in `segment`.
fn pieces(segment: u64) -> Value {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = special.into_iter().chain(["gate", "##way", "a", "##a", "##ab", "."]);
    let vocab: BTreeMap<&str, usize> = words.enumerate().map(|(id, word)| (word, id)).collect();
    let added: Vec<Value> =
        special.iter().enumerate().map(|(id, word)| json!({ "id": id, "content": word, "special": true })).collect();
    let mark = |id: &str, segment: u64| json!({ "SpecialToken": { "id": id, "type_id": segment } });
    let text = |id: &str, segment: u64| json!({ "Sequence": { "id": id, "type_id": segment } });
    json!({
        "version": "1.0", "added_tokens": added,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing", "single": [mark("[CLS]", 0), text("A", 0), mark("[SEP]", 0)],
            "pair": [mark("[CLS]", 0), text("A", 0), mark("[SEP]", 0), text("B", segment), mark("[SEP]", segment)],
            "special_tokens": {} },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab },
    })
}

/// An encoder with a head that gives one score, and pairs whose second text is in `segment`.
fn reranker(segment: u64) -> Folder {
    let mut folder = encoder("bert.")
        .with("architectures", json!(["BertForSequenceClassification"]))
        .with("id2label", json!({ "0": "LABEL_0" }));
    folder.tensors.insert("classifier.weight".to_owned(), vec![1, WIDTH]);
    folder.tensors.insert("classifier.bias".to_owned(), vec![1]);
    folder.tokenizer = pieces(segment);
    folder
}

fn pooling(folder: &Folder, modes: &Value) {
    std::fs::create_dir_all(folder.path().join("1_Pooling")).unwrap();
    write_json(&folder.path().join("1_Pooling/config.json"), modes);
}

#[test]
fn an_encoder_is_converted_in_every_format() {
    for (prefix, target) in [("", Target::F32), ("bert.", Target::F16), ("", Target::Bf16), ("bert.", Target::Q8_0)] {
        let folder = encoder(prefix);
        let header = folder.converted(target);
        assert_eq!(header.architecture(), Some("bert"));
        // Three tables, a norm, and eight pairs a layer.
        assert_eq!(header.tensors.len(), 3 + 2 + 2 * 16, "{:?}", header.tensors);
        assert_eq!(header.of_architecture("context_length"), Some(PLACES));
        assert_eq!(header.of_architecture("attention.head_count"), Some(4));
        assert_eq!(header.of_architecture("pooling_type"), Some(1));
        assert_eq!(header.bool("bert.attention.causal"), Some(false));
        let epsilon = header.f64("bert.attention.layer_norm_epsilon").unwrap();
        assert!((epsilon - 1e-12).abs() < 1e-18, "{epsilon}");
        assert_eq!(header.string("tokenizer.chat_template"), None);
        for (source, name) in [
            ("embeddings.position_embeddings.weight", "position_embd.weight"),
            ("embeddings.token_type_embeddings.weight", "token_types.weight"),
            ("encoder.layer.1.attention.self.key.bias", "blk.1.attn_k.bias"),
            ("encoder.layer.0.output.LayerNorm.weight", "blk.0.layer_output_norm.weight"),
        ] {
            let source = format!("{prefix}{source}");
            assert_eq!(values(&folder.out(), &header, name), weights(&source, &folder.tensors[&source]), "{name}");
        }
        assert_eq!(header.tensor("blk.0.ffn_down.weight").unwrap().shape, [INNER, WIDTH]);
    }
}

#[test]
fn words_are_spelled_as_llama_cpp_has_them() {
    let header = encoder("").converted(Target::F16);
    let tokens = header.array("tokenizer.ggml.tokens").unwrap().strings().unwrap();
    let expected = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u{2581}gate", "way", "\u{2581}a", "a", "ab", "\u{2581}."];
    assert_eq!(tokens[..11], expected);
    assert_eq!(tokens[11], "<|unused_11|>");
    let kinds = header.array("tokenizer.ggml.token_type").unwrap().i32s().unwrap();
    assert_eq!(kinds[..7], [3, 2, 3, 3, 3, 1, 1]);
    assert_eq!(kinds[39], 5);
    assert_eq!(header.string("tokenizer.ggml.model"), Some("bert"));
    for (name, id) in [("bos", 2), ("cls", 2), ("seperator", 3), ("unknown", 1), ("padding", 0), ("mask", 4)] {
        assert_eq!(header.u64(&format!("tokenizer.ggml.{name}_token_id")), Some(id), "{name}");
    }
    assert_eq!(header.u64("tokenizer.ggml.token_type_count"), Some(2));
    let letters = ["lowercase", "strip_accents"].map(|name| header.bool(&format!("tokenizer.ggml.normalizer.{name}")));
    assert_eq!(letters, [Some(true); 2]);

    let mut cased = encoder("");
    cased.tokenizer["normalizer"]["lowercase"] = json!(false);
    let header = cased.converted(Target::F16);
    let letters = ["lowercase", "strip_accents"].map(|name| header.bool(&format!("tokenizer.ggml.normalizer.{name}")));
    assert_eq!(letters, [Some(false); 2]);
}

#[test]
fn the_folder_says_which_rows_make_the_vector() {
    let folder = encoder("");
    pooling(&folder, &json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }));
    write_json(&folder.path().join("sentence_bert_config.json"), &json!({ "max_seq_length": 8 }));
    let converted = folder.convert(Target::F16).unwrap();
    assert!(converted.notes[0].contains("up to 16 tokens") && converted.notes[0].contains("after 8"), "{:?}", converted.notes);
    assert_eq!(super::header(&folder.out()).of_architecture("pooling_type"), Some(2));

    for modes in [
        json!({ "pooling_mode_max_tokens": true }),
        json!({ "pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true }),
        json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true }),
    ] {
        let folder = encoder("");
        pooling(&folder, &modes);
        assert!(folder.refusal().contains("a pooling other than the mean or the first token"), "{modes}");
    }

    let folder = encoder("");
    let modules =
        json!([{ "type": "sentence_transformers.models.Transformer" }, { "type": "sentence_transformers.models.Dense" }]);
    write_json(&folder.path().join("modules.json"), &modules);
    assert!(folder.refusal().contains("a module `Dense`"));
}

#[test]
fn a_reranker_gets_its_head() {
    let folder = reranker(0);
    let header = folder.converted(Target::F32);
    assert_eq!(header.of_architecture("pooling_type"), Some(4));
    for (source, name) in [
        ("bert.pooler.dense.weight", "cls.weight"),
        ("bert.pooler.dense.bias", "cls.bias"),
        ("classifier.weight", "cls.output.weight"),
        ("classifier.bias", "cls.output.bias"),
    ] {
        assert_eq!(values(&folder.out(), &header, name), weights(source, &folder.tensors[source]), "{name}");
    }
    assert!(reranker(1).refusal().contains("tells a document from the query by its segment"));
    let mut one_segment = reranker(1).with("type_vocab_size", json!(1));
    one_segment.tensors.insert("bert.embeddings.token_type_embeddings.weight".to_owned(), vec![1, WIDTH]);
    one_segment.converted(Target::F16);
    let labels = reranker(0).with("id2label", json!({ "0": "bad", "1": "good" }));
    assert!(labels.refusal().contains("sorts texts by 2 labels"));
    let mut without = reranker(0);
    without.tensors.remove("bert.pooler.dense.weight");
    assert_eq!(without.refusal(), "tensor `bert.pooler.dense.weight` is missing");
}

#[test]
fn older_names_of_norms_are_known() {
    let mut folder = encoder("");
    for (newer, older) in [("weight", "gamma"), ("bias", "beta")] {
        let name = format!("encoder.layer.0.attention.output.LayerNorm.{newer}");
        let shape = folder.tensors.remove(&name).unwrap();
        folder.tensors.insert(name.replace(newer, older), shape);
    }
    folder.tensors.insert("cls.predictions.bias".to_owned(), vec![WORDS]);
    let header = folder.converted(Target::F16);
    let expected = weights("encoder.layer.0.attention.output.LayerNorm.gamma", &[WIDTH]);
    assert_eq!(values(&folder.out(), &header, "blk.0.attn_output_norm.weight"), expected);
    assert_eq!(data(&folder.out(), &header, "blk.0.attn_q.weight").len(), 2 * 32 * 32);
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused() {
    for (name, value, words) in [
        ("hidden_act", json!("relu"), "its activation is `relu`"),
        ("position_embedding_type", json!("relative_key"), "its positions are `relative_key`"),
        ("is_decoder", json!(true), "a BERT that writes"),
        ("architectures", json!(["BertForTokenClassification"]), "BertForSequenceClassification are converted"),
        ("num_attention_heads", json!(5), "no multiple of num_attention_heads 5"),
        ("type_vocab_size", json!(0), "type_vocab_size 0; 1 to 16 are taken"),
        ("max_position_embeddings", json!(17), "has the shape [16, 32]; config.json asks for [17, 32]"),
        ("layer_norm_eps", json!(0.0), "layer_norm_eps 0"),
        ("quantization_config", json!({ "quant_method": "gptq" }), "quantized already"),
        ("vocab_size", json!(10), "has the shape [40, 32]"),
    ] {
        let refusal = encoder("").with(name, value).refusal();
        assert!(refusal.contains(words), "{name}: {refusal}");
    }
    for (part, value, words) in [
        ("normalizer", json!({ "type": "Lowercase" }), "rewrites a text by"),
        ("normalizer", json!({ "type": "BertNormalizer", "handle_chinese_chars": false }), "rewrites a text by"),
        ("pre_tokenizer", json!({ "type": "Whitespace" }), "cuts a text by"),
        ("post_processor", json!(null), "does not put one token before a text"),
        ("model", json!({ "type": "WordPiece", "vocab": { "a": 0 }, "unk_token": "[UNK]" }), "`[CLS]`"),
    ] {
        let mut folder = encoder("");
        if part == "model" {
            folder.tokenizer["added_tokens"] = json!([]);
        }
        folder.tokenizer[part] = value;
        let refusal = folder.refusal();
        assert!(refusal.contains(words), "{part}: {refusal}");
    }
    let mut foreign = encoder("");
    foreign.tensors.insert("encoder.layer.2.output.dense.bias".to_owned(), vec![WIDTH]);
    assert!(foreign.refusal().contains("`encoder.layer.2.output.dense.bias` is not one that llama.cpp's `bert` has a use for"));
}
