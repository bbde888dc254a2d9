//! Looks into the files of an artifact before anything loads them (P-M4, P-M5): headers, counts and offsets, by the readers of
//! `tollgate-formats`. Weights are not read. Pickles are refused by name: loading one runs the code in it.

mod onnx;
mod safetensors;
mod select;
#[cfg(test)]
mod tests;

use std::io::BufReader;
use std::path::Path;

use tollgate_formats::{FormatError, gguf};

use crate::files::{At, FileError, open_beneath, read_small};
use crate::manifest::{FileEntry, Format, Manifest};
use crate::name::RelativePath;

pub use select::guess;
pub(crate) use select::{gguf_format, is_pickle, select};

/// Small JSON files are read whole up to this length: 4 MiB.
const MAX_JSON_BYTES: u64 = 4 << 20;
/// A tokenizer is read whole up to this length: 64 MiB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// What was found in an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What its files are.
    pub format: Format,
    /// The family of models, as the files call it: `qwen2`, `LlamaForCausalLM`.
    pub architecture: Option<String>,
    /// Length of the weights, in bytes.
    pub parameters_bytes: u64,
}

/// An artifact's files are not what its format says.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A file's header.
    #[error("{path}: {source}")]
    Format {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A file's content beside that.
    #[error("{path}: {what}")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A format that runs code when it is loaded.
    #[error("{0} may be a Python pickle, which runs code when it is loaded; convert the model to safetensors")]
    Pickle(String),
    /// A folder in which no model was found.
    #[error("{0}: {1}")]
    Unknown(String, String),
    /// A file cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
}

impl InspectError {
    fn content(path: &RelativePath, what: impl Into<String>) -> Self {
        InspectError::Content { path: path.to_string(), what: what.into() }
    }
}

/// Looks into all files that `manifest` lists, which lie in `folder` in their full length.
///
/// # Errors
/// A file is not what the format says, or asks for more than this gateway takes.
pub fn inspect(folder: &Path, manifest: &Manifest) -> Result<Summary, InspectError> {
    let format = manifest.format;
    if let Some(file) = manifest.files.iter().find(|file| is_pickle(&file.path) && !is_data(format, &file.path)) {
        return Err(InspectError::Pickle(file.path.to_string()));
    }
    let (architecture, parameters_bytes) = match format {
        Format::Gguf | Format::LoraGguf => inspect_gguf(folder, format, manifest.main_file())?,
        Format::Safetensors => safetensors::inspect_model(folder, manifest)?,
        Format::LoraPeft => safetensors::inspect_adapter(folder, manifest)?,
        Format::Onnx => onnx::inspect(folder, manifest)?,
    };
    Ok(Summary { format, architecture, parameters_bytes })
}

/// An ONNX graph may keep its weights in a file of any name; `onnx` sees to it that one called `.bin` is such a file.
fn is_data(format: Format, path: &RelativePath) -> bool {
    format == Format::Onnx && path.has_extension("bin")
}

fn inspect_gguf(folder: &Path, format: Format, file: &FileEntry) -> Result<(Option<String>, u64), InspectError> {
    let header = read_gguf(folder, &file.path)?;
    let checked = match format {
        Format::LoraGguf => gguf::check_adapter(&header),
        _ => gguf::check_model(&header),
    };
    checked.map_err(|source| InspectError::Format { path: file.path.to_string(), source })?;
    Ok((header.architecture().map(str::to_owned), header.tensor_bytes()))
}

fn read_gguf(folder: &Path, path: &RelativePath) -> Result<gguf::Gguf, InspectError> {
    let mut file = BufReader::new(open_beneath(folder, path)?);
    gguf::read(&mut file).map_err(|source| InspectError::Format { path: path.to_string(), source })
}

/// Reads a JSON object.
fn read_json(folder: &Path, path: &RelativePath) -> Result<serde_json::Map<String, serde_json::Value>, InspectError> {
    let bytes = read_small(&mut open_beneath(folder, path)?, MAX_JSON_BYTES).at(&folder.join(path.as_str()))?;
    serde_json::from_slice(&bytes).map_err(|error| InspectError::content(path, format!("it is not a JSON object: {error}")))
}

/// Reads a tokenizer; answers its highest token id plus one.
fn read_tokenizer(folder: &Path, path: &RelativePath) -> Result<u64, InspectError> {
    let bytes = read_small(&mut open_beneath(folder, path)?, MAX_TOKENIZER_BYTES).at(&folder.join(path.as_str()))?;
    let tokenizer = tollgate_formats::tokenizer::read(&bytes);
    Ok(tokenizer.map_err(|source| InspectError::Format { path: path.to_string(), source })?.vocabulary)
}
