//! Accepts, terminates TLS, bounds and drains connections, and calls one opaque service.
//!
//! It knows no route, no JSON and no dialect: a listener is given a [`tower_service::Service`] and hands it
//! requests whose framing is beyond doubt and whose body is bounded. It reads no configuration and depends
//! on no other crate of the gateway.
//!
//! The way of a connection: [`serve`] accepts and counts it (`accept`, `caps`), `connection` does the TLS
//! handshake and chooses HTTP/1.1 or HTTP/2 by ALPN, `gate` (over the pure `framing`) lets only
//! unambiguous HTTP/1 messages through to hyper, `edge` makes the last checks and calls the service.
//! Time is kept in three places: `progress` for what happens between requests, [`RequestBody`] for bodies
//! on their way in, `socket` and `streams` for bodies on their way out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly"))]

mod accept;
mod body;
mod caps;
mod client_ip;
mod connection;
mod drain;
mod edge;
mod error;
mod frames;
mod framing;
mod gate;
mod gauges;
mod info;
mod limits;
mod listener;
mod local_ca;
mod progress;
mod signals;
mod socket;
mod streams;
mod tls;
mod watch;

pub use accept::serve;
pub use body::{BodyError, RequestBody};
pub use client_ip::{Cidr, CidrError, client_ip};
pub use drain::{Drain, Drained, Signal};
pub use error::{EdgeError, ErrorResponder, plain_text};
pub use gauges::Gauges;
pub use info::{ConnectionInfo, TlsInfo, TlsVersion};
pub use limits::Limits;
pub use listener::{BindError, Listener};
pub use local_ca::{LocalCa, LocalCaError};
pub use signals::{Ending, Signals};
pub use tls::{CertificatePaths, CertificateStore, Tls, TlsError};
