//! One loaded model on its own thread, behind a handle that can be cloned.
//!
//! The thread owns the backend and the scheduler; the handle owns the channel to it. What the thread does in a step is the
//! scheduler's business; here is only how requests reach it, how it sleeps, and how it ends.

mod adapter;
mod command;
mod error;
mod run;
mod stream;
mod timing;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tollgate_backend::{AdapterId, Backend, Capabilities, Memory};
use tollgate_domain::Parameters;

pub use adapter::{Adapter, AdapterError};
pub(crate) use command::Doorbell;
pub use error::{StartError, SubmitError};
pub use stream::{Event, Finish, GenerateError, Generation};
pub(crate) use stream::{Writer, stream};
pub use timing::Timing;

use crate::chat::{ChatCodec, Prompt};
use crate::gauges::Gauges;
use crate::reply::Reply;
use crate::sampling::Sampling;
use crate::scheduler::{Limits, Request, Salt, Scheduler, Sequence, most_bytes};
use crate::tickets::{Ticket, Tickets};
use adapter::Door;
use command::Command;
pub(crate) use run::Death;
use run::run;

/// How an engine is run.
#[derive(Clone)]
pub struct Settings {
    /// Requests that may wait for a sequence, 0 to 65,536; one more is refused at once. A tenant has at most as many of the places
    /// as it leaves free.
    pub queue: usize,
    /// Rows of one step, at least 1 and at most what the backend takes.
    pub step_rows: u32,
    /// Whether what a tenant's request computed is kept for that tenant's next one.
    pub prefix_cache: bool,
    /// Bytes of a reply that may wait for its reader; a stream that holds more parks its row. The default leaves as much to the
    /// connection of the 64 KiB that a stream may hold (P-L4).
    pub stream_buffer_bytes: usize,
    /// How long a row stays parked before its stream is closed (P-L4).
    pub stalled_reader: Duration,
    /// The longest that a request may take, whatever its own deadline says.
    pub deadline: Duration,
    /// Keys the cache salt of each tenant (P-A9). Never sent anywhere, never part of a request.
    pub server_secret: [u8; 32],
    /// Whether a reply depends on its request alone to the last bit, however busy the model is: every sequence is decoded in
    /// batches of its own. The backend has to keep sequences apart too. A request without a seed is sampled with seed 0.
    pub deterministic: bool,
    /// Taken where a request says nothing.
    pub defaults: Parameters,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            queue: 256,
            step_rows: 512,
            prefix_cache: true,
            stream_buffer_bytes: 32 * 1024,
            stalled_reader: Duration::from_secs(30),
            deadline: Duration::from_secs(600),
            server_secret: [0; 32],
            deterministic: false,
            defaults: Parameters::default(),
        }
    }
}

/// What is to be generated.
#[derive(Debug)]
pub struct Job {
    /// From [`ChatCodec::encode`] of the same engine.
    pub prompt: Prompt,
    /// What is `None` falls to [`Settings::defaults`]. Without `max_tokens` a reply may fill the context.
    pub parameters: Parameters,
    /// What it is decoded with beside the model, from [`Engine::load_adapter`] of the same engine.
    pub adapter: Option<Adapter>,
    /// Its place in the queue, from [`Engine::reserve`] of the same engine. It says whose it is: tenants share nothing in the cache
    /// and take turns by weight.
    pub ticket: Ticket,
    /// 1 to 1,000: the tenant's share against the others'. The last one said counts.
    pub weight: u32,
    /// When it has to be done, in the queue or after.
    pub deadline: Instant,
    /// Whether nobody sees the reply before its end: text comes in larger pieces then, and its reader is woken less often.
    pub is_whole: bool,
}

/// A loaded model that takes jobs. The last handle dropped ends its thread: at the latest after the step it is in.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// An engine, for whoever must not keep it alive.
#[derive(Clone)]
pub struct WeakEngine(Weak<Shared>);

impl WeakEngine {
    /// The engine, if there still is a handle to it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(Engine)
    }
}

struct Shared {
    name: String,
    settings: Settings,
    capabilities: Capabilities,
    memory: Memory,
    codec: ChatCodec,
    gauges: Arc<Gauges>,
    tickets: Arc<Tickets>,
    bell: Doorbell,
    door: Door,
    is_closed: Arc<AtomicBool>,
    /// Numbers jobs in the order they came.
    arrivals: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Gives `backend` to a thread named `model-NAME`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(name: &str, backend: Box<dyn Backend>, settings: Settings) -> Result<Self, StartError> {
        check(&settings, backend.capabilities())?;
        let capabilities = backend.capabilities().clone();
        let memory = backend.memory();
        let codec = ChatCodec::new(backend.as_ref())?;
        let gauges = Arc::new(Gauges::default());
        let tickets = Tickets::new(settings.queue, Arc::clone(&gauges));
        let (bell, commands) = Doorbell::new(settings.queue);
        let limits = Limits {
            step_rows: settings.step_rows,
            prefix_cache: settings.prefix_cache,
            stalled_reader: settings.stalled_reader,
            deterministic: settings.deterministic,
            aside_bytes: most_bytes(memory),
        };
        let clock = Box::new(Instant::now);
        let scheduler = Scheduler::new(name, backend, limits, Arc::clone(&gauges), Arc::clone(&tickets), clock);
        let own_bell = bell.clone();
        let (door, changes) = Door::new(bell.clone());
        let is_closed = Arc::new(AtomicBool::new(false));
        let death = Death { name: name.to_owned(), is_closed: Arc::clone(&is_closed) };
        let thread = std::thread::Builder::new()
            .name(format!("model-{name}"))
            .spawn(move || {
                let _death = death;
                run(scheduler, &commands, &own_bell, &changes);
            })
            .map_err(StartError::Thread)?;
        Ok(Engine(Arc::new(Shared {
            name: name.to_owned(),
            settings,
            capabilities,
            memory,
            codec,
            gauges,
            tickets,
            bell,
            door,
            is_closed,
            arrivals: AtomicU64::new(0),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// The model's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the backend can do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// Bytes that the backend takes.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.0.memory
    }

    /// Requests to prompts.
    #[must_use]
    pub fn codec(&self) -> &ChatCodec {
        &self.0.codec
    }

    /// What it is doing.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.0.gauges
    }

    /// A place in the queue for a request of `tenant`. Returns at once: full means "no".
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`] or [`SubmitError::Stopped`].
    pub fn reserve(&self, tenant: &str) -> Result<Ticket, SubmitError> {
        let shared = &*self.0;
        if shared.is_closed.load(SeqCst) {
            return Err(SubmitError::Stopped);
        }
        shared.tickets.take(tenant).ok_or_else(|| shared.queue_full())
    }

    /// Queues a job. Returns at once.
    ///
    /// # Errors
    /// See [`SubmitError`].
    ///
    /// # Panics
    /// With a ticket or an adapter of another engine.
    pub fn submit(&self, job: Job) -> Result<Generation, SubmitError> {
        let shared = &*self.0;
        if shared.is_closed.load(SeqCst) {
            return Err(SubmitError::Stopped);
        }
        let now = Instant::now();
        assert!(job.ticket.is_of(&shared.tickets), "the ticket is of another engine");
        assert!(self.has(job.adapter.as_ref()), "the adapter is of another engine");
        let (sequence, generation) = shared.prepare(job, now)?;
        match shared.bell.commands().try_send(Command::Submit(Box::new(sequence))) {
            Ok(()) => Ok(generation),
            Err(TrySendError::Full(_)) => Err(shared.queue_full()),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Stopped),
        }
    }

    /// Loads an adapter beside the model: `scale` is 0 (nothing) to 4, 1 is as it was trained. The model's thread reads the file
    /// between two steps, which wait for it, and forgets it when the last clone of what is returned is gone. It waits until
    /// `deadline` at most, so call it where waiting is allowed.
    ///
    /// # Errors
    /// See [`AdapterError`].
    pub fn load_adapter(&self, path: &Path, scale: f32, deadline: Instant) -> Result<Adapter, AdapterError> {
        if !self.is_alive() {
            return Err(AdapterError::Stopped);
        }
        self.0.door.load(path, scale, deadline)
    }

    /// Whether an adapter, if it is one, was loaded here.
    #[must_use]
    pub fn has(&self, adapter: Option<&Adapter>) -> bool {
        adapter.is_none_or(|adapter| adapter.is_behind(&self.0.door))
    }

    /// Whether it takes jobs: it was not shut down, and its thread has not died of a panic.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.0.is_closed.load(SeqCst)
    }

    /// A handle that does not keep it alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.0))
    }

    /// Takes no more jobs, finishes what it has until `deadline`, then ends the rest with [`GenerateError::Stopped`] and frees
    /// the backend. It waits for the thread, so call it where waiting is allowed.
    /// A second call waits for the first.
    pub fn shutdown(&self, deadline: Instant) {
        self.0.stop(deadline);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakEngine")
    }
}

impl Shared {
    fn prepare(&self, job: Job, now: Instant) -> Result<(Sequence, Generation), SubmitError> {
        if !(1..=1_000).contains(&job.weight) {
            return Err(SubmitError::Parameter { field: "weight", range: "1 to 1000" });
        }
        let sampling = Sampling::resolve(job.parameters.or(&self.settings.defaults))?;
        let limit = self.codec.max_prompt_tokens();
        let tokens = job.prompt.tokens.len();
        if tokens == 0 {
            return Err(SubmitError::Parameter { field: "prompt", range: "at least one token" });
        }
        if tokens > limit {
            return Err(SubmitError::TooLong { tokens, limit });
        }
        let words = self.codec.vocabulary().len();
        if let Some(&(token, _)) = sampling.logit_bias.iter().find(|(token, _)| *token as usize >= words) {
            return Err(SubmitError::UnknownToken { token, tokens: words });
        }
        let (writer, generation) = stream(self.settings.stream_buffer_bytes, job.is_whole, self.bell.clone());
        let longest = now.checked_add(self.settings.deadline).unwrap_or(job.deadline);
        let reply = Reply::new(sampling.stop.clone(), self.codec.reasoning(), job.prompt.is_thinking);
        let request = Request {
            tokens: job.prompt.tokens,
            constraint: job.prompt.constraint,
            sampling,
            seed: if self.settings.deterministic { 0 } else { seed() },
            reply,
            salt: salt(&self.settings.server_secret, job.ticket.tenant(), job.adapter.as_ref().map(Adapter::id)),
            adapter: job.adapter,
            ticket: job.ticket,
            weight: job.weight,
            deadline: job.deadline.min(longest),
            arrived: self.arrivals.fetch_add(1, SeqCst),
            submitted: now,
            writer,
        };
        Ok((Sequence::new(request), generation))
    }

    fn queue_full(&self) -> SubmitError {
        SubmitError::QueueFull { retry_after_s: self.gauges.retry_after_s(self.capabilities.max_sequences) }
    }

    fn stop(&self, deadline: Instant) {
        self.is_closed.store(true, SeqCst);
        // Held until the thread has ended, so that nobody believes it gone before.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else { return };
        // There is room for it, or there will be after the step that the thread is in; a thread that has ended needs no word.
        let _ = self.bell.commands().send(Command::Stop(deadline));
        // If it has panicked, it has said so itself.
        let _ = thread.join();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

/// The salt of a tenant's place in the cache under an adapter: only who knows the server's secret can say whose it is, and no two
/// share one.
fn salt(secret: &[u8; 32], tenant: &str, adapter: Option<AdapterId>) -> Salt {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("an HMAC key may have any length");
    mac.update(b"tollgate prefix cache\0");
    mac.update(tenant.as_bytes());
    // Always as long, so that no tenant's name can run into it. Adapters are numbered from 1.
    mac.update(&adapter.map_or(0, |adapter| adapter.0).to_be_bytes());
    Salt(mac.finalize().into_bytes().into())
}

/// A seed for a request that brings none.
fn seed() -> u64 {
    getrandom::u64().expect("the operating system gives random numbers")
}

fn check(settings: &Settings, capabilities: &Capabilities) -> Result<(), StartError> {
    let setting = |holds: bool, field, range| if holds { Ok(()) } else { Err(StartError::Setting { field, range }) };
    setting(settings.queue <= 65_536, "queue", "0 to 65536")?;
    setting(settings.step_rows >= 1, "step_rows", "at least 1")?;
    setting(settings.stream_buffer_bytes >= 1, "stream_buffer_bytes", "at least 1")?;
    setting((1..=256).contains(&capabilities.max_sequences), "max_sequences", "1 to 256")?;
    setting(capabilities.step_rows >= 1, "the backend's step_rows", "at least 1")?;
    setting(capabilities.sequence_tokens >= 2, "sequence_tokens", "at least 2")?;
    setting(capabilities.sequence_tokens <= capabilities.context_tokens, "sequence_tokens", "at most what the context holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-A9: no two tenants, no two servers and no two adapters have the same salt.
    #[test]
    fn salts_differ_by_tenant_by_secret_and_by_adapter() {
        let own = salt(&[1; 32], "a", None);
        assert!(own == salt(&[1; 32], "a", None));
        assert!(own != salt(&[1; 32], "b", None));
        assert!(own != salt(&[2; 32], "a", None));
        let adapted = salt(&[1; 32], "a", Some(AdapterId(1)));
        assert!(adapted != own && adapted != salt(&[1; 32], "a", Some(AdapterId(2))));
    }
}
