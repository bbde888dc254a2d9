//! One loaded embedder on its own thread, behind a handle that can be cloned.
//!
//! It is what [`Engine`](crate::Engine) is to a model that speaks: the thread owns the embedder, the handle owns the channel to it. A big
//! job is computed in slices, and jobs take turns between them.

mod answer;
mod run;
mod turns;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tollgate_backend::{Embedder, Memory, Token, Tokenizer};

use self::answer::Answer;
use self::run::{Command, Worker, run};
use self::turns::Running;
use crate::engine::{Death, StartError, SubmitError};
use crate::gauges::Gauges;
use crate::tickets::{Ticket, Tickets};

pub use self::answer::{EmbedError, Embedded, Embedding};

/// How an embedder is run.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingSettings {
    /// Jobs that may be there at once, those that are computed included, 0 to 65,536; one more is refused at once. A tenant has at most
    /// as many of the places as it leaves free.
    pub queue: usize,
    /// Tokens that a job has computed before it is another one's turn, at least 1. A text with more is computed all the same.
    pub batch_tokens: u32,
    /// Texts that a job has computed before it is another one's turn, at least 1: a short one takes its time as well.
    pub batch_texts: u16,
    /// The longest that a job may take, whatever its own deadline says.
    pub deadline: Duration,
}

impl Default for EmbeddingSettings {
    fn default() -> Self {
        EmbeddingSettings { queue: 256, batch_tokens: 512, batch_texts: 16, deadline: Duration::from_secs(600) }
    }
}

/// What is to be computed, in tokens of [`EmbeddingEngine::tokenize`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedWork {
    /// A vector for each text.
    Texts(Vec<Vec<Token>>),
    /// How near each document is to the query.
    Rank {
        /// What is looked for.
        query: Vec<Token>,
        /// Where.
        documents: Vec<Vec<Token>>,
    },
}

/// A job for an embedder.
#[derive(Debug)]
pub struct EmbedJob {
    /// What is to be computed.
    pub work: EmbedWork,
    /// Its place, from [`EmbeddingEngine::reserve`] of the same engine. It says whose it is: tenants take turns.
    pub ticket: Ticket,
    /// When it has to be done.
    pub deadline: Instant,
}

/// A loaded embedder that takes jobs. The last handle dropped ends its thread: at the latest after the slice it is in.
#[derive(Clone)]
pub struct EmbeddingEngine(Arc<Shared>);

/// An embedder, for whoever must not keep it alive.
#[derive(Clone)]
pub struct WeakEmbeddingEngine(Weak<Shared>);

impl WeakEmbeddingEngine {
    /// The embedder, if there still is a handle to it.
    #[must_use]
    pub fn upgrade(&self) -> Option<EmbeddingEngine> {
        self.0.upgrade().map(EmbeddingEngine)
    }
}

struct Shared {
    name: String,
    deadline: Duration,
    dimensions: u32,
    max_tokens: u32,
    ranks: bool,
    memory: Memory,
    tokenizer: Arc<dyn Tokenizer>,
    gauges: Arc<Gauges>,
    tickets: Arc<Tickets>,
    commands: SyncSender<Command>,
    is_closed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddingEngine {
    /// Gives `embedder` to a thread named `model-NAME`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(name: &str, embedder: Box<dyn Embedder>, settings: EmbeddingSettings) -> Result<Self, StartError> {
        let EmbeddingSettings { queue, batch_tokens, batch_texts, deadline } = settings;
        let setting = |holds: bool, field, range| if holds { Ok(()) } else { Err(StartError::Setting { field, range }) };
        setting(queue <= 65_536, "queue", "0 to 65536")?;
        setting(batch_tokens >= 1, "batch_tokens", "at least 1")?;
        setting(batch_texts >= 1, "batch_texts", "at least 1")?;
        setting(embedder.max_tokens() >= 1, "the backend's max_tokens", "at least 1")?;
        setting(embedder.ranks() || embedder.dimensions() >= 1, "the backend's dimensions", "at least 1")?;
        let (dimensions, max_tokens, ranks) = (embedder.dimensions(), embedder.max_tokens(), embedder.ranks());
        let (memory, tokenizer) = (embedder.memory(), embedder.tokenizer());
        let gauges = Arc::new(Gauges::default());
        let tickets = Tickets::new(queue, Arc::clone(&gauges));
        // Room for every job with a ticket, and for the word to stop.
        let (commands, received) = sync_channel(queue.saturating_add(1));
        let is_closed = Arc::new(AtomicBool::new(false));
        let death = Death { name: name.to_owned(), is_closed: Arc::clone(&is_closed) };
        let worker = Worker::new(name, embedder, (batch_tokens, batch_texts), Arc::clone(&gauges));
        let thread = std::thread::Builder::new()
            .name(format!("model-{name}"))
            .spawn(move || {
                let _death = death;
                run(worker, &received);
            })
            .map_err(StartError::Thread)?;
        Ok(EmbeddingEngine(Arc::new(Shared {
            name: name.to_owned(),
            deadline,
            dimensions,
            max_tokens,
            ranks,
            memory,
            tokenizer,
            gauges,
            tickets,
            commands,
            is_closed,
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// The model's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tokens that a text may have, or a query and a document together.
    #[must_use]
    pub fn max_tokens(&self) -> u32 {
        self.0.max_tokens
    }

    /// How many numbers a vector has.
    #[must_use]
    pub fn dimensions(&self) -> u32 {
        self.0.dimensions
    }

    /// Whether it ranks documents; it embeds texts otherwise.
    #[must_use]
    pub fn ranks(&self) -> bool {
        self.0.ranks
    }

    /// Bytes that the embedder takes.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.0.memory
    }

    /// What it is doing: a step is a slice, and a row of it a text or a document. Jobs that are computed are among those that wait, for
    /// they hold their places to the end.
    #[must_use]
    pub fn gauges(&self) -> &Gauges {
        &self.0.gauges
    }

    /// A text's tokens. Nothing that is written in it becomes a control token.
    ///
    /// # Errors
    /// [`EmbedError::Failed`]: the text cannot be tokenized.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Token>, EmbedError> {
        self.0.tokenizer.tokenize(text, false).map_err(|error| EmbedError::Failed(error.to_string()))
    }

    /// A place for a job of `tenant`. Returns at once: full means "no".
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

    /// Takes a job. Returns at once; what is wrong with the job itself is its outcome.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`] or [`SubmitError::Stopped`].
    ///
    /// # Panics
    /// With a ticket of another engine.
    pub fn submit(&self, job: EmbedJob) -> Result<Embedding, SubmitError> {
        let shared = &*self.0;
        if shared.is_closed.load(SeqCst) {
            return Err(SubmitError::Stopped);
        }
        assert!(job.ticket.is_of(&shared.tickets), "the ticket is of another engine");
        let (answer, embedding) = Answer::new();
        if let Err(error) = shared.check(&job.work) {
            answer.give(Err(error));
            return Ok(embedding);
        }
        let now = Instant::now();
        let longest = now.checked_add(shared.deadline).unwrap_or(job.deadline);
        let running = Running::new(job.work, job.ticket, job.deadline.min(longest), now, answer);
        match shared.commands.try_send(Command::Submit(Box::new(running))) {
            Ok(()) => Ok(embedding),
            Err(TrySendError::Full(_)) => Err(shared.queue_full()),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Stopped),
        }
    }

    /// Whether it takes jobs: it was not shut down, and its thread has not died.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.0.is_closed.load(SeqCst)
    }

    /// A handle that does not keep it alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakEmbeddingEngine {
        WeakEmbeddingEngine(Arc::downgrade(&self.0))
    }

    /// Takes no more jobs, finishes what it has until `deadline`, then ends the rest with [`EmbedError::Stopped`] and frees the
    /// embedder. It waits for the thread, so call it where waiting is allowed. A second call waits for the first.
    pub fn shutdown(&self, deadline: Instant) {
        self.0.stop(deadline);
    }
}

impl fmt::Debug for EmbeddingEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingEngine").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for WeakEmbeddingEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakEmbeddingEngine")
    }
}

impl Shared {
    /// Whether the model does such work, on texts of these lengths.
    fn check(&self, work: &EmbedWork) -> Result<(), EmbedError> {
        let (before, texts) = match work {
            EmbedWork::Texts(_) if self.ranks => return Err(EmbedError::Unsupported("embedding texts with a model that ranks")),
            EmbedWork::Rank { .. } if !self.ranks => {
                return Err(EmbedError::Unsupported("ranking with a model that embeds texts"));
            }
            EmbedWork::Texts(texts) => (0, texts),
            EmbedWork::Rank { query, documents } => (query.len(), documents),
        };
        let most = usize::try_from(self.max_tokens).unwrap_or(usize::MAX);
        let mut lengths = texts.iter().map(|text| text.len().saturating_add(before)).enumerate();
        match lengths.find(|(_, tokens)| *tokens > most) {
            Some((index, tokens)) => Err(EmbedError::TooLong { index, tokens, most: self.max_tokens }),
            None => Ok(()),
        }
    }

    fn queue_full(&self) -> SubmitError {
        SubmitError::QueueFull { retry_after_s: self.gauges.retry_after_s(1) }
    }

    fn stop(&self, deadline: Instant) {
        self.is_closed.store(true, SeqCst);
        // Held until the thread has ended, so that nobody believes it gone before.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else { return };
        // There is room for it, or there will be after the slice that the thread is in; a thread that has ended needs no word.
        let _ = self.commands.send(Command::Stop(deadline));
        // If it has panicked, it has said so itself.
        let _ = thread.join();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}
