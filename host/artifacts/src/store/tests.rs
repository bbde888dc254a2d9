//! The life of a version in the store, hostile manifests, and what a crash leaves behind.

mod hostile;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;
use crate::progress::Silent;
use crate::testing::{Case, now};

fn name() -> ArtifactName {
    "demo".parse().unwrap()
}

fn current(case: &Case) -> Option<Digest> {
    case.store.current(&name()).unwrap().map(|version| version.digest)
}

/// The names in a folder of the store, without `.gitkeep`.
fn names(case: &Case, folder: &str) -> Vec<String> {
    let mut names = layout::names_in(&case.store.root().join(folder)).unwrap();
    names.retain(|name| name != ".gitkeep");
    names.sort();
    names
}

#[test]
fn a_new_store_has_its_folders_and_keeps_models_out_of_git() {
    let case = Case::new();
    for file in ["current/.gitkeep", "cache/.gitkeep", "rollback/.gitkeep"] {
        assert!(case.store.root().join(file).is_file(), "{file}");
    }
    let ignored = fs::read_to_string(case.store.root().join(".gitignore")).unwrap();
    for line in ["current/*", "cache/*", "rollback/*", "!current/.gitkeep", "!cache/.gitkeep", "!rollback/.gitkeep"] {
        assert!(ignored.lines().any(|found| found == line), "{line}");
    }
    assert_eq!(case.store.list().unwrap(), []);
    assert!(case.store.current(&name()).unwrap().is_none());
    Store::open(case.store.root()).unwrap();
}

#[test]
fn a_version_is_installed_activated_rolled_back_and_removed() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let one = case.install(&held, 1, 0).unwrap();
    assert_eq!(current(&case), None, "installing does not activate");
    assert_eq!(one.signed, crate::Signed::By(case.key.public().id()));
    assert_eq!(one.digest, one.manifest.files[0].sha256);
    assert_eq!(one.summary.architecture.as_deref(), Some("llama"));
    let file = fs::metadata(one.folder.join("model.gguf")).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.nlink()), (0o444, 2));

    assert_eq!(held.activate(&name(), None).unwrap(), Activated { digest: one.digest, previous: None });
    assert_eq!(current(&case), Some(one.digest));
    assert!(matches!(held.rollback(&name()), Err(StoreError::NoRollback(_))));

    let two = case.install(&held, 2, 1).unwrap();
    assert_eq!(current(&case), Some(one.digest));
    assert_eq!(held.activate(&name(), None).unwrap(), Activated { digest: two.digest, previous: Some(one.digest) });
    assert_eq!(held.activate(&name(), Some(&two.digest)).unwrap().previous, None, "activating again loses no way back");
    let listed = case.store.list().unwrap();
    let flags: Vec<_> = listed.iter().map(|entry| (entry.version, entry.is_current, entry.is_rollback)).collect();
    assert_eq!(flags, [(1, false, true), (2, true, false)]);
    assert_eq!(listed[0].signed_by, Some(case.key.public().id()));
    assert_eq!(listed[0].installed, "2026-11-20T00:00:00Z");

    assert_eq!(held.rollback(&name()).unwrap(), Activated { digest: one.digest, previous: Some(two.digest) });
    assert_eq!(held.rollback(&name()).unwrap(), Activated { digest: two.digest, previous: Some(one.digest) });

    let error = held.remove(&Which::Name(name()), false).unwrap_err().to_string();
    assert!(error.contains("is current") && error.contains("--force"), "{error}");
    assert!(matches!(held.remove(&Which::Digest(two.digest), false), Err(StoreError::Current(_))));
    let removed = held.remove(&Which::Digest(one.digest), false).unwrap();
    assert_eq!(removed, Removed { digests: vec![one.digest], freed_bytes: one.manifest.total_bytes() });
    assert!(matches!(held.rollback(&name()), Err(StoreError::NoRollback(_))));
    held.remove(&Which::Name(name()), true).unwrap();
    assert_eq!(case.store.list().unwrap(), []);
    assert_eq!(names(&case, "cache/blobs"), [""; 0]);
    assert!(matches!(held.remove(&Which::Name(name()), true), Err(StoreError::Missing(_))));
    assert!(matches!(held.activate(&name(), None), Err(StoreError::Missing(_))));
}

#[test]
fn two_names_share_one_version_and_its_files() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let demo = case.install(&held, 1, 0).unwrap();
    held.activate(&name(), None).unwrap();
    let (staging, mut manifest) = case.stage(7, 0);
    let other: ArtifactName = "other".parse().unwrap();
    manifest.name = other.clone();
    let again = case.install_as(&held, &staging, &manifest).unwrap();
    assert_eq!(again.digest, demo.digest);
    held.activate(&other, None).unwrap();
    let names: Vec<_> = case.store.list().unwrap().into_iter().map(|entry| (entry.name.to_string(), entry.is_current)).collect();
    assert_eq!(names, [("demo".to_owned(), true), ("other".to_owned(), true)]);
    assert_eq!(layout::names_in(&case.store.root().join("cache/blobs")).unwrap().len(), 1);

    assert_eq!(held.remove(&Which::Name(name()), true).unwrap().digests, [], "the other name still stands for it");
    assert_eq!(case.store.current(&other).unwrap().unwrap().digest, demo.digest);
}

#[test]
fn verifying_finds_what_was_damaged_and_installing_again_repairs_it() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let one = case.install(&held, 1, 0).unwrap();
    held.activate(&name(), None).unwrap();
    assert_eq!(case.store.verify(&Which::Name(name()), &Silent).unwrap(), []);

    let file = one.folder.join("model.gguf");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let damaged = case.store.verify(&Which::Digest(one.digest), &Silent).unwrap();
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].path == "model.gguf" && damaged[0].why.contains("its digest is"), "{damaged:?}");

    case.install(&held, 1, 0).unwrap();
    assert_eq!(case.store.verify(&Which::Name(name()), &Silent).unwrap(), []);

    fs::remove_file(&file).unwrap();
    assert_eq!(case.store.verify(&Which::Name(name()), &Silent).unwrap().len(), 1);
    assert!(held.activate(&name(), None).is_err(), "what is not complete does not become current");
}

#[test]
fn one_process_changes_the_store_at_a_time() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let error = case.store.hold_within(Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(held);
    case.store.hold_within(Duration::ZERO).unwrap();
}

#[test]
fn what_others_do_meanwhile_leaves_an_installation_alone() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    case.install(&held, 1, 0).unwrap();
    let two = case.install(&held, 2, 1).unwrap();
    held.activate(&name(), None).unwrap();
    drop(held);
    // Of two that are under way, one has the content of a version that is removed meanwhile.
    let (staging, manifest) = case.stage(3, 1);
    let (other, newer) = case.stage(4, 2);
    let bytes = [manifest.to_bytes().unwrap(), newer.to_bytes().unwrap()];
    let signatures = [case.key.sign(&bytes[0]), case.key.sign(&bytes[1])];
    let check = |staging, at: usize| case.store.check(staging, (&bytes[at], Some(&signatures[at])), &case.trust, now(), &Silent);
    let (third, fourth) = (check(&staging, 0).unwrap(), check(&other, 1).unwrap());
    let held = case.store.hold().unwrap();
    assert!(staging.path().is_dir() && other.path().is_dir(), "they are not what a crash left");
    held.remove(&Which::Name(name()), true).unwrap();
    drop(held);
    assert!(!two.folder.exists());
    // The one that was begun last is done first.
    let held = case.store.hold().unwrap();
    let fourth = held.put(fourth).unwrap();
    assert!(matches!(held.put(third), Err(StoreError::Downgrade { .. })), "the version is compared again");
    held.activate(&name(), None).unwrap();
    assert_eq!(current(&case), Some(fourth.digest));
    assert_eq!(case.store.verify(&Which::Name(name()), &Silent).unwrap(), []);
    drop((staging, other));
    assert_eq!(names(&case, "cache/staging"), [""; 0]);
}

#[test]
fn what_a_crash_left_behind_is_cleared_away() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let one = case.install(&held, 1, 0).unwrap();
    let two = case.install(&held, 2, 1).unwrap();
    held.activate(&name(), Some(&one.digest)).unwrap();
    held.activate(&name(), Some(&two.digest)).unwrap();
    drop(held);

    let at = |path: &str| case.store.root().join(path);
    fs::create_dir_all(at("cache/staging/0123/sub")).unwrap();
    fs::write(at("cache/staging/0123/sub/model.gguf"), "half").unwrap();
    fs::create_dir_all(at("cache/versions/.new-half")).unwrap();
    fs::create_dir_all(at("cache/versions/.gone-half")).unwrap();
    fs::write(at("cache/blobs/unused"), "nobody links to it").unwrap();
    // Of a pull that was killed while it installed: it is linked from the download, which goes on living.
    fs::create_dir_all(at("cache/partial/fresh/model")).unwrap();
    fs::write(at("cache/blobs/pulled"), "only a download links to it").unwrap();
    fs::hard_link(at("cache/blobs/pulled"), at("cache/partial/fresh/model/model.gguf")).unwrap();
    fs::write(at("cache/blobs/.half.tmp"), "half").unwrap();
    fs::write(at("cache/newest/.demo.tmp"), "half").unwrap();
    symlink("../cache/versions/half", at("current/.demo.tmp")).unwrap();
    symlink(format!("../cache/versions/{}", "0".repeat(64)), at("current/dangling")).unwrap();
    symlink("/etc", at("rollback/foreign")).unwrap();
    // The version in force was being replaced, by the way that takes two steps.
    fs::rename(&two.folder, at(&format!("cache/versions/.old-{}", two.digest))).unwrap();
    // A version came just before the crash and was not remembered.
    fs::write(at("cache/newest/demo"), format!("1 {}\n", one.digest)).unwrap();

    fs::create_dir_all(at("cache/partial/fresh")).unwrap();
    fs::create_dir_all(at("cache/partial/stale")).unwrap();
    let stale = fs::File::open(at("cache/partial/stale")).unwrap();
    stale.set_modified(SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60)).unwrap();

    let held = case.store.hold().unwrap();
    assert_eq!(current(&case), Some(two.digest));
    assert_eq!(case.store.verify(&Which::Name(name()), &Silent).unwrap(), []);
    assert_eq!(names(&case, "cache/staging"), [""; 0]);
    assert_eq!(names(&case, "cache/versions").len(), 2);
    assert_eq!(names(&case, "cache/blobs").len(), 2);
    assert_eq!(names(&case, "cache/partial"), ["fresh"]);
    assert!(at("cache/partial/fresh/model/model.gguf").is_file(), "a download is gone on with");
    assert_eq!(names(&case, "current"), ["demo"]);
    assert_eq!(names(&case, "rollback"), ["demo", "foreign"], "what is not ours is left alone");
    assert_eq!(held.rollback(&name()).unwrap().digest, one.digest);
    assert!(matches!(case.install(&held, 1, 2), Err(StoreError::Downgrade { .. })), "the highest version is remembered again");
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    let one = case.install(&held, 1, 0).unwrap();
    held.activate(&name(), None).unwrap();
    let (staging, manifest) = case.stage(2, 1);
    // Where a folder stands in the way of a file, writing fails as it does on a full disk.
    for blocked in [format!("cache/blobs/{}", manifest.digest()), "cache/newest/.demo.tmp".to_owned()] {
        let path = case.store.root().join(&blocked);
        fs::create_dir_all(path.join("x")).unwrap();
        assert!(case.install_as(&held, &staging, &manifest).is_err(), "{blocked}");
        crate::files::remove(&path).unwrap();
        assert_eq!(current(&case), Some(one.digest));
        assert_eq!(case.store.verify(&Which::Name(name()), &Silent).unwrap(), []);
        assert!(names(&case, "cache/versions").iter().all(|name| !name.starts_with('.')));
    }
    case.install_as(&held, &staging, &manifest).unwrap();
    drop(staging);
    assert_eq!(names(&case, "cache/staging"), [""; 0]);
}

#[test]
fn links_that_are_not_ours_are_named() {
    let case = Case::new();
    symlink("/etc", case.store.root().join("current/demo")).unwrap();
    assert!(case.store.current(&name()).unwrap_err().to_string().contains("leads out of the store"));
    fs::remove_file(case.store.root().join("current/demo")).unwrap();
    fs::create_dir(case.store.root().join("current/demo")).unwrap();
    assert!(case.store.current(&name()).unwrap_err().to_string().contains("should be a link"));
}

#[test]
fn the_gateway_heals_the_store_unless_somebody_changes_it() {
    let case = Case::new();
    let held = case.store.hold().unwrap();
    fs::create_dir(case.store.root().join("cache/staging/left")).unwrap();
    // A record that cannot be read keeps nobody from anything but installing under its name.
    case.install(&held, 1, 0).unwrap();
    fs::write(case.store.root().join("cache/newest/demo"), "damaged").unwrap();
    case.store.heal_if_free().unwrap();
    assert_eq!(names(&case, "cache/staging"), ["left"]);
    drop(held);
    case.store.heal_if_free().unwrap();
    assert_eq!(names(&case, "cache/staging"), [""; 0]);
}
