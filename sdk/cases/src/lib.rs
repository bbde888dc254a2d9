//! Golden cases: what a plugin has to do, in files beside it, and what it means to pass one.
//!
//! A case is one request through one fresh instance of a plugin: its config, what the hooks are given, and what has to come of
//! each. The format is described in `docs/plugin-cases.md`. The same cases are run natively by `cargo test` (the SDK's module
//! `cases`), on the component by `tollgate plugin test`, and by the gateway's build step before a plugin may serve; this crate is
//! what the three share, so that a case means the same in all of them. It knows no WIT and no wasmtime: whoever has a plugin
//! implements [`Under`] and [`Subject`].

mod case;
mod compare;
mod contract;
mod convert;
mod document;
mod expect;
mod files;
mod input;
mod json;
mod problem;
mod run;
mod splits;
mod words;

pub use case::{Case, Config, Set};
pub use compare::Mismatch;
pub use files::{SECTION, sources};
pub use problem::{Problem, Problems};
pub use run::{ENTROPY, Failure, Fault, Start, Subject, Under, Verdict, run};
pub use words::{
    Attribute, Blob, Certificate, Content, Context, Decision, Flag, Head, LookupError, Message, Origin, Outcome, Parameters,
    Part, Piece, Principal, PromptVerdict, Refusal, RefusalKind, Request, Role, Step, Tool, ToolCall,
};

/// Files of cases that a plugin may have.
pub const MAX_FILES: usize = 64;
/// Bytes of one file.
pub const MAX_FILE_BYTES: usize = 256 << 10;
/// Bytes of a plugin's files together.
pub const MAX_BYTES: usize = 1 << 20;
/// Cases that a plugin may have.
pub const MAX_CASES: usize = 1_000;
/// Fresh instances that a plugin's cases may need together: one for each way that a reply is cut, one for any other case.
pub const MAX_RUNS: usize = 20_000;
