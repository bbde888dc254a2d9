//! Folders of files as Hugging Face lays them out: what is in them, by the strict readers.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use tollgate_formats::{FormatError, onnx, safetensors, tokenizer};

use super::{ArtifactError, Header, Wanted};

/// Names that make a model what it is, besides its weights.
const SMALL_FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "model.safetensors.index.json",
    "1_Pooling/config.json",
];
/// Folders with such files.
const INNER: [&str; 3] = ["", "onnx/", "1_Pooling/"];
/// An adapter as PEFT writes it.
const PEFT: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Entries of one folder.
const MAX_FILES: usize = 1_024;
/// A tokenizer's file.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// A folder's files.
pub(super) struct Look {
    /// What their headers say.
    pub(super) header: Header,
    /// The names of those that count, in order.
    pub(super) files: Vec<String>,
    /// The names of all that may, in order.
    pub(super) listing: Vec<String>,
}

/// Checks the headers of a folder's files.
pub(super) fn look(path: &Path, wanted: Wanted) -> Result<Look, ArtifactError> {
    let names = names(path)?;
    let of = |extension: &str| names.iter().filter(|name| name.ends_with(extension)).cloned().collect::<Vec<_>>();
    let missing = |what: &str| ArtifactError::Folder { path: path.to_owned(), what: format!("there is no {what} in it") };
    let (header, weights) = if wanted == Wanted::Onnx {
        let graphs = of(".onnx");
        let Some(graph) = graphs.iter().find(|name| *name == "model.onnx" || *name == "onnx/model.onnx") else {
            return Err(missing("model.onnx"));
        };
        let (bytes, external) = graph_bytes(path, graph)?;
        (Header::Onnx { bytes, graph: graph.clone() }, std::iter::once(graph.clone()).chain(external).collect())
    } else {
        let mut shards = of(".safetensors");
        shards.retain(|name| !name.contains('/'));
        if shards.is_empty() {
            return Err(missing("*.safetensors"));
        }
        let elements = shards.iter().map(|name| elements(path, name)).sum::<Result<u64, _>>()?;
        (Header::Safetensors(elements), shards)
    };
    check_tokenizer(path)?;
    let small = SMALL_FILES.iter().filter(|small| names.iter().any(|name| name == *small)).map(|name| (*name).to_owned());
    let mut files = small.chain(weights).collect::<Vec<_>>();
    files.sort();
    Ok(Look { header, files, listing: names })
}

/// The files of an adapter's folder; nothing is read.
pub(super) fn peft(path: &Path) -> Result<Vec<String>, ArtifactError> {
    if let Some(missing) = PEFT.iter().find(|name| !path.join(name).is_file()) {
        let what = format!("there is no {missing} in it: for this backend an adapter is a folder as PEFT writes it");
        return Err(ArtifactError::Folder { path: path.to_owned(), what });
    }
    Ok(PEFT.iter().map(|name| (*name).to_owned()).collect())
}

/// The files that may count of a folder, and of those in it that models have files in. Notes of people are not looked at.
pub(super) fn names(path: &Path) -> Result<Vec<String>, ArtifactError> {
    let mut names = Vec::new();
    for inner in INNER {
        let folder = path.join(inner);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if !inner.is_empty() && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(ArtifactError::Io { path: folder, error }),
        };
        for (count, entry) in entries.enumerate() {
            if count >= MAX_FILES {
                let what = format!("it has more than {MAX_FILES} entries; a folder of a model has fewer");
                return Err(ArtifactError::Folder { path: folder, what });
            }
            let entry = entry.map_err(|error| ArtifactError::Io { path: folder.clone(), error })?;
            let Some(name) = entry.file_name().to_str().map(|name| format!("{inner}{name}")) else { continue };
            let counts = name.ends_with(".onnx") || name.ends_with(".safetensors") || SMALL_FILES.contains(&name.as_str());
            if counts && entry.path().is_file() {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

fn open(folder: &Path, name: &str) -> Result<File, ArtifactError> {
    let path = folder.join(name);
    File::open(&path).map_err(|error| ArtifactError::Io { path, error })
}

fn malformed(folder: &Path, name: &str, error: FormatError) -> ArtifactError {
    ArtifactError::Format { path: folder.join(name), error }
}

fn elements(folder: &Path, name: &str) -> Result<u64, ArtifactError> {
    let header = safetensors::read(&mut BufReader::new(open(folder, name)?)).map_err(|error| malformed(folder, name, error))?;
    let of = |tensor: &safetensors::TensorInfo| tensor.shape.iter().fold(1_u64, |product, size| product.saturating_mul(*size));
    Ok(header.tensors.values().map(of).fold(0, u64::saturating_add))
}

/// Bytes of a graph's weights, and the files beside it that hold some of them.
fn graph_bytes(folder: &Path, name: &str) -> Result<(u64, Vec<String>), ArtifactError> {
    let graph = onnx::read(&mut BufReader::new(open(folder, name)?)).map_err(|error| malformed(folder, name, error))?;
    let beside = name.strip_suffix("model.onnx").unwrap_or_default();
    let size_of = |file: &str| {
        let metadata = std::fs::symlink_metadata(folder.join(beside).join(file)).ok()?;
        metadata.is_file().then_some(metadata.len())
    };
    onnx::check_external(&graph, size_of).map_err(|error| malformed(folder, name, error))?;
    let mut external = graph.external.iter().map(|external| format!("{beside}{}", external.location)).collect::<Vec<_>>();
    external.sort();
    external.dedup();
    Ok((graph.initializer_bytes, external))
}

fn check_tokenizer(folder: &Path) -> Result<(), ArtifactError> {
    let name = "tokenizer.json";
    let io = |error| ArtifactError::Io { path: folder.join(name), error };
    let file = open(folder, name)?;
    if file.metadata().map_err(io)?.len() > MAX_TOKENIZER_BYTES {
        let what = format!("{name} has more than {MAX_TOKENIZER_BYTES} bytes");
        return Err(ArtifactError::Folder { path: folder.to_owned(), what });
    }
    let bytes = std::fs::read(folder.join(name)).map_err(io)?;
    tokenizer::read(&bytes).map(|_| ()).map_err(|error| malformed(folder, name, error))
}
