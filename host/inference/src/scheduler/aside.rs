//! What a sequence had computed when it lost its place: kept beside the cache where there is room, and put back instead of being
//! computed again.
//!
//! It stays with its own request and goes with it. It is no prefix that anybody looks for: whatever the tenants and the adapters,
//! nobody can meet another's (P-A9). Where replies have to be the same to the last bit, nothing is kept.

use tollgate_backend::{Memory, State};

use super::admit::Place;
use super::sequence::Sequence;
use super::{Scheduler, to_usize};

/// The most that is kept for one model.
const MOST_BYTES: u64 = 64 << 20;
/// Of its cache, one part in so many at most: beside it that is little.
const PARTS_OF_CACHE: u64 = 8;

/// Bytes that may be kept for a model that takes so many.
pub(crate) fn most_bytes(memory: Memory) -> usize {
    usize::try_from((memory.cache / PARTS_OF_CACHE).min(MOST_BYTES)).unwrap_or(0)
}

impl Scheduler {
    /// Takes a sequence's place away, and keeps what was there if it can.
    pub(super) fn set_aside(&mut self, sequence: &mut Sequence) {
        sequence.aside = self.save(sequence);
        if let Some(id) = sequence.displace() {
            self.empty(id);
        }
    }

    fn save(&mut self, sequence: &Sequence) -> Option<State> {
        let id = sequence.slot?;
        if sequence.decoded == 0 || self.limits.deterministic || !self.backend.capabilities().state {
            return None;
        }
        let kept = self.queue.items().chain(&self.parked).filter_map(|sequence| sequence.aside.as_ref());
        let room = self.limits.aside_bytes.saturating_sub(kept.map(State::size).sum());
        match self.backend.save(id, room) {
            // A state that is not what the books say would be gone on from at the wrong place.
            Ok(state) => state.filter(|state| to_usize(state.tokens()) == sequence.decoded),
            Err(error) => {
                tracing::warn!(model = %self.name, %error, "what a sequence has computed cannot be kept");
                None
            }
        }
    }

    /// Gives a sequence that has got a place what was kept of it, if nothing is there yet.
    pub(super) fn put_back(&mut self, place: Place, sequence: &mut Sequence) -> Place {
        let Some(state) = sequence.aside.take().filter(|_| place.decoded == 0) else { return place };
        match self.backend.restore(place.slot, &state) {
            Ok(()) => {
                self.gauges.count_restored(u64::from(state.tokens()));
                Place { decoded: to_usize(state.tokens()), ..place }
            }
            Err(error) => {
                tracing::warn!(model = %self.name, %error, "what was kept of a sequence cannot be put back");
                place
            }
        }
    }
}
