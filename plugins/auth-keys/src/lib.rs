//! API keys: `Authorization: Bearer KEY` (RFC 6750) or `X-API-Key: KEY`.
//!
//! The plugin reads the key and asks the host who holds it; the host hashes it, compares hashes and checks its expiry. What the key
//! may do (scopes, models, roles, tenant) travels in the principal that the host returns. No key is ever logged or put in a refusal.
//!
//! | config | values | default |
//! |---|---|---|
//! | `accept` | any of `bearer`, `x-api-key`; at least one | both |
//!
//! | the request carries | decision |
//! |---|---|
//! | nothing that `accept` names, or another scheme of `Authorization` | abstain: the next authenticator is asked |
//! | one well-formed key, or the same key in both headers | what the host knows of it |
//! | two different keys | refuse, `invalid`, `conflicting_keys` |
//! | a malformed key, or a header more than once | refuse, `unauthenticated`, `invalid_key` |
//! | a key that nobody holds, has expired, was revoked | refuse, `unauthenticated`, `invalid_api_key`, `expired_key`, `revoked_key` |
//! | a key while the store does not answer | refuse, `unavailable`, `key_store_unavailable` |
//!
//! A key is 1 to 512 characters: a `b64token` behind `Bearer`, visible ASCII in `X-API-Key`. Capabilities: `credentials`, `log`.

use serde::Deserialize;
use tollgate_sdk::credentials::{self, LookupError};
use tollgate_sdk::{Authenticate, Decision, Plugin, Refusal, RefusalKind, RequestHead, log};

/// The longest key, in bytes. What is longer was not issued here, and hashing it would be work for a stranger.
const MAX_KEY_BYTES: usize = 512;

/// What the operator may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where a key may stand.
    #[serde(default = "every_place")]
    accept: Vec<Place>,
}

/// Where a key may stand in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `X-API-Key: KEY`.
    XApiKey,
}

/// The plugin.
#[derive(Debug)]
pub struct AuthKeys {
    accept: Vec<Place>,
}

impl Plugin for AuthKeys {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.accept.is_empty() {
            return Err("accept: name at least one of \"bearer\", \"x-api-key\"".to_owned());
        }
        Ok(AuthKeys { accept: config.accept })
    }
}

impl Authenticate for AuthKeys {
    fn authenticate(&self, head: RequestHead) -> Decision {
        match self.key(&head) {
            Ok(None) => Decision::Abstain,
            Ok(Some(key)) => match credentials::lookup(key) {
                Ok(principal) => Decision::Identity(principal),
                Err(error) => Decision::Refuse(refusal_of(&error)),
            },
            Err(refusal) => Decision::Refuse(refusal),
        }
    }
}

impl AuthKeys {
    /// The one key of the request, if it has any.
    fn key<'a>(&self, head: &'a RequestHead) -> Result<Option<&'a str>, Refusal> {
        let bearer = self.read(Place::Bearer, head)?;
        let header = self.read(Place::XApiKey, head)?;
        match (bearer, header) {
            (Some(one), Some(other)) if one != other => Err(Refusal::new(
                RefusalKind::Invalid,
                "conflicting_keys",
                "The request carries two different keys, in Authorization and in X-API-Key. Send one.",
            )),
            (Some(key), _) | (None, Some(key)) => Ok(Some(key)),
            (None, None) => Ok(None),
        }
    }

    fn read<'a>(&self, place: Place, head: &'a RequestHead) -> Result<Option<&'a str>, Refusal> {
        if !self.accept.contains(&place) {
            return Ok(None);
        }
        let key = match place {
            Place::Bearer => match sole(head, "authorization")?.map(bearer_token) {
                None | Some(None) => return Ok(None),
                Some(Some(token)) => token,
            },
            Place::XApiKey => match sole(head, "x-api-key")? {
                None => return Ok(None),
                Some(value) => value.trim_matches([' ', '\t']),
            },
        };
        let is_well_formed = match place {
            Place::Bearer => is_b64token(key),
            Place::XApiKey => key.bytes().all(|byte| byte.is_ascii_graphic()),
        };
        if is_well_formed && (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(Some(key)) } else { Err(malformed()) }
    }
}

fn every_place() -> Vec<Place> {
    vec![Place::Bearer, Place::XApiKey]
}

/// The value of a header that may stand once: two of them could be read differently by whoever stands in front of us.
fn sole<'a>(head: &'a RequestHead, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = head.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(malformed()),
    }
}

/// What follows the scheme `Bearer`, in any case (RFC 9110, section 11.1); `None` for another scheme.
fn bearer_token(value: &str) -> Option<&str> {
    let value = value.trim_matches([' ', '\t']);
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// RFC 6750, section 2.1.
fn is_b64token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

fn malformed() -> Refusal {
    Refusal::new(RefusalKind::Unauthenticated, "invalid_key", "The request's key is malformed.")
}

fn refusal_of(error: &LookupError) -> Refusal {
    let refuse = |code, message| Refusal::new(RefusalKind::Unauthenticated, code, message);
    match error {
        LookupError::Unknown => refuse("invalid_api_key", "The key is not valid."),
        LookupError::Expired(at_ms) => refuse("expired_key", "The key has expired.").detail(format!("expired_at_ms={at_ms}")),
        LookupError::Revoked => refuse("revoked_key", "The key was revoked."),
        LookupError::Unavailable => {
            log::warn("the key store did not answer in time");
            Refusal::new(RefusalKind::Unavailable, "key_store_unavailable", "Keys cannot be checked at the moment. Try again.")
        }
    }
}

tollgate_sdk::export!(AuthKeys: authenticate; capabilities: credentials, log);

#[cfg(test)]
mod tests;
