//! What else happens to a connection while its own work goes on: deadlines, and the server's end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::drain::Signal;
use crate::limits::Limits;
use crate::progress::{Check, Expiry, Progress};

/// What came first.
#[derive(Debug)]
pub(crate) enum Turn<T> {
    /// The work is done.
    Done(T),
    /// The connection has had its answer and says nothing.
    Rests,
    /// A deadline has passed.
    Expired(Expiry),
    /// The server takes no new work; told once.
    Drains,
    /// The server stops now.
    Aborted,
}

/// Watches one connection.
pub(crate) struct Watch<'a> {
    progress: &'a Progress,
    limits: &'a Limits,
    signal: &'a Signal,
    alarm: Pin<Box<Sleep>>,
    is_draining: bool,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(progress: &'a Progress, limits: &'a Limits, signal: &'a Signal) -> Self {
        Watch { progress, limits, signal, alarm: Box::pin(sleep_until(Instant::now())), is_draining: false }
    }

    /// Whether the server takes no new work.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Polls `work` until it is done or something else happens.
    pub(crate) async fn over<F: Future>(&mut self, mut work: Pin<&mut F>) -> Turn<F::Output> {
        let Watch { progress, limits, signal, alarm, is_draining } = self;
        let step = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Turn::Done(done)),
            Poll::Pending => poll_check(cx, progress, limits, alarm.as_mut()),
        });
        tokio::select! {
            // The work first: what has arrived is taken in before the connection hears that the server drains.
            biased;
            turn = step => turn,
            () = signal.draining(), if !*is_draining => {
                *is_draining = true;
                Turn::Drains
            }
            () = signal.aborted() => Turn::Aborted,
        }
    }
}

/// Ready when the connection may rest or a deadline of it has passed. What `progress` reports as the next deadline may lie too
/// early, never too late, so an alarm that is set is only ever moved forward once it rang.
fn poll_check<T>(cx: &mut Context<'_>, progress: &Progress, limits: &Limits, mut alarm: Pin<&mut Sleep>) -> Poll<Turn<T>> {
    loop {
        match progress.check(limits, Instant::now()) {
            Check::Expired(expiry) => return Poll::Ready(Turn::Expired(expiry)),
            Check::Rest => return Poll::Ready(Turn::Rests),
            Check::Wait(until) => {
                if until < alarm.deadline() || alarm.is_elapsed() || alarm.deadline() <= Instant::now() {
                    alarm.as_mut().reset(until);
                }
                ready!(alarm.as_mut().poll(cx));
            }
        }
    }
}
