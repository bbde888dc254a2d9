//! `keys/ID.toml`: who holds a key. A key file has the SHA-256 of the secret and never the secret.
//!
//! Keys apply at once, so they are no part of a generation: they are loaded and hashed on their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{Object, objects};
use crate::files::{self, Kind};
use crate::problem::Problem;
use crate::text::{Allowed, Id, Malformed, Name, Sha256Hex, text_type};

/// A key and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// SHA-256 of the secret, 64 lower-case hex digits.
    pub sha256: Sha256Hex,
    /// The tenant. Default `default`.
    #[serde(default = "default_tenant")]
    pub tenant: Name,
    /// The roles. Default `["user"]`.
    #[serde(default = "default_roles")]
    #[schemars(length(max = 64))]
    pub roles: Vec<Name>,
    /// What the key may be used for: `chat`, `models`, `admin`. Default `["chat"]`.
    #[serde(default = "default_scopes")]
    #[schemars(length(max = 64))]
    pub scopes: Vec<Name>,
    /// The models that it may be used for, by id or alias; `*` is all of them. Default `["*"]`.
    #[serde(default = "default_models")]
    #[schemars(length(max = 1_000))]
    pub models: Vec<Allowed>,
    /// The model for requests that name none.
    #[serde(default)]
    pub default_model: Option<Name>,
    /// The moment from which the key is refused, RFC 3339, in quotes.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Refuse the key. Default false.
    #[serde(default)]
    pub disabled: bool,
    /// Handed to plugins with the principal.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub attributes: BTreeMap<String, String>,
}

/// A moment, written as RFC 3339 with its offset: `2027-01-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub OffsetDateTime);

impl FromStr for Timestamp {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self).map_err(|_| Self::MALFORMED)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

text_type!(
    Timestamp,
    "date-time",
    "a moment",
    "write it in RFC 3339 with an offset and in quotes, such as `\"2027-01-01T00:00:00Z\"`"
);

/// The keys of a config directory, as far as they could be read.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The keys in use.
    pub keys: BTreeMap<Id, Object<Key>>,
    /// What is wrong with the other files.
    pub problems: Vec<Problem>,
    /// A digest of the files that these are from: equal as long as nothing changed.
    pub hash: [u8; 32],
}

/// Loads `DIR/keys`. A missing directory has no keys. One bad file leaves the others in use.
///
/// A key whose file cannot be read, or is wrong, stays as it was in `before`: neither a slip nor a process that ran out of
/// files locks anybody out. To revoke a key is to remove its file, or to disable it. Where two files have the same secret,
/// neither is used: which principal is meant cannot be known.
#[must_use]
pub fn load_keys(dir: &Path, before: &Keys) -> Keys {
    let mut snapshot = files::read(dir, &[Kind::Key]);
    let hash = snapshot.hash();
    let mut problems = std::mem::take(&mut snapshot.problems);
    let mut keys = objects::<Key>(Kind::Key, &snapshot, &mut problems);
    let wrong: BTreeSet<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
    // The directory itself, where its files could not even be listed.
    let all = wrong.contains("") || wrong.contains(Kind::Key.directory());
    for (id, key) in before.keys.iter().filter(|(_, key)| all || wrong.contains(key.file.as_str())) {
        keys.entry(id.clone()).or_insert_with(|| key.clone());
    }
    let mut holders: BTreeMap<Sha256Hex, Vec<Id>> = BTreeMap::new();
    for (id, key) in &keys {
        holders.entry(key.sha256.clone()).or_default().push(id.clone());
    }
    for ids in holders.into_values().filter(|ids| ids.len() > 1) {
        let names: Vec<String> = ids.iter().map(|id| format!("`{id}`")).collect();
        for id in &ids {
            let Some(key) = keys.remove(id) else { continue };
            problems.push(key.problem(
                "sha256",
                format!("the keys {} have the same secret, so none of them is used", names.join(", ")),
                "remove all but one",
            ));
        }
    }
    Keys { keys, problems, hash }
}

fn default_tenant() -> Name {
    name("default")
}

fn default_roles() -> Vec<Name> {
    vec![name("user")]
}

fn default_scopes() -> Vec<Name> {
    vec![name("chat")]
}

fn default_models() -> Vec<Allowed> {
    vec!["*".parse().expect("`*` is an allowed model")]
}

fn name(text: &'static str) -> Name {
    text.parse().expect("the defaults are names")
}
