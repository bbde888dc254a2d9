//! Archives, good and hostile. Every hostile one is refused with its reason, and nothing is written outside the staging folder (P-M1, P-M3).

mod build;

use proptest::prelude::*;

use super::*;
use crate::manifest::Format;
use crate::progress::Silent;
use crate::testing::{Case, folder, manifest};
use build::{Entry, deflated, zip};

const CONTENT: &[u8] = b"GGUF, or what passes for it here";

/// The manifest for a `model.gguf` with `content`.
fn manifest_for(content: &[u8]) -> Vec<u8> {
    let folder = folder(&[("model.gguf", content)]);
    manifest(folder.path(), Format::Gguf, &["model.gguf"], 1).to_bytes().unwrap()
}

/// Manifest and model, with more entries after them.
fn with(more: Vec<Entry>) -> Vec<u8> {
    let mut entries = vec![Entry::stored("manifest.json", &manifest_for(CONTENT)), Entry::stored("model.gguf", CONTENT)];
    entries.extend(more);
    zip(&entries)
}

/// The manifest for `content` and one entry for the model.
fn only(content: &[u8], entry: Entry) -> Vec<u8> {
    zip(&[Entry::stored("manifest.json", &manifest_for(content)), entry])
}

/// Opens and extracts an archive; answers what was extracted.
fn take(archive: &[u8]) -> Result<Vec<u8>, String> {
    let case = Case::new();
    let path = case.folder.path().join("model.zip");
    std::fs::write(&path, archive).unwrap();
    let staging = case.store.stage().unwrap();
    let extract = || -> Result<(), ArchiveError> {
        let mut archive = Archive::open(&path)?;
        let (bytes, _) = archive.manifest()?;
        let manifest =
            Manifest::read(&bytes).map_err(|error| ArchiveError::Refused { path: path.clone(), what: error.to_string() })?;
        archive.extract(&manifest, &staging, &Silent)
    };
    let extracted = extract();
    let below: Vec<_> = std::fs::read_dir(case.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(below.len(), 2, "{below:?}");
    let written: u64 = std::fs::read_dir(staging.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(written <= 1 << 20, "{written} bytes were written");
    extracted.map_err(|error| error.to_string())?;
    Ok(std::fs::read(staging.path().join("model.gguf")).unwrap())
}

fn refused(cases: Vec<(Vec<u8>, &str)>) {
    for (at, (archive, words)) in cases.into_iter().enumerate() {
        let error = take(&archive).unwrap_err();
        assert!(error.contains(words), "case {at}: {error} should say {words}");
    }
}

#[test]
fn good_archives_are_taken() {
    assert_eq!(take(&with(vec![])).unwrap(), CONTENT);
    assert_eq!(take(&with(vec![Entry::stored("empty/", b"")])).unwrap(), CONTENT);
    let deflate = Entry { method: 8, data: deflated(CONTENT), ..Entry::stored("model.gguf", CONTENT) };
    assert_eq!(take(&only(CONTENT, deflate)).unwrap(), CONTENT);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let words = "not a path inside an artifact";
    let names: [&[u8]; 11] = [
        b"../model.gguf",
        b"a/../../model.gguf",
        b"/etc/passwd",
        b"model.gguf\0.txt",
        b"..\\model.gguf",
        b"C:model.gguf",
        b".bashrc",
        b"a/b/c/d",
        b"a//b",
        b"\xff\xfe",
        b"",
    ];
    refused(names.iter().map(|name| (with(vec![Entry { name: name.to_vec(), ..Entry::stored("", b"x") }]), words)).collect());
    let unicode = with(vec![Entry::stored("mode\u{2113}.gguf", b"x")]);
    refused(vec![(unicode, words)]);
}

#[test]
fn entries_that_are_no_plain_files_are_refused() {
    let odd = |mode: u32| with(vec![Entry { mode, ..Entry::stored("link", b"/etc/passwd") }]);
    refused(vec![
        (odd(0o120_777), "link or a device"),
        (odd(0o020_666), "link or a device"),
        (odd(0o010_644), "link or a device"),
        (odd(0o060_644), "link or a device"),
        (odd(0o040_755), "link or a device"),
        (with(vec![Entry { flags: 1, ..Entry::stored("secret", b"x") }]), "is encrypted"),
        (with(vec![Entry { method: 12, ..Entry::stored("other", b"x") }]), "neither stored nor deflated"),
        (with(vec![Entry { mode: 0o040_755, ..Entry::stored("folder/", b"content") }]), "folder with content"),
    ]);
}

#[test]
fn what_the_manifest_does_not_say_is_refused() {
    let mut shorter = CONTENT.to_vec();
    shorter.pop();
    refused(vec![
        (with(vec![Entry::stored("extra.txt", b"x")]), "`extra.txt`, which its manifest does not list"),
        (with(vec![Entry::stored("nested.zip", &with(vec![]))]), "`nested.zip`, which its manifest does not list"),
        (with(vec![Entry::stored("MODEL.gguf", CONTENT)]), "differs in the case"),
        (with(vec![Entry::stored("model.gguf", CONTENT)]), "twice"),
        (with(vec![Entry::stored("model.gguf/", b"")]), "twice"),
        (zip(&[Entry::stored("manifest.json", &manifest_for(CONTENT))]), "which it does not hold"),
        (zip(&[Entry::stored("model.gguf", CONTENT)]), "tollgate model pack"),
        (zip(&[Entry::stored("model/manifest.json", &manifest_for(CONTENT))]), "tollgate model pack"),
        (only(CONTENT, Entry::stored("model.gguf", &shorter)), "31 bytes in its directory, and 32 in its manifest"),
        (zip(&[Entry::stored("manifest.json", &vec![b' '; (8 << 20) + 1])]), "longer than 8388608 bytes"),
    ]);
}

#[test]
fn bombs_and_lying_sizes_are_stopped() {
    let zeros = vec![0; 16 << 20];
    let bomb = Entry { method: 8, data: deflated(&zeros), ..Entry::stored("model.gguf", &zeros) };
    // The directory says 32 bytes, and 16 MiB would come out.
    let lie = Entry { method: 8, data: deflated(&zeros), ..Entry::stored("model.gguf", CONTENT) };
    // The directory says 32 bytes, and fewer come out.
    let short = Entry { method: 8, data: deflated(&CONTENT[..9]), ..Entry::stored("model.gguf", CONTENT) };
    let longer = Entry { data: vec![b'x'; 64], ..Entry::stored("model.gguf", CONTENT) };
    let crc = Entry { crc: Some(1), ..Entry::stored("model.gguf", CONTENT) };
    refused(vec![
        (only(&zeros, bomb), "more than 200 times"),
        (only(CONTENT, lie), "`model.gguf`: "),
        (only(CONTENT, short), "`model.gguf`: "),
        (only(CONTENT, longer), "model.zip: "),
        (only(CONTENT, crc), "`model.gguf`: "),
    ]);
}

#[test]
fn archives_that_two_readers_would_read_in_two_ways_are_refused() {
    let inner = build::local(&Entry::stored("inner.txt", b"hidden"));
    let good = with(vec![]);
    let mut prefixed = b"#!/bin/sh\n".to_vec();
    prefixed.extend(&good);
    let renamed = Entry { local_name: Some(b"innocent".to_vec()), ..Entry::stored("model.gguf", CONTENT) };
    let unreadable = "not a zip archive that can be read";
    let overlapping = {
        let mut outer = Entry::stored("outer.txt", &inner);
        outer.holds = Some(Entry::stored("inner.txt", b"hidden").into());
        with(vec![outer])
    };
    refused(vec![
        (overlapping, "overlap"),
        (prefixed, unreadable),
        (good[..good.len() - 9].to_vec(), unreadable),
        (good[..good.len() / 2].to_vec(), unreadable),
        (only(CONTENT, renamed), unreadable),
        (b"PK\x03\x04 and nothing more".to_vec(), unreadable),
        (Vec::new(), unreadable),
        (with((0..5000).map(|at| Entry::stored(&format!("f{at}"), b"")).collect()), "5002 entries, and 4096 are the most"),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_archive_is_refused_or_gives_the_same(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut archive = with(vec![]);
        let manifest = archive.windows(CONTENT.len()).position(|window| window == CONTENT).unwrap();
        // Within the manifest a change is the signature's matter.
        let at = manifest + at.index(archive.len() - manifest);
        archive[at] = byte;
        if let Ok(content) = take(&archive) {
            prop_assert_eq!(content.as_slice(), CONTENT);
        }
    }
}
