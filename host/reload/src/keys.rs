//! Keys apply at once: they are looked at by a task of their own, which no build of a generation holds up.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate_config::Keys;

use crate::OnKeys;

/// Notices changes of the keys.
pub(crate) struct KeyWatch {
    dir: PathBuf,
    on_keys: OnKeys,
    last: Mutex<Last>,
}

/// The keys in use.
struct Last {
    keys: Keys,
    /// Not before the first look: they may have changed while the gateway started.
    is_known: bool,
}

impl KeyWatch {
    pub(crate) fn new(dir: PathBuf, keys: Keys, on_keys: OnKeys) -> Self {
        KeyWatch { dir, on_keys, last: Mutex::new(Last { keys, is_known: false }) }
    }

    /// Takes in the keys if they changed. Key files are few and small, so that they are read whole to find out: what is compared is
    /// what is taken in.
    fn take(&self) {
        // Held while they are read, so that an older set is never taken in after a newer one.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = tollgate_config::load_keys(&self.dir, &last.keys);
        if !last.is_known || now.hash != last.keys.hash {
            *last = Last { keys: now, is_known: true };
            (self.on_keys)(&last.keys);
        }
    }

    /// [`KeyWatch::take`], where files may be waited for.
    pub(crate) async fn look(self: &Arc<Self>) {
        let watch = Arc::clone(self);
        // It fails only if a look panicked; the next one is as good.
        let _ = tokio::task::spawn_blocking(move || watch.take()).await;
    }

    /// Looks whenever something `changed`, and every `poll_s` seconds, until `stop`.
    pub(crate) fn run(self: &Arc<Self>, changed: Arc<Notify>, poll_s: u32, tracker: &TaskTracker, stop: CancellationToken) {
        let watch = Arc::clone(self);
        tracker.spawn(async move {
            loop {
                watch.look().await;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = changed.notified() => {}
                    () = tokio::time::sleep(Duration::from_secs(u64::from(poll_s))) => {}
                }
            }
        });
    }
}
