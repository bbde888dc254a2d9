//! The threads of all models of this process, those on their way out included.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::runner::{Runner, WeakRunner};

/// Every engine that was started and has not ended. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    engines: Vec<WeakRunner>,
    /// Nobody is let in any more.
    is_stopped: bool,
}

impl Running {
    /// Takes an engine in. One that comes after the end is stopped at once.
    pub(crate) fn add(&self, engine: &Runner) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_stopped {
            drop(list);
            engine.shutdown(Instant::now());
            return;
        }
        list.engines.retain(|engine| engine.upgrade().is_some());
        list.engines.push(engine.downgrade());
    }

    /// Stops them all at the same time and waits until their threads have ended: what still runs at `deadline` is ended then. Call it
    /// where waiting is allowed.
    pub fn stop(&self, deadline: Instant) {
        let engines = {
            let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            list.is_stopped = true;
            std::mem::take(&mut list.engines)
        };
        std::thread::scope(|scope| {
            for engine in engines.iter().filter_map(WeakRunner::upgrade) {
                scope.spawn(move || engine.shutdown(deadline));
            }
        });
    }
}
