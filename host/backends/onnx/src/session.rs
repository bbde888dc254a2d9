//! A model file in ONNX Runtime.

use std::fmt::Display;
use std::path::Path;

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynValue, Tensor, TensorElementType};
use tollgate_backend::{BackendError, Token};

use crate::{Settings, library};

/// A number that a model's shape leaves open is said by the config.
const MAX_DIMENSION: usize = 4_194_304;

/// What a model wants to be told with each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The tokens.
    Ids,
    /// Ones for all that is seen.
    Mask,
    /// Where the tokens lie.
    Positions,
    /// To which of two texts they belong: the first.
    Segments,
    /// Whether there is something before them.
    UsesCache,
}

impl Input {
    /// The input of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "input_ids" => Some(Input::Ids),
            "attention_mask" => Some(Input::Mask),
            "position_ids" => Some(Input::Positions),
            "token_type_ids" => Some(Input::Segments),
            "use_cache_branch" => Some(Input::UsesCache),
            _ => None,
        }
    }

    /// Its type.
    pub(crate) fn element(self) -> TensorElementType {
        if self == Input::UsesCache { TensorElementType::Bool } else { TensorElementType::Int64 }
    }

    /// Its value for tokens after `start` others.
    pub(crate) fn value(self, tokens: &[Token], start: usize) -> ort::Result<DynValue> {
        let (count, total) = (tokens.len(), start.saturating_add(tokens.len()));
        let row = |numbers: Vec<i64>| Tensor::from_array(([1_usize, numbers.len()], numbers)).map(|tensor| tensor.into_dyn());
        match self {
            Input::Ids => row(tokens.iter().map(|token| i64::from(*token)).collect()),
            Input::Mask => row(vec![1; total]),
            Input::Positions => row((start..total).map(|position| i64::try_from(position).unwrap_or(i64::MAX)).collect()),
            Input::Segments => row(vec![0; count]),
            Input::UsesCache => Tensor::from_array(([1_usize], vec![start > 0])).map(|tensor| tensor.into_dyn()),
        }
    }
}

/// Loads the graph that the settings name, and no other. Returns how many bytes its files have as well.
pub(crate) fn open(settings: &Settings) -> Result<(Session, u64), BackendError> {
    let environment = library::environment(&settings.library)?;
    let path = settings.folder.join(&settings.graph);
    if !path.is_file() {
        return Err(BackendError::Load(format!("there is no {}", path.display())));
    }
    let bytes = size(&path);
    let failed = |error: &dyn Display| BackendError::Load(format!("{}: ONNX Runtime does not take it ({error})", path.display()));
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = settings.threads.map_or_else(cores, usize::from).max(1);
    let mut builder = Session::builder(&environment)
        .map_err(|error| failed(&error))?
        .with_optimization_level(GraphOptimizationLevel::Level3)
        .map_err(|error| failed(&error))?
        .with_intra_threads(threads)
        .map_err(|error| failed(&error))?
        // Threads that wait by spinning take the cores that the rest of the gateway needs.
        .with_intra_op_spinning(false)
        .map_err(|error| failed(&error))?;
    let session = builder.commit_from_file(&path).map_err(|error| failed(&error))?;
    Ok((session, bytes))
}

/// Bytes of a model file and of the files beside it that begin with its name, where exporters put what is above 2 GB.
fn size(path: &Path) -> u64 {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return 0 };
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let parts =
        entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(|other| other.starts_with(name)));
    // Through a link as well, as caches of downloads have them.
    parts.filter_map(|entry| std::fs::metadata(entry.path()).ok()).map(|metadata| metadata.len()).sum()
}

/// A dimension that the model's own shape says, or else the config.
pub(crate) fn dimension(shape: &[i64], at: usize, config: Option<usize>, what: &str) -> Result<usize, BackendError> {
    let own = shape.get(at).and_then(|size| usize::try_from(*size).ok()).filter(|size| *size > 0);
    let size = own.or(config).filter(|size| *size <= MAX_DIMENSION);
    size.ok_or_else(|| BackendError::Load(format!("neither the model nor config.json says {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_model_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, bytes: usize| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(&path, vec![0_u8; bytes]).expect("written");
            path
        };
        write("model_quantized.onnx", 1);
        let whole = write("onnx/model.onnx", 10);
        write("onnx/model.onnx_data", 100);
        write("onnx/other.onnx", 1_000);
        assert_eq!(size(&whole), 110);
    }

    #[test]
    fn open_dimensions_are_the_configs() {
        assert_eq!(dimension(&[1, 2, -1], 1, Some(9), "it"), Ok(2));
        assert_eq!(dimension(&[1, 2, -1], 2, Some(9), "it"), Ok(9));
        assert!(dimension(&[1, 2, -1], 2, None, "the width").expect_err("nowhere").to_string().contains("the width"));
        assert!(dimension(&[1 << 40], 0, None, "it").is_err());
    }
}
