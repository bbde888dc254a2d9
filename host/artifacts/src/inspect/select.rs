//! Which files of a folder that nobody made a manifest for are the model, and what format that is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{InspectError, onnx, read_gguf};
use crate::files::{At, FileError};
use crate::manifest::{Format, MANIFEST_FILE};
use crate::name::RelativePath;

/// Entries of a folder that are looked at, at most.
const MAX_ENTRIES: usize = 4096;
/// Extensions of files beside the weights that a backend may read.
const SIDE_FILES: [&str; 4] = ["json", "jinja", "txt", "model"];
/// What says how the rows of an encoder become one vector, below the weights' folder.
const POOLING: &str = "1_Pooling/config.json";
/// Extensions that pickles go by.
const PICKLES: [&str; 8] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "npy"];

/// Whether a file's name is one that pickles go by.
pub(crate) fn is_pickle(path: &RelativePath) -> bool {
    PICKLES.iter().any(|extension| path.has_extension(extension))
}

/// What the model in a folder is, judged by the names of its files and, for GGUF, the header.
///
/// # Errors
/// There is no model in it, there are several, or it is a pickle.
pub fn guess(folder: &Path) -> Result<Format, InspectError> {
    guess_among(folder, &walk(folder)?)
}

/// The files of the model in a folder, in order, and its format.
pub(crate) fn select(folder: &Path) -> Result<(Format, Vec<RelativePath>), InspectError> {
    let paths = walk(folder)?;
    let format = guess_among(folder, &paths)?;
    let is_top = |path: &RelativePath| path.components().count() == 1;
    let is_side = |path: &RelativePath| SIDE_FILES.iter().any(|extension| path.has_extension(extension));
    let mut selected: BTreeSet<RelativePath> = BTreeSet::new();
    for path in paths.iter().filter(|path| path.as_str() != MANIFEST_FILE) {
        let is_wanted = match format {
            Format::Gguf | Format::LoraGguf => path.has_extension("gguf"),
            Format::Safetensors => {
                path.as_str() == POOLING || (is_top(path) && (path.has_extension("safetensors") || is_side(path)))
            }
            Format::LoraPeft => matches!(path.as_str(), "adapter_config.json" | "adapter_model.safetensors"),
            Format::Onnx => path.has_extension("onnx") || is_side(path),
        };
        if is_wanted {
            selected.insert(path.clone());
        }
    }
    if format == Format::Onnx {
        for graph in paths.iter().filter(|path| path.has_extension("onnx")) {
            let external = onnx::read(folder, graph)?.external;
            selected.extend(external.iter().filter_map(|external| onnx::beside(graph, &external.location)));
        }
    }
    Ok((format, selected.into_iter().collect()))
}

/// Whether a GGUF file is a model or an adapter.
pub(crate) fn gguf_format(folder: &Path, path: &RelativePath) -> Result<Format, InspectError> {
    let is_adapter = read_gguf(folder, path)?.string("general.type") == Some("adapter");
    Ok(if is_adapter { Format::LoraGguf } else { Format::Gguf })
}

fn guess_among(folder: &Path, paths: &[RelativePath]) -> Result<Format, InspectError> {
    let has = |name: &str| paths.iter().any(|path| path.as_str() == name);
    let all = |extension: &str| paths.iter().filter(|path| path.has_extension(extension)).collect::<Vec<_>>();
    let unknown = |what: String| InspectError::Unknown(folder.display().to_string(), what);
    if has("adapter_config.json") && has("adapter_model.safetensors") {
        return Ok(Format::LoraPeft);
    }
    let (gguf, onnx) = (all("gguf"), all("onnx"));
    let is_safetensors =
        has("config.json") && paths.iter().any(|path| path.components().count() == 1 && path.has_extension("safetensors"));
    match (gguf.as_slice(), is_safetensors, onnx.as_slice()) {
        ([only], false, []) => gguf_format(folder, only),
        ([], true, []) => Ok(Format::Safetensors),
        ([], false, [_, ..]) => Ok(Format::Onnx),
        ([], false, []) => match paths.iter().find(|path| is_pickle(path)) {
            Some(pickle) => Err(InspectError::Pickle(pickle.to_string())),
            None => Err(unknown(
                "no model is in it: neither a .gguf, nor config.json with .safetensors, nor an .onnx file".to_owned(),
            )),
        },
        ([_, _, ..], _, _) => Err(unknown(format!("{} GGUF files are in it; name one of them", gguf.len()))),
        _ => Err(unknown("it holds models in several formats; leave one in it".to_owned())),
    }
}

/// The paths of all files below `folder`, three levels deep. Hidden files and names that an artifact cannot have are left out; a link
/// counts as a file, so that whoever opens it says what is wrong with it.
pub(crate) fn walk(folder: &Path) -> Result<Vec<RelativePath>, InspectError> {
    let mut paths = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    let mut seen = 0usize;
    while let Some(below) = waiting.pop() {
        let here = folder.join(&below);
        for entry in std::fs::read_dir(&here).at(&here)? {
            let entry = entry.at(&here)?;
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(InspectError::Unknown(
                    folder.display().to_string(),
                    format!("it holds more than {MAX_ENTRIES} files"),
                ));
            }
            let path = below.join(entry.file_name());
            let Some(Ok(relative)) = path.to_str().map(str::parse::<RelativePath>) else { continue };
            let kind = entry.file_type().map_err(|source| FileError { path: here.join(entry.file_name()), source })?;
            if kind.is_dir() {
                waiting.push(path);
            } else {
                paths.push(relative);
            }
        }
    }
    paths.sort();
    Ok(paths)
}
