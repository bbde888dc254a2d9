//! The data directory: what the gateway makes on its first start and finds on the next.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::builtin;

/// The prefix of a secret that this gateway made, for secret scanners.
const PREFIX: &str = "tg-";

/// The data directory.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) root: PathBuf,
}

impl Data {
    /// Opens or makes the directory. Only this user may enter it.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        make_private_dir(root)?;
        let root = root.canonicalize().with_context(|| root.display().to_string())?;
        let data = Data { root };
        make_private_dir(&data.cache())?;
        Ok(data)
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// Compiled plugins.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// What the binary carries, as files.
    pub(crate) fn builtin(&self) -> PathBuf {
        self.root.join("builtin")
    }

    /// Installed models.
    pub(crate) fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    pub(crate) fn admin_key_file(&self) -> PathBuf {
        self.root.join("admin.key")
    }

    /// The key that may do everything; made on the first start.
    pub(crate) fn admin_key(&self) -> anyhow::Result<String> {
        let path = self.admin_key_file();
        let text = read_or_make(&path, || Ok(format!("{}\n", new_secret()?)))?;
        let secret = text.trim().to_owned();
        ensure!(secret.len() >= 16, "{} holds no key: remove it, and the next start makes one", path.display());
        Ok(secret)
    }

    /// 32 bytes that only this gateway knows, for `purpose`.
    pub(crate) fn secret(&self, purpose: &str) -> anyhow::Result<[u8; 32]> {
        let path = self.root.join(format!("{purpose}.secret"));
        let text = read_or_make(&path, || {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("random numbers: {error}"))?;
            Ok(hex::encode(bytes))
        })?;
        let mut bytes = [0; 32];
        let decoded = hex::decode_to_slice(text.trim(), &mut bytes);
        decoded.with_context(|| format!("{} is damaged: remove it, and the next start makes one", path.display()))?;
        Ok(bytes)
    }
}

/// A new secret: 32 random bytes.
pub(crate) fn new_secret() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("random numbers: {error}"))?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// Writes the default config where there is no directory yet. Returns whether it did.
pub(crate) fn write_default_config(dir: &Path) -> anyhow::Result<bool> {
    if dir.exists() {
        return Ok(false);
    }
    for (name, text) in builtin::CONFIG {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(true)
}

fn make_private_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Reads a file of one line, or makes it with mode 0600. Two starts at once end up with the same one.
fn read_or_make(path: &Path, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(mut file) => {
            let text = make()?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())?;
            Ok(text)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            std::fs::read_to_string(path).with_context(|| path.display().to_string())
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_are_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = Data::open(&dir.path().join("data")).expect("made");
        let key = data.admin_key().expect("made");
        assert_eq!(data.admin_key().expect("found"), key);
        assert_eq!(data.secret("a").expect("made"), data.secret("a").expect("found"));
        assert_ne!(data.secret("a").expect("found"), data.secret("b").expect("made"));
        let mode = std::fs::metadata(data.admin_key_file()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&data.root).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_damaged_secret_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = Data::open(dir.path()).expect("made");
        std::fs::write(data.root.join("a.secret"), "zz").expect("written");
        assert!(data.secret("a").expect_err("damaged").to_string().contains("a.secret"));
    }
}
