//! Manifests and files that somebody prepared: nothing of them is installed (P-M8).

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use super::name;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::progress::Silent;
use crate::store::{Held, Staging, StoreError};
use crate::testing::{Case, gguf, now};
use crate::trust::{SigningKey, Trust};

/// Changes something before the manifest is signed and installed.
type Attack = fn(&Staging, &mut Manifest);

fn message(case: &Case, held: &Held, attack: Attack) -> String {
    let (staging, mut manifest) = case.stage(5, 1);
    attack(&staging, &mut manifest);
    case.install_as(held, &staging, &manifest).unwrap_err().to_string()
}

#[test]
fn files_that_are_not_what_was_signed_are_refused() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let attacks: [(Attack, &str); 9] = [
        (|staging, _| fs::write(staging.path().join("model.gguf"), gguf(2)).unwrap(), "its digest is"),
        (|staging, _| fs::write(staging.path().join("model.gguf"), "short").unwrap(), "it has 5 bytes"),
        (|staging, _| fs::remove_file(staging.path().join("model.gguf")).unwrap(), "No such file"),
        (
            |staging, _| {
                let file = staging.path().join("model.gguf");
                fs::rename(&file, staging.path().join("elsewhere")).unwrap();
                symlink("elsewhere", &file).unwrap();
            },
            "symbolic link",
        ),
        (
            |staging, _| {
                fs::remove_file(staging.path().join("model.gguf")).unwrap();
                fs::create_dir(staging.path().join("model.gguf")).unwrap();
            },
            "not a regular file",
        ),
        (|_, manifest| manifest.files[0].chunks[0] = Digest::of(b"other"), "chunk 0"),
        (|_, manifest| manifest.files[0].sha256 = Digest::of(b"other"), "its digest is"),
        (|_, manifest| manifest.expires = Some("2026-11-19T23:59:59Z".to_owned()), "expired"),
        (
            |staging, manifest| {
                let text = b"GGUF but not really";
                fs::write(staging.path().join("model.gguf"), text).unwrap();
                manifest.files[0].bytes = text.len() as u64;
                manifest.files[0].sha256 = Digest::of(text);
                manifest.files[0].chunks.clear();
            },
            "model.gguf: ",
        ),
    ];
    for (attack, words) in attacks {
        let error = message(&case, &held, attack);
        assert!(error.contains(words), "{error} should say {words}");
    }
    assert_eq!(case.store.list().unwrap(), []);
    assert_eq!(super::names(&case, "cache/blobs"), [""; 0]);
    assert_eq!(super::names(&case, "cache/newest"), [""; 0]);
}

#[test]
fn signatures_of_others_are_refused() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let (staging, manifest) = case.stage(1, 0);
    let bytes = manifest.to_bytes().unwrap();
    let other = SigningKey::generate().unwrap();
    let mut changed = manifest;
    changed.version = 99;
    let attempts = [
        (bytes.clone(), None, "[models] unsigned = true"),
        (bytes.clone(), Some(other.sign(&bytes)), "none of the trusted keys"),
        (changed.to_bytes().unwrap(), Some(case.key.sign(&bytes)), "none of the trusted keys"),
        (bytes.clone(), Some(b"forged".to_vec()), "64 bytes in base64"),
    ];
    for (bytes, signature, words) in attempts {
        let error =
            case.store.check(&staging, (&bytes, signature.as_deref()), &case.trust, now(), &Silent).unwrap_err().to_string();
        assert!(error.contains(words), "{error} should say {words}");
    }
    let careless = Trust { keys: Vec::new(), unsigned: true };
    assert!(held.put(case.store.check(&staging, (&bytes, None), &careless, now(), &Silent).unwrap()).is_ok());
    assert_eq!(case.store.list().unwrap()[0].signed_by, None);
}

#[test]
fn an_old_version_does_not_come_back_as_a_new_one() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    case.install(&held, 3, 0).unwrap();
    let four = case.install(&held, 4, 1).unwrap();
    let error = case.install(&held, 3, 0).unwrap_err();
    assert!(matches!(error, StoreError::Downgrade { offered: 3, newest: 4, .. }), "{error}");
    assert!(error.to_string().contains("cache/newest/demo"), "{error}");
    assert!(matches!(case.install(&held, 4, 2), Err(StoreError::Reused { version: 4, .. })));
    assert!(case.install(&held, 4, 1).is_ok(), "the same again is nothing new");
    assert!(case.install(&held, 1, 1).is_ok(), "a lower number for the same content neither");

    held.remove(&crate::Which::Name(name()), true).unwrap();
    assert!(matches!(case.install(&held, 3, 0), Err(StoreError::Downgrade { .. })), "removing a model does not forget it");
    assert_eq!(case.store.next_version(&name(), &four.digest).unwrap(), 4);
    assert_eq!(case.store.next_version(&name(), &Digest::of(b"other")).unwrap(), 5);

    fs::write(case.store.root().join("cache/newest/demo"), "rubbish").unwrap();
    assert!(matches!(case.install(&held, 9, 0), Err(StoreError::Damaged { .. })), "a damaged record is not taken for none");
}

#[test]
fn what_is_installed_does_not_expire() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let (staging, mut manifest) = case.stage(1, 0);
    manifest.expires = Some("2026-11-20T00:00:01Z".to_owned());
    case.install_as(&held, &staging, &manifest).unwrap();
    held.activate(&name(), None).unwrap();
    assert!(case.store.current(&name()).unwrap().is_some());

    let bytes = manifest.to_bytes().unwrap();
    let later = now() + Duration::from_secs(1);
    let (staging, _) = case.stage(1, 0);
    let signature = case.key.sign(&bytes);
    let error = case.store.check(&staging, (&bytes, Some(&signature)), &case.trust, later, &Silent).unwrap_err();
    assert!(error.to_string().contains("expired at 2026-11-20T00:00:01Z"), "{error}");
}

/// P-M8: what becomes the version is what was verified, whatever has its name since.
#[test]
fn a_file_that_is_replaced_after_it_was_verified_is_refused() {
    let case = Case::new();
    let (staging, manifest) = case.stage(1, 0);
    let bytes = manifest.to_bytes().unwrap();
    let signature = case.key.sign(&bytes);
    let checked = case.store.check(&staging, (&bytes, Some(&signature)), &case.trust, now(), &Silent).unwrap();
    let other = case.folder.path().join("other");
    fs::write(&other, gguf(1)).unwrap();
    fs::rename(&other, staging.path().join(manifest.files[0].path.as_str())).unwrap();
    let error = case.store.hold().unwrap().put(checked).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { why, .. } if why.contains("replaced")), "{error}");
    assert!(case.store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(case.store.root().join("cache/blobs")).unwrap().count(), 0);
}
