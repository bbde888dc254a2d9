//! Adapters of a loaded model: they come and go on the model's thread, between two steps, while the model serves.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;

use tollgate_backend::{AdapterId, BackendError};

use super::command::Doorbell;
use crate::scheduler::Scheduler;

/// An adapter that is loaded beside an engine's model. Whoever may still decode with it holds a clone; the last one dropped unloads
/// it. Loading the same file again makes another adapter.
#[derive(Clone)]
pub struct Adapter(Arc<Loaded>);

struct Loaded {
    id: AdapterId,
    thread: Door,
}

/// Why an adapter is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// The engine is stopping or has stopped.
    #[error("the model is being stopped")]
    Stopped,
    /// The model's thread did not come to it in time.
    #[error("the adapter was not loaded in time")]
    Late,
    /// The backend does not take it.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What is to change, and the bell that says so. There are no more changes on their way than there are adapters and callers that
/// wait for one.
#[derive(Clone)]
pub(super) struct Door {
    changes: Sender<Change>,
    bell: Doorbell,
}

/// The thread's end of it.
pub(super) struct Changes {
    received: Receiver<Change>,
    door: Door,
}

enum Change {
    Load { path: PathBuf, scale: f32, answer: SyncSender<Result<Adapter, BackendError>> },
    Drop(AdapterId),
}

impl Adapter {
    /// Its number in the backend.
    pub(crate) fn id(&self) -> AdapterId {
        self.0.id
    }

    /// Whether it is loaded in the engine behind `door`.
    pub(super) fn is_behind(&self, door: &Door) -> bool {
        self.0.thread.bell.is(&door.bell)
    }

    /// One that nobody loads and unloads, for driving the scheduler by hand.
    #[cfg(test)]
    pub(crate) fn unheard(id: AdapterId) -> Self {
        Adapter(Arc::new(Loaded { id, thread: Door::new(Doorbell::silent()).0 }))
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Adapter").field(&self.0.id.0).finish()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.thread.tell(Change::Drop(self.id));
    }
}

impl Door {
    pub(super) fn new(bell: Doorbell) -> (Self, Changes) {
        let (changes, received) = channel();
        let door = Door { changes, bell };
        (door.clone(), Changes { received, door })
    }

    /// Has the thread load an adapter, and waits for it until `deadline`.
    pub(super) fn load(&self, path: &Path, scale: f32, deadline: Instant) -> Result<Adapter, AdapterError> {
        let (answer, answered) = sync_channel(1);
        self.tell(Change::Load { path: path.to_owned(), scale, answer });
        // An adapter that comes too late is dropped with the channel that it came in.
        match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(loaded) => Ok(loaded?),
            Err(RecvTimeoutError::Timeout) => Err(AdapterError::Late),
            Err(RecvTimeoutError::Disconnected) => Err(AdapterError::Stopped),
        }
    }

    fn tell(&self, change: Change) {
        // Where the thread has ended, its adapters ended with it, and who waits for an answer hears that its other end is gone.
        let _ = self.changes.send(change);
        self.bell.ring();
    }
}

impl Changes {
    /// Carries out what has come.
    pub(super) fn carry_out(&self, scheduler: &mut Scheduler) {
        while let Ok(change) = self.received.try_recv() {
            match change {
                Change::Load { path, scale, answer } => {
                    let loaded = scheduler.load_adapter(&path, scale);
                    let loaded = loaded.map(|id| Adapter(Arc::new(Loaded { id, thread: self.door.clone() })));
                    // Who asked may have given up: then the adapter goes again.
                    let _ = answer.send(loaded);
                }
                Change::Drop(id) => scheduler.drop_adapter(id),
            }
        }
    }
}
