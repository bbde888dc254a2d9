//! From the queue into the backend: a sequence id, cells, and whatever part of the prompt is there already.
//!
//! Cells are counted by what each sequence has and will have; shared ones count once, with whom they were copied from. That can
//! be off by what outlives its source. Where copies do not share, each counts in full. The backend has the last word
//! ([`DecodeError::Full`](tollgate_backend::DecodeError)).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use tollgate_backend::{SequenceId, Token};

use super::prefix::{Match, common};
use super::sequence::{Scope, Sequence};
use super::{Scheduler, to_usize};

/// Where a sequence begins.
pub(super) struct Place {
    pub(super) slot: SequenceId,
    /// Tokens that are there already.
    pub(super) decoded: usize,
    /// Of those, how many have cells that others share.
    pub(super) shared: usize,
}

/// What a tenant's running sequences hold, or would hold.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    sequences: usize,
    cells: usize,
}

impl Held {
    /// With one more sequence of so many cells.
    fn and(self, cells: usize) -> Held {
        Held { sequences: self.sequences.saturating_add(1), cells: self.cells.saturating_add(cells) }
    }

    /// With one sequence of so many cells less.
    fn without(self, cells: usize) -> Held {
        Held { sequences: self.sequences.saturating_sub(1), cells: self.cells.saturating_sub(cells) }
    }
}

impl Scheduler {
    /// Takes in whom there is room for, in turn. It stops at the first that has to wait: nobody overtakes within the turn order.
    pub(super) fn admit(&mut self) {
        while let Some(next) = self.queue.peek() {
            // What it has computed itself is put back, in cells of its own, unless a good part is there already.
            let found = self.find_prefix(next).filter(|found| found.length >= next.kept_aside() / 2);
            let (tokens, headroom) = (next.tokens.len(), next.headroom());
            let is_seat_free = self.running.len() < self.seats();
            let place = if is_seat_free { self.find_place(found, tokens, headroom) } else { None };
            let Some(place) = place else {
                if self.make_way(self.own_cells(found, tokens.saturating_add(headroom))) {
                    continue;
                }
                return;
            };
            let Some(mut sequence) = self.queue.pop() else { return };
            sequence.ticket = None;
            let place = self.put_back(place, &mut sequence);
            if let Some(cached) = sequence.place(place.slot, place.decoded, place.shared) {
                self.gauges.count_cached(u64::try_from(cached).unwrap_or(u64::MAX));
                sequence.writer.placed();
            }
            self.running.push(sequence);
        }
    }

    /// The next in turn holds less than its share and is well behind others, who hold more than theirs: the youngest of those go
    /// back to the queue, if that is enough for it to get in (P-L5). What a tenant holds is the larger of two parts, of the
    /// sequences and of the cells (its dominant share: Ghodsi et al., "Dominant Resource Fairness", 2011); one sequence each may
    /// keep whatever it needs. `needed` are the cells that the next one would have of its own. Returns whether somebody went.
    fn make_way(&mut self, needed: usize) -> bool {
        let Some(next) = self.queue.peek() else { return false };
        let mut held = self.holdings();
        if held.get(&*next.tenant).is_some_and(|held| !self.is_within_share(&next.tenant, held.and(needed))) {
            return false;
        }
        let mut youngest = (0..self.running.len()).collect::<Vec<_>>();
        youngest.sort_unstable_by_key(|index| Reverse(self.running.get(*index).map(|sequence| sequence.arrived)));
        let mut cells = self.reserved().saturating_add(needed);
        let mut leaving = Vec::new();
        for index in youngest {
            if !leaving.is_empty() && cells <= self.context_tokens() {
                break;
            }
            let Some(sequence) = self.running.get(index) else { continue };
            let Some(held) = held.get_mut(&*sequence.tenant) else { continue };
            if held.sequences <= 1 || self.is_within_share(&sequence.tenant, *held) {
                continue;
            }
            // Who gives way comes later in turn, so that it does not get back in before the one it gave way to. Who has given way
            // before catches up first: nobody is sent back again and again.
            if self.queue.is_far_behind(&next.tenant, &sequence.tenant) && !sequence.is_catching_up() {
                *held = held.without(sequence.cells());
                cells = cells.saturating_sub(sequence.cells());
                leaving.push(index);
            }
        }
        if leaving.is_empty() || cells > self.context_tokens() {
            return false;
        }
        // Who was chosen before one that frees more may not be needed.
        let mut kept = leaving.len();
        leaving.retain(|index| {
            let freed = self.running.get(*index).map_or(0, Sequence::cells);
            let goes = kept == 1 || cells.saturating_add(freed) > self.context_tokens();
            if !goes {
                kept -= 1;
                cells = cells.saturating_add(freed);
            }
            goes
        });
        // From the back, so that taking one out does not move those that are still to be.
        leaving.sort_unstable_by_key(|index| Reverse(*index));
        for index in leaving {
            self.preempt(index);
        }
        true
    }

    /// What each tenant's running sequences hold.
    fn holdings(&self) -> HashMap<&str, Held> {
        let mut held: HashMap<&str, Held> = HashMap::new();
        for sequence in &self.running {
            let tenant = held.entry(&sequence.tenant).or_default();
            *tenant = tenant.and(sequence.cells());
        }
        held
    }

    /// Whether so much is no more than a tenant's part of the sequences and of the cells.
    fn is_within_share(&self, tenant: &str, held: Held) -> bool {
        held.sequences <= self.queue.share(tenant, self.seats()) && held.cells <= self.queue.share(tenant, self.context_tokens())
    }

    /// Gives up what is least missed: the idle prefix used longest ago, or else the youngest parked sequence's place, but not
    /// `keep`. Returns whether there was anything.
    pub(super) fn evict(&mut self, keep: Option<SequenceId>) -> bool {
        if let Some(id) = self.slots.take_oldest(keep) {
            self.empty(id);
            return true;
        }
        let holders = self.parked.iter().enumerate();
        let holders = holders.filter(|(_, sequence)| sequence.slot.is_some() && sequence.slot != keep);
        let Some((index, _)) = holders.max_by_key(|(_, sequence)| sequence.arrived) else { return false };
        let mut sequence = self.parked.swap_remove(index);
        self.set_aside(&mut sequence);
        self.parked.push(sequence);
        true
    }

    /// Takes a running sequence's place away; it goes back to the queue, in front.
    pub(super) fn preempt(&mut self, index: usize) {
        let mut sequence = self.running.swap_remove(index);
        self.set_aside(&mut sequence);
        self.requeue(sequence);
    }

    /// Back in the queue, in front of its tenant's others.
    pub(super) fn requeue(&mut self, mut sequence: Sequence) {
        self.gauges.count_preemption();
        let tenant = Arc::clone(&sequence.tenant);
        sequence.ticket = Some(self.tickets.take_again(&tenant));
        self.queue.put_back(&tenant, sequence);
    }

    /// Empties a sequence id so that it can be used again.
    pub(super) fn empty(&mut self, id: SequenceId) {
        match self.backend.truncate(id, 0) {
            Ok(()) => self.slots.free(id),
            Err(error) => {
                tracing::error!(model = %self.name, sequence = id.0, %error, "a sequence cannot be emptied and is given up");
                self.slots.lose(id);
            }
        }
    }

    /// The longest part of a prompt that its tenant has in the cache, idle or live.
    fn find_prefix(&self, sequence: &Sequence) -> Option<Match> {
        if !self.limits.prefix_cache {
            return None;
        }
        let tokens = sequence.findable(self.limits.deterministic);
        let mut idle = self.slots.find(sequence.scope, tokens);
        if self.limits.deterministic {
            // Only what this prompt itself would have decoded in the same batches.
            let chunk = self.fixed_chunk().max(1);
            idle =
                idle.map(|found| Match { length: found.length - found.length % chunk, ..found }).filter(|found| found.length > 0);
        }
        let live = self.find_live(sequence.scope, tokens);
        // Of equals the idle one: it may need no copy.
        [live, idle].into_iter().flatten().max_by_key(|found| found.length)
    }

    fn find_live(&self, scope: Scope, tokens: &[Token]) -> Option<Match> {
        if !self.can_copy() {
            return None;
        }
        self.running
            .iter()
            .chain(&self.parked)
            .filter(|sequence| sequence.scope == scope)
            .filter_map(|sequence| {
                let length = common(sequence.decoded_tokens(), tokens);
                let slot = sequence.slot?;
                (length > 0).then_some(Match { slot, length, held: sequence.decoded, is_idle: false })
            })
            .max_by_key(|found| found.length)
    }

    /// A place for a sequence of so many tokens, or `None` if it has to wait.
    fn find_place(&mut self, found: Option<Match>, tokens: usize, headroom: usize) -> Option<Place> {
        let whole = tokens.saturating_add(headroom);
        let (keep, length) = (found.map(|found| found.slot), found.map_or(0, |found| found.length));
        let is_copy = found.is_some_and(|found| !found.is_idle);
        let own = self.own_cells(found, whole);
        // If it cannot fit beside the running ones, nothing is given up for it.
        if !self.running.is_empty() && self.reserved().saturating_add(own) > self.context_tokens() {
            return None;
        }
        let is_whole = found.is_some_and(|found| !self.takes_over(found)) && !self.copies_share();
        let needed = if is_whole { whole } else { whole.saturating_sub(length) };
        if self.make_cells(needed, keep) {
            return self.occupy(found);
        }
        // A long idle prefix with little in common is not worth waiting for.
        if !is_copy && found.is_some() && self.make_cells(whole, None) {
            return self.begin();
        }
        if !self.running.is_empty() {
            return None;
        }
        // Nobody else is there to wait for: it gets all that there is.
        self.make_cells(whole, None);
        self.occupy(None)
    }

    /// Gives up what is not `keep` until `cells` are free. Returns whether they are.
    fn make_cells(&mut self, cells: usize, keep: Option<SequenceId>) -> bool {
        loop {
            let parked = self.parked.iter().filter(|sequence| sequence.slot.is_some()).map(Sequence::cells).sum::<usize>();
            let used = self.reserved().saturating_add(parked).saturating_add(self.slots.idle_cells());
            if used.saturating_add(cells) <= self.context_tokens() {
                return true;
            }
            if !self.evict(keep) {
                return false;
            }
        }
    }

    /// Whether sequences may share cells. Where they have to be the same to the last bit, each has its own.
    fn can_copy(&self) -> bool {
        self.backend.capabilities().prefix_copy && !self.limits.deterministic
    }

    /// Whether a copy counts once with what it was copied from.
    fn copies_share(&self) -> bool {
        self.backend.capabilities().copies_share
    }

    /// Of the cells of a whole sequence those that it does not share with a running one.
    fn own_cells(&self, found: Option<Match>, whole: usize) -> usize {
        found.filter(|found| !found.is_idle && self.copies_share()).map_or(whole, |found| whole.saturating_sub(found.length))
    }

    /// Whether a prefix may be taken over.
    fn can_take(&self, found: Match) -> bool {
        found.is_idle && (found.length == found.held || self.backend.capabilities().partial_remove)
    }

    /// Whether it is rather than copied. A long conversation is not cut down for the few words that another begins with, if they can
    /// be copied.
    fn takes_over(&self, found: Match) -> bool {
        self.can_take(found) && (found.length.saturating_mul(2) >= found.held || !self.can_copy())
    }

    /// Cuts a sequence of `held` tokens down to `length`. Returns whether anything is left of it.
    pub(super) fn cut(&mut self, id: SequenceId, length: usize, held: usize) -> bool {
        length > 0 && (length == held || self.backend.truncate(id, self::length(length)).is_ok())
    }

    /// Takes over, copies, or begins anew.
    fn occupy(&mut self, found: Option<Match>) -> Option<Place> {
        let Some(found) = found else { return self.begin() };
        let can_copy = self.can_copy();
        if self.takes_over(found) {
            return self.take_over(found);
        }
        if can_copy {
            if let Some(slot) = self.claim(Some(found.slot)) {
                return Some(self.copy(found, slot));
            }
            if self.can_take(found) {
                return self.take_over(found);
            }
        }
        self.begin()
    }

    fn begin(&mut self) -> Option<Place> {
        self.claim(None).map(|slot| Place { slot, decoded: 0, shared: 0 })
    }

    fn take_over(&mut self, found: Match) -> Option<Place> {
        let shared = self.slots.take_over(found.slot, found.length);
        if found.length < found.held
            && let Err(error) = self.backend.truncate(found.slot, length(found.length))
        {
            tracing::warn!(model = %self.name, %error, "a prefix cannot be taken over");
            self.empty(found.slot);
            return self.begin();
        }
        Some(Place { slot: found.slot, decoded: found.length, shared })
    }

    fn copy(&mut self, found: Match, slot: SequenceId) -> Place {
        match self.backend.copy_prefix(found.slot, slot, length(found.length)) {
            Ok(()) => {
                let shared = if self.copies_share() { found.length } else { 0 };
                Place { slot, decoded: found.length, shared }
            }
            Err(error) => {
                tracing::warn!(model = %self.name, %error, "a prefix cannot be copied");
                Place { slot, decoded: 0, shared: 0 }
            }
        }
    }

    /// An empty sequence id, if need be one that something less missed is given up for.
    fn claim(&mut self, keep: Option<SequenceId>) -> Option<SequenceId> {
        loop {
            if let Some(id) = self.slots.take_free() {
                return Some(id);
            }
            if !self.evict(keep) {
                return None;
            }
        }
    }

    /// Sequences that can run at once.
    fn seats(&self) -> usize {
        usize::from(self.backend.capabilities().max_sequences)
    }

    /// Cells that running sequences hold or will hold.
    fn reserved(&self) -> usize {
        self.running.iter().map(Sequence::cells).sum()
    }

    fn context_tokens(&self) -> usize {
        to_usize(self.backend.capabilities().context_tokens)
    }
}

/// A sequence has less than 4 billion tokens.
fn length(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
