//! Which version a name stands for: `activate`, `rollback`, `remove`.

use anyhow::{Context, anyhow};
use indicatif::HumanBytes;
use serde_json::json;
use tollgate_artifacts::store::Activated;
use tollgate_artifacts::{ArtifactName, Digest, Store, StoreError, Which};

use super::cli::{Activate, Remove, Rollback};
use super::{Gateway, Opened, answer, open, probe};

pub(super) fn activate(ask: &Activate) -> anyhow::Result<()> {
    let opened = open(&ask.local)?;
    let digest = match ask.digest {
        Some(digest) => digest,
        None => highest(&opened.store, &ask.name)?,
    };
    let version = opened.store.find(&Which::Digest(digest))?;
    if !ask.no_probe {
        probe::version(&version).map_err(|error| {
            anyhow!("`{}` was not changed, because version {digest} failed when it was tried: {error:#}", ask.name)
        })?;
    }
    let activated = opened.store.hold()?.activate(&ask.name, Some(&digest))?;
    switched(&ask.name, &activated, &opened, ask.local.json)
}

pub(super) fn rollback(ask: &Rollback) -> anyhow::Result<()> {
    let opened = open(&ask.local)?;
    let activated = opened.store.hold()?.rollback(&ask.name)?;
    switched(&ask.name, &activated, &opened, ask.local.json)
}

pub(super) fn remove(ask: &Remove) -> anyhow::Result<()> {
    let Opened { store, data } = open(&ask.local)?;
    let removed = store.hold()?.remove(&ask.which, ask.force)?;
    // It says which models of its config are no longer there, and would keep it from starting.
    let gateway = Gateway::reload(&data);
    let mut text = removed.digests.iter().map(|digest| format!("removed {digest}\n")).collect::<String>();
    if removed.digests.is_empty() {
        text.push_str(&format!(
            "`{}` stands for nothing now; its versions stay, because other names stand for them\n",
            ask.which
        ));
    }
    text.push_str(&format!("freed {}\n{}", HumanBytes(removed.freed_bytes), gateway.text()));
    let value = json!({ "removed": removed.digests, "freed_bytes": removed.freed_bytes, "gateway": gateway.json() });
    answer(ask.local.json, &value, &text)
}

/// The highest version that goes by `name`.
fn highest(store: &Store, name: &ArtifactName) -> anyhow::Result<Digest> {
    let entries = store.list()?.into_iter().filter(|entry| entry.name == *name);
    let highest = entries.max_by_key(|entry| (entry.version, entry.digest));
    highest.map(|entry| entry.digest).ok_or_else(|| StoreError::Missing(name.to_string())).context("nothing was changed")
}

/// Says what a name stands for now.
pub(super) fn now_current(name: &ArtifactName, activated: &Activated) -> String {
    match &activated.previous {
        Some(previous) => {
            format!(
                "`{name}` is {} now; it was {previous}, which `tollgate model rollback {name}` brings back\n",
                activated.digest
            )
        }
        None => format!("`{name}` is {} now\n", activated.digest),
    }
}

fn switched(name: &ArtifactName, activated: &Activated, opened: &Opened, is_json: bool) -> anyhow::Result<()> {
    let gateway = Gateway::reload(&opened.data);
    let Activated { digest, previous } = activated;
    let value = json!({ "name": name, "digest": digest, "previous": previous, "gateway": gateway.json() });
    answer(is_json, &value, &format!("{}{}", now_current(name, activated), gateway.text()))
}
