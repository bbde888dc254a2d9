//! The framing of HTTP/1, taken in by path.

#[path = "../../host/server/src/framing/chunked.rs"]
pub(crate) mod chunked;
#[path = "../../host/server/src/framing/head.rs"]
pub(crate) mod head;
