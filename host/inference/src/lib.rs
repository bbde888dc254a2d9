//! From a chat request to pieces of a reply, over any [`Backend`](tollgate_backend::Backend).
//!
//! It knows no HTTP, no WIT, no config file and no model file. Who may ask, and what may be said, was decided before.
//!
//! # The one loop
//! [`Engine::start`] gives a backend to one thread, which alone owns the backend, the queue and what is in flight: nothing here is
//! behind a lock. The thread takes commands (a request, a wake-up, the end) and calls the scheduler, which does one step:
//!
//! 1. *sweep*: requests whose reader is gone or whose deadline has passed leave, wherever they are: queue, prefill or decode;
//! 2. *resume*: a parked request whose reader has caught up goes on;
//! 3. *admit*: tenants take turns by weight; a request needs a sequence id and cells in the key-value cache, and takes over or
//!    shares the longest prefix that its own tenant has there;
//! 4. *decode*: one row for each running sequence, then prompt chunks in what is left of the step. If the cache is full, idle
//!    prefixes go first, then parked sequences, then the youngest running one, which is computed again later;
//! 5. *sample*: penalties, schema mask, temperature, top-k, top-p, min-p; the random number is a function of (seed, position), so
//!    that a reply depends on its own request alone, whatever else is in the step;
//! 6. *speak*: bytes become characters, stop strings are cut, thoughts are told from text; a reader that stalls parks its row.
//!
//! With nothing to do the thread sleeps until a command comes. Every queue has a bound, and full means "no", at once.
//!
//! A model that turns texts into vectors, or ranks documents, is behind an [`EmbeddingEngine`], which has a thread of its own kind.

mod chat;
mod constraint;
mod embedding;
mod engine;
mod gauges;
mod reply;
mod sampler;
mod sampling;
mod scheduler;
mod stops;
mod tickets;
mod utf8;

pub use chat::{ChatCodec, EncodeError, Prompt, TemplateError};
pub use constraint::SchemaError;
pub use embedding::{
    EmbedError, EmbedJob, EmbedWork, Embedded, Embedding, EmbeddingEngine, EmbeddingSettings, WeakEmbeddingEngine,
};
pub use engine::{
    Adapter, AdapterError, Engine, Event, Finish, GenerateError, Generation, Job, Settings, StartError, SubmitError, Timing,
    WeakEngine,
};
pub use gauges::{Gauges, ROW_BUCKETS};
pub use tickets::Ticket;
