//! Packing: the same in, the same out.

use std::fs;

use super::*;
use crate::progress::Silent;
use crate::testing::{folder, gguf, now};
use crate::trust::{Signed, Trust};
use crate::zip_file::Archive;

fn options(key: Option<&SigningKey>) -> PackOptions<'_> {
    PackOptions {
        name: "demo".parse().unwrap(),
        version: 4,
        expires_days: Some(90),
        base: None,
        description: None,
        source: Some("a test".to_owned()),
        check: None,
        now: now(),
        key,
    }
}

#[test]
fn an_archive_is_the_same_whenever_it_is_made_of_the_same() {
    let key = SigningKey::generate().unwrap();
    let files = folder(&[("model.gguf", &gguf(0)), ("README.md", b"left out")]);
    let (one, two) = (files.path().join("one.zip"), files.path().join("two.zip"));
    let packed = pack(files.path(), &options(Some(&key)), &PackTo::Zip(one.clone()), &Silent).unwrap();
    pack(&files.path().join("model.gguf"), &options(Some(&key)), &PackTo::Zip(two.clone()), &Silent).unwrap();
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
    assert_eq!(packed.manifest.expires.as_deref(), Some("2027-02-18T00:00:00Z"));
    assert_eq!(packed.manifest.files.len(), 1);
    assert_eq!(packed.manifest.files[0].chunks, [packed.digest]);

    let (bytes, signature) = Archive::open(&one).unwrap().manifest().unwrap();
    assert_eq!(Manifest::read(&bytes).unwrap(), packed.manifest);
    let trust = Trust { keys: vec![key.public()], unsigned: false };
    assert_eq!(trust.verify(&bytes, signature.as_deref()).unwrap(), Signed::By(key.public().id()));
    assert!(fs::read_dir(files.path()).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn an_unsigned_manifest_has_no_old_signature_beside_it() {
    let key = SigningKey::generate().unwrap();
    let files = folder(&[("model.gguf", &gguf(0))]);
    assert!(pack(files.path(), &options(Some(&key)), &PackTo::InPlace, &Silent).unwrap().is_signed);
    assert!(files.path().join(SIGNATURE_FILE).exists());
    assert!(!pack(files.path(), &options(None), &PackTo::InPlace, &Silent).unwrap().is_signed);
    assert!(!files.path().join(SIGNATURE_FILE).exists());
}

#[test]
fn what_would_not_be_taken_is_not_packed() {
    let whole = gguf(0);
    let cut = folder(&[("model.gguf", &whole[..whole.len() / 2])]);
    let to = cut.path().join("model.zip");
    assert!(matches!(pack(cut.path(), &options(None), &PackTo::Zip(to.clone()), &Silent), Err(PackError::Inspect(_))));
    assert!(!to.exists());
    let good = folder(&[("model.gguf", &whole)]);
    let zero = PackOptions { version: 0, ..options(None) };
    assert!(matches!(pack(good.path(), &zero, &PackTo::InPlace, &Silent), Err(PackError::Manifest(_))));
    let missing = pack(&good.path().join("missing.gguf"), &options(None), &PackTo::InPlace, &Silent);
    assert!(missing.is_err());
}

#[test]
fn a_known_answer_changes_the_manifest_and_not_the_model() {
    let files = folder(&[("model.gguf", &gguf(0)), ("README.md", b"left out")]);
    let plain = pack(files.path(), &options(None), &PackTo::InPlace, &Silent).unwrap();
    let check = KnownAnswer { prompt: "What is it?".to_owned(), reply: "A test".to_owned() };
    let checked = PackOptions { check: Some(check.clone()), ..options(None) };
    let checked = pack(files.path(), &checked, &PackTo::InPlace, &Silent).unwrap();
    assert_eq!(checked.digest, plain.digest);
    let written = fs::read(files.path().join(MANIFEST_FILE)).unwrap();
    assert_eq!(Manifest::read(&written).unwrap().check, Some(check));
}

#[test]
fn what_a_backend_opens_is_the_file_of_gguf_and_else_the_folder() {
    let bytes = gguf(0);
    let files = folder(&[("model.gguf", &bytes), ("README.md", b"left out")]);
    let file = files.path().join("model.gguf");
    let expected = (Format::Gguf, file.clone(), crate::digest::len(&bytes));
    assert_eq!(look(files.path()).unwrap(), expected);
    assert_eq!(look(&file).unwrap(), expected);
    let hf = crate::testing::demo_folder().join("hf");
    let (format, path, length) = look(&hf).unwrap();
    assert_eq!((format, path), (Format::Safetensors, hf));
    assert!(length > 1 << 20);
}
