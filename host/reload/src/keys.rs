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
    /// What they were when they were last taken in. Nothing seen yet: they may have changed while the gateway started.
    last: Mutex<(Option<[u8; 32]>, Keys)>,
}

impl KeyWatch {
    pub(crate) fn new(dir: PathBuf, keys: Keys, on_keys: OnKeys) -> Self {
        KeyWatch { dir, on_keys, last: Mutex::new((None, keys)) }
    }

    /// Takes in the keys if they changed. Key files are few and small.
    fn take(&self) {
        // Held while they are read, so that an older set is never taken in after a newer one.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, keys) = &mut *last;
        let now = tollgate_config::keys_hash(&self.dir);
        if *seen != Some(now) {
            *seen = Some(now);
            *keys = tollgate_config::load_keys(&self.dir, keys);
            (self.on_keys)(keys);
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
