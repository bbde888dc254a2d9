//! The harness that integration suites share: a real gateway as its own process, and a client that speaks TLS to it.
//!
//! A test writes a config directory, starts the gateway on a free port, and sends real requests; nothing is mocked but the model,
//! where a test asks for the scripted one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod client;
mod edits;
mod gateway;

pub use client::{Answer, Client, Connection};
pub use edits::write_as;
pub use gateway::{Gateway, Place, plugin_file, program, repository};
