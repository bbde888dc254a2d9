//! The admin channel: HTTP and JSON on a unix socket that only this user may open.

pub(crate) mod client;
pub(crate) mod server;
