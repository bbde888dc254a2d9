//! How a machine computes a model fastest: measured once per model and machine, kept beside the models, and used from then on.
//!
//! A child process measures ([`measure`]), so that a file that ends a native library, or memory that is short, ends the child alone.
//! What is chosen from its table is a pure function ([`choose`]), and [`record`] keeps it. llama.cpp alone is tuned.

mod child;
mod choose;
mod measure;
mod record;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tollgate_backend_llama::{Spin, Tuning};
use tollgate_config::{Backend as Kind, KvCache, Model as Spec, Object, Task};

use crate::artifact::{Artifact, Header};
use crate::{Library, LoadError, memory, select, step_rows};
pub use child::{TuneLine, Tuner};
pub use measure::tune;
use record::Record;

/// How long measuring may take at a model's first load.
const AT_LOAD: Duration = Duration::from_secs(8);

/// One way to compute a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Whether matrices are stored in another order.
    pub repack: bool,
    /// Threads that compute, 1 to 512.
    pub threads: u16,
    /// Rows that are computed at once, 1 to 8,192.
    pub micro_batch: u32,
    /// Whether the threads may spin for long while they wait for each other.
    pub spin: bool,
}

/// What a candidate reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Which one.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Tokens of a prompt per second.
    pub prompt_tps: f64,
    /// Tokens per second of one reply.
    pub decode_tps: f64,
    /// Tokens per second of four replies together; absent for a model with fewer sequences.
    pub decode4_tps: Option<f64>,
    /// How long reading and preparing the weights took, in milliseconds.
    pub load_ms: u64,
    /// Bytes that the measuring process grew by, with a context of 1,024 tokens at most.
    pub bytes: u64,
}

/// What is to be measured, and within what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuneRequest {
    /// The GGUF file.
    pub path: PathBuf,
    /// Whether the gateway maps it.
    pub mapped: bool,
    /// Tokens that all sequences together can hold, where the config says.
    pub context_tokens: Option<u32>,
    /// Sequences at once, 1 to 256.
    pub sequences: u16,
    /// Rows of a step, 16 to 8,192.
    pub step_rows: u32,
    /// Threads, where the config says: they are then not measured.
    pub threads: Option<u16>,
    /// How the key-value pool is stored.
    pub kv_cache: KvCache,
    /// How long it may take in milliseconds. The first candidate is measured whatever it takes.
    pub budget_ms: u64,
    /// Whether to measure although other programs want the cores.
    pub is_forced: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuneReport {
    /// What was measured, in this order. The first is the default.
    pub table: Vec<Measured>,
    /// The best of them: the default, unless another is 3 % better at least.
    pub chosen: Candidate,
    /// How much faster a prompt is read with it than by default, in percent.
    pub gained_prompt_percent: f64,
    /// The same of decoding; of four replies and of one, where both were measured.
    pub gained_decode_percent: f64,
    /// Whether the time sufficed for all candidates.
    pub is_complete: bool,
    /// How much of the cores that this process may use was taken by others, in percent.
    pub busy_percent: u8,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A model is not measured.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// There is nothing to choose for it.
    #[error("only models of the backend `llama` that generate are tuned, and no adapters: an adapter is computed as its base is")]
    NotTunable,
    /// It promises the same reply to the last bit.
    #[error("a model with `deterministic = true` is not tuned: its replies would change by the last bits")]
    Deterministic,
    /// Its artifact cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Other programs want the cores.
    #[error("other programs take {busy_percent} % of the cores: what would be measured now says little")]
    Busy {
        /// How much they take, in percent.
        busy_percent: u8,
    },
    /// It was not tried to its end, which says nothing of the model.
    #[error("{0}")]
    Stopped(String),
    /// It was tried, and it does not work.
    #[error("{0}")]
    Failed(String),
    /// What was measured cannot be kept.
    #[error("{}: {error}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// What was measured and where it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// What came of it.
    pub report: TuneReport,
    /// SHA-256 of the artifact, 64 hex digits.
    pub digest: String,
    /// The file that it is kept in.
    pub file: PathBuf,
}

/// What a model is loaded with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Absent where they were not measured.
    pub(crate) threads: Option<u16>,
    pub(crate) tuning: Tuning,
}

impl Chosen {
    /// Threads that a model is computed with, if any number is wanted: what its config says always counts.
    pub(crate) fn threads_of(&self, spec: &Spec) -> Option<u16> {
        spec.threads.or(self.threads)
    }
}

impl Candidate {
    pub(crate) fn tuning(self) -> Tuning {
        let spin = if self.spin { Spin::Auto } else { Spin::Never };
        Tuning { repack: self.repack, micro_batch: self.micro_batch, spin }
    }
}

/// Measures a model of the config anew and keeps the result for its next load, also where other programs want the cores. `budget` is 1
/// to 120 s; `told` hears of each candidate.
///
/// # Errors
/// It cannot be measured or kept.
pub fn tune_again(
    spec: &Object<Spec>,
    library: &Library,
    budget: Duration,
    told: &mut dyn FnMut(&Measured),
) -> Result<Tuned, TuneError> {
    if spec.backend != Kind::Llama || spec.base.is_some() || spec.task != Task::Generate {
        return Err(TuneError::NotTunable);
    }
    if spec.deterministic {
        return Err(TuneError::Deterministic);
    }
    let artifact = select::find(spec, library)?.ok_or(TuneError::NotTunable)?;
    let opened = library.open(&artifact).map_err(LoadError::from)?;
    let tuner = library.tuner().ok_or(TuneError::NotTunable)?;
    let request = request(spec, &artifact, budget, true);
    let report = tuner.run(&request, memory_bytes(spec, &artifact)?, told)?;
    let record = Record::new(&opened.digest, request.threads.is_none(), Ok(report.clone()));
    let file = record.keep(library)?;
    Ok(Tuned { report, digest: opened.digest, file })
}

/// What a model that is about to be loaded is to be loaded with, and how long measuring that took: nothing but for its first load on
/// this machine.
pub(crate) fn at_load(spec: &Object<Spec>, artifact: Option<&Artifact>, library: &Library) -> (Chosen, Duration) {
    let unmeasured = (Chosen::default(), Duration::ZERO);
    let (Some(artifact), Some(tuner)) = (artifact.filter(|_| is_tunable(spec, library)), library.tuner()) else {
        return unmeasured;
    };
    // Why it cannot be opened is said by whoever loads it.
    let Ok(opened) = library.open(artifact) else { return unmeasured };
    let model = spec.id.as_str();
    if let Some(record) = Record::find(library, &opened.digest) {
        let chosen = record.chosen();
        let Chosen { threads, tuning: Tuning { repack, micro_batch, spin } } = chosen;
        tracing::info!(model, ?threads, repack, micro_batch, ?spin, "as it was measured on this machine");
        return (chosen, Duration::ZERO);
    }
    let weights_bytes = weights(artifact);
    if !tuner.at_load().contains(&weights_bytes) {
        if weights_bytes > *tuner.at_load().end() {
            tracing::info!(
                model,
                weights_bytes,
                "too large to be measured while it is waited for: `tollgate model tune {model}` does that"
            );
        }
        return unmeasured;
    }
    let began = Instant::now();
    (measured(spec, artifact, (library, tuner), &opened.digest), began.elapsed())
}

/// Measures a model before its first load, and keeps what came of it.
fn measured(spec: &Object<Spec>, artifact: &Artifact, (library, tuner): (&Library, &Tuner), digest: &str) -> Chosen {
    let (model, at_most_s) = (spec.id.as_str(), AT_LOAD.as_secs());
    tracing::info!(model, at_most_s, "its first load on this machine: how it is computed fastest is measured now, once");
    let request = request(spec, artifact, AT_LOAD, false);
    let report = memory_bytes(spec, artifact).and_then(|bytes| tuner.run(&request, bytes, &mut |_| ()));
    let record = match report {
        Err(error @ (TuneError::Busy { .. } | TuneError::Stopped(_))) => {
            tracing::warn!(model, reason = %error, "it is not measured now; its next load tries again, or `tollgate model tune {model}`");
            return Chosen::default();
        }
        Err(error) => {
            tracing::warn!(model, reason = %error, "it is not measured; `tollgate model tune {model}` tries again");
            // Not with each load.
            Record::new(digest, false, Err(error.to_string()))
        }
        Ok(report) => {
            let TuneReport { gained_prompt_percent, gained_decode_percent, is_complete, took_ms, chosen, .. } = &report;
            tracing::info!(
                model,
                candidates = report.table.len(),
                gained_prompt_percent,
                gained_decode_percent,
                is_complete,
                took_ms,
                ?chosen,
                "measured"
            );
            Record::new(digest, request.threads.is_none(), Ok(report))
        }
    };
    if let Err(error) = record.keep(library) {
        tracing::warn!(model, reason = %error, "what was measured cannot be kept; its next load measures again");
    }
    record.chosen()
}

fn is_tunable(spec: &Spec, library: &Library) -> bool {
    library.tuner().is_some() && spec.backend == Kind::Llama && spec.task == Task::Generate && !spec.deterministic
}

fn weights(artifact: &Artifact) -> u64 {
    if let Header::Gguf(gguf) = &artifact.header { gguf.tensor_bytes() } else { 0 }
}

fn request(spec: &Spec, artifact: &Artifact, budget: Duration, is_forced: bool) -> TuneRequest {
    TuneRequest {
        path: artifact.path.clone(),
        mapped: artifact.is_ours,
        context_tokens: spec.context_tokens,
        sequences: spec.sequences,
        step_rows: step_rows(spec),
        threads: spec.threads,
        kv_cache: spec.kv_cache,
        budget_ms: u64::try_from(budget.as_millis()).unwrap_or(u64::MAX),
        is_forced,
    }
}

/// Bytes that the child may write to.
fn memory_bytes(spec: &Spec, artifact: &Artifact) -> Result<u64, TuneError> {
    let predicted = memory::predict(spec, Some(artifact))?;
    Ok(predicted.saturating_mul(2).saturating_add(1 << 30))
}

#[cfg(test)]
mod tests;
