//! What runs a loaded model: an engine that generates, or one that embeds.

use std::time::Instant;

use tollgate_backend::Memory;
use tollgate_inference::{EmbeddingEngine, Engine, WeakEmbeddingEngine, WeakEngine};

/// The thread of a model, of either kind.
#[derive(Debug, Clone)]
pub(crate) enum Runner {
    /// It generates.
    Generates(Engine),
    /// It embeds texts, or ranks documents.
    Embeds(EmbeddingEngine),
}

/// One that is not kept alive.
#[derive(Debug, Clone)]
pub(crate) enum WeakRunner {
    Generates(WeakEngine),
    Embeds(WeakEmbeddingEngine),
}

impl Runner {
    /// Bytes that its backend takes.
    pub(crate) fn memory(&self) -> Memory {
        match self {
            Runner::Generates(engine) => engine.memory(),
            Runner::Embeds(engine) => engine.memory(),
        }
    }

    /// Whether it takes requests.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Runner::Generates(engine) => engine.is_alive(),
            Runner::Embeds(engine) => engine.is_alive(),
        }
    }

    /// Ends it: what still runs at `deadline` is ended then. It waits for the thread.
    pub(crate) fn shutdown(&self, deadline: Instant) {
        match self {
            Runner::Generates(engine) => engine.shutdown(deadline),
            Runner::Embeds(engine) => engine.shutdown(deadline),
        }
    }

    /// A handle that does not keep it alive.
    pub(crate) fn downgrade(&self) -> WeakRunner {
        match self {
            Runner::Generates(engine) => WeakRunner::Generates(engine.downgrade()),
            Runner::Embeds(engine) => WeakRunner::Embeds(engine.downgrade()),
        }
    }
}

impl WeakRunner {
    /// The runner, if there still is a handle to it.
    pub(crate) fn upgrade(&self) -> Option<Runner> {
        match self {
            WeakRunner::Generates(engine) => engine.upgrade().map(Runner::Generates),
            WeakRunner::Embeds(engine) => engine.upgrade().map(Runner::Embeds),
        }
    }
}
