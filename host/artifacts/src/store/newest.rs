//! The highest version that was ever accepted under a name. It only grows, and stays when the model is removed, so that an old model
//! cannot be offered again as if it were new (P-M8).

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::files::{At, read_small, write_atomically};
use crate::manifest::Manifest;
use crate::name::ArtifactName;

const MAX_BYTES: u64 = 256;

/// What was accepted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) version: u64,
    pub(super) digest: Digest,
}

fn path(layout: &Layout, name: &ArtifactName) -> PathBuf {
    layout.newest().join(name.as_str())
}

/// Reads what was accepted under `name`.
pub(super) fn read(layout: &Layout, name: &ArtifactName) -> Result<Option<Newest>, StoreError> {
    let path = path(layout, name);
    let bytes = match File::open(&path).and_then(|mut file| read_small(&mut file, MAX_BYTES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at(&path)?,
    };
    let parse = || {
        let (version, digest) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
        Some(Newest { version: version.parse().ok()?, digest: digest.parse().ok()? })
    };
    // Taking it for nothing would open the door that it closes.
    let damaged =
        || StoreError::Damaged { path, why: "it should hold a version and a digest; write them, or remove the file".to_owned() };
    parse().map(Some).ok_or_else(damaged)
}

/// Whether a version may be installed.
pub(super) fn check(layout: &Layout, manifest: &Manifest) -> Result<(), StoreError> {
    let Some(newest) = read(layout, &manifest.name)? else { return Ok(()) };
    if newest.digest == manifest.digest() || manifest.version > newest.version {
        return Ok(());
    }
    let name = manifest.name.clone();
    if manifest.version == newest.version {
        return Err(StoreError::Reused { name, version: manifest.version });
    }
    let record = path(layout, &name);
    Err(StoreError::Downgrade { name, offered: manifest.version, newest: newest.version, record })
}

/// Remembers that a version was accepted, unless a higher one was.
pub(super) fn accept(layout: &Layout, manifest: &Manifest) -> Result<(), StoreError> {
    let known = read(layout, &manifest.name)?;
    if known.is_some_and(|known| known.version >= manifest.version) {
        return Ok(());
    }
    let text = format!("{} {}\n", manifest.version, manifest.digest());
    Ok(write_atomically(&path(layout, &manifest.name), text.as_bytes(), 0o644)?)
}
