//! Whether to try again, and how long to wait before. A pure function but for its chance.

use std::time::Duration;

use crate::ProviderError;

/// Before the second try; before each one after it twice as long.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);
/// A provider's wish to wait is followed up to here; who wants more is not tried again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long to wait after `failed` tries of `tries`, the last of which ended with `error`; `None` where that was the last. `chance` is 0
/// to 1: half of the wait is chance, so that many gateways do not come back at one moment.
pub(crate) fn before_next(failed: u32, tries: u32, error: &ProviderError, chance: f64) -> Option<Duration> {
    if failed >= tries || !error.may_pass() {
        return None;
    }
    if let ProviderError::Status { retry_after_s: Some(seconds), .. } = error {
        let asked = Duration::from_secs(u64::from(*seconds));
        return (asked <= MAX_RETRY_AFTER).then(|| asked.max(FIRST));
    }
    let whole = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST);
    Some(whole.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0)))
}

/// A number from 0 to 1.
pub(crate) fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn busy(retry_after_s: Option<u32>) -> ProviderError {
        ProviderError::Status { status: 503, code: None, retry_after_s }
    }

    #[test]
    fn a_wish_is_followed_within_its_bound() {
        assert_eq!(before_next(1, 2, &busy(Some(3)), 0.0), Some(Duration::from_secs(3)));
        assert_eq!(before_next(1, 2, &busy(Some(0)), 0.0), Some(FIRST));
        assert_eq!(before_next(1, 2, &busy(Some(11)), 0.0), None);
        assert_eq!(before_next(1, 2, &ProviderError::NotJson, 0.0), None);
    }

    proptest! {
        #[test]
        fn waits_grow_and_have_a_bound(failed in 1..100_u32, tries in 0..100_u32, chance in 0.0..=1.0_f64) {
            match before_next(failed, tries, &busy(None), chance) {
                None => prop_assert!(failed >= tries),
                Some(wait) => {
                    prop_assert!(failed < tries && wait >= FIRST / 2 && wait <= LONGEST);
                    let next = before_next(failed + 1, tries + 1, &busy(None), chance);
                    prop_assert!(next.is_some_and(|next| next >= wait));
                }
            }
        }
    }
}
