//! Models come and go within a budget of bytes: the state machine's hands.
//!
//! [`Pool`] carries out what [`machine`] decides: it loads and unloads on threads of their own, tells those who wait, and lets
//! time pass. It knows a model only as a [`Loader`].

mod evict;
mod machine;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use self::machine::{Asked, Effect, Machine};
pub(crate) use self::machine::{Facts, Incarnation, Key, Refused, Ticket};
use crate::{LoadError, Model, Running, memory};

/// How often the pool looks for models that have died, and at the process's memory.
const LOOK: Duration = Duration::from_secs(1);
/// Parts of a hundred of the memory from which on operators are warned, and below which they will be warned anew.
const WARN_PERCENT: u64 = 90;
const CALM_PERCENT: u64 = 85;

/// Loads a model; called on a thread of its own.
pub(crate) type Loader = Arc<dyn Fn() -> Result<Model, LoadError> + Send + Sync>;

/// All models of the process, within one budget. Clones are the same pool.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The next time to look has changed.
    changed: Notify,
    began: Instant,
    running: Running,
}

struct State {
    machine: Machine,
    models: HashMap<Key, Slot>,
    waiters: HashMap<Ticket, oneshot::Sender<Outcome>>,
    next_number: u64,
    next_tick: Option<u64>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// What the pool keeps of a model.
struct Slot {
    name: String,
    loader: Loader,
    loaded: Option<Arc<Model>>,
    /// Why it could not be loaded the last time.
    error: Option<Arc<str>>,
}

/// What a wait comes to.
pub(crate) type Outcome = Result<(Arc<Model>, Incarnation), Denied>;

/// No lease.
#[derive(Debug, Clone)]
pub(crate) struct Denied {
    pub(crate) why: Refused,
    /// Why the last load failed, where it did.
    pub(crate) error: Option<Arc<str>>,
}

/// How the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// Bytes that all models together may take.
    pub budget: u64,
    /// Bytes that loaded models take, and those that are being loaded or unloaded.
    pub held: u64,
    /// Requests that wait for a model.
    pub waiting: usize,
    /// Loads since the start.
    pub loads: u64,
    /// Unloads since the start.
    pub unloads: u64,
}

impl Pool {
    /// An empty pool. `budget` is bytes; as many requests may wait for models as `max_waiting`.
    #[must_use]
    pub fn new(budget: u64, max_waiting: usize) -> Self {
        let state = State {
            machine: Machine::new(budget, max_waiting),
            models: HashMap::new(),
            waiters: HashMap::new(),
            next_number: 0,
            next_tick: None,
        };
        let (changed, began, running) = (Notify::new(), Instant::now(), Running::default());
        Pool(Arc::new(Shared { state: Mutex::new(state), changed, began, running }))
    }

    /// The models' threads.
    #[must_use]
    pub fn running(&self) -> Running {
        self.0.running.clone()
    }

    /// Changes what [`Self::new`] was given.
    pub fn set_limits(&self, budget: u64, max_waiting: usize) {
        self.with(|machine, now| machine.set_limits(budget, max_waiting, now));
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let state = self.lock();
        let (loads, unloads) = state.machine.counts();
        let (budget, held, waiting) = (state.machine.budget(), state.machine.held(), state.machine.waiting());
        PoolStatus { budget, held, waiting, loads, unloads }
    }

    /// Lets time pass until `stop`: what nobody uses goes, what has died is loaded again.
    pub async fn run(self, stop: CancellationToken) {
        let mut alarm = Alarm::default();
        loop {
            let next = self.lock().next_tick.map(|at| Duration::from_millis(at.saturating_sub(self.now())));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.changed.notified() => continue,
                () = tokio::time::sleep(next.unwrap_or(LOOK).min(LOOK)) => {}
            }
            self.with(|machine, now| machine.tick(now));
            self.revive();
            alarm.look();
        }
    }

    /// Takes in a model, and what is known to be wrong with it.
    pub(crate) fn add(&self, name: &str, facts: Facts, loader: Loader, error: Option<&str>) -> Key {
        let mut state = self.lock();
        let key = Key(state.number());
        state.models.insert(key, Slot { name: name.to_owned(), loader, loaded: None, error: error.map(Into::into) });
        state.machine.add(key, facts);
        key
    }

    /// Nobody can ask for it any more.
    pub(crate) fn forget(&self, key: Key) {
        self.with(|machine, now| machine.forget(key, now));
    }

    /// The model as it is loaded now, if it is.
    pub(crate) fn loaded(&self, key: Key) -> Option<Arc<Model>> {
        self.lock().models.get(&key)?.loaded.clone()
    }

    /// Its state in a word, its leases, whether it is pinned, and why it could not be loaded the last time.
    pub(crate) fn state(&self, key: Key) -> (&'static str, u32, bool, Option<Arc<str>>) {
        let (state, now) = (self.lock(), self.now());
        let (word, leases) = state.machine.state(key, now).unwrap_or(("gone", 0));
        let error = state.models.get(&key).and_then(|slot| slot.error.clone());
        (word, leases, state.machine.is_pinned(key), error)
    }

    /// Why it can never be loaded as things are; `None` if it can.
    pub(crate) fn too_large(&self, key: Key) -> Option<Refused> {
        self.lock().machine.too_large(key)
    }

    /// Whether it is loaded, or would fit beside everything that is.
    pub(crate) fn has_room(&self, key: Key) -> bool {
        self.lock().machine.has_room(key)
    }

    /// Asks for a lease, or begins to wait for one.
    pub(crate) fn ask(&self, key: Key) -> Result<Outcome, Waiting> {
        let mut state = self.lock();
        let now = self.now();
        if state.models.get(&key).and_then(|slot| slot.loaded.as_ref()).is_some_and(|model| !model.is_alive()) {
            let effects = state.machine.died(key, now);
            self.carry_out(&mut state, effects, now);
        }
        let ticket = Ticket(state.number());
        let (asked, effects) = state.machine.ask(key, ticket, now);
        match asked {
            Asked::Granted(incarnation) => Ok(state.outcome(key, Ok(incarnation))),
            Asked::Refused(why) => Ok(state.outcome(key, Err(why))),
            Asked::Waiting => {
                let (sender, receiver) = oneshot::channel();
                state.waiters.insert(ticket, sender);
                self.carry_out(&mut state, effects, now);
                Err(Waiting { pool: self.clone(), key, ticket, receiver, is_kept: false })
            }
        }
    }

    /// Has it loaded, with nobody to wait for it.
    pub(crate) fn warm(&self, key: Key) {
        if let Ok(Ok((_, incarnation))) = self.ask(key).or_else(Waiting::leave_it) {
            self.returned(key, incarnation);
        }
    }

    /// A lease ended.
    pub(crate) fn returned(&self, key: Key, incarnation: Incarnation) {
        self.with(|machine, now| machine.returned(key, incarnation, now));
    }

    /// It may be tried again at once after a failure.
    pub(crate) fn wake(&self, key: Key) {
        self.lock().machine.wake(key);
    }

    /// Whether it stays once it is loaded.
    pub(crate) fn pin(&self, key: Key, is_pinned: bool) {
        self.with(|machine, now| machine.pin(key, is_pinned, now));
    }

    /// Unloads it if nobody uses it; otherwise returns how many do.
    pub(crate) fn unload(&self, key: Key) -> Result<(), u32> {
        let (mut state, now) = (self.lock(), self.now());
        let effects = state.machine.unload(key)?;
        self.carry_out(&mut state, effects, now);
        Ok(())
    }

    /// Loads again what has died: who asks next should find it.
    fn revive(&self) {
        let dead = {
            let state = self.lock();
            let dead = state.models.iter().filter(|(_, slot)| slot.loaded.as_ref().is_some_and(|model| !model.is_alive()));
            dead.map(|(key, slot)| (*key, slot.name.clone())).collect::<Vec<_>>()
        };
        for (key, model) in dead {
            tracing::warn!(model, "it has died and is loaded again");
            self.with(|machine, now| machine.died(key, now));
            self.warm(key);
        }
    }

    fn with(&self, act: impl FnOnce(&mut Machine, u64) -> Vec<Effect>) {
        let (mut state, now) = (self.lock(), self.now());
        let effects = act(&mut state.machine, now);
        self.carry_out(&mut state, effects, now);
    }

    fn carry_out(&self, state: &mut State, effects: Vec<Effect>, now: u64) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Load(key) => self.load(state, key),
                Effect::Unload(key) => self.unload_now(state, key),
                Effect::Grant(ticket, key, incarnation) => {
                    let waiter = state.waiters.remove(&ticket);
                    let outcome = state.outcome(key, Ok(incarnation));
                    // Who only wanted it loaded has not waited.
                    if waiter.is_none_or(|waiter| waiter.send(outcome).is_err()) {
                        effects.extend(state.machine.returned(key, incarnation, now));
                    }
                }
                Effect::Refuse(ticket, key, why) => {
                    let outcome = state.outcome(key, Err(why));
                    // Who has left need not be told.
                    let _ = state.waiters.remove(&ticket).map(|waiter| waiter.send(outcome));
                }
            }
        }
        let State { machine, models, .. } = state;
        models.retain(|key, _| machine.knows(*key));
        let next = state.machine.next_tick();
        if std::mem::replace(&mut state.next_tick, next) != next {
            self.0.changed.notify_one();
        }
    }

    fn load(&self, state: &mut State, key: Key) {
        let Some(slot) = state.models.get(&key) else { return };
        let report = Report { pool: self.clone(), key, is_done: false };
        let (loader, began) = (Arc::clone(&slot.loader), Instant::now());
        let thread = std::thread::Builder::new().name(format!("load-{}", slot.name));
        // Where no thread can be made, the report is dropped, and says so.
        let _ = thread.spawn(move || report.done(loader(), began));
    }

    fn unload_now(&self, state: &mut State, key: Key) {
        let Some(slot) = state.models.get_mut(&key) else { return };
        let (model, pool) = (slot.loaded.take(), self.clone());
        let thread = std::thread::Builder::new().name(format!("unload-{}", slot.name));
        let spawned = thread.spawn(move || {
            if let Some(model) = model {
                // A step may still run whose client has left.
                model.engine().shutdown(Instant::now());
                tracing::info!(model = model.id(), "model unloaded");
            }
            pool.with(|machine, now| machine.unloaded(key, now));
        });
        if let Err(error) = spawned {
            tracing::error!(model = slot.name, %error, "it is not unloaded: there is no thread for it");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn outcome(&self, key: Key, granted: Result<Incarnation, Refused>) -> Outcome {
        let slot = self.models.get(&key);
        let denied = |why| Denied { why, error: slot.and_then(|slot| slot.error.clone()) };
        let model = slot.and_then(|slot| slot.loaded.clone());
        granted
            .map_err(denied)
            .and_then(|incarnation| model.map(|model| (model, incarnation)).ok_or_else(|| denied(Refused::Unknown)))
    }
}

/// Reports how a load went, whatever becomes of its thread.
struct Report {
    pool: Pool,
    key: Key,
    is_done: bool,
}

impl Report {
    fn done(mut self, loaded: Result<Model, LoadError>, began: Instant) {
        self.is_done = true;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (mut guard, now) = (self.pool.lock(), self.pool.now());
        let state = &mut *guard;
        let Some(slot) = state.models.get_mut(&self.key) else { return };
        let effects = match loaded {
            Ok(model) => {
                let bytes = model.memory_bytes();
                self.pool.0.running.add(model.engine());
                tracing::info!(
                    model = model.id(),
                    digest = model.digest(),
                    load_ms = took_ms,
                    bytes = model.memory_bytes(),
                    "model loaded"
                );
                (slot.loaded, slot.error) = (Some(Arc::new(model)), None);
                state.machine.loaded(self.key, bytes, took_ms, now)
            }
            Err(error) => {
                tracing::error!(model = slot.name, reason = %error, "the model cannot be loaded");
                slot.error = Some(error.to_string().into());
                state.machine.failed(self.key, now)
            }
        };
        self.pool.carry_out(state, effects, now);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let (mut state, now) = (self.pool.lock(), self.pool.now());
        if let Some(slot) = state.models.get_mut(&self.key) {
            slot.error = Some("its loading ended abruptly".into());
        }
        let effects = state.machine.failed(self.key, now);
        self.pool.carry_out(&mut state, effects, now);
    }
}

/// A place in the queue; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    pool: Pool,
    key: Key,
    ticket: Ticket,
    receiver: oneshot::Receiver<Outcome>,
    /// Whether the place is kept though nobody waits.
    is_kept: bool,
}

impl Waiting {
    /// What the wait comes to.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        let gone = Denied { why: Refused::Unknown, error: None };
        (&mut self.receiver).await.unwrap_or(Err(gone))
    }

    /// Keeps the place, and forgets that anybody waits for it.
    fn leave_it(mut self) -> Result<Outcome, ()> {
        self.pool.lock().waiters.remove(&self.ticket);
        self.is_kept = true;
        Err(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (mut state, now) = (self.pool.lock(), self.pool.now());
        state.waiters.remove(&self.ticket);
        let mut effects = state.machine.leave(self.ticket, now);
        // It may have come at the last moment.
        if let Ok(Ok((_, incarnation))) = self.receiver.try_recv() {
            effects.extend(state.machine.returned(self.key, incarnation, now));
        }
        self.pool.carry_out(&mut state, effects, now);
    }
}

/// Says once that memory runs short (C17).
#[derive(Debug, Default)]
struct Alarm {
    is_raised: bool,
}

impl Alarm {
    fn look(&mut self) {
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
