//! Tiny encoders with random weights: what they are given, and what is made of what they return.
#![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::{bert, distilbert, xlm_roberta};
use serde_json::{Value, from_value, json};
use tollgate_backend::{Embedder, Token, TokenKind};
use tollgate_backend_candle::{CandleEmbedder, Settings};

/// Words, and a template that puts `[CLS]` before a text and `[SEP]` after it. Its padding and its truncation are left aside.
const TOKENIZER: &str = r###"{"version": "1.0",
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
    "added_tokens": [
      {"id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
      {"id": 1, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
      {"id": 2, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
      {"id": 3, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
      "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "gate": 5, "toll": 6, "##gate": 7, "is": 8, "what": 9}}}"###;

fn bert_config() -> Value {
    json!({
        "model_type": "bert", "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 24, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "max_position_embeddings": 16,
        "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
    })
}

/// A folder of a model, and its weights.
fn folder(config: &Value, prefix: &str, ask: impl FnOnce(VarBuilder<'static>)) -> (tempfile::TempDir, HashMap<String, Tensor>) {
    let asked = VarMap::new();
    ask(VarBuilder::from_varmap(&asked, DType::F32, &Device::Cpu));
    let asked = asked.data().lock().expect("nobody else");
    let mut names: Vec<&String> = asked.keys().collect();
    names.sort();
    let (mut state, mut weights, mut saved) = (7_u64, HashMap::new(), HashMap::new());
    for name in names {
        let shape = asked[name].shape().clone();
        let numbers: Vec<f32> = (0..shape.elem_count())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                f32::from(u16::try_from(state >> 48).expect("16 bits")) / 65_536.0 - 0.5
            })
            .collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).expect("a tensor");
        saved.insert(format!("{prefix}{name}"), tensor.clone());
        weights.insert(name.clone(), tensor);
    }
    let directory = tempfile::tempdir().expect("a directory");
    candle_core::safetensors::save(&saved, directory.path().join("model.safetensors")).expect("saved");
    std::fs::write(directory.path().join("config.json"), config.to_string()).expect("written");
    std::fs::write(directory.path().join("tokenizer.json"), TOKENIZER).expect("written");
    (directory, weights)
}

fn load(directory: &Path) -> CandleEmbedder {
    let folder = directory.to_owned();
    let settings = Settings { folder, context_tokens: None, sequences: 1, step_rows: 1, threads: Some(1) };
    CandleEmbedder::load(&settings).expect("the model loads")
}

fn tokens(embedder: &CandleEmbedder, text: &str) -> Vec<Token> {
    embedder.tokenizer().tokenize(text, false).expect("tokens")
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|number| number * number).sum::<f32>().sqrt()
}

fn distance(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

#[test]
fn a_vector_is_the_mean_of_the_framed_text() {
    let config = bert_config();
    let build = |weights: VarBuilder<'static>| bert::BertModel::load(weights, &from_value(config.clone()).expect("a config"));
    let (directory, weights) = folder(&config, "bert.", |weights| drop(build(weights).expect("a model")));
    let mut embedder = load(directory.path());
    assert_eq!((embedder.dimensions(), embedder.max_tokens()), (16, 14));
    let text = tokens(&embedder, "what is a tollgate");
    assert_eq!(text, [9, 8, 4, 6, 7], "nothing is added, cut or filled up");
    assert_eq!(embedder.tokenizer().vocabulary().kind(2), TokenKind::Control);

    let model = build(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)).expect("a model");
    let framed = Tensor::new(&[[2_u32, 9, 8, 4, 6, 7, 3]], &Device::Cpu).expect("ids");
    let rows = model.forward(&framed, &framed.zeros_like().expect("zeros"), None).expect("rows");
    let mean = rows.mean(1).and_then(|mean| mean.flatten_all()?.to_vec1::<f32>()).expect("a mean");
    let expected: Vec<f32> = mean.iter().map(|number| number / length(&mean)).collect();

    let other = tokens(&embedder, "gate");
    let both = embedder.embed(&[other, text.clone()]).expect("vectors");
    assert!(distance(&both[1], &expected) < 1e-5);
    assert!((length(&both[0]) - 1.0).abs() < 1e-5 && distance(&both[0], &both[1]) > 1e-3);
    assert_eq!(embedder.embed(&[text]).expect("a vector")[0], both[1], "alone and beside others");
    assert_eq!(embedder.embed(&[]).expect("nothing"), Vec::<Vec<f32>>::new());
    assert!(embedder.embed(&[vec![4; 15]]).expect_err("too long").to_string().contains("14"));
    assert!(embedder.embed(&[vec![12]]).is_err(), "a token that the model does not know");
    assert!(embedder.memory().weights > 0);
}

#[test]
fn a_folder_may_ask_for_the_first_row_and_for_shorter_texts() {
    let config = bert_config();
    let build = |weights: VarBuilder<'static>| bert::BertModel::load(weights, &from_value(config.clone()).expect("a config"));
    let (directory, weights) = folder(&config, "", |weights| drop(build(weights).expect("a model")));
    std::fs::create_dir(directory.path().join("1_Pooling")).expect("made");
    std::fs::write(directory.path().join("1_Pooling/config.json"), r#"{"pooling_mode_cls_token": true}"#).expect("written");
    std::fs::write(directory.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 8}"#).expect("written");
    let mut embedder = load(directory.path());
    assert_eq!(embedder.max_tokens(), 6);
    let model = build(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)).expect("a model");
    let framed = Tensor::new(&[[2_u32, 5, 3]], &Device::Cpu).expect("ids");
    let rows = model.forward(&framed, &framed.zeros_like().expect("zeros"), None).expect("rows");
    let first = rows.get(0).and_then(|rows| rows.get(0)?.to_vec1::<f32>()).expect("a row");
    let expected: Vec<f32> = first.iter().map(|number| number / length(&first)).collect();
    assert!(distance(&embedder.embed(&[vec![5]]).expect("a vector")[0], &expected) < 1e-5);
}

#[test]
fn the_other_families_load_and_embed() {
    let mut roberta = bert_config();
    roberta["model_type"] = json!("roberta");
    roberta["pad_token_id"] = json!(1);
    let mut whole = roberta.clone();
    whole["position_embedding_type"] = json!("absolute");
    whole["attention_probs_dropout_prob"] = json!(0.1);
    let ask = |weights| drop(xlm_roberta::XLMRobertaModel::new(&from_value(whole).expect("a config"), weights).expect("a model"));
    let (directory, _) = folder(&roberta, "roberta.", ask);
    let mut embedder = load(directory.path());
    assert_eq!(embedder.max_tokens(), 12, "16 positions without those up to the padding's, and two tokens around the text");
    let vectors = embedder.embed(&[vec![5], vec![6; 12]]).expect("vectors");
    assert!(vectors.iter().all(|vector| vector.len() == 16 && (length(vector) - 1.0).abs() < 1e-5));

    let distil = json!({
        "model_type": "distilbert", "vocab_size": 12, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "activation": "gelu",
        "max_position_embeddings": 16, "initializer_range": 0.02, "pad_token_id": 0,
    });
    let config = distil.clone();
    let ask =
        |weights| drop(distilbert::DistilBertModel::load(weights, &from_value(config).expect("a config")).expect("a model"));
    let (directory, _) = folder(&distil, "distilbert.", ask);
    let mut embedder = load(directory.path());
    let vectors = embedder.embed(&[vec![5], vec![6, 7]]).expect("vectors");
    assert!(vectors.iter().all(|vector| vector.len() == 16 && (length(vector) - 1.0).abs() < 1e-5));
    assert!(distance(&vectors[0], &vectors[1]) > 1e-3);
}

#[test]
fn what_is_no_encoder_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/hf");
    let settings = Settings { folder, context_tokens: None, sequences: 1, step_rows: 1, threads: None };
    assert!(CandleEmbedder::load(&settings).err().expect("refused").to_string().contains("`llama`"));
}
