//! Files, folders and archives, with manifest and without.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::digest::Digest;
use crate::pack::{PackOptions, PackTo, pack};
use crate::progress::Silent;
use crate::testing::{Case, demo_folder, folder, gguf, now};

fn options(trust: &Trust) -> ImportOptions<'_> {
    ImportOptions { version: None, base: None, trust, now: now(), is_moved: false }
}

fn unsigned() -> Trust {
    Trust { keys: Vec::new(), unsigned: true }
}

/// Packs what is at `path` with the key of `case`.
fn packed(case: &Case, path: &Path, version: u64, to: &PackTo) -> crate::pack::Packed {
    let options = PackOptions {
        name: "demo".parse().unwrap(),
        version,
        expires_days: Some(30),
        base: None,
        description: Some("for a test".to_owned()),
        source: None,
        check: None,
        now: now(),
        key: Some(&case.key),
    };
    pack(path, &options, to, &Silent).unwrap()
}

#[test]
fn a_gguf_file_becomes_an_artifact_that_is_known_by_its_digest() {
    let case = Case::new();
    let files = folder(&[("Demo Q4.gguf", &gguf(0)), ("Demo-Q4.gguf", &gguf(0))]);
    let path = files.path().join("Demo-Q4.gguf");
    let error = import(&case.store, &path, None, &options(&case.trust), &Silent).unwrap_err().to_string();
    assert!(error.contains("[models] unsigned = true"), "{error}");

    let trust = unsigned();
    let one = import(&case.store, &path, None, &options(&trust), &Silent).unwrap();
    assert_eq!((one.manifest.name.as_str(), one.manifest.version), ("demo-q4", 1));
    assert_eq!(one.digest, Digest::of(&gguf(0)));
    assert_eq!(import(&case.store, &path, None, &options(&trust), &Silent).unwrap().manifest.version, 1, "the same again");
    fs::write(&path, gguf(1)).unwrap();
    assert_eq!(import(&case.store, &path, None, &options(&trust), &Silent).unwrap().manifest.version, 2);
    let named = import(&case.store, &path, Some(&"other".parse().unwrap()), &options(&trust), &Silent).unwrap();
    assert_eq!(named.manifest.name.as_str(), "other");
    assert!(path.exists(), "importing copies");

    let error = import(&case.store, &files.path().join("Demo Q4.gguf"), None, &options(&trust), &Silent).unwrap_err().to_string();
    assert!(error.contains("rename it"), "{error}");
}

#[test]
fn a_folder_without_a_manifest_is_taken_by_its_known_files() {
    let case = Case::new();
    let trust = unsigned();
    let installed =
        import(&case.store, &demo_folder().join("hf"), Some(&"demo".parse().unwrap()), &options(&trust), &Silent).unwrap();
    assert_eq!(installed.manifest.format, Format::Safetensors);
    assert!(installed.folder.join("tokenizer.json").is_file());
    case.store.hold().unwrap().activate(&"demo".parse().unwrap(), None).unwrap();
}

#[test]
fn a_download_is_linked_and_not_lost_when_it_is_refused() {
    let case = Case::new();
    let partial = case.store.partial().join("download");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("model.gguf"), gguf(0)).unwrap();
    let staged = packed(&case, &partial, 1, &PackTo::InPlace);
    let manifest = fs::read(partial.join(MANIFEST_FILE)).unwrap();
    let signature = fs::read(partial.join(SIGNATURE_FILE)).unwrap();
    let options = ImportOptions { is_moved: true, ..options(&case.trust) };
    let installed = import_described(&case.store, &partial, (&manifest, Some(&signature)), None, &options, &Silent).unwrap();
    assert_eq!(installed.digest, staged.digest);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&partial.join("model.gguf")), inode(&installed.folder.join("model.gguf")), "it is not copied");

    fs::remove_file(partial.join("model.gguf")).unwrap();
    fs::write(partial.join("model.gguf"), gguf(1)).unwrap();
    import_described(&case.store, &partial, (&manifest, Some(&signature)), None, &options, &Silent).unwrap_err();
    assert_eq!(fs::read(partial.join("model.gguf")).unwrap(), gguf(1), "it is there for the next try");
}

#[test]
fn signed_folders_and_archives_are_taken_and_foreign_ones_are_not() {
    let case = Case::new();
    let files = folder(&[("model.gguf", &gguf(0)), ("README.md", b"not part of it")]);
    let archive = files.path().join("model.zip");
    let zip = packed(&case, files.path(), 1, &PackTo::Zip(archive.clone()));
    let installed = import(&case.store, &archive, None, &options(&case.trust), &Silent).unwrap();
    assert_eq!((installed.digest, installed.manifest), (zip.digest, zip.manifest));

    packed(&case, files.path(), 2, &PackTo::InPlace);
    assert_eq!(import(&case.store, files.path(), None, &options(&case.trust), &Silent).unwrap().manifest.version, 2);
    let asked = "other".parse().unwrap();
    let error = import(&case.store, files.path(), Some(&asked), &options(&case.trust), &Silent).unwrap_err().to_string();
    assert!(error.contains("the manifest is of `demo`"), "{error}");

    let stranger = Case::new();
    for path in [files.path(), &archive] {
        let error = import(&case.store, path, None, &options(&stranger.trust), &Silent).unwrap_err().to_string();
        assert!(error.contains("none of the trusted keys"), "{error}");
    }
    fs::write(files.path().join("model.gguf"), gguf(1)).unwrap();
    let error = import(&case.store, files.path(), None, &options(&case.trust), &Silent).unwrap_err().to_string();
    assert!(error.contains("its digest is"), "{error}");
    fs::remove_file(files.path().join("model.gguf")).unwrap();
    symlink("/etc/passwd", files.path().join("model.gguf")).unwrap();
    let error = import(&case.store, files.path(), None, &options(&case.trust), &Silent).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
}

#[test]
fn what_is_no_model_is_named() {
    let case = Case::new();
    let files = folder(&[("model.pt", b"PK\x03"), ("notes.txt", b"hello world"), ("empty", b"")]);
    for (name, words) in [
        ("model.pt", "may be a Python pickle"),
        ("notes.txt", "neither a GGUF file"),
        ("empty", "neither a GGUF file"),
        ("missing", "No such file"),
    ] {
        let error = import(&case.store, &files.path().join(name), None, &options(&unsigned()), &Silent).unwrap_err().to_string();
        assert!(error.contains(words), "{error} should say {words}");
    }
}

/// Imports another model under the same name while the first one is verified.
struct Meanwhile<'a> {
    store: &'a Store,
    path: &'a Path,
    is_done: AtomicBool,
}

impl Progress for Meanwhile<'_> {
    fn begin(&self, what: &str, _: Option<u64>) {
        if what.starts_with("verifying") && !self.is_done.swap(true, Ordering::Relaxed) {
            let name = "demo".parse().unwrap();
            import(self.store, self.path, Some(&name), &options(&unsigned()), &Silent).unwrap();
        }
    }

    fn advance(&self, _: u64) {}

    fn end(&self) {}
}

#[test]
fn a_number_that_somebody_else_took_meanwhile_is_no_error() {
    let case = Case::new();
    let files = folder(&[("one.gguf", &gguf(0)), ("two.gguf", &gguf(1))]);
    let other = files.path().join("two.gguf");
    let meanwhile = Meanwhile { store: &case.store, path: &other, is_done: AtomicBool::new(false) };
    let (name, trust) = ("demo".parse().unwrap(), unsigned());
    let first = import(&case.store, &files.path().join("one.gguf"), Some(&name), &options(&trust), &meanwhile).unwrap();
    assert_eq!((first.digest, first.manifest.version), (Digest::of(&gguf(0)), 2));
    assert_eq!(case.store.list().unwrap().len(), 2);

    let given = ImportOptions { version: Some(2), ..options(&trust) };
    let error = import(&case.store, &other, Some(&name), &given, &Silent).unwrap_err().to_string();
    assert!(error.contains("was accepted before with other files"), "{error}");
}
