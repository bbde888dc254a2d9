//! The demo model: what this crate makes of its safetensors is what the GGUF files hold that other tools made.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tollgate_formats::Gguf;
use tollgate_formats::gguf;

use super::{data, header};
use crate::adapter::{self, Base};
use crate::{Options, Target, convert};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model")
}

fn options(target: Target) -> Options {
    Options { name: "tollgate-demo".to_owned(), target }
}

/// Every setting of the shipped file but the words about it, and every tensor byte for byte.
fn assert_same(out: &Path, ours: &Gguf, shipped: &str) {
    let path = demo().join(shipped);
    let shipped = header(&path);
    // llama.cpp does not look at it in an adapter.
    let unread = if ours.string("general.type") == Some("adapter") { "general.file_type" } else { "" };
    let about = ["general.name", "general.description", "general.license", "general.languages"];
    let is_about = |key: &str| about.contains(&key) || key.starts_with("general.base_model.") || key == unread;
    for (key, value) in shipped.metadata.iter().filter(|(key, _)| !is_about(key)) {
        assert_eq!(ours.metadata.get(key), Some(value), "{key}");
    }
    assert_eq!(ours.tensors.len(), shipped.tensors.len());
    for tensor in &shipped.tensors {
        let found = ours.tensor(&tensor.name).unwrap();
        assert_eq!((&found.shape, found.kind), (&tensor.shape, tensor.kind), "{}", tensor.name);
        assert!(data(out, ours, &tensor.name) == data(&path, &shipped, &tensor.name), "{} has other bytes", tensor.name);
    }
}

#[test]
fn the_demo_is_converted_to_the_files_that_are_shipped() {
    for (target, shipped) in [(Target::Q8_0, "demo.gguf"), (Target::F16, "demo-f16.gguf")] {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("demo.gguf");
        let mut last = (0, 0);
        let done = convert(&demo().join("hf"), &out, &options(target), &mut |written, total| last = (written, total)).unwrap();
        let ours = header(&out);
        gguf::check_model(&ours).unwrap();
        assert_eq!((done.architecture.as_str(), done.tensors, done.parameters), ("llama", 29, 2_885_376));
        assert_eq!(done.bytes, ours.file_bytes);
        assert_eq!(done.notes, Vec::<String>::new());
        assert_eq!(last, (ours.tensor_bytes(), ours.tensor_bytes()));
        assert_same(&out, &ours, shipped);
    }
}

#[test]
fn the_demos_adapter_is_converted_to_the_file_that_is_shipped() {
    let base = header(&demo().join("demo.gguf"));
    for base in [Base::Folder(&demo().join("hf")), Base::Gguf(&base)] {
        let dir = TempDir::new().unwrap();
        let out = dir.path().join("lora.gguf");
        let done = adapter::convert(&demo().join("lora"), &base, &out, "polite").unwrap();
        let ours = header(&out);
        gguf::check_adapter(&ours).unwrap();
        // Seven matrices of three layers, each a pair.
        assert_eq!(done.tensors, 42);
        assert_same(&out, &ours, "lora/demo-lora.gguf");
    }
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("demo.gguf");
    std::fs::write(&out, b"mine").unwrap();
    let refusal = convert(&demo().join("hf"), &out, &options(Target::Q8_0), &mut |_, _| ()).unwrap_err().to_string();
    assert!(refusal.contains("`demo.gguf` cannot be written"), "{refusal}");
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
}
