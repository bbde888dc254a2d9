//! Random bytes, seeded by the host on every fresh instance.
//!
//! A stream cipher over the host's 32 bytes of entropy: no two requests see the same bytes.

use std::cell::RefCell;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

thread_local! {
    static GENERATOR: RefCell<Option<ChaCha12Rng>> = const { RefCell::new(None) };
}

/// Starts from new entropy. The host does so on every fresh instance; tests may.
pub fn reseed(entropy: &[u8]) {
    let mut seed = [0; 32];
    for (to, from) in seed.iter_mut().zip(entropy) {
        *to = *from;
    }
    GENERATOR.set(Some(ChaCha12Rng::from_seed(seed)));
}

/// As before any request.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn forget() {
    GENERATOR.set(None);
}

/// Fills `bytes`. Fails before the host seeded this instance: what is drawn in `new` would repeat in every request.
///
/// # Errors
/// [`Unseeded`].
pub fn fill(bytes: &mut [u8]) -> Result<(), Unseeded> {
    GENERATOR.with_borrow_mut(|generator| generator.as_mut().map(|generator| generator.fill_bytes(bytes)).ok_or(Unseeded))
}

/// A random number.
///
/// # Errors
/// [`Unseeded`].
pub fn u64() -> Result<u64, Unseeded> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Chance was asked for during [`Plugin::new`](crate::Plugin::new), where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseeded;

impl std::fmt::Display for Unseeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("random bytes exist only in a request: draw them in a hook, not in new()")
    }
}

impl std::error::Error for Unseeded {}
