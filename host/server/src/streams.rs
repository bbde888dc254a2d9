//! The tasks of HTTP/2 streams: tracked, ended with everything else, and closed when held up (P-L4).
//!
//! On HTTP/1 a client that reads nothing blocks the socket, and `socket` sees it. On HTTP/2 it can keep the
//! socket moving and give one stream no window. hyper then simply stops asking the response body for more.
//! So a body that handed over a piece and is not asked again is held up, and its stream's task notices.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::drain::Signal;

tokio::task_local! {
    /// The stream whose task is being polled; a response body is polled inside its stream's task.
    static STREAM: HeldUp;
}

/// Spawns the streams of HTTP/2 connections for hyper.
#[derive(Debug, Clone)]
pub(crate) struct StreamExecutor {
    pub(crate) tracker: TaskTracker,
    pub(crate) signal: Signal,
    pub(crate) stalled_reader: Duration,
}

/// Since when a stream's body has waited to be asked for more; none while it does not wait.
#[derive(Debug, Clone, Default)]
struct HeldUp(Arc<Mutex<Option<Instant>>>);

/// The body of the current stream was asked for more.
pub(crate) fn moving() {
    // Outside of an HTTP/2 stream there is nobody to tell.
    let _ = STREAM.try_with(|stream| stream.set(None));
}

/// The body of the current stream handed over a piece.
pub(crate) fn handed_over() {
    let _ = STREAM.try_with(|stream| stream.set(Some(Instant::now())));
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let held_up = HeldUp::default();
        let signal = self.signal.clone();
        let watched = watch(stream, held_up.clone(), self.stalled_reader);
        let task = STREAM.scope(held_up, async move {
            tokio::select! {
                () = watched => {}
                // Dropping the stream resets it.
                () = signal.aborted() => {}
            }
        });
        self.tracker.spawn(task);
    }
}

impl HeldUp {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a stream to its end, or until its body has been held up for too long.
async fn watch(stream: impl Future, held_up: HeldUp, limit: Duration) {
    let mut stream = pin!(stream);
    let mut alarm = pin!(sleep(limit));
    std::future::poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Only polling the stream changes this, so it need not be looked at again before that.
        let Some(since) = held_up.since() else { return Poll::Pending };
        if alarm.deadline() != since + limit {
            alarm.as_mut().reset(since + limit);
        }
        alarm.as_mut().poll(cx).map(|()| tracing::debug!("a stream was closed: its client takes nothing"))
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{Drain, Drained};

    fn executor(drain: &Drain) -> StreamExecutor {
        StreamExecutor { tracker: drain.tracker().clone(), signal: drain.signal(), stalled_reader: Duration::from_secs(30) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_held_up_ends() {
        // P-L4: closed after 30 s.
        let drain = Drain::new();
        executor(&drain).execute(async {
            handed_over();
            std::future::pending::<()>().await;
        });
        assert_eq!(drain.wait(Duration::from_secs(31)).await, Drained::Finished);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_its_service_does_not() {
        let drain = Drain::new();
        executor(&drain).execute(async {
            handed_over();
            moving();
            std::future::pending::<()>().await;
        });
        assert_eq!(drain.wait(Duration::from_secs(3600)).await, Drained::Aborted { tasks: 1 });
    }
}
