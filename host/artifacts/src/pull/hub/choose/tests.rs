//! Choices among the files of made-up repositories.

use super::*;

/// Chooses among files given as words, of 1 byte each.
fn choose_names(names: &str, wanted: Option<&str>) -> Result<Vec<String>, PullError> {
    let file = |name: &str| HubFile { path: name.parse().unwrap(), bytes: 1, sha256: None };
    let files: Vec<_> = names.split_whitespace().map(file).collect();
    let wanted = wanted.map(|name| name.parse().unwrap());
    let chosen = choose("o/n", &files, wanted.as_ref())?;
    Ok(chosen.iter().map(|file| file.path.to_string()).collect())
}

#[test]
fn the_files_of_one_model_are_chosen() {
    let cases = [
        ("a.gguf README.md config.json", None, "a.gguf"),
        ("a.gguf b.gguf", Some("b.gguf"), "b.gguf"),
        ("x/a.gguf b.gguf", Some("x/a.gguf"), "x/a.gguf"),
        (
            "model.safetensors consolidated.safetensors config.json tokenizer.json tokenizer_config.json training_args.bin",
            None,
            "model.safetensors config.json tokenizer.json tokenizer_config.json",
        ),
        (
            "model-1.safetensors model-2.safetensors model.safetensors.index.json config.json sub/model.safetensors",
            None,
            "model-1.safetensors model-2.safetensors model.safetensors.index.json config.json",
        ),
        (
            "model.safetensors config.json modules.json sentence_bert_config.json 1_Pooling/config.json 2_Dense/config.json",
            None,
            "model.safetensors config.json modules.json sentence_bert_config.json 1_Pooling/config.json",
        ),
        ("weights.safetensors config.json sub/config.json", None, "weights.safetensors config.json"),
        ("adapter_config.json adapter_model.safetensors tokenizer.json", None, "adapter_config.json adapter_model.safetensors"),
        (
            "onnx/model.onnx onnx/model.onnx_data onnx/model_q4.onnx config.json",
            None,
            "onnx/model.onnx onnx/model.onnx_data config.json",
        ),
        ("onnx/model.onnx onnx/model_q4.onnx tokenizer.json", Some("onnx/model_q4.onnx"), "onnx/model_q4.onnx tokenizer.json"),
        ("model_q4.onnx decoder.onnx", None, "model_q4.onnx"),
    ];
    for (files, wanted, chosen) in cases {
        assert_eq!(choose_names(files, wanted).unwrap().join(" "), chosen, "{files}");
    }
}

#[test]
fn what_cannot_be_chosen_is_explained() {
    let cases = [
        ("a.gguf b.gguf", None, "name one as o/n:FILE\n  o/n:a.gguf (1 MiB)\n  o/n:b.gguf (1 MiB)"),
        ("model_q4.onnx model_q8.onnx", None, "several models"),
        ("pytorch_model.bin config.json", None, "no .gguf, no .safetensors and no model*.onnx"),
        ("a.gguf", Some("A.gguf"), "no file A.gguf"),
        ("", None, "has no model"),
    ];
    for (files, wanted, words) in cases {
        let error = choose_names(files, wanted).unwrap_err().to_string();
        assert!(error.contains(words), "{files}: {error}");
    }
}
