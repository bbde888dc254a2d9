//! What is found, and that it stays what it is.

use super::*;

static DEMO: &[u8] = include_bytes!("../../../demo-model/demo.gguf");

fn library(dir: &Path) -> Library {
    static BUILTIN: &[(&str, &[u8])] = &[("demo", DEMO)];
    let store = Store::open(&dir.join("store")).expect("made");
    Library::new(BUILTIN, dir.join("models"), dir.to_owned(), store)
}

#[test]
fn a_built_in_model_is_laid_out_and_mended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let library = library(dir.path());
    let source: Source = "builtin:demo".parse().expect("a source");
    let artifact = library.find(&source, Wanted::Gguf).expect("laid out");
    assert_eq!(library.open(&artifact).expect("there").digest, artifact.digest.clone().expect("known"));
    std::fs::write(&artifact.path, b"damaged").expect("written");
    assert!(matches!(library.open(&artifact), Err(ArtifactError::Digest { .. })));
    library.find(&source, Wanted::Gguf).expect("laid out again");
    assert_eq!(std::fs::read(&artifact.path).expect("readable"), DEMO);
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let library = library(dir.path());
    for bytes in [b"GG".to_vec(), vec![b'x'; 64], DEMO[..DEMO.len() / 2].to_vec()] {
        std::fs::write(dir.path().join("m.gguf"), bytes).expect("written");
        let error = library.find(&"m.gguf".parse().expect("a source"), Wanted::Gguf).expect_err("refused");
        assert!(matches!(error, ArtifactError::Format { .. }) && error.to_string().contains("m.gguf"), "{error}");
    }
    assert!(matches!(library.find(&"builtin:none".parse().expect("a source"), Wanted::Gguf), Err(ArtifactError::Unknown { .. })));
}

/// P-M8: what is loaded is what was hashed, though another file has taken its name.
#[test]
fn an_opened_file_stays_what_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let library = library(dir.path());
    std::fs::write(dir.path().join("m.gguf"), DEMO).expect("written");
    let artifact = library.find(&"m.gguf".parse().expect("a source"), Wanted::Gguf).expect("found");
    let opened = library.open(&artifact).expect("opened");
    std::fs::write(dir.path().join("other"), b"other").expect("written");
    std::fs::rename(dir.path().join("other"), dir.path().join("m.gguf")).expect("renamed");
    assert_eq!(std::fs::read(opened.path().expect("one file")).expect("readable"), DEMO);
}

fn folder(dir: &Path) -> Source {
    let hf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model/hf");
    std::fs::create_dir(dir.join("m")).expect("made");
    for entry in std::fs::read_dir(hf).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), dir.join("m").join(entry.file_name())).expect("copied");
    }
    "m".parse().expect("a source")
}

/// P-M8: a file that comes after the check is not loaded unseen.
#[test]
fn a_folder_that_changed_since_it_was_checked_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (library, source) = (library(dir.path()), folder(dir.path()));
    let artifact = library.find(&source, Wanted::Safetensors).expect("found");
    let before = library.open(&artifact).expect("unchanged").digest;
    std::fs::create_dir(dir.path().join("m/1_Pooling")).expect("made");
    std::fs::write(dir.path().join("m/1_Pooling/config.json"), "{}").expect("written");
    let error = library.open(&artifact).expect_err("refused").to_string();
    assert!(error.contains("other files than when they were checked"), "{error}");
    let artifact = library.find(&source, Wanted::Safetensors).expect("found again");
    assert_ne!(library.open(&artifact).expect("unchanged").digest, before, "it is one of the files that count");
}

/// P-M8: what is loaded by its name is what was hashed, or the load is refused.
#[test]
fn a_folder_that_changes_while_it_is_loaded_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (library, source) = (library(dir.path()), folder(dir.path()));
    let artifact = library.find(&source, Wanted::Safetensors).expect("found");
    let opened = library.open(&artifact).expect("opened");
    assert_eq!(opened.place_of(&artifact), dir.path().join("m"));
    opened.confirm(&artifact).expect("nothing has changed");
    let config = dir.path().join("m/config.json");
    std::fs::copy(&config, dir.path().join("same")).expect("copied");
    std::fs::rename(dir.path().join("same"), &config).expect("renamed");
    let error = opened.confirm(&artifact).expect_err("another file").to_string();
    assert!(error.contains("changed while it was loaded") && error.contains("config.json"), "{error}");
    let opened = library.open(&artifact).expect("opened again");
    std::fs::write(dir.path().join("m/chat_template.jinja"), "{{ messages }}").expect("written");
    assert!(opened.confirm(&artifact).expect_err("one more").to_string().contains("other files"));
}

#[test]
fn an_adapter_is_a_folder_with_both_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (library, lora) = (library(dir.path()), Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model/lora"));
    std::fs::create_dir(dir.path().join("a")).expect("made");
    let source = "a".parse().expect("a source");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let error = library.find(&source, Wanted::Peft).expect_err("not whole").to_string();
        assert!(error.contains(name), "{error}");
        std::fs::copy(lora.join(name), dir.path().join("a").join(name)).expect("copied");
    }
    let artifact = library.find(&source, Wanted::Peft).expect("whole");
    let opened = library.open(&artifact).expect("opened");
    assert_eq!(opened.place_of(&artifact), dir.path().join("a"));
    assert_eq!(opened.digest.len(), 64);
}

#[test]
fn a_folder_of_too_many_entries_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (library, source) = (library(dir.path()), folder(dir.path()));
    for number in 0..1_024 {
        std::fs::write(dir.path().join(format!("m/{number}")), "").expect("written");
    }
    let error = library.find(&source, Wanted::Safetensors).expect_err("refused").to_string();
    assert!(error.contains("more than 1024 entries"), "{error}");
}
