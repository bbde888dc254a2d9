//! Which components passed their golden cases before: those under configs of their own come out the same under every operator's.
//!
//! A file for each component and engine, signed like the compiled plugins, since it stands for a check.

use std::path::Path;

use crate::artifact::{MacKey, write_atomically};

const MAGIC: &[u8; 4] = b"TGC1";

/// Whether the note is there and is what `note` wrote under this name.
pub(super) fn is_noted(path: &Path, key: &MacKey) -> bool {
    let Ok(sealed) = std::fs::read(path) else { return false };
    key.open(MAGIC, &sealed).is_ok_and(|at| sealed.get(at..) == Some(name_of(path)))
}

/// Notes that the cases passed.
pub(super) fn note(path: &Path, key: &MacKey) -> std::io::Result<()> {
    write_atomically(path, &key.seal(MAGIC, name_of(path)))
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_for_its_name_and_key_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, other, key) = (dir.path().join("a.cases"), dir.path().join("b.cases"), MacKey::new([1; 32]));
        assert!(!is_noted(&path, &key));
        note(&path, &key).expect("written");
        assert!(is_noted(&path, &key));
        assert!(!is_noted(&path, &MacKey::new([2; 32])));
        std::fs::copy(&path, &other).expect("copied");
        assert!(!is_noted(&other, &key), "a note under another name");
    }
}
