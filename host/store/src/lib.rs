//! What is kept: keys and their look-up.
//!
//! Keys are not part of a generation: a change applies at once. Only hashes are kept. It knows no plugin and no HTTP.

mod keys;

pub use keys::{Holder, KeyError, KeyStore, hash};
