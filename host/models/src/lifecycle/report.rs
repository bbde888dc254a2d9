//! How a load went: told to the pool whatever becomes of the thread that it ran on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Key, Pool};
use crate::{LoadError, Model};

/// Reports how a load went, whatever becomes of its thread.
pub(super) struct Report {
    pub(super) pool: Pool,
    pub(super) key: Key,
    pub(super) is_done: bool,
}

impl Report {
    pub(super) fn done(mut self, loaded: Result<Model, LoadError>, began: Instant) {
        self.is_done = true;
        // What happens once says nothing of what loading it again would cost.
        let measuring = loaded.as_ref().map_or(Duration::ZERO, Model::measuring);
        let took_ms = u64::try_from(began.elapsed().saturating_sub(measuring).as_millis()).unwrap_or(u64::MAX);
        let (mut guard, now) = (self.pool.lock(), self.pool.now());
        let state = &mut *guard;
        let Some(slot) = state.models.get_mut(&self.key) else { return };
        let effects = match loaded {
            Ok(model) => {
                let bytes = model.runner().memory().total();
                self.pool.0.running.add(model.runner());
                tracing::info!(
                    model = model.id(),
                    digest = model.digest(),
                    load_ms = took_ms,
                    bytes = model.memory_bytes(),
                    "model loaded"
                );
                (slot.loaded, slot.error) = (Some(Arc::new(model)), None);
                state.machine.loaded(self.key, bytes, took_ms, now)
            }
            Err(error) => {
                tracing::error!(model = slot.name, reason = %error, "the model cannot be loaded");
                slot.error = Some(error.to_string().into());
                state.machine.failed(self.key, now)
            }
        };
        self.pool.carry_out(state, effects, now);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let (mut state, now) = (self.pool.lock(), self.pool.now());
        if let Some(slot) = state.models.get_mut(&self.key) {
            slot.error = Some("its loading ended abruptly".into());
        }
        let effects = state.machine.failed(self.key, now);
        self.pool.carry_out(&mut state, effects, now);
    }
}
