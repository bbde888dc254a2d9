//! The scheduler: queue and in-flight in one place, driven one step at a time.
//!
//! Only the model thread (or a test) calls it, with the time as an argument; it never waits, and it has no lock but the streams' and the tickets'.
//! The decisions are apart and pure: whose turn it is ([`fair`]), who gets how many rows ([`plan`]), which prefix fits
//! ([`prefix`]); here is the order in which they take effect.

mod admit;
mod fair;
mod plan;
mod prefix;
mod sequence;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_backend::{Backend, DecodeError, Row, Tokenizer};
use tollgate_domain::FinishReason;

use crate::engine::GenerateError;
use crate::gauges::Gauges;
use crate::sampler::Sampler;
use crate::tickets::Tickets;
use fair::FairQueue;
use plan::{Chunk, Need};
use prefix::Slots;
use sequence::End;
pub(crate) use sequence::{Request, Salt, Sequence};

/// What the scheduler keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rows of one step, if the backend does not take fewer.
    pub(crate) step_rows: u32,
    /// Whether what a request computed is kept for its tenant's next.
    pub(crate) prefix_cache: bool,
    /// How long a reader may lag before its stream is closed.
    pub(crate) stalled_reader: Duration,
}

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
    /// The rows of the step, and whose they are.
    rows: Vec<Row>,
    chunks: Vec<Chunk>,
    /// Who has ended in this step; told when the books are done, so that nobody hears of an end before its place is free.
    ended: Vec<(Sequence, End)>,
}

/// What becomes of a sequence after a token.
enum Outcome {
    Ends(End),
    Parks,
}

impl Scheduler {
    pub(crate) fn new(name: &str, backend: Box<dyn Backend>, limits: Limits, gauges: Arc<Gauges>, tickets: Arc<Tickets>) -> Self {
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
            rows: Vec::new(),
            chunks: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Takes a request into the queue, where its ticket already counts.
    pub(crate) fn submit(&mut self, sequence: Sequence) {
        let (tenant, weight) = (Arc::clone(&sequence.tenant), sequence.weight);
        self.queue.push(&tenant, weight, sequence);
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
        for (mut sequence, end) in std::mem::take(&mut self.ended) {
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

    /// Plans and decodes a step, making room as long as the backend asks for it. Returns whether anything was done.
    fn decode(&mut self, now: Instant) -> bool {
        loop {
            self.plan();
            if self.rows.is_empty() {
                return false;
            }
            match self.backend.decode(&self.rows) {
                Ok(()) => {
                    self.hear(now);
                    return true;
                }
                Err(DecodeError::Full { .. }) => {
                    if !self.make_room() {
                        self.starve(now);
                        return true;
                    }
                }
                Err(DecodeError::Failed(reason)) => {
                    self.fail_step(&reason, now);
                    return true;
                }
            }
        }
    }

    fn plan(&mut self) {
        let needs = self.running.iter().enumerate().map(|(index, sequence)| Need {
            index,
            remaining: sequence.remaining(),
            tenant: &sequence.tenant,
            weight: sequence.weight,
            pass: self.queue.pass(&sequence.tenant),
            arrived: sequence.arrived,
        });
        let budget = self.limits.step_rows.min(self.backend.capabilities().step_rows);
        self.chunks = plan::share(needs.collect(), usize::try_from(budget).unwrap_or(usize::MAX));
        self.rows.clear();
        for chunk in &self.chunks {
            let Some(sequence) = self.running.get(chunk.index) else { continue };
            let Some(id) = sequence.slot else { continue };
            let last = sequence.tokens.len().saturating_sub(1);
            let new = sequence.tokens.iter().enumerate().skip(sequence.decoded).take(chunk.rows);
            self.rows.extend(new.map(|(at, &token)| Row {
                token,
                position: u32::try_from(at).unwrap_or(u32::MAX),
                sequence: id,
                wants_logits: at == last,
            }));
        }
    }

    /// The step is decoded: whoever has all its tokens in gets the next.
    fn hear(&mut self, now: Instant) {
        let limit = usize::try_from(self.backend.capabilities().sequence_tokens).unwrap_or(usize::MAX);
        let mut outcomes: Vec<(usize, Outcome)> = Vec::new();
        let (mut row, mut sampled, mut decoded) = (0, 0, 0);
        for chunk in &self.chunks {
            row += chunk.rows;
            let Some(sequence) = self.running.get_mut(chunk.index) else { continue };
            let due = sequence.advance(chunk.rows);
            self.queue.charge(&sequence.tenant, due);
            if sequence.remaining() > 0 {
                continue;
            }
            sampled += 1;
            let end = match self.backend.logits(row - 1) {
                Some(logits) => sequence.speak(logits, &mut self.sampler, self.tokenizer.vocabulary(), limit),
                None => Some(End::Failed(GenerateError::Backend("it has no logits for a row".to_owned()))),
            };
            decoded += u64::from(sequence.remaining() > 0);
            match end {
                Some(end) => outcomes.push((chunk.index, Outcome::Ends(end))),
                None if sequence.writer.park() => outcomes.push((chunk.index, Outcome::Parks)),
                None => {}
            }
        }
        self.gauges.count_step(sampled, u64::try_from(self.rows.len() - sampled).unwrap_or(u64::MAX));
        self.gauges.count_decoded(decoded);
        // From the back, so that taking one out does not move those that are still to be.
        outcomes.sort_unstable_by_key(|(index, _)| Reverse(*index));
        for (index, outcome) in outcomes {
            let mut sequence = self.running.swap_remove(index);
            match outcome {
                Outcome::Ends(end) => self.depart(sequence, end, now),
                Outcome::Parks => {
                    sequence.parked_at = Some(now);
                    self.parked.push(sequence);
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

    /// Nothing is known of the sequences that were in the step: they end. All others go on.
    fn fail_step(&mut self, reason: &str, now: Instant) {
        tracing::error!(model = %self.name, rows = self.rows.len(), reason, "a step has failed");
        let mut indexes: Vec<usize> = self.chunks.iter().map(|chunk| chunk.index).collect();
        indexes.sort_unstable_by_key(|index| Reverse(*index));
        for index in indexes {
            let sequence = self.running.swap_remove(index);
            self.depart(sequence, End::Failed(GenerateError::Backend(reason.to_owned())), now);
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
        if let Some(id) = sequence.displace() {
            if is_whole && self.limits.prefix_cache && decoded > 0 {
                let mut tokens = sequence.tokens.clone();
                tokens.truncate(decoded);
                self.slots.keep(id, sequence.salt, tokens, shared);
            } else {
                self.empty(id);
            }
        }
        self.ended.push((sequence, end));
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

#[cfg(test)]
mod tests;
