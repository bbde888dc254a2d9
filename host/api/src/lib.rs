//! Dialects: the only place with HTTP and JSON shapes.
//!
//! A request comes in as `http` knows it, goes to the pipeline in the words of `domain`, and its reply leaves as the dialect
//! wants it. Here are no sockets, no TLS and no policy: who may ask and what may be said is the pipeline's.
//!
//! [`router()`] is the way in: `router.rs` has every route in one table, `middleware.rs` every layer in one list, and each
//! dialect has a module of its own.

mod body;
mod failure;
mod health;
mod json;
mod metrics;
mod middleware;
mod observe;
pub mod openai;
mod respond;
mod router;
mod state;

pub use router::{RouteInfo, router, routes};
pub use state::{ApiState, BodyFailure, ClientInfo, MetricsSource};
