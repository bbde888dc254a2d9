//! The threads of all models of this process, those on their way out included.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tollgate_inference::{Engine, WeakEngine};

/// Every engine that was started and has not ended. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<Vec<WeakEngine>>>);

impl Running {
    pub(crate) fn add(&self, engine: &Engine) {
        let mut engines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|engine| engine.upgrade().is_some());
        engines.push(engine.downgrade());
    }

    /// Stops them all and waits until their threads have ended: what still runs at `deadline` is ended then. Call it where waiting
    /// is allowed.
    pub fn stop(&self, deadline: Instant) {
        let engines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for engine in engines.iter().filter_map(WeakEngine::upgrade) {
            engine.shutdown(deadline);
        }
    }
}
