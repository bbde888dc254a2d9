//! When a reply waited, had its prompt decoded, and grew.

use std::time::{Duration, Instant};

/// When a reply reached its stages. A stage that it has not reached is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// It was put into the queue.
    pub submitted: Instant,
    /// It got a place in the model for the first time; one that it lost and got again changes nothing.
    pub placed: Option<Instant>,
    /// Its first token was there.
    pub first_token: Option<Instant>,
    /// Its last token so far was there.
    pub last_token: Option<Instant>,
}

impl Default for Timing {
    /// It waits.
    fn default() -> Self {
        Timing { submitted: Instant::now(), placed: None, first_token: None, last_token: None }
    }
}

impl Timing {
    /// How long it waited for a place.
    #[must_use]
    pub fn queued(&self) -> Option<Duration> {
        self.placed.map(|placed| placed.saturating_duration_since(self.submitted))
    }

    /// From its first token to its last so far.
    #[must_use]
    pub fn decoding(&self) -> Option<Duration> {
        self.first_token.zip(self.last_token).map(|(first, last)| last.saturating_duration_since(first))
    }

    pub(super) fn placed(&mut self) {
        self.placed.get_or_insert_with(Instant::now);
    }

    pub(super) fn token(&mut self) {
        let now = Instant::now();
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_goes_through_its_stages_once() {
        let mut timing = Timing::default();
        assert_eq!((timing.queued(), timing.first_token, timing.decoding()), (None, None, None));
        timing.placed();
        let queued = timing.queued();
        assert!(queued.is_some());
        timing.token();
        let first = timing.first_token;
        assert!(first.is_some());
        // It lost its place and got another: it waited once, and its first token stays the first.
        timing.placed();
        timing.token();
        assert_eq!((timing.queued(), timing.first_token), (queued, first));
        assert!(timing.decoding().is_some());
    }
}
