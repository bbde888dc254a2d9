//! Models of every format, whole and damaged.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::testing::{demo_folder, folder, gguf, manifest, safetensors};

const CONFIG: &str = r#"{ "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "vocab_size": 4096 }"#;
const ADAPTER: &str = r#"{ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "demo" }"#;

fn tokenizer() -> Vec<u8> {
    fs::read(demo_folder().join("hf/tokenizer.json")).unwrap()
}

/// Inspects all files of a folder.
fn inspected(folder: &TempDir, format: Format) -> Result<Summary, String> {
    let paths = select::walk(folder.path()).unwrap();
    let paths: Vec<_> = paths.iter().map(RelativePath::as_str).collect();
    inspect(folder.path(), &manifest(folder.path(), format, &paths, 1)).map_err(|error| error.to_string())
}

/// One field of a protobuf message that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![(number << 3) | 2, u8::try_from(bytes.len()).unwrap()];
    out.extend(bytes);
    out
}

/// A graph that keeps one weight of 16 bytes in `location`.
fn onnx(location: &str) -> Vec<u8> {
    let pair = |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let weight = [
        vec![8, 4, 16, 1],
        field(8, b"w"),
        pair("location", location),
        pair("offset", "0"),
        pair("length", "16"),
        vec![14 << 3, 1],
    ]
    .concat();
    let port = |name: &[u8]| [field(1, name), field(2, &field(1, &[vec![8, 1], field(2, &field(1, &[8, 4]))].concat()))].concat();
    let node = [field(1, b"x"), field(1, b"w"), field(2, b"y"), field(4, b"Add")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(5, &weight), field(11, &port(b"x")), field(12, &port(b"y"))].concat();
    // A graph is longer than one byte of length can say.
    let mut model =
        vec![8, 8, (7 << 3) | 2, u8::try_from(graph.len() & 0x7f).unwrap() | 0x80, u8::try_from(graph.len() >> 7).unwrap()];
    model.extend(graph);
    model.extend(field(8, &[field(1, b""), vec![16, 17]].concat()));
    model
}

#[test]
fn a_gguf_model_is_looked_into() {
    let good = folder(&[("model.gguf", &gguf(0))]);
    let summary = inspected(&good, Format::Gguf).unwrap();
    assert_eq!(summary.architecture.as_deref(), Some("llama"));
    assert!(summary.parameters_bytes > 1 << 20);
    assert_eq!(guess(good.path()).unwrap(), Format::Gguf);
    assert!(inspected(&good, Format::LoraGguf).is_err(), "a model is no adapter");

    let whole = gguf(0);
    let cut = folder(&[("model.gguf", &whole[..whole.len() - 40_000])]);
    let error = inspected(&cut, Format::Gguf).unwrap_err();
    assert!(error.starts_with("model.gguf: "), "{error}");
}

#[test]
fn the_models_that_ship_with_the_gateway_pass() {
    let hf = demo_folder().join("hf");
    let (format, paths) = select(&hf).unwrap();
    assert_eq!(format, Format::Safetensors);
    let paths: Vec<_> = paths.iter().map(RelativePath::as_str).collect();
    let summary = inspect(&hf, &manifest(&hf, format, &paths, 1)).unwrap();
    assert_eq!(summary.architecture.as_deref(), Some("LlamaForCausalLM"));
}

#[test]
fn safetensors_are_looked_into_with_what_belongs_to_them() {
    let one = safetensors(&[("a.weight", &[2, 2])]);
    let two = safetensors(&[("b.weight", &[4])]);
    let index = json!({ "weight_map": { "a.weight": "one.safetensors", "b.weight": "two.safetensors" } }).to_string();
    let tokenizer = tokenizer();
    let inspect = |config: &str, two: &[u8], index: &str, tokenizer: &[u8]| {
        let folder = folder(&[
            ("config.json", config.as_bytes()),
            ("one.safetensors", &one),
            ("two.safetensors", two),
            ("model.safetensors.index.json", index.as_bytes()),
            ("tokenizer.json", tokenizer),
        ]);
        inspected(&folder, Format::Safetensors)
    };
    assert_eq!(inspect(CONFIG, &two, &index, &tokenizer).unwrap().parameters_bytes, 32);
    for (outcome, words) in [
        (inspect("[]", &two, &index, &tokenizer), "config.json: it is not a JSON object"),
        (
            inspect(r#"{ "hidden_size": 1e12 }"#, &two, &index, &tokenizer),
            "`hidden_size` must be a whole number from 1 to 1048576",
        ),
        (inspect(r#"{ "num_hidden_layers": -1 }"#, &two, &index, &tokenizer), "`num_hidden_layers` must be"),
        (inspect(r#"{ "vocab_size": 7 }"#, &two, &index, &tokenizer), "rows for 7 tokens only"),
        (inspect(&"[".repeat(9000), &two, &index, &tokenizer), "config.json: "),
        (inspect(CONFIG, &one, &index, &tokenizer), "`a.weight` is in one.safetensors already"),
        (inspect(CONFIG, &two[..20], &index, &tokenizer), "two.safetensors: "),
        (inspect(CONFIG, &two, r#"{ "weight_map": { "c": "one.safetensors" } }"#, &tokenizer), "`c` is not where it says"),
        (inspect(CONFIG, &two, "{}", &tokenizer), "no `weight_map`"),
        (inspect(CONFIG, &two, &index, b"{}"), "tokenizer.json: "),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.contains(words), "{error} should say {words}");
    }
}

#[test]
fn encoders_come_with_their_pooling_and_nothing_after_it() {
    let tokenizer = tokenizer();
    let encoder = |last: &str| {
        let modules =
            ["Transformer", "Pooling", last].map(|class| json!({ "type": format!("sentence_transformers.models.{class}") }));
        folder(&[
            ("config.json", br#"{ "architectures": ["BertModel"], "hidden_size": 8, "vocab_size": 4096 }"#),
            ("model.safetensors", &safetensors(&[("embeddings.word_embeddings.weight", &[4, 2])])),
            ("tokenizer.json", &tokenizer),
            ("modules.json", json!(modules).to_string().as_bytes()),
            ("1_Pooling/config.json", br#"{ "pooling_mode_cls_token": true }"#),
            ("2_Dense/config.json", b"{}"),
            ("README.md", b""),
        ])
    };
    let good = encoder("Normalize");
    let (format, paths) = select(good.path()).unwrap();
    let paths: Vec<_> = paths.iter().map(RelativePath::as_str).collect();
    assert_eq!(paths, ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"]);
    let summary = inspect(good.path(), &manifest(good.path(), format, &paths, 1)).unwrap();
    assert_eq!(summary.architecture.as_deref(), Some("BertModel"));
    let with_layer = encoder("Dense");
    let error = inspect(with_layer.path(), &manifest(with_layer.path(), format, &paths, 1)).unwrap_err().to_string();
    assert_eq!(error, "modules.json: the module `Dense` is not computed here; Transformer, Pooling, Normalize are");
}

#[test]
fn adapters_are_looked_into() {
    let (a, b) = ("base.layers.0.q_proj.lora_A.weight", "base.layers.0.q_proj.lora_B.weight");
    let inspect = |config: &str, tensors: &[(&str, &[u64])]| {
        let folder = folder(&[("adapter_config.json", config.as_bytes()), ("adapter_model.safetensors", &safetensors(tensors))]);
        assert_eq!(guess(folder.path()).unwrap(), Format::LoraPeft);
        inspected(&folder, Format::LoraPeft)
    };
    let pair: [(&str, &[u64]); 2] = [(a, &[2, 8]), (b, &[8, 2])];
    assert_eq!(inspect(ADAPTER, &pair).unwrap().parameters_bytes, 128);
    for (outcome, words) in [
        (inspect(&ADAPTER.replace("LORA", "IA3"), &pair), "`peft_type` is not LORA"),
        (inspect(&ADAPTER.replace("\"r\": 2", "\"r\": 0"), &pair), "`r` must be"),
        (inspect(&ADAPTER.replace("\"r\": 2,", ""), &pair), "`r`, the rank, is missing"),
        (inspect(&ADAPTER.replace(": 4", ": -4"), &pair), "`lora_alpha` must be"),
        (inspect(ADAPTER, &pair[..1]), "has no counterpart"),
        (inspect(ADAPTER, &[("weight", &[2])]), "not a matrix of a LoRA adapter"),
        (inspect(ADAPTER, &[]), "adapter_model.safetensors: "),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.contains(words), "{error} should say {words}");
    }
}

#[test]
fn onnx_graphs_keep_their_weights_in_the_artifact() {
    let good = folder(&[("onnx/model.onnx", &onnx("weights.bin")), ("onnx/weights.bin", &[0; 16])]);
    assert_eq!(inspected(&good, Format::Onnx).unwrap().format, Format::Onnx);
    let (format, paths) = select(good.path()).unwrap();
    assert_eq!((format, paths.len()), (Format::Onnx, 2));
    for (files, words) in [
        (vec![("model.onnx", onnx("weights.bin"))], "weights.bin"),
        (vec![("model.onnx", onnx("weights.bin")), ("weights.bin", vec![0; 15])], "cut short"),
        (vec![("model.onnx", onnx("../../etc/passwd"))], "passwd"),
        (vec![("model.onnx", onnx("/etc/passwd"))], "passwd"),
        (
            vec![("model.onnx", onnx("w.data")), ("w.data", vec![0; 16]), ("other.bin", vec![0; 16])],
            "other.bin may be a Python pickle",
        ),
        (vec![("model.onnx", b"not a graph".to_vec())], "model.onnx: "),
    ] {
        let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        let error = inspected(&folder(&files), Format::Onnx).unwrap_err();
        assert!(error.contains(words), "{error} should say {words}");
    }
}

#[test]
fn folders_without_one_model_are_refused() {
    for (files, words) in [
        (vec![("README.md", "")], "no model is in it"),
        (vec![("pytorch_model.bin", ""), ("config.json", "{}")], "pytorch_model.bin may be a Python pickle"),
        (vec![("model.pth", "")], "convert the model to safetensors"),
        (vec![("a.gguf", ""), ("b.gguf", "")], "2 GGUF files"),
        (vec![("a.gguf", ""), ("b.onnx", "")], "several formats"),
    ] {
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        let error = guess(folder(&files).path()).unwrap_err().to_string();
        assert!(error.contains(words), "{error} should say {words}");
    }
    let listed = folder(&[("model.gguf", &gguf(0)), ("model.bin", b"x")]);
    assert!(inspected(&listed, Format::Gguf).unwrap_err().contains("model.bin may be a Python pickle"));
}
