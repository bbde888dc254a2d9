//! Threads for whoever attacks: at low priority, since an attacker's own work would be done on machines of theirs.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Added to the threads' niceness.
const NICE: i32 = 10;

/// A runtime of its own; dropping it ends what runs there.
pub(crate) struct Attack(Option<Runtime>);

impl Attack {
    /// With two threads.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().thread_name("attack").on_thread_start(|| {
            // Without it the attack only costs more.
            let _ = rustix::process::nice(NICE);
        });
        Ok(Attack(Some(builder.build()?)))
    }

    /// Runs there.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.as_ref().expect("it is taken when it is dropped").spawn(future)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
