//! Suites through the real binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod access;
mod artifacts;
mod cases;
mod chat;
mod convert;
mod embeddings;
mod exports;
mod first_start;
mod lifecycle;
mod logprobs;
mod lora;
mod metrics;
mod pii;
mod plugins_live;
mod providers;
mod reload;
mod sdk;
mod shutdown;
mod support;
mod traces;
mod tune;
