//! The server over real sockets: what a client sees, outcome by outcome. No test asserts a duration.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod deadlines;
mod drain;
mod framing;
mod harness;
mod http2;
mod sizes;
mod tls;
