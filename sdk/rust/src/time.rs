//! The time of the request. A component has no clock of its own in this target.

use std::cell::Cell;

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
}

/// When the host made this instance, in milliseconds since 1970-01-01T00:00:00Z; 0 during [`Plugin::new`](crate::Plugin::new).
#[must_use]
pub fn now_ms() -> u64 {
    NOW_MS.get()
}

/// Sets the clock. The host does so on every fresh instance; tests may.
pub fn set(now_ms: u64) {
    NOW_MS.set(now_ms);
}
