//! How often what has died is loaded again.

use std::time::{Duration, Instant};

/// The wait after the second time; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(20);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(1_280);

/// The waits between revivals. What has lived for twice the longest wait has a clean slate.
#[derive(Debug, Default)]
pub(crate) struct Revival {
    last: Option<Instant>,
    wait: Duration,
}

impl Revival {
    /// Whether to try at `now`, which then counts as done. Who asks need not wait.
    pub(crate) fn is_due(&mut self, now: Instant, is_asked: bool) -> bool {
        let since = self.last.map(|last| now.saturating_duration_since(last));
        if since.is_none_or(|since| since > LONGEST_WAIT * 2) {
            self.wait = Duration::ZERO;
        }
        if !is_asked && since.is_some_and(|since| since < self.wait) {
            return false;
        }
        self.last = Some(now);
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dies_again_and_again_waits_longer_each_time() {
        let (mut revival, began) = (Revival::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(revival.is_due(at(0), false));
        assert!(!revival.is_due(at(19), false));
        assert!(revival.is_due(at(20), false));
        assert!(!revival.is_due(at(59), false));
        assert!(revival.is_due(at(60), false));
        assert!(revival.is_due(at(61), true), "who asks need not wait");
        let tries = (62..62 + 24 * 3_600).filter(|second| revival.is_due(at(*second), false)).count();
        assert!((60..=75).contains(&tries), "{tries} in a day");
        assert!(revival.is_due(at(200_000), false));
        assert!(revival.is_due(at(200_020), false), "after a long life the waits are short again");
    }
}
