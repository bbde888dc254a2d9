//! The config directory as plain data.
//!
//! ```text
//! tollgate.toml        Settings: log, shutdown, reload, build, plugin pool, traces
//! listeners/ID.toml    Listener: address, TLS, dialects, authenticators, limits
//! models/ID.toml       Model: backend, artifact, scheduling, sampling defaults
//! plugins/ID.toml      Plugin: component, grants, limits, config
//! routes/ID.toml       Route: condition, plugins, model, template, limits
//! keys/ID.toml         Key: the hash of a secret, and who holds it
//! ```
//!
//! One object per file; its id is the file's stem. [`load`] reads the directory, [`load_keys`] the keys (which apply at once
//! and belong to no generation), and [`content_hash`] and [`Keys::hash`] tell a poll whether anything changed. There is no
//! other I/O here: components, artifacts and certificates are only named, and [`Config::resolve`] says where they lie.
//!
//! Two stages: *parse* holds each file against the JSON Schema that its type derives (unknown keys, types, ranges, forms), so
//! that [`schemas`], which editors complete by, and the check cannot differ; *validate* looks at references and conflicts.
//! Both report everything they find, as [`Problems`]. Durations are integers with the unit in the key (`_us`, `_ms`, `_s`),
//! and so are sizes (`_bytes`, `_kib`, `_mib`); every number has a closed range. Relations that the files cannot show (does
//! the component export the hook?) are checked where a generation is built.

mod canonical;
mod config;
mod files;
mod key;
mod listener;
mod model;
mod network;
mod parse;
mod plugin;
mod problem;
mod provider;
mod route;
mod schema;
mod settings;
mod source;
mod telemetry;
mod text;
mod validate;

#[cfg(test)]
mod tests;

pub use config::{Config, Object, load};
pub use files::content_hash;
pub use key::{Key, Keys, Timestamp, load_keys};
pub use listener::{Addresses, Dialect, Listener, ListenerLimits, Tls};
pub use model::{Backend, KvCache, Model, Quantization, Sampling, Scripted, Task};
pub use network::Network;
pub use plugin::{Capability, OnFailure, Plugin, PluginLimits};
pub use problem::{Problem, Problems};
pub use provider::{HostPort, Provider, ProviderKind};
pub use route::{Match, Route, RouteLimits};
pub use schema::schemas;
pub use settings::{Build, Log, Models, PluginPool, Reload, Settings, Shutdown, Startup};
pub use source::Source;
pub use telemetry::{Endpoint, Telemetry};
pub use text::{Allowed, Id, Malformed, Name, PublicKey, Sha256Hex};
