//! Keys. Needs the capability `credentials`.

pub use crate::bindings::imports::tollgate::plugin::credentials::LookupError;

use crate::Principal;

/// Who holds this secret.
///
/// # Errors
/// It is unknown, expired or revoked, or the store did not answer.
pub fn lookup(secret: &str) -> Result<Principal, LookupError> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::imports::tollgate::plugin::credentials::lookup(secret);
    #[cfg(not(target_arch = "wasm32"))]
    return crate::testing::lookup(secret);
}
