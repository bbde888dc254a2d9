//! Which backend loads what. Every `cfg(feature)` about backends would be here.

use tollgate_backend::{Backend, BackendError};
use tollgate_backend_llama::Llama;
use tollgate_backend_scripted::Scripted;
use tollgate_config::{Backend as Kind, Model as Spec, Object, Source};

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
    /// The engine does not start.
    #[error("{0}")]
    Start(String),
}

/// Loads the model's backend; returns its artifact's digest with it.
pub(crate) fn load(spec: &Object<Spec>, library: &Library) -> Result<(Box<dyn Backend>, String), LoadError> {
    match spec.backend {
        Kind::Llama => {
            let source = spec.artifact.as_ref().ok_or(LoadError::NoArtifact)?;
            let artifact = library.find(source)?;
            let settings = tollgate_backend_llama::Settings {
                path: artifact.path,
                // Whoever writes into a mapped file ends the process; only the gateway writes where built-in files are laid out.
                mapped: matches!(source, Source::Builtin(_)),
                context_tokens: spec.context_tokens,
                sequences: spec.sequences,
                step_rows: step_rows(spec),
                threads: spec.threads,
                apart: spec.deterministic,
            };
            Ok((Box::new(Llama::load(&settings)?), artifact.digest))
        }
        Kind::Scripted => {
            let script = spec.scripted.clone().unwrap_or_default();
            let settings = tollgate_backend_scripted::Settings {
                max_sequences: spec.sequences,
                context_tokens: spec.context_tokens.unwrap_or(65_536),
                step_rows: step_rows(spec),
                token_us: u64::from(script.token_us),
                prefill_us_per_token: u64::from(script.prefill_us_per_token),
                ..tollgate_backend_scripted::Settings::default()
            };
            Ok((Box::new(Scripted::new(settings)), "scripted".to_owned()))
        }
    }
}
