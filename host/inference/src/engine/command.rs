//! How others reach the model thread: a bounded channel, and a doorbell that coalesces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use crate::scheduler::Sequence;

/// What the thread is told.
pub(super) enum Command {
    /// A request for the queue.
    Submit(Box<Sequence>),
    /// Something changed outside: a reader has gone or caught up.
    Wake,
    /// Finish by then, and end.
    Stop(Instant),
}

/// Wakes the model thread. Rung often, it is heard once.
#[derive(Clone)]
pub(crate) struct Doorbell(Arc<Inner>);

struct Inner {
    commands: SyncSender<Command>,
    rung: AtomicBool,
}

impl Doorbell {
    /// A bell and the channel it rings in. The channel has room for `queue` requests and the bell itself, so that ringing it
    /// never waits and never fails while the thread lives.
    pub(super) fn new(queue: usize) -> (Self, Receiver<Command>) {
        let (commands, received) = sync_channel(queue.saturating_add(2));
        (Doorbell(Arc::new(Inner { commands, rung: AtomicBool::new(false) })), received)
    }

    /// Wakes the thread if it sleeps.
    pub(super) fn ring(&self) {
        if !self.0.rung.swap(true, SeqCst) {
            // If the thread has ended there is nobody to wake.
            let _ = self.0.commands.try_send(Command::Wake);
        }
    }

    /// The thread is awake: the next ring is heard again.
    pub(super) fn heard(&self) {
        self.0.rung.store(false, SeqCst);
    }

    /// Whether it wakes the same thread.
    pub(super) fn is(&self, other: &Doorbell) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where commands go.
    pub(super) fn commands(&self) -> &SyncSender<Command> {
        &self.0.commands
    }

    /// A bell that nobody hears, for driving the scheduler by hand.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Doorbell::new(0).0
    }
}
