//! The backend's sequence ids: who holds which, and what idle ones still remember.
//!
//! A sequence that has ended leaves its tokens behind as a prefix, until the id or the cells are needed: the one that was used
//! longest ago goes first. Prefixes are found by the salt of their tenant with their adapter, and then by the tokens themselves, so
//! that no other tenant can meet one (P-A9), none is used with another adapter, and no hash can collide.

use tollgate_backend::{AdapterId, SequenceId, Token};

use super::sequence::Scope;

/// Every sequence id of a backend.
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// Counts uses, to tell the oldest.
    clock: u64,
}

enum Slot {
    Free,
    Held,
    Idle(Prefix),
    /// The backend would not empty it: never used again.
    Lost,
}

struct Prefix {
    scope: Scope,
    tokens: Vec<Token>,
    /// Cells that are its own, not another's as well.
    cells: usize,
    used: u64,
}

/// A prefix that fits a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) slot: SequenceId,
    /// Tokens in common.
    pub(super) length: usize,
    /// Tokens that it holds.
    pub(super) held: usize,
    /// Whether it can be taken over; a live one can only be copied.
    pub(super) is_idle: bool,
}

impl Slots {
    pub(super) fn new(count: u16) -> Self {
        Slots { slots: (0..count).map(|_| Slot::Free).collect(), clock: 0 }
    }

    /// Cells that idle prefixes hold.
    pub(super) fn idle_cells(&self) -> usize {
        self.idle().map(|(_, prefix)| prefix.cells).sum()
    }

    /// An id with nothing in it.
    pub(super) fn take_free(&mut self) -> Option<SequenceId> {
        let at = self.slots.iter().position(|slot| matches!(slot, Slot::Free))?;
        let slot = self.slots.get_mut(at)?;
        *slot = Slot::Held;
        u16::try_from(at).ok().map(SequenceId)
    }

    /// The idle prefix that was used longest ago, but not `keep`; its id is held now and still has to be emptied.
    pub(super) fn take_oldest(&mut self, keep: Option<SequenceId>) -> Option<SequenceId> {
        let id = self.idle().filter(|(id, _)| Some(*id) != keep).min_by_key(|(_, prefix)| prefix.used).map(|(id, _)| id)?;
        self.set(id, Slot::Held);
        Some(id)
    }

    /// An idle prefix of this adapter; its id is held now and still has to be emptied.
    pub(super) fn take_of(&mut self, adapter: AdapterId) -> Option<SequenceId> {
        let id = self.idle().find(|(_, prefix)| prefix.scope.adapter == Some(adapter)).map(|(id, _)| id)?;
        self.set(id, Slot::Held);
        Some(id)
    }

    /// Takes over an idle prefix. Returns how many of its first `length` tokens have cells that others share.
    pub(super) fn take_over(&mut self, id: SequenceId, length: usize) -> usize {
        let shared = match self.slots.get(usize::from(id.0)) {
            Some(Slot::Idle(prefix)) => prefix.tokens.len().saturating_sub(prefix.cells),
            _ => 0,
        };
        self.set(id, Slot::Held);
        shared.min(length)
    }

    /// An id was emptied.
    pub(super) fn free(&mut self, id: SequenceId) {
        self.set(id, Slot::Free);
    }

    /// An id could not be emptied.
    pub(super) fn lose(&mut self, id: SequenceId) {
        self.set(id, Slot::Lost);
    }

    /// What an id holds may be used again. `shared` of the tokens have cells that others share.
    pub(super) fn keep(&mut self, id: SequenceId, scope: Scope, tokens: Vec<Token>, shared: usize) {
        self.clock = self.clock.saturating_add(1);
        let cells = tokens.len().saturating_sub(shared);
        self.set(id, Slot::Idle(Prefix { scope, tokens, cells, used: self.clock }));
    }

    /// The longest idle prefix of `tokens` within `scope`.
    pub(super) fn find(&self, scope: Scope, tokens: &[Token]) -> Option<Match> {
        self.idle()
            .filter(|(_, prefix)| prefix.scope == scope)
            .map(|(slot, prefix)| Match {
                slot,
                length: common(&prefix.tokens, tokens),
                held: prefix.tokens.len(),
                is_idle: true,
            })
            .filter(|found| found.length > 0)
            .max_by_key(|found| found.length)
    }

    fn idle(&self) -> impl Iterator<Item = (SequenceId, &Prefix)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| match slot {
            Slot::Idle(prefix) => Some((SequenceId(id), prefix)),
            _ => None,
        })
    }

    fn set(&mut self, id: SequenceId, to: Slot) {
        if let Some(slot) = self.slots.get_mut(usize::from(id.0)) {
            *slot = to;
        }
    }
}

/// How many tokens two sequences begin with in common.
pub(super) fn common(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Salt;

    const ANN: Scope = Scope { salt: Salt([1; 32]), adapter: None };
    const BOB: Scope = Scope { salt: Salt([2; 32]), adapter: None };

    #[test]
    fn the_longest_prefix_of_ones_own_is_found() {
        let mut slots = Slots::new(3);
        for (scope, tokens) in [(ANN, vec![1, 2, 3]), (ANN, vec![1, 2, 3, 4, 9]), (BOB, vec![1, 2, 3, 4, 5])] {
            let id = slots.take_free().expect("a free one");
            slots.keep(id, scope, tokens, 0);
        }
        let found = slots.find(ANN, &[1, 2, 3, 4, 5]).expect("found");
        assert_eq!((found.slot, found.length, found.held), (SequenceId(1), 4, 5));
        assert_eq!(slots.find(ANN, &[7]), None);
        assert_eq!(slots.find(Scope { salt: Salt([3; 32]), adapter: None }, &[1, 2, 3]), None, "P-A9: nobody else's");
        assert_eq!(slots.find(Scope { adapter: Some(AdapterId(1)), ..ANN }, &[1, 2, 3]), None, "nor another adapter's");
        assert_eq!(slots.idle_cells(), 13);
    }

    #[test]
    fn an_adapters_prefixes_are_given_up_with_it() {
        let mut slots = Slots::new(3);
        let of = |adapter| Scope { adapter: Some(AdapterId(adapter)), ..ANN };
        for scope in [ANN, of(1), of(2)] {
            let id = slots.take_free().expect("a free one");
            slots.keep(id, scope, vec![1, 2, 3], 0);
        }
        assert_eq!((slots.take_of(AdapterId(1)), slots.take_of(AdapterId(1))), (Some(SequenceId(1)), None));
        assert_eq!(slots.idle_cells(), 6);
        assert!(slots.find(of(1), &[1, 2]).is_none() && slots.find(of(2), &[1, 2]).is_some());
    }

    #[test]
    fn the_oldest_goes_first_and_lost_ids_never_come_back() {
        let mut slots = Slots::new(2);
        let (first, second) = (slots.take_free().expect("one"), slots.take_free().expect("two"));
        assert_eq!(slots.take_free(), None);
        slots.keep(second, ANN, vec![1, 2], 1);
        slots.keep(first, ANN, vec![1, 2, 3], 0);
        assert_eq!(slots.idle_cells(), 4);
        assert_eq!(slots.take_oldest(Some(second)), Some(first));
        slots.lose(first);
        assert_eq!(slots.take_over(second, 2), 1);
        slots.free(second);
        assert_eq!((slots.take_free(), slots.take_free()), (Some(second), None));
    }
}
