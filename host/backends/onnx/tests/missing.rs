//! Without ONNX Runtime a model is an error that says what to do.

use std::path::{Path, PathBuf};

use tollgate_backend::BackendError;
use tollgate_backend_onnx::{Onnx, OnnxEmbedder, Settings, find_library};

fn settings(library: PathBuf) -> Settings {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo-model/hf");
    let graph = PathBuf::from("model.onnx");
    Settings { folder, graph, is_ours: false, library, context_tokens: None, sequences: 1, step_rows: 16, threads: Some(1) }
}

#[test]
fn a_missing_library_is_an_error_with_a_cure() {
    let directory = tempfile::tempdir().expect("a directory");
    let absent = directory.path().join("libonnxruntime.so");
    let error = Onnx::load(&settings(absent.clone())).err().expect("no library");
    assert!(matches!(&error, BackendError::Load(text) if text.contains("`[models] onnxruntime = PATH`")), "{error}");
    assert!(OnnxEmbedder::load(&settings(absent.clone())).is_err());
    assert!(find_library(Some(&absent)).expect_err("no file").to_string().contains("tollgate.toml"));
}

#[test]
fn what_is_no_library_is_an_error_as_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("libonnxruntime.so");
    std::fs::write(&file, "words").expect("written");
    let error = Onnx::load(&settings(file.clone())).err().expect("no library").to_string();
    assert!(error.contains("cannot be loaded") && error.contains("make run"), "{error}");
    // A second attempt is as good as the first: the operator may have put it right meanwhile.
    assert_eq!(Onnx::load(&settings(file)).err().expect("still none").to_string(), error);
}
