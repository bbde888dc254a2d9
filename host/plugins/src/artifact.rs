//! What the build step leaves behind: a compiled plugin under a MAC.
//!
//! File: `TGP1`, 32 bytes HMAC-SHA256 over the rest, 4 bytes length of the report (little endian), the report as JSON, the code.
//! Code from a file is run only after its MAC was verified over the bytes in memory: wasmtime trusts what it loads (P-W6).

use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::build::BuildReport;

const MAGIC: &[u8; 4] = b"TGP1";
const MAC_BYTES: usize = 32;
/// No compiled plugin is bigger; Python's are about 60 MB.
const MAX_BYTES: u64 = 512 << 20;

/// The key that compiled plugins are signed with: 32 bytes, kept in the data directory with mode 0600.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

impl MacKey {
    /// Takes a key.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        MacKey(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac(&self) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length")
    }

    /// Puts the MAC of `data` in front of it.
    pub(crate) fn seal(&self, magic: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut mac = self.mac();
        mac.update(magic);
        mac.update(data);
        let mut sealed = Vec::with_capacity(magic.len() + MAC_BYTES + data.len());
        sealed.extend_from_slice(magic);
        sealed.extend_from_slice(&mac.finalize().into_bytes());
        sealed.extend_from_slice(data);
        sealed
    }

    /// Where the data begins in `sealed`, if its MAC is right.
    pub(crate) fn open(&self, magic: &[u8; 4], sealed: &[u8]) -> Result<usize, ArtifactError> {
        let (head, rest) = sealed.split_at_checked(magic.len()).ok_or(ArtifactError::Format)?;
        let (tag, data) = rest.split_at_checked(MAC_BYTES).ok_or(ArtifactError::Format)?;
        if head != magic {
            return Err(ArtifactError::Format);
        }
        let mut mac = self.mac();
        mac.update(magic);
        mac.update(data);
        mac.verify_slice(tag).map_err(|_| ArtifactError::Mac)?;
        Ok(magic.len() + MAC_BYTES)
    }
}

/// A file of the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not one of ours.
    #[error("not a compiled plugin")]
    Format,
    /// Changed since it was written, or written with another key.
    #[error("its signature is wrong")]
    Mac,
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A compiled plugin whose origin is known.
pub struct Artifact {
    digest: String,
    report: BuildReport,
    sealed: Vec<u8>,
    code_at: usize,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Artifact {
    /// Reads and verifies a file. `digest` is what was asked for.
    ///
    /// # Errors
    /// It is missing, damaged or forged.
    pub fn read(path: &Path, key: &MacKey, digest: &str) -> Result<Self, ArtifactError> {
        let size = std::fs::metadata(path)?.len();
        if size > MAX_BYTES {
            return Err(ArtifactError::Format);
        }
        let sealed = std::fs::read(path)?;
        let at = key.open(MAGIC, &sealed)?;
        let data = sealed.get(at..).ok_or(ArtifactError::Format)?;
        let (length, rest) = data.split_first_chunk::<4>().ok_or(ArtifactError::Format)?;
        let length = u32::from_le_bytes(*length) as usize;
        let report: BuildReport =
            serde_json::from_slice(rest.get(..length).ok_or(ArtifactError::Format)?).map_err(|_| ArtifactError::Format)?;
        if report.digest != digest {
            return Err(ArtifactError::Format);
        }
        Ok(Artifact { digest: digest.to_owned(), report, code_at: at + 4 + length, sealed })
    }

    /// Writes a file that [`Artifact::read`] takes, by way of a temporary one.
    pub(crate) fn write(path: &Path, key: &MacKey, report: &BuildReport, code: &[u8]) -> std::io::Result<()> {
        let report = serde_json::to_vec(report)?;
        let length = u32::try_from(report.len()).map_err(std::io::Error::other)?;
        let mut data = Vec::with_capacity(4 + report.len() + code.len());
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(&report);
        data.extend_from_slice(code);
        write_atomically(path, &key.seal(MAGIC, &data))
    }

    /// Digest of (component, config, engine), 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What the build step found.
    #[must_use]
    pub fn report(&self) -> &BuildReport {
        &self.report
    }

    pub(crate) fn compiled(&self) -> &[u8] {
        self.sealed.get(self.code_at..).unwrap_or_default()
    }
}

/// Writes beside `path` and renames: a reader sees the old file or the new one whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path).inspect_err(|_| {
        // What cannot be moved into place is of no use; the error that is returned says why.
        let _ = std::fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, std::path::PathBuf, MacKey) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("plugin.cwasm");
        let key = MacKey::new([7; 32]);
        let report = BuildReport::for_tests("d");
        Artifact::write(&path, &key, &report, b"code").expect("written");
        (dir, path, key)
    }

    #[test]
    fn what_is_written_is_read() {
        let (_dir, path, key) = sample();
        let artifact = Artifact::read(&path, &key, "d").expect("verified");
        assert_eq!(artifact.compiled(), b"code");
        assert!(Artifact::read(&path, &key, "other").is_err(), "a renamed file is not what was asked for");
        assert!(matches!(Artifact::read(&path, &MacKey::new([8; 32]), "d"), Err(ArtifactError::Mac)));
    }

    /// P-W6: no byte can be changed.
    #[test]
    fn every_flipped_byte_is_noticed() {
        let (_dir, path, key) = sample();
        let good = std::fs::read(&path).expect("readable");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).expect("written");
            assert!(Artifact::read(&path, &key, "d").is_err(), "byte {at}");
            std::fs::write(&path, &good[..at]).expect("written");
            assert!(Artifact::read(&path, &key, "d").is_err(), "cut at {at}");
        }
    }
}
