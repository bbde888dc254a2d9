//! One step of the loop: who gets rows, their decoding, and what comes of each.

use std::cmp::Reverse;
use std::ops::Range;
use std::time::Instant;

use tollgate_backend::{DecodeError, Row};

use super::pace::Allowance;
use super::plan::{self, Need};
use super::sequence::{End, Sequence};
use super::{Scheduler, to_usize};
use crate::engine::GenerateError;

/// What becomes of a sequence after a token.
pub(super) enum Outcome {
    Ends(End),
    Parks,
}

impl Scheduler {
    /// Plans and decodes a step, making room as long as the backend asks for it. Returns whether anything was done.
    pub(super) fn decode(&mut self, now: Instant) -> bool {
        loop {
            self.plan();
            if self.chunks.is_empty() {
                return false;
            }
            let is_full = self.decode_chunks();
            self.settle(now);
            if !is_full {
                return true;
            }
            if !self.make_room() {
                self.starve(now);
                return true;
            }
        }
    }

    fn plan(&mut self) {
        let is_fixed = self.limits.deterministic;
        let chunk = self.fixed_chunk();
        self.turn = plan::next_turn(self.running.iter().map(|sequence| sequence.scope.adapter), self.turn);
        let turn = self.turn;
        // Batches of one sequence each have one adapter each; others have that whose turn it is.
        let is_next = move |sequence: &Sequence| is_fixed || sequence.scope.adapter == turn;
        let next = self.running.iter().enumerate().filter(move |(_, sequence)| is_next(sequence));
        let needs = next.map(|(index, sequence)| Need {
            index,
            remaining: if is_fixed { sequence.fixed_rows(chunk) } else { sequence.remaining() },
            is_short: sequence.is_short,
            tenant: &sequence.tenant,
            weight: sequence.weight,
            pass: self.queue.pass(&sequence.tenant),
            arrived: sequence.arrived,
        });
        if is_fixed {
            plan::take_turns(needs, &mut self.chunks);
            return;
        }
        let budget = to_usize(self.step_rows());
        let streams = plan::streams(needs.clone());
        let count = self.running.iter().filter(|sequence| is_next(sequence)).count();
        // Streams with another adapter, where this one has prompts alone: they wait for the step as well.
        self.waiting = if streams == 0 && count < self.running.len() {
            plan::most_streams(self.running.iter().map(|sequence| (sequence.scope.adapter, sequence.remaining())))
        } else {
            0
        };
        let kept = streams.max(self.waiting);
        // There is nobody to wait for where no prompt is read, and nobody to keep waiting where no stream goes on.
        let is_mixed = kept > 0 && streams < count;
        let prompts = if is_mixed {
            let allowed = self.pace.allow(kept, plan::has_short(needs.clone()));
            // A step of streams, to measure, is another one here.
            Allowance { rows: allowed.rows.max(usize::from(streams == 0)), ..allowed }
        } else {
            Allowance { rows: budget, is_burst: false }
        };
        self.streams = plan::share(needs, budget, prompts, &mut self.chunks);
    }

    /// Decodes what is planned, as one batch or as one for each sequence. Returns whether the backend has no room for it.
    fn decode_chunks(&mut self) -> bool {
        let all = 0..self.chunks.len();
        if self.limits.deterministic {
            return all.into_iter().any(|at| self.decode_batch(at..at.saturating_add(1)));
        }
        let began = (self.clock)();
        let is_full = self.decode_batch(all);
        if !is_full {
            let took = (self.clock)().saturating_duration_since(began);
            let prompt_rows = self.rows.len().saturating_sub(self.streams);
            if self.waiting > 0 {
                self.pace.learn_apart(self.waiting, prompt_rows, took);
            } else {
                self.pace.learn(self.streams, prompt_rows, took);
            }
        }
        is_full
    }

    /// Decodes these chunks, which have the same adapter, together. Returns whether the backend has no room for them.
    fn decode_batch(&mut self, chunks: Range<usize>) -> bool {
        self.rows.clear();
        let mut adapter = None;
        for chunk in self.chunks.get(chunks.clone()).unwrap_or_default() {
            let Some(sequence) = self.running.get(chunk.index) else { continue };
            let Some(id) = sequence.slot else { continue };
            adapter = sequence.scope.adapter;
            let last = sequence.tokens.len().saturating_sub(1);
            let new = sequence.tokens.iter().enumerate().skip(sequence.decoded).take(chunk.rows);
            self.rows.extend(new.map(|(at, &token)| Row {
                token,
                position: u32::try_from(at).unwrap_or(u32::MAX),
                sequence: id,
                wants_logits: at == last,
            }));
        }
        if let Err(error) = self.backend.select_adapter(adapter) {
            self.fail(chunks, &error.to_string());
            return false;
        }
        match self.backend.decode(&self.rows) {
            Ok(()) => self.hear(chunks),
            Err(DecodeError::Full { .. }) => return true,
            Err(DecodeError::Failed(reason)) => self.fail(chunks, &reason),
        }
        false
    }

    /// A batch is decoded: whoever has all its tokens in gets the next.
    fn hear(&mut self, chunks: Range<usize>) {
        let limit = to_usize(self.backend.capabilities().sequence_tokens);
        let (mut row, mut sampled, mut decoded) = (0, 0, 0);
        for chunk in self.chunks.get(chunks).unwrap_or_default() {
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
                Some(end) => self.outcomes.push((chunk.index, Outcome::Ends(end))),
                None if sequence.writer.park() => self.outcomes.push((chunk.index, Outcome::Parks)),
                None => {}
            }
        }
        self.gauges.count_step(sampled, u64::try_from(self.rows.len() - sampled).unwrap_or(u64::MAX));
        self.gauges.count_decoded(decoded);
    }

    /// Nothing is known of the sequences that were in the batch: they end. All others go on.
    fn fail(&mut self, chunks: Range<usize>, reason: &str) {
        tracing::error!(model = %self.name, rows = self.rows.len(), reason, "a step has failed");
        for chunk in self.chunks.get(chunks).unwrap_or_default() {
            let end = End::Failed(GenerateError::Backend(reason.to_owned()));
            self.outcomes.push((chunk.index, Outcome::Ends(end)));
        }
    }

    /// Whoever stops in this step goes its way.
    fn settle(&mut self, now: Instant) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        // From the back, so that taking one out does not move those that are still to be.
        outcomes.sort_unstable_by_key(|(index, _)| Reverse(*index));
        for (index, outcome) in outcomes.drain(..) {
            let mut sequence: Sequence = self.running.swap_remove(index);
            match outcome {
                Outcome::Ends(end) => self.depart(sequence, end, now),
                Outcome::Parks => {
                    sequence.parked_at = Some(now);
                    self.parked.push(sequence);
                }
            }
        }
        self.outcomes = outcomes;
    }
}
