//! What to do next: one look at the queue and the models.

use super::entry::{Entry, Phase};
use super::{Effect, Key, Machine, Refused, Waiter};
use crate::lifecycle::evict::{Candidate, choose};

/// Bytes that claims are met from, in this order before others have to give any.
struct Purse {
    /// Nobody's.
    free: u64,
    /// Of models that are leaving.
    coming: u64,
}

impl Machine {
    /// Everything that is due at `now`.
    pub(super) fn plan(&mut self, now: u64) -> Vec<Effect> {
        self.planned_at = now;
        let mut effects = Vec::new();
        for entry in self.entries.values_mut() {
            if let Phase::Ready(ready) = &mut entry.phase {
                // Who drains is found anew each time: who claimed its bytes may have left.
                ready.is_draining = false;
            }
        }
        self.expire(now, &mut effects);
        self.serve(now, &mut effects);
        self.shrink(now, &mut effects);
        self.entries.retain(|_, entry| !(entry.is_forgotten && entry.phase == Phase::Cold));
        effects
    }

    /// Those that nobody has used for as long as they are kept.
    fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) {
        for (key, entry) in &mut self.entries {
            let is_wanted = self.queue.iter().any(|waiter| waiter.key == *key);
            if !is_wanted && entry.expires().is_some_and(|at| at <= now) {
                entry.leave();
                effects.push(Effect::Unload(*key));
            }
        }
    }

    /// Gives leases to those who wait, in order, loads what they wait for, or makes room for it.
    fn serve(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let coming = self.bytes_of(|entry| entry.phase == Phase::Leaving);
        let mut purse = Purse { free: self.budget.saturating_sub(self.held()), coming };
        let mut claimed = Vec::new();
        for waiter in std::mem::take(&mut self.queue) {
            let Waiter { ticket, key } = waiter;
            let Some(entry) = self.entries.get_mut(&key) else {
                effects.push(Effect::Refuse(ticket, key, Refused::Unknown));
                continue;
            };
            if let Some(incarnation) = entry.lease() {
                effects.push(Effect::Grant(ticket, key, incarnation));
                continue;
            }
            let is_cold = entry.phase == Phase::Cold;
            let rests = entry.rests_for(now).map(|for_ms| Refused::Resting { for_ms });
            if let Some(why) = rests.or_else(|| self.too_large(key).filter(|_| is_cold)) {
                effects.push(Effect::Refuse(ticket, key, why));
                continue;
            }
            self.queue.push_back(waiter);
            if is_cold && !claimed.contains(&key) {
                claimed.push(key);
                self.claim(key, &mut purse, now, effects);
            }
        }
    }

    /// Loads a model, or makes room for it. What is still missing for it is not given to those behind.
    fn claim(&mut self, key: Key, purse: &mut Purse, now: u64, effects: &mut Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let bytes = entry.bytes();
        if bytes <= purse.free {
            purse.free -= bytes;
            entry.phase = Phase::Loading;
            effects.push(Effect::Load(key));
            return;
        }
        let missing = bytes - std::mem::take(&mut purse.free);
        let from_coming = missing.min(purse.coming);
        purse.coming -= from_coming;
        let freed = self.make_room(missing - from_coming, now, effects);
        // What its going frees beyond the claim comes to those behind.
        purse.coming = purse.coming.saturating_add(freed.saturating_sub(missing - from_coming));
    }

    /// Unloads idle models for `need` bytes, or drains those that have had their turn; the bytes of those that go at once.
    fn make_room(&mut self, need: u64, now: u64, effects: &mut Vec<Effect>) -> u64 {
        let open = self.entries.iter().filter(|(_, entry)| {
            let is_free = entry.free_from().is_some_and(|from| from <= now);
            is_free && !matches!(entry.phase, Phase::Ready(ready) if ready.is_draining)
        });
        let open = open.map(|(key, entry)| (entry.leases == 0, candidate(*key, entry, now))).collect::<Vec<_>>();
        let idle = open.iter().filter(|(is_idle, _)| *is_idle).map(|(_, candidate)| *candidate).collect::<Vec<_>>();
        if let Some(chosen) = choose(&idle, need) {
            return self.unload_all(&chosen, effects);
        }
        let all = open.into_iter().map(|(_, candidate)| candidate).collect::<Vec<_>>();
        for key in choose(&all, need).unwrap_or_default() {
            // Idle ones among them let nobody in either: else each would be in use when the others are idle.
            if let Some(Entry { phase: Phase::Ready(ready), .. }) = self.entries.get_mut(&key) {
                ready.is_draining = true;
            }
        }
        0
    }

    /// Idle models go while all together take more than they may: one took more than was predicted, or the budget was lowered.
    fn shrink(&mut self, now: u64, effects: &mut Vec<Effect>) {
        let staying = self.held().saturating_sub(self.bytes_of(|entry| entry.phase == Phase::Leaving));
        let need = staying.saturating_sub(self.budget);
        if need == 0 {
            return;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.leases == 0 && entry.free_from().is_some());
        let idle = idle.map(|(key, entry)| candidate(*key, entry, now)).collect::<Vec<_>>();
        // If all idle ones do not suffice, they go all the same: the rest follows when it is idle.
        let chosen = choose(&idle, need).unwrap_or_else(|| idle.iter().map(|candidate| candidate.key).collect());
        self.unload_all(&chosen, effects);
    }

    fn unload_all(&mut self, keys: &[Key], effects: &mut Vec<Effect>) -> u64 {
        let mut freed = 0_u64;
        for key in keys {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.leave();
                freed = freed.saturating_add(entry.bytes());
                effects.push(Effect::Unload(*key));
            }
        }
        freed
    }

    pub(super) fn bytes_of(&self, which: impl Fn(&Entry) -> bool) -> u64 {
        let bytes = self.entries.values().filter(|entry| which(entry)).map(Entry::bytes);
        bytes.fold(0, u64::saturating_add)
    }
}

fn candidate(key: Key, entry: &Entry, now: u64) -> Candidate<Key> {
    Candidate { key, bytes: entry.bytes(), cost: entry.cost(now) }
}
