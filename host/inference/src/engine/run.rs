//! The model thread: commands, steps, and sleep in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Instant;

use super::adapter::Changes;
use super::command::{Command, Doorbell};
use crate::scheduler::{Progress, Scheduler};

/// Lives on the model thread: when that ends, however it does, the engine takes no more jobs.
pub(crate) struct Death {
    pub(crate) name: String,
    pub(crate) is_closed: Arc<AtomicBool>,
}

impl Drop for Death {
    fn drop(&mut self) {
        self.is_closed.store(true, SeqCst);
        if std::thread::panicking() {
            tracing::error!(model = %self.name, "the model's thread has panicked; its requests have ended");
        }
    }
}

/// The thread's life, until it is told to stop.
pub(super) fn run(mut scheduler: Scheduler, commands: &Receiver<Command>, bell: &Doorbell, changes: &Changes) {
    let mut stop_at: Option<Instant> = None;
    loop {
        loop {
            match commands.try_recv() {
                Ok(command) => obey(&mut scheduler, &mut stop_at, (bell, changes), command),
                Err(TryRecvError::Empty) => break,
                // The handles say so before they go; without one nobody is left to answer.
                Err(TryRecvError::Disconnected) => return,
            }
        }
        let now = Instant::now();
        if stop_at.is_some_and(|at| at <= now || scheduler.is_empty()) {
            return;
        }
        let Progress::Idle { until } = scheduler.step(now) else { continue };
        let until = until.into_iter().chain(stop_at).min();
        let command = match until {
            Some(until) => commands.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match command {
            Ok(command) => obey(&mut scheduler, &mut stop_at, (bell, changes), command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn obey(scheduler: &mut Scheduler, stop_at: &mut Option<Instant>, (bell, changes): (&Doorbell, &Changes), command: Command) {
    match command {
        Command::Submit(sequence) => scheduler.submit(*sequence),
        Command::Wake => {
            // Before anything is looked at, so that what comes meanwhile rings again.
            bell.heard();
            changes.carry_out(scheduler);
        }
        Command::Stop(at) => *stop_at = Some(at),
    }
}
