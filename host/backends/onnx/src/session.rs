//! A model file in ONNX Runtime.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Tensor, TensorElementType};
use tollgate_backend::{BackendError, Token};
use tollgate_backend_hf::Lora;

use crate::{Settings, graph, library};

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
    let mut builder = builder(settings)?;
    let path = settings.folder.join(&settings.graph);
    if !path.is_file() {
        return Err(BackendError::Load(format!("there is no {}", path.display())));
    }
    let bytes = Files::of(&path).bytes();
    let failed = |error: &dyn Display| BackendError::Load(format!("{}: ONNX Runtime does not take it ({error})", path.display()));
    let session = builder.commit_from_file(&path).map_err(|error| failed(&error))?;
    Ok((session, bytes))
}

/// What every session is made with.
fn builder(settings: &Settings) -> Result<SessionBuilder, BackendError> {
    let environment = library::environment(&settings.library)?;
    let failed = |error: &dyn Display| BackendError::Load(format!("ONNX Runtime makes no session ({error})"));
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = settings.threads.map_or_else(cores, usize::from).max(1);
    Session::builder(&environment)
        .map_err(|error| failed(&error))?
        .with_optimization_level(GraphOptimizationLevel::Level3)
        .map_err(|error| failed(&error))?
        .with_intra_threads(threads)
        .map_err(|error| failed(&error))?
        // Threads that wait by spinning take the cores that the rest of the gateway needs.
        .with_intra_op_spinning(false)
        .map_err(|error| failed(&error))
}

/// The files that a session was made of, to make others of them with adapters.
pub(crate) struct Source {
    settings: Settings,
    files: Files,
}

impl Source {
    /// To be taken before the model is loaded: what has changed since is not loaded again, where others write.
    pub(crate) fn of(settings: &Settings) -> Self {
        Source { settings: settings.clone(), files: Files::of(&settings.folder.join(&settings.graph)) }
    }

    /// A session of the same graph with an adapter in it.
    ///
    /// # Errors
    /// The adapter does not fit, or the files are not those that the model was loaded from.
    pub(crate) fn adapted(&self, lora: Lora) -> Result<Session, String> {
        let path = self.settings.folder.join(&self.settings.graph);
        // Another name for a file changes its stamp, as when it is installed once more.
        let check = || match self.settings.is_ours || Files::of(&path) == self.files {
            true => Ok(()),
            false => Err(format!("{} has changed since the model was loaded: load the model again", path.display())),
        };
        check()?;
        let model = std::fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let adapted = graph::adapted(&model, lora)?;
        drop(model);
        let folder = path.parent().and_then(Path::to_str).ok_or("the model's folder has a name that is no UTF-8")?;
        let builder = builder(&self.settings).map_err(|error| error.to_string())?;
        let mut builder = builder.with_config_entry(EXTERNAL_FOLDER, folder).map_err(|error| error.to_string())?;
        let session = builder.commit_from_memory(&adapted);
        let session = session.map_err(|error| format!("ONNX Runtime does not take the adapter in the graph ({error})"))?;
        check()?;
        Ok(session)
    }
}

/// Where a model that comes from memory has the weights that are not in it.
const EXTERNAL_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// A model file and the files beside it that begin with its name, where exporters put what is above 2 GB.
#[derive(Debug, PartialEq, Eq)]
struct Files(BTreeMap<OsString, Stamp>);

/// What tells a file from another of its name, and from itself once it was written to.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    place: [u64; 2],
    written: [i64; 4],
}

impl Files {
    fn of(path: &Path) -> Self {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Files(BTreeMap::new());
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
        let parts = entries.filter(|entry| entry.to_str().is_some_and(|other| other.starts_with(name)));
        // Through a link as well, as caches of downloads have them.
        let stamped = parts.filter_map(|part| Some((Stamp::of(&std::fs::metadata(folder.join(&part)).ok()?), part)));
        Files(stamped.map(|(stamp, part)| (part, stamp)).collect())
    }

    fn bytes(&self) -> u64 {
        self.0.values().map(|stamp| stamp.bytes).fold(0, u64::saturating_add)
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        let written = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        Stamp { bytes: file.len(), place: [file.dev(), file.ino()], written }
    }
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
        let files = Files::of(&whole);
        assert_eq!(files.bytes(), 110);
        assert_eq!(Files::of(&whole), files);
        write("onnx/model.onnx_data", 101);
        assert_ne!(Files::of(&whole), files);
    }

    #[test]
    fn open_dimensions_are_the_configs() {
        assert_eq!(dimension(&[1, 2, -1], 1, Some(9), "it"), Ok(2));
        assert_eq!(dimension(&[1, 2, -1], 2, Some(9), "it"), Ok(9));
        assert!(dimension(&[1, 2, -1], 2, None, "the width").expect_err("nowhere").to_string().contains("the width"));
        assert!(dimension(&[1 << 40], 0, None, "it").is_err());
    }
}
