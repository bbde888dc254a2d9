//! Functions compiled before: a changed config changes data, not code, so that most of a rebuild is found here.
//!
//! One file per component, signed like the compiled plugins since its content becomes code. It only saves time: a file that is
//! missing, damaged or forged is an empty one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use wasmtime::CacheStore;

use crate::artifact::{MacKey, write_atomically};

const MAGIC: &[u8; 4] = b"TGF1";
/// More than this is not kept.
const MAX_BYTES: usize = 256 << 20;

/// Keys and compiled functions.
#[derive(Debug, Default)]
pub(super) struct Functions {
    known: HashMap<Vec<u8>, Vec<u8>>,
    added: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl Functions {
    pub(super) fn open(path: &Path, key: &MacKey) -> Self {
        let known = std::fs::read(path).ok().and_then(|sealed| {
            let at = key.open(MAGIC, &sealed).ok()?;
            decode(sealed.get(at..)?)
        });
        Functions { known: known.unwrap_or_default(), added: Mutex::default() }
    }

    /// Writes what was known and what was added, if anything was.
    pub(super) fn save(&self, path: &Path, key: &MacKey) -> std::io::Result<()> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        if added.is_empty() {
            return Ok(());
        }
        let mut data = Vec::new();
        for (name, value) in added.iter().chain(&self.known) {
            if data.len() + name.len() + value.len() > MAX_BYTES {
                break;
            }
            for part in [name, value] {
                let length = u32::try_from(part.len()).map_err(std::io::Error::other)?;
                data.extend_from_slice(&length.to_le_bytes());
                data.extend_from_slice(part);
            }
        }
        write_atomically(path, &key.seal(MAGIC, &data))
    }
}

fn decode(mut data: &[u8]) -> Option<HashMap<Vec<u8>, Vec<u8>>> {
    let mut part = || {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        data = rest;
        Some(part.to_vec())
    };
    let mut known = HashMap::new();
    while let Some(name) = part() {
        known.insert(name, part()?);
    }
    Some(known)
}

impl CacheStore for Functions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.known.get(key).map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_vec(), value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_known_next_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, key) = (dir.path().join("functions"), MacKey::new([1; 32]));
        let functions = Functions::open(&path, &key);
        assert!(functions.get(b"a").is_none());
        functions.insert(b"a", b"code".to_vec());
        functions.save(&path, &key).expect("written");
        assert_eq!(Functions::open(&path, &key).get(b"a").as_deref(), Some(b"code".as_slice()));
        assert!(Functions::open(&path, &MacKey::new([2; 32])).get(b"a").is_none(), "another key's code is not run");
    }
}
