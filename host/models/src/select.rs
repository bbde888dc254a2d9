//! Which backend loads what. Every `cfg(feature)` about backends would be here.

mod embedder;

use std::path::PathBuf;
use std::time::Duration;

use tollgate_backend::{Backend, BackendError, Embedder, Row, SequenceId};
use tollgate_backend_candle::Candle;
use tollgate_backend_llama::{KvCache, Llama};
use tollgate_backend_onnx::{Onnx, find_library};
use tollgate_backend_scripted::Scripted;
use tollgate_config::{Backend as Kind, KvCache as Stored, Model as Spec, Task};

pub(crate) use self::embedder::warm_up as warm_up_embedder;
use crate::artifact::{Artifact, Header, Opened, Wanted};
use crate::tune::Chosen;
use crate::{ArtifactError, Library, step_rows};

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its file cannot be used.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The backend does not take it.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The config names no artifact where the backend needs one.
    #[error("models of this backend need an `artifact`")]
    NoArtifact,
    /// Somebody else runs it.
    #[error("a model of a provider is not loaded")]
    NotHere,
    /// The engine does not start, or the model is not to be used.
    #[error("{0}")]
    Start(String),
}

/// What was loaded.
pub(crate) enum Loaded {
    /// It generates.
    Backend(Box<dyn Backend>),
    /// It embeds, or ranks.
    Embedder(Box<dyn Embedder>),
}

/// The model's artifact, where its backend has one.
pub(crate) fn find(spec: &Spec, library: &Library) -> Result<Option<Artifact>, LoadError> {
    let wanted = match spec.backend {
        Kind::Scripted => return Ok(None),
        // They are behind a `Remote`, never in a slot.
        Kind::Provider => return Err(LoadError::NotHere),
        Kind::Llama => Wanted::Gguf,
        Kind::Candle => Wanted::Safetensors,
        Kind::Onnx => Wanted::Onnx,
    };
    let source = spec.artifact.as_ref().ok_or(LoadError::NoArtifact)?;
    let artifact = library.find(source, wanted)?;
    // llama.cpp computes an encoder's rows as well, and there are no words in them.
    if let Header::Gguf(gguf) = &artifact.header
        && spec.task == Task::Generate
        && gguf.is_encoder()
    {
        let architecture = gguf.architecture().unwrap_or_default();
        let why = format!(
            "{}: a model of the architecture {architecture} generates nothing: set `task = \"embed\"`, or `\"rerank\"` if it is a \
             reranker",
            artifact.path.display()
        );
        return Err(LoadError::Start(why));
    }
    Ok(Some(artifact))
}

/// Loads the model's backend, llama.cpp as it was `chosen`; returns its artifact's digest with it.
pub(crate) fn load(
    spec: &Spec,
    artifact: Option<&Artifact>,
    library: &Library,
    chosen: &Chosen,
) -> Result<(Loaded, String), LoadError> {
    let Some(artifact) = artifact else {
        return Ok((Loaded::Backend(Box::new(scripted(spec))), "scripted".to_owned()));
    };
    let opened = library.open(artifact)?;
    if spec.task != Task::Generate {
        let embedder = embedder::load(spec, artifact, library, &opened)?;
        opened.confirm(artifact)?;
        return Ok((Loaded::Embedder(embedder), opened.digest));
    }
    let mut backend: Box<dyn Backend> = match spec.backend {
        Kind::Llama => Box::new(Llama::load(&llama(spec, artifact, &opened, chosen))?),
        Kind::Candle => Box::new(Candle::load(&candle(spec, artifact.path.clone()))?),
        Kind::Onnx => Box::new(Onnx::load(&onnx(spec, artifact, library)?)?),
        Kind::Scripted => Box::new(scripted(spec)),
        Kind::Provider => return Err(LoadError::NotHere),
    };
    warm_up(backend.as_mut())?;
    opened.confirm(artifact)?;
    Ok((Loaded::Backend(backend), opened.digest))
}

/// Decodes a token, so that the first request does not wait for what is made with the first step (C10), and a model that cannot decode
/// is not served.
fn warm_up(backend: &mut dyn Backend) -> Result<(), BackendError> {
    let token = backend.tokenizer().vocabulary().bos().unwrap_or(0);
    let (position, sequence) = (0, SequenceId(0));
    let decoded = backend.decode(&[Row { token, position, sequence, wants_logits: true }]);
    decoded.map_err(|error| BackendError::Load(format!("it does not decode: {error}")))?;
    backend.truncate(sequence, 0)
}

fn llama(spec: &Spec, artifact: &Artifact, opened: &Opened, chosen: &Chosen) -> tollgate_backend_llama::Settings {
    tollgate_backend_llama::Settings {
        path: opened.path().unwrap_or_else(|| artifact.path.clone()),
        // Whoever writes into a mapped file ends the process.
        mapped: artifact.is_ours,
        context_tokens: spec.context_tokens,
        sequences: spec.sequences,
        step_rows: step_rows(spec),
        threads: chosen.threads_of(spec),
        apart: spec.deterministic,
        kv_cache: kv_cache(spec.kv_cache),
        tuning: chosen.tuning,
    }
}

/// How llama.cpp is to store the model's key-value cache.
pub(crate) fn kv_cache(stored: Stored) -> KvCache {
    match stored {
        Stored::F16 => KvCache::F16,
        Stored::Q8_0 => KvCache::Q8_0,
        Stored::Q4_0 => KvCache::Q4_0,
    }
}

/// What candle is told of a model in `folder`.
pub(crate) fn candle(spec: &Spec, folder: PathBuf) -> tollgate_backend_candle::Settings {
    tollgate_backend_candle::Settings {
        folder,
        context_tokens: spec.context_tokens,
        sequences: spec.sequences,
        step_rows: step_rows(spec),
        threads: spec.threads,
    }
}

fn onnx(spec: &Spec, artifact: &Artifact, library: &Library) -> Result<tollgate_backend_onnx::Settings, LoadError> {
    let Header::Onnx { graph, .. } = &artifact.header else { return Err(LoadError::NoArtifact) };
    Ok(tollgate_backend_onnx::Settings {
        folder: artifact.path.clone(),
        // The one that was checked and hashed.
        graph: PathBuf::from(graph),
        is_ours: artifact.is_ours,
        library: find_library(library.onnxruntime())?,
        context_tokens: spec.context_tokens,
        sequences: spec.sequences,
        step_rows: step_rows(spec),
        threads: spec.threads,
    })
}

fn scripted(spec: &Spec) -> Scripted {
    let script = spec.scripted.clone().unwrap_or_default();
    std::thread::sleep(Duration::from_millis(u64::from(script.load_ms)));
    Scripted::new(tollgate_backend_scripted::Settings {
        max_sequences: spec.sequences,
        context_tokens: spec.context_tokens.unwrap_or(65_536),
        step_rows: step_rows(spec),
        token_us: u64::from(script.token_us),
        prefill_us_per_token: u64::from(script.prefill_us_per_token),
        memory_bytes: u64::from(script.memory_mib) << 20,
        ..tollgate_backend_scripted::Settings::default()
    })
}
