//! A PEFT adapter beside the demo model's ONNX graph.

#[path = "../../hf/tests/shared/adapters.rs"]
mod shared;

use std::path::{Path, PathBuf};

use tollgate_backend::Backend;
use tollgate_backend_onnx::{Onnx, Settings, find_library};

fn load_from(folder: PathBuf) -> Onnx {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/onnxruntime/libonnxruntime.so");
    let library = find_library(Some(&path)).expect("run scripts/onnxruntime first, as `make test` does");
    let (graph, context_tokens) = (PathBuf::from("model.onnx"), Some(4_096));
    let settings = Settings { folder, graph, library, context_tokens, sequences: 8, step_rows: 2_048, threads: Some(1) };
    Onnx::load(&settings).expect("the demo model loads")
}

fn load() -> Onnx {
    load_from(shared::demo("onnx"))
}

#[test]
fn replies_with_and_without_the_adapter_are_the_references() {
    shared::replies_with_and_without_the_adapter_are_the_references(&mut load());
}

#[test]
fn adapters_come_and_go() {
    shared::adapters_come_and_go(&mut load());
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    shared::what_is_no_adapter_of_the_model_is_refused(&mut load());
}

/// P-M8: the graph that an adapter goes into is the one that the model was loaded from.
#[test]
fn a_graph_that_changed_since_it_was_loaded_takes_no_adapter() {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(shared::demo("onnx")).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).expect("copied");
    }
    let mut onnx = load_from(directory.path().to_owned());
    let graph = directory.path().join("model.onnx");
    let bytes = std::fs::read(&graph).expect("readable");
    std::fs::write(directory.path().join("new"), bytes).expect("written");
    std::fs::rename(directory.path().join("new"), &graph).expect("renamed");
    let why = onnx.load_adapter(&shared::demo("lora"), 1.0).expect_err("refused").to_string();
    assert!(why.contains("has changed since the model was loaded"), "{why}");
}
