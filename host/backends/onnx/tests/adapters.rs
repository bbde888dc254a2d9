//! A PEFT adapter beside the demo model's ONNX graph.

#[path = "../../hf/tests/shared/adapters.rs"]
mod shared;

use std::path::{Path, PathBuf};

use tollgate_backend::Backend;
use tollgate_backend_onnx::{Onnx, Settings, find_library};

fn load_from(folder: PathBuf, is_ours: bool) -> Onnx {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/onnxruntime/libonnxruntime.so");
    let library = find_library(Some(&path)).expect("run scripts/onnxruntime first, as `make test` does");
    let (graph, context_tokens) = (PathBuf::from("model.onnx"), Some(4_096));
    let (sequences, step_rows, threads) = (8, 2_048, Some(1));
    let settings = Settings { folder, graph, is_ours, library, context_tokens, sequences, step_rows, threads };
    Onnx::load(&settings).expect("the demo model loads")
}

fn load() -> Onnx {
    load_from(shared::demo("onnx"), false)
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

fn copied() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(shared::demo("onnx")).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), directory.path().join(entry.file_name())).expect("copied");
    }
    directory
}

/// P-M8: the graph that an adapter goes into is the one that the model was loaded from.
#[test]
fn a_graph_that_changed_since_it_was_loaded_takes_no_adapter() {
    let directory = copied();
    let mut onnx = load_from(directory.path().to_owned(), false);
    let graph = directory.path().join("model.onnx");
    let bytes = std::fs::read(&graph).expect("readable");
    std::fs::write(directory.path().join("new"), bytes).expect("written");
    std::fs::rename(directory.path().join("new"), &graph).expect("renamed");
    let why = onnx.load_adapter(&shared::demo("lora"), 1.0).expect_err("refused").to_string();
    assert!(why.contains("has changed since the model was loaded"), "{why}");
}

/// A model that is installed once more gets links to its files, and those get another change time.
#[test]
fn a_graph_of_the_store_takes_adapters_whatever_names_it_has() {
    let directory = copied();
    let mut onnx = load_from(directory.path().to_owned(), true);
    let link = directory.path().join("of another version");
    std::fs::hard_link(directory.path().join("model.onnx"), link).expect("linked");
    onnx.load_adapter(&shared::demo("lora"), 1.0).expect("it is the same graph");
}
