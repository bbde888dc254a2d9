//! Models that turn texts into vectors, or rank documents.

use tollgate_backend::{BackendError, Embedder};
use tollgate_backend_candle::CandleEmbedder;
use tollgate_backend_llama::LlamaEmbedder;
use tollgate_backend_onnx::OnnxEmbedder;
use tollgate_config::{Backend as Kind, Model as Spec, Task};

use super::{LoadError, candle, llama, onnx};
use crate::Library;
use crate::artifact::{Artifact, Opened};
use crate::tune::Chosen;

/// Computed before a model serves.
const TEXT: &str = "Hello";
/// How far a vector's length may be from 1.
const NEAR: f64 = 1e-3;

/// Loads an embedder, which does what the config's `task` says.
pub(super) fn load(spec: &Spec, artifact: &Artifact, library: &Library, opened: &Opened) -> Result<Box<dyn Embedder>, LoadError> {
    let mut embedder: Box<dyn Embedder> = match spec.backend {
        Kind::Llama => Box::new(LlamaEmbedder::load(&llama(spec, artifact, opened, &Chosen::default()))?),
        Kind::Candle => Box::new(CandleEmbedder::load(&candle(spec, artifact.path.clone()))?),
        Kind::Onnx => Box::new(OnnxEmbedder::load(&onnx(spec, artifact, library)?)?),
        Kind::Scripted | Kind::Provider => return Err(LoadError::NotHere),
    };
    match (spec.task, embedder.ranks()) {
        (Task::Rerank, false) => {
            let why =
                "it has no head that ranks: a reranker is a GGUF file with `pooling_type` 4, and others have `task = \"embed\"`";
            return Err(LoadError::Start(why.to_owned()));
        }
        (Task::Generate | Task::Embed, true) => {
            return Err(LoadError::Start("it ranks documents, and has no vectors: set `task = \"rerank\"`".to_owned()));
        }
        _ => {}
    }
    warm_up(embedder.as_mut())?;
    Ok(embedder)
}

/// Computes a text, or ranks it with itself, so that the first request does not wait for what is made with the first one, and a model
/// that computes no numbers is not served. Answers how many tokens the text has.
pub(crate) fn warm_up(embedder: &mut dyn Embedder) -> Result<usize, BackendError> {
    let wrong = |what: &str| BackendError::Load(format!("it does not compute a text: {what}"));
    let mut text = embedder.tokenizer().tokenize(TEXT, false)?;
    // Two of them have to fit.
    text.truncate(usize::try_from(embedder.max_tokens() / 2).unwrap_or(1).max(1));
    let tokens = text.len();
    if embedder.ranks() {
        let scores = embedder.rank(&text, std::slice::from_ref(&text)).map_err(|error| wrong(&error.to_string()))?;
        return match scores.as_slice() {
            [score] if score.is_finite() => Ok(tokens),
            _ => Err(wrong("its score is not a number")),
        };
    }
    let vectors = embedder.embed(std::slice::from_ref(&text)).map_err(|error| wrong(&error.to_string()))?;
    let [vector] = vectors.as_slice() else { return Err(wrong("it gives no vector")) };
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    // What is no number is not near to anything.
    if (length - 1.0).abs() <= NEAR { Ok(tokens) } else { Err(wrong("its vector is not made of numbers, or not of length 1")) }
}
