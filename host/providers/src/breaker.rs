//! The circuit breaker: after failures in a row a provider is left alone for a while, then tried with one request.
//!
//! A pure state machine over time. Who asks gets a ticket and says what became of it; a ticket from before the last change of state
//! changes nothing any more.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const THRESHOLD: u32 = 5;
/// How long it stays open the first time; each time after that twice as long.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Who comes while the one trial is under way is told to come back after this.
const TRIAL: Duration = Duration::from_secs(1);

/// How a breaker is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// None do.
    Open,
    /// One may, or does, to see whether the provider is back.
    HalfOpen,
}

impl BreakerState {
    /// One word for tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "ready",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// Whether requests are let through.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// Counts changes of state, to know tickets of earlier ones by.
    epoch: u64,
    /// Times that it opened since it was last closed.
    rests: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Trial,
}

/// One request was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Breaker {
    pub(crate) fn new() -> Self {
        Breaker { state: State::Closed { failures: 0 }, epoch: 0, rests: 0 }
    }

    /// Lets a request through, or says how long to stay away.
    pub(crate) fn ask(&mut self, now: Instant) -> Result<Ticket, Duration> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if now < until => return Err(until.saturating_duration_since(now)),
            State::Open { .. } => self.change(State::Trial),
            State::Trial => return Err(TRIAL),
        }
        Ok(Ticket(self.epoch))
    }

    /// The provider answered. Returns whether that closed the breaker.
    pub(crate) fn succeeded(&mut self, ticket: Ticket) -> bool {
        if ticket.0 != self.epoch {
            return false;
        }
        let was_closed = matches!(self.state, State::Closed { .. });
        self.rests = 0;
        if was_closed {
            self.state = State::Closed { failures: 0 };
        } else {
            self.change(State::Closed { failures: 0 });
        }
        !was_closed
    }

    /// The provider failed. Returns for how long that opened the breaker, if it did.
    pub(crate) fn failed(&mut self, ticket: Ticket, now: Instant) -> Option<Duration> {
        if ticket.0 != self.epoch {
            return None;
        }
        if let State::Closed { failures } = &mut self.state {
            *failures += 1;
            if *failures < THRESHOLD {
                return None;
            }
        }
        let rest = FIRST_REST.saturating_mul(1 << self.rests.min(16)).min(LONGEST_REST);
        self.rests = self.rests.saturating_add(1);
        self.change(State::Open { until: now + rest });
        Some(rest)
    }

    /// The request ended before the provider had its say: where it was the trial, the next one is.
    pub(crate) fn abandoned(&mut self, ticket: Ticket, now: Instant) {
        if ticket.0 == self.epoch && self.state == State::Trial {
            self.change(State::Open { until: now });
        }
    }

    /// How it is.
    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::Trial => BreakerState::HalfOpen,
        }
    }

    fn change(&mut self, state: State) {
        self.epoch = self.epoch.wrapping_add(1);
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_opens_rests_and_closes() {
        let (mut breaker, began) = (Breaker::new(), Instant::now());
        for failure in 1..=THRESHOLD {
            let ticket = breaker.ask(began).unwrap();
            assert_eq!(breaker.failed(ticket, began).is_some(), failure == THRESHOLD);
        }
        assert_eq!((breaker.state(began), breaker.ask(began)), (BreakerState::Open, Err(FIRST_REST)));
        // The trial fails: twice as long.
        let later = began + FIRST_REST;
        let trial = breaker.ask(later).unwrap();
        assert_eq!((breaker.state(later), breaker.ask(later)), (BreakerState::HalfOpen, Err(TRIAL)));
        assert_eq!(breaker.failed(trial, later), Some(FIRST_REST * 2));
        // The next one succeeds, and the count begins anew.
        let later = later + FIRST_REST * 2;
        let trial = breaker.ask(later).unwrap();
        assert!(breaker.succeeded(trial));
        assert_eq!(breaker.state(later), BreakerState::Closed);
        let ticket = breaker.ask(later).unwrap();
        assert_eq!(breaker.failed(ticket, later), None);
    }

    #[test]
    fn a_trial_that_nobody_waits_for_makes_room_for_the_next() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        let old = breaker.ask(now).unwrap();
        while breaker.ask(now).map(|ticket| breaker.failed(ticket, now)).is_ok() {}
        let later = now + LONGEST_REST;
        let trial = breaker.ask(later).unwrap();
        assert!(!breaker.succeeded(old), "what began before it opened says nothing");
        breaker.abandoned(trial, later);
        assert!(breaker.ask(later).is_ok());
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Ask,
        Succeed(usize),
        Fail(usize),
        Abandon(usize),
        Wait(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => Just(Act::Ask),
            1 => (0..8_usize).prop_map(Act::Succeed),
            4 => (0..8_usize).prop_map(Act::Fail),
            1 => (0..8_usize).prop_map(Act::Abandon),
            1 => (0..70_000_u64).prop_map(Act::Wait),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order: nothing passes while it is open, one trial at most is out, and it never sticks.
        #[test]
        fn it_lets_through_what_it_may_and_never_sticks(acts in prop::collection::vec(act(), 0..200)) {
            let (mut breaker, mut now) = (Breaker::new(), Instant::now());
            let mut out: Vec<Ticket> = Vec::new();
            for act in acts {
                let before = breaker.state(now);
                match act {
                    Act::Ask => {
                        let is_trial_out = breaker.state == State::Trial;
                        match breaker.ask(now) {
                            Ok(ticket) => {
                                prop_assert!(before != BreakerState::Open && !is_trial_out);
                                out.push(ticket);
                            }
                            Err(wait) => prop_assert!(before != BreakerState::Closed && wait <= LONGEST_REST && !wait.is_zero()),
                        }
                    }
                    Act::Succeed(at) if at < out.len() => {
                        let closed = breaker.succeeded(out.swap_remove(at));
                        prop_assert!(!closed || breaker.state(now) == BreakerState::Closed);
                    }
                    Act::Fail(at) if at < out.len() => {
                        let rest = breaker.failed(out.swap_remove(at), now);
                        prop_assert!(rest.is_none_or(|rest| rest >= FIRST_REST && rest <= LONGEST_REST));
                        prop_assert!(rest.is_none() || breaker.state(now) == BreakerState::Open);
                    }
                    Act::Abandon(at) if at < out.len() => breaker.abandoned(out.swap_remove(at), now),
                    Act::Wait(ms) => now += Duration::from_millis(ms),
                    Act::Succeed(_) | Act::Fail(_) | Act::Abandon(_) => {}
                }
            }
            for ticket in out {
                breaker.abandoned(ticket, now);
            }
            prop_assert!(breaker.ask(now + LONGEST_REST).is_ok());
        }
    }
}
