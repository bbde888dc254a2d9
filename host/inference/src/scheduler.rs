//! The scheduler: queue and in-flight in one place, driven one step at a time.
//!
//! Only the model thread (or a test) calls it, with the time as an argument; it never waits, and it has no lock but the streams' and
//! the tickets'. The decisions are apart and pure: whose turn it is ([`fair`]), who gets how many rows ([`plan`]), how many a step
//! may have ([`pace`]), which prefix fits ([`prefix`]); here is the order in which they take effect, and [`step`] decodes.

mod admit;
mod aside;
mod fair;
mod pace;
mod plan;
mod prefix;
mod sequence;
mod step;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_backend::{AdapterId, Backend, BackendError, Row, Tokenizer};
use tollgate_domain::FinishReason;

use crate::engine::GenerateError;
use crate::gauges::Gauges;
use crate::sampler::Sampler;
use crate::tickets::Tickets;
pub(crate) use aside::most_bytes;
use fair::FairQueue;
use pace::Pace;
use plan::Chunk;
use prefix::Slots;
use sequence::End;
pub(crate) use sequence::{Request, Salt, Sequence};
use step::Outcome;

/// What the scheduler keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of one step, if the backend does not take fewer.
    pub(crate) step_rows: u32,
    /// Whether what a request computed is kept for its tenant's next.
    pub(crate) prefix_cache: bool,
    /// How long a reader may lag before its stream is closed.
    pub(crate) stalled_reader: Duration,
    /// Whether every sequence is decoded in batches of its own, cut the same way however busy it is, so that a reply is the same to
    /// the last bit.
    pub(crate) deterministic: bool,
    /// Bytes that may be kept of what sequences had computed when they lost their places, of all of them together.
    pub(crate) aside_bytes: usize,
}

/// Tells how long a step took.
pub(crate) type Clock = Box<dyn Fn() -> Instant + Send>;

/// Rows of a prompt's batches in a deterministic model: enough for most of the speed of longer ones.
const FIXED_CHUNK: u32 = 64;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to do.
    Worked,
    /// Nothing until then, or until something comes.
    Idle {
        /// When a parked or waiting request has to be looked at again.
        until: Option<Instant>,
    },
}

/// Everything that one backend has to do.
pub(crate) struct Scheduler {
    name: String,
    backend: Box<dyn Backend>,
    tokenizer: Arc<dyn Tokenizer>,
    limits: Limits,
    gauges: Arc<Gauges>,
    tickets: Arc<Tickets>,
    queue: FairQueue<Sequence>,
    running: Vec<Sequence>,
    parked: Vec<Sequence>,
    slots: Slots,
    sampler: Sampler,
    pace: Pace,
    clock: Clock,
    /// The rows of a batch.
    rows: Vec<Row>,
    /// Who has how many rows in the step.
    chunks: Vec<Chunk>,
    /// How many of them are streams that go on.
    streams: usize,
    /// How many streams of another adapter wait for the step, where it has none.
    waiting: usize,
    /// Whose rows are in the step: those of one adapter, or of none.
    turn: Option<AdapterId>,
    /// Who stops in it, by its place among the running ones.
    outcomes: Vec<(usize, Outcome)>,
    /// Who has ended in this step; told when the books are done, so that nobody hears of an end before its place is free.
    ended: Vec<(Sequence, End)>,
}

impl Scheduler {
    pub(crate) fn new(
        name: &str,
        backend: Box<dyn Backend>,
        limits: Limits,
        gauges: Arc<Gauges>,
        tickets: Arc<Tickets>,
        clock: Clock,
    ) -> Self {
        Scheduler {
            name: name.to_owned(),
            tokenizer: backend.tokenizer(),
            slots: Slots::new(backend.capabilities().max_sequences),
            backend,
            limits,
            gauges,
            tickets,
            queue: FairQueue::new(),
            running: Vec::new(),
            parked: Vec::new(),
            sampler: Sampler::default(),
            pace: Pace::new(),
            clock,
            rows: Vec::new(),
            chunks: Vec::new(),
            streams: 0,
            waiting: 0,
            turn: None,
            outcomes: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Takes a request into the queue, where its ticket already counts.
    pub(crate) fn submit(&mut self, sequence: Sequence) {
        let (tenant, weight) = (Arc::clone(&sequence.tenant), sequence.weight);
        self.queue.push(&tenant, weight, sequence);
    }

    /// Loads an adapter for sequences to come.
    pub(crate) fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        self.backend.load_adapter(path, scale)
    }

    /// Nobody decodes with this adapter any more: it goes, and what it computed goes with it.
    pub(crate) fn drop_adapter(&mut self, adapter: AdapterId) {
        while let Some(id) = self.slots.take_of(adapter) {
            self.empty(id);
        }
        self.backend.drop_adapter(adapter);
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.parked.is_empty()
    }

    /// One step at the time `now`.
    pub(crate) fn step(&mut self, now: Instant) -> Progress {
        self.sweep(now);
        self.resume();
        self.admit();
        let worked = self.decode(now);
        self.report();
        for (mut sequence, end) in self.ended.drain(..) {
            sequence.end(end);
        }
        if worked { Progress::Worked } else { Progress::Idle { until: self.next_look() } }
    }

    /// Whoever has gone or is out of time leaves, wherever it is.
    fn sweep(&mut self, now: Instant) {
        for mut sequence in self.queue.extract(|sequence| sequence.writer.is_gone() || sequence.deadline <= now) {
            // It holds no sequence id, and the queue has let go of it already.
            sequence.ticket = None;
            if !sequence.writer.is_gone() {
                self.ended.push((sequence, End::Failed(GenerateError::Deadline)));
            }
        }
        for index in (0..self.running.len()).rev() {
            if self.running.get(index).is_some_and(|sequence| sequence.writer.is_gone() || sequence.deadline <= now) {
                let sequence = self.running.swap_remove(index);
                self.depart(sequence, End::Failed(GenerateError::Deadline), now);
            }
        }
        for index in (0..self.parked.len()).rev() {
            let Some(sequence) = self.parked.get(index) else { continue };
            let error = if sequence.deadline <= now {
                GenerateError::Deadline
            } else if sequence.writer.is_gone() || self.stalls_at(sequence).is_some_and(|at| at <= now) {
                GenerateError::Stalled
            } else {
                continue;
            };
            let sequence = self.parked.swap_remove(index);
            self.depart(sequence, End::Failed(error), now);
        }
    }

    /// Parked ones whose reader has caught up go on: at once if they still have their place, else from the queue.
    fn resume(&mut self) {
        for index in (0..self.parked.len()).rev() {
            if self.parked.get(index).is_some_and(|sequence| !sequence.writer.is_parked()) {
                let mut sequence = self.parked.swap_remove(index);
                sequence.parked_at = None;
                if sequence.slot.is_some() {
                    self.running.push(sequence);
                } else {
                    self.requeue(sequence);
                }
            }
        }
    }

    /// The cache is full: idle prefixes go, then parked ones, then the youngest running one but the last.
    fn make_room(&mut self) -> bool {
        if self.evict(None) {
            return true;
        }
        let youngest = self.running.iter().enumerate().max_by_key(|(_, sequence)| sequence.arrived);
        match youngest.map(|(index, _)| index) {
            Some(index) if self.running.len() > 1 => {
                self.preempt(index);
                true
            }
            _ => false,
        }
    }

    /// Alone, and still too much: the reply ends where the cache does.
    fn starve(&mut self, now: Instant) {
        while let Some(sequence) = self.running.pop() {
            let end = if sequence.has_replied() {
                End::Whole(FinishReason::Length, None)
            } else {
                End::Failed(GenerateError::Backend("the prompt does not fit into the key-value cache".to_owned()))
            };
            self.depart(sequence, end, now);
        }
    }

    /// An admitted sequence leaves for good. What a whole reply computed stays as a prefix; anything else is freed at once.
    fn depart(&mut self, mut sequence: Sequence, end: End, now: Instant) {
        self.queue.end(&sequence.tenant);
        let is_whole = matches!(end, End::Whole(..));
        if is_whole {
            self.gauges.count_served(now.saturating_duration_since(sequence.submitted));
        }
        let (decoded, shared) = (sequence.decoded, sequence.shared);
        let kept = if self.limits.deterministic { sequence.fixed_prefix(self.fixed_chunk()) } else { decoded };
        if let Some(id) = sequence.displace() {
            if is_whole && self.limits.prefix_cache && self.cut(id, kept, decoded) {
                let tokens = sequence.tokens.get(..kept).unwrap_or_default().to_vec();
                self.slots.keep(id, sequence.scope, tokens, shared.min(kept));
            } else {
                self.empty(id);
            }
        }
        self.ended.push((sequence, end));
    }

    /// Rows of a prompt's batches in a deterministic model, whatever the load.
    fn fixed_chunk(&self) -> usize {
        to_usize(FIXED_CHUNK.min(self.step_rows()))
    }

    fn step_rows(&self) -> u32 {
        self.limits.step_rows.min(self.backend.capabilities().step_rows)
    }

    fn report(&self) {
        let held = self.parked.iter().filter(|sequence| sequence.slot.is_some());
        let cells: usize = self.running.iter().chain(held).map(Sequence::cells).sum();
        self.gauges.set_sequences(self.running.len(), self.parked.len(), u64::try_from(cells).unwrap_or(u64::MAX));
    }

    fn stalls_at(&self, sequence: &Sequence) -> Option<Instant> {
        sequence.parked_at.and_then(|at| at.checked_add(self.limits.stalled_reader))
    }

    /// When somebody runs out of time, if nothing happens before.
    fn next_look(&self) -> Option<Instant> {
        let parked = self.parked.iter().flat_map(|sequence| [Some(sequence.deadline), self.stalls_at(sequence)]);
        let waiting = self.queue.items().map(|sequence| Some(sequence.deadline));
        parked.chain(waiting).flatten().min()
    }
}

impl Drop for Scheduler {
    /// The streams answer for themselves when they are dropped; the gauges do not.
    fn drop(&mut self) {
        self.gauges.set_sequences(0, 0, 0);
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
