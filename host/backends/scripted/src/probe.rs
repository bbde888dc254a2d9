//! What a test sees of a backend that it has given away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tollgate_backend::{AdapterId, Row};

/// Steps that are remembered; older ones are dropped.
const REMEMBERED: usize = 65_536;

/// One step that was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRecord {
    /// All rows.
    pub rows: usize,
    /// Rows that a token is sampled from.
    pub sampled: usize,
    /// Different sequences.
    pub sequences: usize,
    /// Where the first row stands in its sequence, from 0.
    pub position: u32,
    /// Cells in use afterwards.
    pub cells: usize,
    /// The adapter of all its rows.
    pub adapter: Option<AdapterId>,
}

/// A window on a [`Scripted`](crate::Scripted) backend, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Probe(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    steps: VecDeque<StepRecord>,
    cells: usize,
    adapters: usize,
    elapsed: Duration,
}

impl Probe {
    /// The last 65,536 steps, oldest first.
    #[must_use]
    pub fn steps(&self) -> Vec<StepRecord> {
        self.lock().steps.iter().copied().collect()
    }

    /// Cells in use now, idle prefixes included.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.lock().cells
    }

    /// Adapters that are loaded now.
    #[must_use]
    pub fn adapters(&self) -> usize {
        self.lock().adapters
    }

    /// What all steps would have taken, in virtual time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    pub(crate) fn pass(&self, time: Duration) {
        let mut seen = self.lock();
        seen.elapsed = seen.elapsed.saturating_add(time);
    }

    pub(crate) fn record(&self, rows: &[Row], sampled: usize, cells: usize, adapter: Option<AdapterId>) {
        let mut sequences: Vec<u16> = rows.iter().map(|row| row.sequence.0).collect();
        sequences.sort_unstable();
        sequences.dedup();
        let mut seen = self.lock();
        if seen.steps.len() == REMEMBERED {
            seen.steps.pop_front();
        }
        let position = rows.first().map_or(0, |row| row.position);
        seen.steps.push_back(StepRecord { rows: rows.len(), sampled, sequences: sequences.len(), position, cells, adapter });
        seen.cells = cells;
    }

    pub(crate) fn record_adapters(&self, adapters: usize) {
        self.lock().adapters = adapters;
    }

    pub(crate) fn record_cells(&self, cells: usize) {
        self.lock().cells = cells;
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
