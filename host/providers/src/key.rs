//! A provider's key: a file that the host reads. It is in no message and no `Debug`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;

use crate::ProviderError;

/// Keys are shorter.
const MAX_BYTES: u64 = 8 << 10;
/// What anybody but the owner may do with a file.
const OTHERS: u32 = 0o077;

/// Where a key is.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    path: PathBuf,
}

impl Key {
    /// The key in the file at `path`, which has to be there. Reads it: not for an async task.
    pub(crate) fn find(path: PathBuf) -> Result<Self, ProviderError> {
        read(&path)?;
        let mode = std::fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & OTHERS != 0 {
            let mode = format!("{:o}", mode & 0o777);
            tracing::warn!(file = %path.display(), mode, "others may read a provider's key: chmod 600 it");
        }
        Ok(Key { path })
    }

    /// The value of `Authorization`, as the file has it now.
    pub(crate) async fn header(&self) -> Result<HeaderValue, ProviderError> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        read.map_err(|_| ProviderError::Setup("the key's file could not be read".to_owned()))?
    }
}

fn read(path: &Path) -> Result<HeaderValue, ProviderError> {
    let wrong = |reason: String| ProviderError::Key { path: path.to_owned(), reason };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    // A file that is no text says so without showing any of it.
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    let key = text.trim();
    if key.is_empty()
        || u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES
        || !key.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(wrong("is not one word of ASCII".to_owned()));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| wrong("is no header's value".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, " sk-secret\n").unwrap();
        let header = read(&path).unwrap();
        assert_eq!(header.as_bytes(), b"Bearer sk-secret");
        assert!(!format!("{header:?} {:?}", Key::find(path.clone()).unwrap()).contains("secret"));
        for bad in ["", "\n", "sk-secret sk-other", "sk-sécret", &"k".repeat(9_000)] {
            std::fs::write(&path, bad).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(&error, ProviderError::Key { .. }) && !error.to_string().contains("secret"), "{error}");
        }
        assert!(matches!(Key::find(dir.path().join("gone")), Err(ProviderError::Key { .. })));
    }
}
