//! Digests of files, each taken once for as long as the file stays as it is.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// What the kernel knows a file by. Its change time cannot be set: what has the same one has not been written to since, within the
/// clock's grain.
pub(super) type Stamp = [i128; 5];

pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    [metadata.dev().into(), metadata.ino().into(), metadata.size().into(), changed, metadata.mtime_nsec().into()]
}

/// Digests of files by their stamps.
#[derive(Debug, Default)]
pub(super) struct Digests(Mutex<HashMap<Stamp, String>>);

/// Files whose digests are kept.
const MAX_DIGESTS: usize = 1_024;

impl Digests {
    /// SHA-256 of a file, 64 hex digits. One that has not changed since is not read again.
    pub(super) fn of(&self, file: &mut File) -> std::io::Result<String> {
        let stamp = stamp(&file.metadata()?);
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&stamp) {
            return Ok(known.clone());
        }
        file.rewind()?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
        let digest = hex::encode(hasher.finalize());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_DIGESTS {
            known.clear();
        }
        known.insert(stamp, digest.clone());
        Ok(digest)
    }
}
