//! Models come and go within a budget of bytes: the state machine's hands.
//!
//! [`Pool`] carries out what [`machine`] decides: it loads and unloads on threads of their own, tells those who wait, and lets
//! time pass. It knows a model only as a [`Loader`].

mod alarm;
mod evict;
mod machine;
mod report;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use self::alarm::Alarm;
use self::machine::{Asked, Effect, Machine};
pub(crate) use self::machine::{Facts, Incarnation, Key, Refused, Ticket};
use self::report::Report;
use crate::{LoadError, Model, Running};

/// How often the pool looks for models that have died, and at the process's memory.
const LOOK: Duration = Duration::from_secs(1);

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
    /// What could not be unloaded yet, for want of a thread.
    unload_later: Vec<Key>,
    /// What has died and is to be loaded again.
    dead: Vec<Key>,
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
            unload_later: Vec::new(),
            dead: Vec::new(),
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

    /// An adapter of so many bytes comes to a model (`is_new`), or goes.
    pub(crate) fn change_adapters(&self, key: Key, bytes: u64, is_new: bool) {
        self.with(|machine, now| {
            let before = machine.adapters(key);
            let bytes = if is_new { before.saturating_add(bytes) } else { before.saturating_sub(bytes) };
            machine.set_adapters(key, bytes, now)
        });
    }

    /// Bytes of a model's adapters.
    pub(crate) fn adapters(&self, key: Key) -> u64 {
        self.lock().machine.adapters(key)
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

    /// Why it can never be loaded; `None` if it can.
    pub(crate) fn beyond_budget(&self, key: Key) -> Option<Refused> {
        self.lock().machine.beyond_budget(key)
    }

    /// Bytes for all models, and how many may wait.
    #[must_use]
    pub fn limits(&self) -> (u64, usize) {
        self.lock().machine.limits()
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
            self.died(&mut state, key, now);
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
                Err(Waiting { pool: self.clone(), key, ticket, receiver })
            }
        }
    }

    /// Has it loaded, with nobody to wait for it.
    pub(crate) fn warm(&self, key: Key) {
        let (mut state, now) = (self.lock(), self.now());
        let ticket = Ticket(state.number());
        let (asked, mut effects) = state.machine.ask(key, ticket, now);
        // A ticket that nobody waits with is given back as soon as it is granted.
        if let Asked::Granted(incarnation) = asked {
            effects.extend(state.machine.returned(key, incarnation, now));
        }
        self.carry_out(&mut state, effects, now);
    }

    /// A lease ended.
    pub(crate) fn returned(&self, key: Key, incarnation: Incarnation) {
        self.with(|machine, now| machine.returned(key, incarnation, now));
    }

    /// How long a model that somebody has a lease of stays without one; `None` is without end.
    pub(crate) fn keep_alive(&self, key: Key, ms: Option<u64>) {
        self.lock().machine.keep_alive(key, ms);
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

    /// Loads again what has died, as soon as it may be: who asks next should find it. Unloads what could not be.
    fn revive(&self) {
        let (mut state, now) = (self.lock(), self.now());
        let is_dead = |slot: &Slot| slot.loaded.as_ref().is_some_and(|model| !model.is_alive());
        let found = state.models.iter().filter(|(_, slot)| is_dead(slot)).map(|(key, _)| *key).collect::<Vec<_>>();
        for key in found {
            self.died(&mut state, key, now);
        }
        for key in std::mem::take(&mut state.unload_later) {
            self.unload_now(&mut state, key);
        }
        let dead = std::mem::take(&mut state.dead);
        state.dead = dead.into_iter().filter(|key| state.models.get(key).is_some_and(|slot| slot.loaded.is_none())).collect();
        let dead = state.dead.clone();
        drop(state);
        for key in dead {
            self.warm(key);
        }
    }

    fn died(&self, state: &mut State, key: Key, now: u64) {
        let Some(slot) = state.models.get_mut(&key) else { return };
        tracing::warn!(model = slot.name, "it has died and is loaded again");
        slot.error = Some("its thread has died; it is loaded again".into());
        if !state.dead.contains(&key) {
            state.dead.push(key);
        }
        let effects = state.machine.died(key, now);
        self.carry_out(state, effects, now);
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
                Effect::Load(key) => effects.extend(self.load(state, key, now)),
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

    /// Loads a model on a thread of its own; what to do where there is none.
    fn load(&self, state: &mut State, key: Key, now: u64) -> Vec<Effect> {
        let Some(slot) = state.models.get_mut(&key) else { return Vec::new() };
        let (loader, began) = (Arc::clone(&slot.loader), Instant::now());
        // The report goes to the thread once there is one: dropped here, it would wait for the lock that is held here.
        let (give, take) = std::sync::mpsc::channel::<Report>();
        let thread = std::thread::Builder::new().name(format!("load-{}", slot.name));
        let spawned = thread.spawn(move || take.recv().map(|report| report.done(loader(), began)));
        match spawned {
            Ok(_) => {
                // The thread waits for it.
                let _ = give.send(Report { pool: self.clone(), key, is_done: false });
                Vec::new()
            }
            Err(error) => {
                slot.error = Some(format!("there is no thread to load it: {error}").into());
                state.machine.failed(key, now)
            }
        }
    }

    /// Unloads a model on a thread of its own; where there is none it is tried again.
    fn unload_now(&self, state: &mut State, key: Key) {
        let Some(slot) = state.models.get_mut(&key) else { return };
        let (give, take) = std::sync::mpsc::channel::<(Option<Arc<Model>>, Pool)>();
        let thread = std::thread::Builder::new().name(format!("unload-{}", slot.name));
        let spawned = thread.spawn(move || {
            let Ok((model, pool)) = take.recv() else { return };
            if let Some(model) = model {
                // A step may still run whose client has left.
                model.runner().shutdown(Instant::now());
                tracing::info!(model = model.id(), "model unloaded");
            }
            pool.with(|machine, now| machine.unloaded(key, now));
        });
        match spawned {
            // The thread waits for it.
            Ok(_) => drop(give.send((slot.loaded.take(), self.clone()))),
            Err(error) => {
                tracing::error!(model = slot.name, %error, "there is no thread to unload it; it is tried again");
                state.unload_later.push(key);
            }
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

/// A place in the queue; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    pool: Pool,
    key: Key,
    ticket: Ticket,
    receiver: oneshot::Receiver<Outcome>,
}

impl Waiting {
    /// What the wait comes to.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        let gone = Denied { why: Refused::Unknown, error: None };
        (&mut self.receiver).await.unwrap_or(Err(gone))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
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
