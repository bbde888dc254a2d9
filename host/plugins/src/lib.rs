//! The plugin host: WASM components behind typed hooks.
//!
//! A plugin is built once by [`Builder`] (in a child process: check, init, snapshot, compile, golden cases) into an [`Artifact`], loaded by
//! [`PluginHost`] into a [`Plugin`], and takes part in a request as an [`Instance`]: a fresh, initialised copy that all its hooks
//! in that request share and that is dropped after the last.
//!
//! WIT and wasmtime types never leave this crate; the pipeline speaks the words of `domain`. The gateway never compiles: only the
//! build step does, and it runs as its own process.

mod artifact;
mod bindings;
mod build;
mod builder;
mod cases;
mod convert;
mod engine;
mod error;
mod imports;
mod instance;
mod limits;
mod manifest;
mod meter;
mod metrics;
mod plugin;
mod slots;

pub use artifact::{Artifact, ArtifactError, MacKey};
pub use build::{BuildFailure, BuildReport, BuildRequest, BuildStage, run_build};
pub use builder::{BuildLimits, Builder};
pub use cases::{TestRequest, Tested, run_cases};
pub use engine::PluginHost;
pub use error::{Kill, KillReason, LoadError};
pub use imports::{Credentials, Lookup, LookupError};
pub use instance::{Decision, Instance, Outcome, Step, Verdict};
pub use limits::Limits;
pub use manifest::{Capability, Hook, Manifest};
pub use plugin::{OnFailure, Plugin, Spec};
pub use slots::{Reservation, Slot, Slots};

/// The contract's version that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0-draft";
