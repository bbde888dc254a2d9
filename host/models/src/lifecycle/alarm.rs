//! A word to operators while there still is memory.

use crate::memory;

/// Parts of a hundred of the memory from which on operators are warned, and below which they will be warned anew.
const WARN_PERCENT: u64 = 90;
const CALM_PERCENT: u64 = 85;

/// Says once that memory runs short (C17).
#[derive(Debug, Default)]
pub(super) struct Alarm {
    is_raised: bool,
}

impl Alarm {
    /// Looks at the memory of this process.
    pub(super) fn look(&mut self) {
        let (Some(resident), limit) = (memory::resident(), memory::limit()) else { return };
        let percent = resident.saturating_mul(100) / limit.max(1);
        if percent >= WARN_PERCENT && !self.is_raised {
            tracing::warn!(
                resident_bytes = resident,
                limit_bytes = limit,
                percent,
                "memory runs short: lower [models] memory_mib"
            );
        }
        self.is_raised = percent >= if self.is_raised { CALM_PERCENT } else { WARN_PERCENT };
    }
}
