//! Keys for plugins: the store behind the host's `credentials` import.

use std::sync::Arc;
use std::time::SystemTime;

use tollgate_plugins::{Credentials, Lookup, LookupError};
use tollgate_store::{KeyError, KeyStore};

/// The key store as plugins may ask it.
pub(crate) struct StoredKeys(pub(crate) Arc<KeyStore>);

impl Credentials for StoredKeys {
    fn lookup<'a>(&'a self, secret: &'a str) -> Lookup<'a> {
        let found = self.0.lookup(secret, now_ms()).map_err(|error| match error {
            KeyError::Unknown => LookupError::Unknown,
            KeyError::Expired(at_ms) => LookupError::Expired(at_ms),
            KeyError::Revoked => LookupError::Revoked,
        });
        Box::pin(std::future::ready(found))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
