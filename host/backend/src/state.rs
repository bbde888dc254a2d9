//! What a sequence holds, outside the backend's memory: kept by whoever needs the room for something else, and put back later.
//!
//! The bytes are the backend's own and mean nothing to anybody else. Native code reads them back, so they never come from outside: only
//! the loaded model that saved them can get at them again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Tells one loaded model from every other of this process. A backend keeps its own to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    /// One that nobody else has.
    #[must_use]
    pub fn unique() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Owner(LAST.fetch_add(1, Relaxed))
    }
}

/// A sequence as one loaded model saved it.
#[derive(Debug)]
pub struct State {
    owner: Owner,
    tokens: u32,
    bytes: Vec<u8>,
}

impl State {
    /// What `owner` saved of a sequence of so many tokens.
    #[must_use]
    pub fn new(owner: Owner, tokens: u32, bytes: Vec<u8>) -> Self {
        State { owner, tokens, bytes }
    }

    /// Tokens of the sequence.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, for the one that saved them.
    #[must_use]
    pub fn bytes(&self, owner: Owner) -> Option<&[u8]> {
        (self.owner == owner).then_some(self.bytes.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_what_another_saved() {
        let (one, other) = (Owner::unique(), Owner::unique());
        let state = State::new(one, 2, vec![1, 2, 3]);
        assert_eq!((state.tokens(), state.size()), (2, 3));
        assert_eq!((state.bytes(one), state.bytes(other)), (Some(&[1, 2, 3][..]), None));
    }
}
