//! From the operating system's signals to the process's end.
//!
//! SIGTERM or SIGINT drains, a second SIGINT ends at once, SIGHUP calls back. What a callback does and
//! which code the process exits with is the binary's business.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::{Drain, Drained};

/// The signals of the process, caught from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// How [`Signals::supervise`] came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Asked to stop, and everything was drained or the grace period was over.
    Drained(Drained),
    /// A second SIGINT: the caller should leave at once, with code 130.
    Forced,
}

/// What a signal means, given those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Reload,
    Drain,
    Force,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Terminate,
    Interrupt,
    Hangup,
}

/// What has been seen so far; a pure machine, so that every order of signals can be tried.
#[derive(Debug, Default)]
struct Sequence {
    draining: bool,
    interrupted: bool,
}

impl Signals {
    /// Installs the handlers; from here on the signals no longer end the process by themselves. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// The operating system's, if a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Serves the signals until the process should end: calls `on_hangup` for SIGHUP (once for several that
    /// came together), `on_stop` when it is asked to stop (the place to turn readiness off), then drains.
    ///
    /// Signals during the drain do no harm: a SIGHUP or a repeated SIGTERM is ignored (P-U6).
    pub async fn supervise(
        mut self,
        drain: &Drain,
        grace: Duration,
        mut on_hangup: impl FnMut(),
        on_stop: impl FnOnce(),
    ) -> Ending {
        let mut sequence = Sequence::default();
        loop {
            match sequence.next(self.next().await) {
                Meaning::Reload => on_hangup(),
                Meaning::Drain => break,
                Meaning::Force => return Ending::Forced,
                Meaning::Nothing => {}
            }
        }
        tracing::info!(grace_s = grace.as_secs(), "stopping");
        on_stop();
        let drained = drain.wait(grace);
        tokio::pin!(drained);
        loop {
            tokio::select! {
                drained = &mut drained => return Ending::Drained(drained),
                kind = self.next() => {
                    if sequence.next(kind) == Meaning::Force {
                        return Ending::Forced;
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Kind {
        // `recv` gives none only when the runtime is going away: then there is nobody left to tell.
        tokio::select! {
            Some(()) = self.interrupt.recv() => Kind::Interrupt,
            Some(()) = self.terminate.recv() => Kind::Terminate,
            Some(()) = self.hangup.recv() => Kind::Hangup,
            else => std::future::pending().await,
        }
    }
}

impl Sequence {
    fn next(&mut self, kind: Kind) -> Meaning {
        let first_stop = !self.draining;
        match kind {
            Kind::Hangup if self.draining => Meaning::Nothing,
            Kind::Hangup => Meaning::Reload,
            Kind::Interrupt if self.interrupted => Meaning::Force,
            Kind::Interrupt | Kind::Terminate => {
                self.draining = true;
                self.interrupted |= kind == Kind::Interrupt;
                if first_stop { Meaning::Drain } else { Meaning::Nothing }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_interrupt_ends_at_once() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.next(Kind::Hangup), Meaning::Reload);
        assert_eq!(sequence.next(Kind::Terminate), Meaning::Drain);
        assert_eq!(sequence.next(Kind::Terminate), Meaning::Nothing);
        assert_eq!(sequence.next(Kind::Interrupt), Meaning::Nothing);
        assert_eq!(sequence.next(Kind::Interrupt), Meaning::Force);
    }

    proptest! {
        // P-U6: whatever the order, one drain at most, no reload after it, and force means two interrupts.
        #[test]
        fn any_order_of_signals_is_harmless(kinds in proptest::collection::vec(0_u8..3, 0..64)) {
            let mut sequence = Sequence::default();
            let (mut drains, mut interrupts) = (0, 0);
            for kind in kinds {
                let kind = match kind {
                    0 => Kind::Terminate,
                    1 => Kind::Interrupt,
                    _ => Kind::Hangup,
                };
                interrupts += u32::from(kind == Kind::Interrupt);
                match sequence.next(kind) {
                    Meaning::Drain => drains += 1,
                    Meaning::Reload => prop_assert_eq!(drains, 0),
                    Meaning::Force => prop_assert!(interrupts >= 2),
                    Meaning::Nothing => prop_assert!(drains == 1),
                }
            }
            prop_assert!(drains <= 1);
        }
    }
}
