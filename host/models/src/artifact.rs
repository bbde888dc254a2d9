//! Model files: those that the operator names, and those inside the binary.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tollgate_config::Source;

/// Model files, built in or on disk.
#[derive(Debug, Clone)]
pub struct Library {
    /// Files inside the binary, by name.
    pub builtin: &'static [(&'static str, &'static [u8])],
    /// Where built-in files are laid out for backends that want a path.
    pub directory: PathBuf,
    /// What relative paths are relative to.
    pub config: PathBuf,
}

/// A model file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where.
    pub path: PathBuf,
    /// SHA-256, 64 hex digits.
    pub digest: String,
}

/// A model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not one of those inside the binary.
    #[error("there is no built-in model `{name}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// It is missing or cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what a GGUF file is.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Library {
    /// Finds an artifact and takes its digest.
    ///
    /// # Errors
    /// It is not there or no model.
    pub fn find(&self, source: &Source) -> Result<Artifact, ArtifactError> {
        let artifact = match source {
            Source::Builtin(name) => self.lay_out(name.as_str())?,
            Source::File(path) => {
                let path = self.config.join(path);
                let digest = digest(&path).map_err(|error| ArtifactError::Io { path: path.clone(), error })?;
                Artifact { path, digest }
            }
        };
        check_header(&artifact.path)?;
        Ok(artifact)
    }

    /// Writes a built-in file where a backend can map it, once.
    fn lay_out(&self, name: &str) -> Result<Artifact, ArtifactError> {
        let found = self.builtin.iter().find(|(known, _)| *known == name);
        let (_, bytes) = found.ok_or_else(|| ArtifactError::Unknown {
            name: name.to_owned(),
            known: self.builtin.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        })?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        let path = self.directory.join(format!("{name}-{}.gguf", sha256.get(..16).unwrap_or(&sha256)));
        let io = |error| ArtifactError::Io { path: path.clone(), error };
        if digest(&path).ok().as_deref() != Some(&sha256) {
            std::fs::create_dir_all(&self.directory).map_err(io)?;
            let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
            let write = || {
                let mut file = std::fs::File::create(&temporary)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)
            };
            write().map_err(io)?;
        }
        Ok(Artifact { path, digest: sha256 })
    }
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

/// What every GGUF file begins with (ggml's GGUF specification): magic, version, and how many tensors and keys there are. llama.cpp
/// ends the process on some malformed files, so that what is plainly none does not reach it.
fn check_header(path: &Path) -> Result<(), ArtifactError> {
    let format = |reason: String| ArtifactError::Format { path: path.to_owned(), reason };
    let io = |error| ArtifactError::Io { path: path.to_owned(), error };
    let mut file = std::fs::File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut header = [0; 24];
    file.read_exact(&mut header).map_err(|_| format(format!("it has {size} bytes, too few for a GGUF file")))?;
    let number = |at: usize| {
        header.get(at..at + 8).and_then(|bytes| bytes.first_chunk::<8>()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let version = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if !header.starts_with(b"GGUF") {
        return Err(format("it is no GGUF file (it does not begin with GGUF)".to_owned()));
    }
    if !(2..=3).contains(&version) {
        return Err(format(format!("its GGUF version is {version}; 2 and 3 are known")));
    }
    // A tensor's entry has at least 24 bytes and a key's at least 12.
    let (tensors, keys) = (number(8), number(16));
    if tensors.saturating_mul(24).saturating_add(keys.saturating_mul(12)) > size {
        return Err(format(format!(
            "it names {tensors} tensors and {keys} keys, more than fit into its {size} bytes: is it cut short?"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(dir: &Path) -> Library {
        static GOOD: [u8; 64] = {
            let mut bytes = [0; 64];
            bytes[0] = b'G';
            bytes[1] = b'G';
            bytes[2] = b'U';
            bytes[3] = b'F';
            bytes[4] = 3;
            bytes
        };
        static BUILTIN: &[(&str, &[u8])] = &[("demo", &GOOD)];
        Library { builtin: BUILTIN, directory: dir.join("models"), config: dir.to_owned() }
    }

    #[test]
    fn a_built_in_model_is_laid_out_and_mended() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let library = library(dir.path());
        let source: Source = "builtin:demo".parse().expect("a source");
        let artifact = library.find(&source).expect("laid out");
        std::fs::write(&artifact.path, b"damaged").expect("written");
        assert_eq!(library.find(&source).expect("laid out again"), artifact);
        assert_eq!(std::fs::read(&artifact.path).expect("readable").len(), 64);
    }

    #[test]
    fn what_is_no_model_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let library = library(dir.path());
        let mut cut = b"GGUF\x03\0\0\0".to_vec();
        cut.extend_from_slice(&1_000_000_u64.to_le_bytes());
        cut.extend_from_slice(&[0; 16]);
        for (bytes, what) in [(b"GG".to_vec(), "too few"), (vec![b'x'; 64], "no GGUF"), (cut, "cut short")] {
            std::fs::write(dir.path().join("m.gguf"), bytes).expect("written");
            let error = library.find(&"m.gguf".parse().expect("a source")).expect_err("refused").to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(matches!(library.find(&"builtin:none".parse().expect("a source")), Err(ArtifactError::Unknown { .. })));
    }
}
