//! `manifest.json`: what an artifact is, file by file. Parsing is strict, and everything is bounded before it is used.

mod check;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::name::{ArtifactName, RelativePath, Which};

pub(crate) use time::rfc3339;

/// Length of a chunk that has a digest of its own, in bytes: 8 MiB.
pub const CHUNK_BYTES: u64 = 8 << 20;
/// Length of a manifest in bytes, at most: 8 MiB.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;
/// Files of an artifact, at most.
pub const MAX_FILES: usize = 1024;
/// Length of all files of an artifact together in bytes, at most: 4 TiB.
pub const MAX_TOTAL_BYTES: u64 = 4 << 40;
/// The manifest's own file.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The file with the signature over the bytes of the manifest's.
pub const SIGNATURE_FILE: &str = "manifest.json.sig";

/// What kind of files an artifact is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One GGUF file with a model.
    Gguf,
    /// Safetensors with `config.json` and `tokenizer.json` beside them.
    Safetensors,
    /// An ONNX graph, perhaps with external data.
    Onnx,
    /// One GGUF file with a LoRA adapter.
    LoraGguf,
    /// A LoRA adapter as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`.
    LoraPeft,
}

impl Format {
    /// The word in the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Safetensors => "safetensors",
            Format::Onnx => "onnx",
            Format::LoraGguf => "lora-gguf",
            Format::LoraPeft => "lora-peft",
        }
    }

    /// Whether it is an adapter, which is of no use without its base model.
    #[must_use]
    pub fn is_adapter(self) -> bool {
        matches!(self, Format::LoraGguf | Format::LoraPeft)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where it is inside the artifact.
    pub path: RelativePath,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    /// The digests of its chunks of [`CHUNK_BYTES`], or none at all. A download that was cut or damaged loses one chunk, not the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Digest>,
}

/// A question whose answer is known. Whoever makes the model current asks it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAnswer {
    /// What the model is asked, 1 byte to 4 KiB.
    pub prompt: String,
    /// What its greedy reply begins with, at most 4 KiB.
    pub reply: String,
}

/// What an artifact is, file by file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of this file: 1.
    pub schema: u32,
    /// Under what name it is offered.
    pub name: ArtifactName,
    /// Counts up, from 1. What has once been accepted under a name bars everything lower.
    pub version: u64,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Until when it may be installed, RFC 3339; what is installed by then stays. For ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What its files are.
    pub format: Format,
    /// For an adapter, the model that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Which>,
    /// A few words for people, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it came from, for people, at most 2 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What it has to answer before it becomes current, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<KnownAnswer>,
    /// Its files, 1 to [`MAX_FILES`].
    pub files: Vec<FileEntry>,
}

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is too long.
    #[error("the manifest has {0} bytes; {MAX_MANIFEST_BYTES} are the most")]
    Long(u64),
    /// It is not JSON, or not a manifest.
    #[error("the manifest cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A value is out of its range.
    #[error("the manifest cannot be used: {0}")]
    Invalid(String),
    /// It is too old.
    #[error(
        "the manifest of `{name}` expired at {expires}; get a newer one from whoever made it, and see that this machine's clock is right"
    )]
    Expired {
        /// Of what.
        name: ArtifactName,
        /// When, RFC 3339.
        expires: String,
    },
}

impl Manifest {
    /// Reads a manifest for something to be installed at `now`.
    ///
    /// # Errors
    /// It is malformed, out of range or expired.
    pub fn parse(bytes: &[u8], now: SystemTime) -> Result<Self, ManifestError> {
        let manifest = Manifest::read(bytes)?;
        match &manifest.expires {
            Some(expires) if time::has_passed(expires, now) => {
                Err(ManifestError::Expired { name: manifest.name, expires: expires.clone() })
            }
            _ => Ok(manifest),
        }
    }

    /// Reads a manifest of something that is installed, which does not expire any more.
    ///
    /// # Errors
    /// It is malformed or out of range.
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let length = crate::digest::len(bytes);
        if length > MAX_MANIFEST_BYTES {
            return Err(ManifestError::Long(length));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)?;
        check::check(&manifest).map_err(ManifestError::Invalid)?;
        Ok(manifest)
    }

    /// The bytes of the manifest's file: JSON for people to read, with a line feed at the end. A signature is made over exactly these.
    ///
    /// # Errors
    /// A value is out of its range, or the file would be too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        check::check(self).map_err(ManifestError::Invalid)?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        let length = crate::digest::len(&bytes);
        if length > MAX_MANIFEST_BYTES { Err(ManifestError::Long(length)) } else { Ok(bytes) }
    }

    /// The digest that the model is known by. It depends on format, base and the files, not on name, version, dates or signature; for an
    /// artifact of one GGUF file it is that file's SHA-256.
    #[must_use]
    pub fn digest(&self) -> Digest {
        if let (Format::Gguf, [only]) = (self.format, self.files.as_slice()) {
            return only.sha256;
        }
        let mut hasher = Hasher::default();
        let base = self.base.as_ref().map(Which::to_string).unwrap_or_default();
        // No field can hold a line feed, so no two artifacts give the same text.
        hasher.update(format!("tollgate artifact 1\n{}\n{base}\n", self.format).as_bytes());
        let files: BTreeMap<_, _> = self.files.iter().map(|file| (&file.path, file)).collect();
        for (path, file) in files {
            hasher.update(format!("{path}\n{}\n{}\n", file.bytes, file.sha256).as_bytes());
        }
        hasher.finish()
    }

    /// Length of all files together, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().fold(0, |total, file| total.saturating_add(file.bytes))
    }

    /// The file called `path`.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.path.as_str() == path)
    }

    /// The file that a backend opens first: the GGUF or ONNX file, the adapter's weights, or the first file of safetensors.
    ///
    /// # Panics
    /// For a manifest that was neither read nor written and lists no such file.
    #[must_use]
    pub fn main_file(&self) -> &FileEntry {
        let extension = match self.format {
            Format::Gguf | Format::LoraGguf => "gguf",
            Format::Safetensors | Format::LoraPeft => "safetensors",
            Format::Onnx => "onnx",
        };
        let candidates = self.files.iter().filter(|file| file.path.has_extension(extension));
        candidates.min_by_key(|file| &file.path).expect("a manifest that was checked has a file of its format")
    }
}
