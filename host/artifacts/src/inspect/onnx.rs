//! ONNX graphs and the files that they keep weights in, which must all be part of the artifact (P-M5).

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::Path;

use tollgate_formats::onnx;

use super::{InspectError, is_pickle, read_json, read_tokenizer};
use crate::files::open_beneath;
use crate::manifest::Manifest;
use crate::name::RelativePath;

pub(super) fn inspect(folder: &Path, manifest: &Manifest) -> Result<(Option<String>, u64), InspectError> {
    let mut bytes = 0u64;
    let mut used = BTreeSet::new();
    for file in manifest.files.iter().filter(|file| file.path.has_extension("onnx")) {
        let graph = read(folder, &file.path)?;
        let size_of = |location: &str| manifest.file(beside(&file.path, location)?.as_str()).map(|file| file.bytes);
        onnx::check_external(&graph, size_of).map_err(|source| InspectError::Format { path: file.path.to_string(), source })?;
        bytes = bytes.saturating_add(graph.initializer_bytes);
        used.extend(graph.external.iter().filter_map(|external| beside(&file.path, &external.location)));
    }
    for file in &manifest.files {
        if is_pickle(&file.path) && !used.contains(&file.path) {
            return Err(InspectError::Pickle(file.path.to_string()));
        }
    }
    if let Some(file) = manifest.file("tokenizer.json") {
        read_tokenizer(folder, &file.path)?;
    }
    let architecture = match manifest.file("config.json") {
        Some(file) => super::safetensors::architecture(&read_json(folder, &file.path)?),
        None => None,
    };
    Ok((architecture, bytes))
}

/// Reads a graph.
pub(super) fn read(folder: &Path, path: &RelativePath) -> Result<onnx::Onnx, InspectError> {
    let mut file = BufReader::new(open_beneath(folder, path)?);
    onnx::read(&mut file).map_err(|source| InspectError::Format { path: path.to_string(), source })
}

/// The path of a file that a graph names, which lies in the graph's own folder.
pub(super) fn beside(graph: &RelativePath, location: &str) -> Option<RelativePath> {
    match graph.as_str().rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{location}").parse().ok(),
        None => location.parse().ok(),
    }
}
