//! The one handle by which everything ends.
//!
//! Every task is spawned on the handle's tracker and watches its signal: first `draining` (take nothing
//! new, finish what is there), then `aborted` (stop now). Readiness is not kept here: whoever answers
//! `/ready` turns it off before calling [`Drain::start`].

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks that were told to stop now may take to do so.
const ABORT_GRACE: Duration = Duration::from_secs(4);

/// Starts the end and waits for it; clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    tracker: TaskTracker,
    signal: Signal,
}

/// What a task watches to know that it should end.
#[derive(Debug, Clone, Default)]
pub struct Signal {
    draining: CancellationToken,
    aborted: CancellationToken,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every task finished its work.
    Finished,
    /// The grace period was over before that.
    Aborted {
        /// Tasks that were still at work then.
        tasks: usize,
    },
}

impl Drain {
    /// A handle with no task and no end in sight.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where tasks are spawned; a task that is not spawned here is not waited for.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// What tasks watch.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.signal.clone()
    }

    /// Begins to drain: listening sockets close, connections finish the requests they have. Calling it
    /// again changes nothing.
    pub fn start(&self) {
        self.signal.draining.cancel();
        self.tracker.close();
    }

    /// Stops what is left at once.
    pub fn abort(&self) {
        self.start();
        self.signal.aborted.cancel();
    }

    /// Drains, waits at most `grace` for all tasks, then stops what is left. It returns within `grace` and
    /// four seconds (P-U6).
    pub async fn wait(&self, grace: Duration) -> Drained {
        self.start();
        let tasks = tokio::select! {
            finished = timeout(grace, self.tracker.wait()) => match finished {
                Ok(()) => return Drained::Finished,
                Err(_) => self.tracker.len(),
            },
            () = self.signal.aborted() => self.tracker.len(),
        };
        self.abort();
        if timeout(ABORT_GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not stop when told to");
        }
        Drained::Aborted { tasks }
    }
}

impl Signal {
    /// Resolves once the drain has begun.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves once everything has to stop at once.
    pub async fn aborted(&self) {
        self.aborted.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_work_that_ends() {
        let drain = Drain::new();
        let signal = drain.signal();
        let _task = drain.tracker().spawn(async move { signal.draining().await });
        assert_eq!(drain.wait(Duration::from_secs(60)).await, Drained::Finished);
        assert!(drain.signal().is_draining());
    }

    #[tokio::test]
    async fn what_outlives_the_grace_period_is_told_to_stop() {
        let drain = Drain::new();
        let signal = drain.signal();
        let _task = drain.tracker().spawn(async move { signal.aborted().await });
        assert_eq!(drain.wait(Duration::ZERO).await, Drained::Aborted { tasks: 1 });
        assert!(drain.tracker().is_empty());
    }

    #[tokio::test]
    async fn many_starts_and_aborts_are_one() {
        // P-U6: storms.
        let drain = Drain::new();
        for _ in 0..100 {
            drain.start();
            drain.abort();
        }
        assert!(matches!(drain.wait(Duration::from_secs(60)).await, Drained::Finished | Drained::Aborted { tasks: 0 }));
    }
}
