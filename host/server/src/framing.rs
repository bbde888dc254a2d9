//! Where an HTTP/1 message begins and ends, decided once and strictly (RFC 9112; P-E4).
//!
//! Pure functions and machines over bytes, with no I/O. hyper parses the same bytes again for their
//! meaning; it only ever sees what passed here, so the two cannot disagree about a boundary. hyper alone
//! would not do: it drops `Content-Length` silently when `Transfer-Encoding` stands beside it, accepts bare
//! line feeds and any coding list that ends in `chunked`.

mod chunked;
mod head;
#[cfg(test)]
mod tests;

pub(crate) use chunked::Chunked;
pub(crate) use head::{HeadLimits, HeadScanner, Length, check, parse_authority, same_host};
