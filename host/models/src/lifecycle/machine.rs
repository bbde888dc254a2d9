//! Which model is loaded, which one goes, and who waits: a pure state machine over bytes, leases and time.
//!
//! It does nothing itself: every call returns [`Effect`]s for its owner ([`super::Pool`]) to carry out and to report back on. Times
//! are milliseconds of one clock.
//!
//! A model is *cold*, *loading*, *ready* or *leaving*. Who asks for one that is ready has it at once; everybody else waits in one
//! queue, first come, first served. The first one waiting for a model that is not there has a claim on the bytes that it needs: they are
//! taken from idle models, and from models in use only once those have had their *turn*. Such a model is *drained*: whoever
//! asks for it now waits behind the claim, and it goes when its last lease is returned. So two models that are asked for in turn and do not fit
//! together alternate, each serving for a turn, and neither starves. Nothing that is leased or pinned is ever unloaded.

mod entry;
mod plan;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use entry::{Entry, Phase};

/// A model, numbered by its owner; a number is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) u64);

/// One who waits, numbered by the owner; a number is used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What is known of a model before it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Bytes that it will take.
    pub(crate) bytes: u64,
    /// Whether it stays once it is loaded.
    pub(crate) is_pinned: bool,
    /// How long it stays without a lease at most; `None`: until its bytes are needed.
    pub(crate) keep_alive_ms: Option<u64>,
}

/// What the owner has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Load it; then report [`Machine::loaded`] or [`Machine::failed`].
    Load(Key),
    /// Unload it; then report [`Machine::unloaded`].
    Unload(Key),
    /// It has a lease now, which is to be returned.
    Grant(Ticket, Key, Incarnation),
    /// It will not be served.
    Refuse(Ticket, Key, Refused),
}

/// Which time of being loaded a lease belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Incarnation(pub(crate) u32);

/// Why somebody is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The model is gone.
    Unknown,
    /// It takes more than there is, or than what is pinned leaves.
    TooLarge {
        /// What it takes.
        needs: u64,
        /// What all models together may take.
        budget: u64,
        /// What pinned models take of that.
        pinned: u64,
    },
    /// As many wait as may.
    QueueFull,
    /// It could not be loaded, and is tried again later.
    Resting {
        /// Milliseconds until then.
        for_ms: u64,
    },
    /// The load that was waited for failed.
    LoadFailed,
}

/// What an [`Machine::ask`] comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It has a lease.
    Granted(Incarnation),
    /// It waits; an effect will name its ticket.
    Waiting,
    /// It will not be served.
    Refused(Refused),
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    key: Key,
}

/// The state of all models.
#[derive(Debug)]
pub(crate) struct Machine {
    budget: u64,
    max_waiting: usize,
    entries: BTreeMap<Key, Entry>,
    queue: VecDeque<Waiter>,
    /// When it last looked at everything.
    planned_at: u64,
    loads: u64,
    unloads: u64,
}

impl Machine {
    /// No models; `budget` bytes for all that come, and as many may wait as `max_waiting`.
    pub(crate) fn new(budget: u64, max_waiting: usize) -> Self {
        Machine { budget, max_waiting, entries: BTreeMap::new(), queue: VecDeque::new(), planned_at: 0, loads: 0, unloads: 0 }
    }

    /// Changes the budget and the queue's bound; what is over the budget goes as soon as it is idle.
    pub(crate) fn set_limits(&mut self, budget: u64, max_waiting: usize, now: u64) -> Vec<Effect> {
        (self.budget, self.max_waiting) = (budget, max_waiting);
        self.plan(now)
    }

    /// Takes in a model, cold.
    pub(crate) fn add(&mut self, key: Key, facts: Facts) {
        self.entries.insert(key, Entry::new(facts));
    }

    /// Nobody can ask for it any more: it goes when it is idle.
    pub(crate) fn forget(&mut self, key: Key, now: u64) -> Vec<Effect> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.is_forgotten = true;
        }
        self.plan(now)
    }

    /// It has so many bytes of adapters from now on.
    pub(crate) fn set_adapters(&mut self, key: Key, bytes: u64, now: u64) -> Vec<Effect> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.adapters = bytes;
        }
        self.plan(now)
    }

    /// Bytes of its adapters.
    pub(crate) fn adapters(&self, key: Key) -> u64 {
        self.entries.get(&key).map_or(0, |entry| entry.adapters)
    }

    /// Somebody wants it.
    pub(crate) fn ask(&mut self, key: Key, ticket: Ticket, now: u64) -> (Asked, Vec<Effect>) {
        let Some(entry) = self.entries.get_mut(&key) else { return (Asked::Refused(Refused::Unknown), Vec::new()) };
        entry.used(now);
        if let Some(incarnation) = entry.lease() {
            return (Asked::Granted(incarnation), Vec::new());
        }
        if let Some(for_ms) = entry.rests_for(now) {
            return (Asked::Refused(Refused::Resting { for_ms }), Vec::new());
        }
        if let Some(refused) = self.too_large(key) {
            return (Asked::Refused(refused), Vec::new());
        }
        if self.queue.len() >= self.max_waiting {
            return (Asked::Refused(Refused::QueueFull), Vec::new());
        }
        self.queue.push_back(Waiter { ticket, key });
        (Asked::Waiting, self.plan(now))
    }

    /// It does not wait any more. A lease that was granted meanwhile is to be returned.
    pub(crate) fn leave(&mut self, ticket: Ticket, now: u64) -> Vec<Effect> {
        self.queue.retain(|waiter| waiter.ticket != ticket);
        self.plan(now)
    }

    /// A lease ended.
    pub(crate) fn returned(&mut self, key: Key, incarnation: Incarnation, now: u64) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        if !entry.returned(incarnation, now) {
            return Vec::new();
        }
        let is_due = entry.expires().is_some_and(|at| at <= now);
        if self.queue.is_empty() && !self.is_over() && !self.is_forgotten(key) && !is_due {
            return Vec::new();
        }
        self.plan(now)
    }

    /// It is loaded, took so long, and takes so many bytes.
    pub(crate) fn loaded(&mut self, key: Key, bytes: u64, took_ms: u64, now: u64) -> Vec<Effect> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.loaded(bytes, took_ms, now);
            self.loads += 1;
        }
        self.plan(now)
    }

    /// It could not be loaded: those who wait for it are told, and it rests.
    pub(crate) fn failed(&mut self, key: Key, now: u64) -> Vec<Effect> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.failed(now);
        }
        let waited = self.queue.iter().filter(|waiter| waiter.key == key);
        let mut effects = waited.map(|waiter| Effect::Refuse(waiter.ticket, key, Refused::LoadFailed)).collect::<Vec<_>>();
        self.queue.retain(|waiter| waiter.key != key);
        effects.extend(self.plan(now));
        effects
    }

    /// It has ended by itself. What holds its leases finds out; it goes, and rests before it is loaded again.
    pub(crate) fn died(&mut self, key: Key, now: u64) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        if !matches!(entry.phase, Phase::Ready(_)) {
            return Vec::new();
        }
        entry.died(now);
        vec![Effect::Unload(key)]
    }

    /// Its bytes are free.
    pub(crate) fn unloaded(&mut self, key: Key, now: u64) -> Vec<Effect> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.phase = Phase::Cold;
            self.unloads += 1;
        }
        self.plan(now)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: u64) -> Vec<Effect> {
        self.plan(now)
    }

    /// How long it stays without a lease from its next one's end on until it is unloaded, but never longer than was known of it
    /// before; `None` is until its bytes are needed.
    pub(crate) fn keep_alive(&mut self, key: Key, ms: Option<u64>) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.keep_alive(ms);
        }
    }

    /// It may be tried again at once.
    pub(crate) fn wake(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.rests_until = 0;
        }
    }

    /// Whether it stays once it is loaded.
    pub(crate) fn pin(&mut self, key: Key, is_pinned: bool, now: u64) -> Vec<Effect> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.facts.is_pinned = is_pinned;
        }
        self.plan(now)
    }

    /// Unloads it if nobody uses it; otherwise returns how many leases there are.
    pub(crate) fn unload(&mut self, key: Key) -> Result<Vec<Effect>, u32> {
        match self.entries.get_mut(&key) {
            Some(entry) => match entry.phase {
                Phase::Ready(_) if entry.leases > 0 => Err(entry.leases),
                Phase::Ready(_) => {
                    entry.leave();
                    Ok(vec![Effect::Unload(key)])
                }
                _ => Ok(Vec::new()),
            },
            None => Ok(Vec::new()),
        }
    }

    /// Why it can never be loaded as things are pinned; `None` if it can.
    pub(crate) fn too_large(&self, key: Key) -> Option<Refused> {
        let needs = self.entries.get(&key)?.bytes();
        let pinned = self.pinned(key);
        (needs.saturating_add(pinned) > self.budget).then_some(Refused::TooLarge { needs, budget: self.budget, pinned })
    }

    /// Why it can never be loaded, whatever else is; `None` if it can.
    pub(crate) fn beyond_budget(&self, key: Key) -> Option<Refused> {
        let (needs, budget) = (self.entries.get(&key)?.bytes(), self.budget);
        (needs > budget).then_some(Refused::TooLarge { needs, budget, pinned: 0 })
    }

    /// Whether it is held, or would fit beside everything that is.
    pub(crate) fn has_room(&self, key: Key) -> bool {
        let fits = |entry: &Entry| entry.is_held() || entry.bytes().saturating_add(self.held()) <= self.budget;
        self.entries.get(&key).is_some_and(fits)
    }

    /// Whether it was added, and is not gone.
    pub(crate) fn knows(&self, key: Key) -> bool {
        self.entries.contains_key(&key)
    }

    /// When [`Self::tick`] would next do something, if nothing else happens.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        let is_waited_for = !self.queue.is_empty();
        self.entries.values().filter_map(|entry| entry.next_event(is_waited_for, self.planned_at)).min()
    }

    /// Bytes of all models that are loaded, loading or leaving.
    pub(crate) fn held(&self) -> u64 {
        self.bytes_of(Entry::is_held)
    }

    /// What [`Self::set_limits`] was given last.
    pub(crate) fn limits(&self) -> (u64, usize) {
        (self.budget, self.max_waiting)
    }

    /// The bytes that all models together may take.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Loads and unloads since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.loads, self.unloads)
    }

    /// A model's state in a word, and its leases.
    pub(crate) fn state(&self, key: Key, now: u64) -> Option<(&'static str, u32)> {
        self.entries.get(&key).map(|entry| (entry.word(now), entry.leases))
    }

    /// Whether it is pinned.
    pub(crate) fn is_pinned(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.facts.is_pinned)
    }

    fn is_over(&self) -> bool {
        self.held() > self.budget
    }

    fn is_forgotten(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.is_forgotten)
    }

    /// Bytes of what is pinned and loaded, beside `key`.
    fn pinned(&self, key: Key) -> u64 {
        let pinned = self.entries.iter().filter(|(other, entry)| **other != key && entry.stays() && entry.is_held());
        pinned.fold(0, |sum, (_, entry)| sum.saturating_add(entry.bytes()))
    }
}
