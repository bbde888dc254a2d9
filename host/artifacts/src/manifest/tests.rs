//! Manifests, good, hostile and random.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(text: &str) -> SystemTime {
    let seconds = time::parse(text).unwrap().unix_timestamp();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap())
}

fn example() -> Value {
    json!({
        "schema": 1, "name": "demo", "version": 3, "created": "2026-11-02T10:00:00Z", "expires": "2027-01-31T12:00:00Z",
        "format": "gguf", "files": [{ "path": "model.gguf", "bytes": 9 << 20, "sha256": "0".repeat(64), "chunks": ["1".repeat(64), "2".repeat(64)] }],
    })
}

/// The example with the value at `pointer` replaced, or added.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut example = example();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    example.pointer_mut(parent).unwrap()[key] = value;
    serde_json::to_vec(&example).unwrap()
}

fn file(path: &str, bytes: u64) -> Value {
    json!({ "path": path, "bytes": bytes, "sha256": "a".repeat(64) })
}

#[test]
fn a_manifest_is_read_and_written() {
    let manifest = Manifest::parse(&serde_json::to_vec(&example()).unwrap(), at("2027-01-31T11:59:59Z")).unwrap();
    assert_eq!(manifest.version, 3);
    assert_eq!(manifest.main_file().path.as_str(), "model.gguf");
    assert_eq!(Manifest::read(&manifest.to_bytes().unwrap()).unwrap(), manifest);
}

#[test]
fn hostile_manifests_are_refused_with_the_reason() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "EOF"),
        (b"[]".to_vec(), "invalid"),
        (with("/schema", json!(2)), "knows 1"),
        (with("/name", json!("../demo")), "not the name of an artifact"),
        (with("/name", json!("a".repeat(97))), "not the name of an artifact"),
        (with("/version", json!(0)), "the first is 1"),
        (with("/version", json!(-1)), "invalid value"),
        (with("/version", json!(1e30)), "invalid"),
        (with("/created", json!("yesterday")), "`created` is not a time"),
        (with("/expires", json!("9".repeat(100))), "`expires` is not a time"),
        (with("/format", json!("pickle")), "unknown variant"),
        (with("/extra", json!(1)), "unknown field"),
        (with("/base", json!("demo")), "`base` is for adapters"),
        (with("/description", json!("x".repeat(1025))), "1024 are the most"),
        (with("/source", json!("\u{1b}[2J")), "control character"),
        (with("/check", json!({ "prompt": "", "reply": "x" })), "`check.prompt` has 0 bytes"),
        (with("/check", json!({ "prompt": "x", "reply": "x".repeat(4097) })), "`check.reply` has 4097 bytes"),
        (with("/check", json!({ "prompt": "x" })), "missing field"),
        (with("/files", json!([])), "0 files"),
        (with("/files", Value::from((0..1025).map(|i| file(&format!("f{i}"), 1)).collect::<Vec<_>>())), "1025 files"),
        (with("/files", json!([file("a.gguf", 1), file("A.GGUF", 1)])), "differs in the case"),
        (with("/files", json!([file("a.gguf", 1), file("a.gguf", 1)])), "twice"),
        (with("/files", json!([file("a.gguf", 1), file("A.gguf/b", 1)])), "both a file and a folder"),
        (with("/files", json!([file("a.gguf", 1), file("Manifest.json", 1)])), "own name"),
        (with("/files", json!([file("a.gguf", u64::MAX), file("b", 2)])), "together"),
        (with("/files", json!([file("a.gguf", 4 << 40), file("b", 1)])), "together"),
        (with("/files", json!([file("../a.gguf", 1)])), "not a path inside"),
        (with("/files", json!([file("a.gguf", 1), file("b.gguf", 1)])), "only 1 can be"),
        (with("/files", json!([file("a.bin", 1)])), "no file is called `*.gguf`"),
        (with("/files/0/chunks", json!(["1".repeat(64)])), "it must have 2"),
        (with("/files/0/sha256", json!("F".repeat(64))), "not a digest"),
        (with("/format", json!("safetensors")), "no file is called"),
        (with("/format", json!("lora-peft")), "needs the file `adapter_config.json`"),
        (br#"{"schema":1,"schema":1}"#.to_vec(), "duplicate field"),
        (vec![b' '; (8 << 20) + 1], "are the most"),
        ("[".repeat(100_000).into_bytes(), "invalid"),
    ];
    for (bytes, words) in cases {
        let error = Manifest::read(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error} should say {words}");
    }
}

#[test]
fn a_manifest_expires_for_what_is_new_only() {
    let bytes = serde_json::to_vec(&example()).unwrap();
    let error = Manifest::parse(&bytes, at("2027-01-31T12:00:00Z")).unwrap_err().to_string();
    assert!(error.contains("expired at 2027-01-31T12:00:00Z"), "{error}");
    assert!(Manifest::read(&bytes).is_ok());
}

#[test]
fn the_digest_is_of_the_content_only() {
    let gguf = Manifest::read(&serde_json::to_vec(&example()).unwrap()).unwrap();
    assert_eq!(gguf.digest(), gguf.files[0].sha256);

    let mut adapter = gguf;
    adapter.format = Format::LoraPeft;
    adapter.files =
        serde_json::from_value(json!([file("adapter_config.json", 1), file("adapter_model.safetensors", 2)])).unwrap();
    let digest = adapter.digest();
    let mut same = adapter.clone();
    same.files.reverse();
    same.name = "other".parse().unwrap();
    same.version = 9;
    same.expires = None;
    same.description = Some("words".to_owned());
    assert_eq!(same.digest(), digest);

    let changes: [fn(&mut Manifest); 4] = [
        |m| m.base = Some("demo".parse().unwrap()),
        |m| m.files[0].bytes = 7,
        |m| m.files[0].sha256 = Digest::of(b"x"),
        |m| m.files[0].path = "other.json".parse().unwrap(),
    ];
    for change in changes {
        let mut other = adapter.clone();
        change(&mut other);
        assert_ne!(other.digest(), digest);
    }
}

#[test]
fn times_are_written_in_utc() {
    assert_eq!(rfc3339(at("2026-11-02T12:00:00+02:00")).unwrap(), "2026-11-02T10:00:00Z");
    assert!(time::has_passed("no time", SystemTime::UNIX_EPOCH));
    assert!(!time::has_passed("1970-01-01T00:00:01Z", SystemTime::UNIX_EPOCH - Duration::from_secs(9)));
}

proptest! {
    #[test]
    fn random_bytes_are_no_manifest(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::read(&bytes).is_err());
    }

    #[test]
    fn what_is_accepted_after_a_change_keeps_its_bounds(at in 0usize..300, byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&example()).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(manifest) = Manifest::read(&bytes) {
            prop_assert!(manifest.version >= 1 && manifest.total_bytes() <= MAX_TOTAL_BYTES);
            prop_assert!(!manifest.main_file().path.as_str().contains(".."));
            prop_assert_eq!(Manifest::read(&manifest.to_bytes().unwrap()).unwrap(), manifest);
        }
    }
}
