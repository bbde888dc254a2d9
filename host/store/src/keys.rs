//! Secrets are hashed and looked up; what they stand for never leaves with the hash.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tollgate_config::Keys;
use tollgate_domain::{Attribute, Principal};

/// SHA-256 of a secret.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Why a secret opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No such key.
    #[error("no such key")]
    Unknown,
    /// It was valid until then, in milliseconds since 1970-01-01T00:00:00Z.
    #[error("the key expired at {0} ms")]
    Expired(u64),
    /// It was switched off.
    #[error("the key is disabled")]
    Revoked,
}

/// A key and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The key's id.
    pub id: String,
    /// SHA-256 of the secret.
    pub sha256: [u8; 32],
    /// Who it stands for.
    pub principal: Principal,
    /// When it ends, in milliseconds since 1970-01-01T00:00:00Z.
    pub expires_ms: Option<u64>,
    /// Whether it is switched off.
    pub disabled: bool,
}

impl Holder {
    /// The key that the first start makes: everything, for ever.
    #[must_use]
    pub fn admin(secret: &str) -> Self {
        let all = |text: &str| vec![text.to_owned()];
        Holder {
            id: "admin".to_owned(),
            sha256: hash(secret),
            principal: Principal {
                id: "admin".to_owned(),
                tenant: Principal::DEFAULT_TENANT.to_owned(),
                roles: all("admin"),
                scopes: all("admin"),
                models: all("*"),
                default_model: None,
                attributes: Vec::new(),
            },
            expires_ms: None,
            disabled: false,
        }
    }
}

/// All keys, replaced as a whole when any changes.
#[derive(Debug, Default)]
pub struct KeyStore {
    holders: ArcSwap<HashMap<[u8; 32], Holder>>,
}

impl KeyStore {
    /// Replaces all keys: those of the config directory and `own`, the gateway's. A key of the gateway's wins.
    pub fn replace(&self, keys: &Keys, own: impl IntoIterator<Item = Holder>) {
        let configured = keys.keys.values().filter_map(|key| {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(key.sha256.as_str(), &mut sha256).ok()?;
            let names = |list: &[tollgate_config::Name]| list.iter().map(|name| name.as_str().to_owned()).collect();
            let attributes = key.attributes.iter().map(|(name, value)| Attribute {
                name: name.clone(),
                // A JSON string: attributes hold JSON.
                value: serde_json::Value::from(value.as_str()).to_string(),
            });
            let principal = Principal {
                id: key.id.as_str().to_owned(),
                tenant: key.tenant.as_str().to_owned(),
                roles: names(&key.roles),
                scopes: names(&key.scopes),
                models: key.models.iter().map(|name| name.as_str().to_owned()).collect(),
                default_model: key.default_model.as_ref().map(|name| name.as_str().to_owned()),
                attributes: attributes.collect(),
            };
            let expires_ms = key.expires.map(|at| u64::try_from(at.0.unix_timestamp_nanos() / 1_000_000).unwrap_or(0));
            Some(Holder { id: key.id.as_str().to_owned(), sha256, principal, expires_ms, disabled: key.disabled })
        });
        let holders = configured.chain(own).map(|holder| (holder.sha256, holder)).collect();
        self.holders.store(Arc::new(holders));
    }

    /// Who holds `secret` at `now_ms`.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn lookup(&self, secret: &str, now_ms: u64) -> Result<Principal, KeyError> {
        let sha256 = hash(secret);
        let holders = self.holders.load();
        let holder = holders.get(&sha256).filter(|holder| bool::from(holder.sha256.ct_eq(&sha256))).ok_or(KeyError::Unknown)?;
        if holder.disabled {
            return Err(KeyError::Revoked);
        }
        match holder.expires_ms {
            Some(expires) if expires <= now_ms => Err(KeyError::Expired(expires)),
            _ => Ok(holder.principal.clone()),
        }
    }

    /// All keys, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Holder> {
        let mut all = self.holders.load().values().cloned().collect::<Vec<_>>();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(expires_ms: Option<u64>, disabled: bool) -> KeyStore {
        let store = KeyStore::default();
        store.replace(&Keys::default(), [Holder { expires_ms, disabled, ..Holder::admin("secret") }]);
        store
    }

    /// P-A4: the whole secret is the key; a prefix or a longer one opens nothing.
    #[test]
    fn only_the_whole_secret_opens() {
        let store = store(None, false);
        assert_eq!(store.lookup("secret", 0).map(|who| who.id), Ok("admin".to_owned()));
        for wrong in ["", "s", "secre", "secrets", "Secret", "secret "] {
            assert_eq!(store.lookup(wrong, 0), Err(KeyError::Unknown), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_ends_at_its_time_and_when_it_is_switched_off() {
        assert!(store(Some(1_000), false).lookup("secret", 999).is_ok());
        assert_eq!(store(Some(1_000), false).lookup("secret", 1_000), Err(KeyError::Expired(1_000)));
        assert_eq!(store(None, true).lookup("secret", 0), Err(KeyError::Revoked));
    }

    #[test]
    fn a_replaced_key_is_gone_at_once() {
        let store = store(None, false);
        store.replace(&Keys::default(), []);
        assert_eq!(store.lookup("secret", 0), Err(KeyError::Unknown));
    }
}
