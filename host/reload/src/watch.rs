//! Noticing that something changed: a watcher for speed, a hash of contents for certainty.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tollgate_config::{Config, Source};

use crate::Trigger;

/// Watches a directory; every event is a reason to look.
pub(crate) fn watch(dir: &Path, trigger: Trigger, changed: Arc<Notify>) -> Result<RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        // An error (the queue ran over) is a reason to look as well; a mere read is none.
        if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
            trigger.poke();
            changed.notify_one();
        }
    })?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// A digest of the config files and of what they name. Components are small and hashed; model files are taken by their size and
/// time, for they may have gigabytes.
pub(crate) fn fingerprint(content: [u8; 32], config: &Config) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(content);
    for file in named_files(config) {
        hasher.update(file.path.as_os_str().as_encoded_bytes());
        if file.is_small {
            hasher.update(std::fs::read(&file.path).map(|bytes| Sha256::digest(bytes).to_vec()).unwrap_or_default());
        } else if let Ok(metadata) = std::fs::metadata(&file.path) {
            hasher.update(format!("{} {:?}", metadata.len(), metadata.modified().ok()));
        }
    }
    hasher.finalize().into()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NamedFile {
    path: PathBuf,
    is_small: bool,
}

fn named_files(config: &Config) -> BTreeSet<NamedFile> {
    let file = |source: &Source, is_small| match source {
        Source::Builtin(_) => None,
        Source::File(path) => Some(NamedFile { path: config.resolve(path), is_small }),
    };
    let components = config.plugins.values().filter_map(|plugin| file(&plugin.component, true));
    let artifacts = config.models.values().filter_map(|model| file(model.artifact.as_ref()?, false));
    components.chain(artifacts).collect()
}

/// Changed fields that the running process cannot take in.
pub(crate) fn needs_restart(started: &Config, now: &Config) -> Vec<String> {
    let mut fields = Vec::new();
    if started.settings.log != now.settings.log {
        fields.push("tollgate.toml: [log]".to_owned());
    }
    if started.settings.plugins != now.settings.plugins {
        fields.push("tollgate.toml: [plugins]".to_owned());
    }
    if started.settings.requests != now.settings.requests {
        fields.push("tollgate.toml: [requests]".to_owned());
    }
    if started.settings.build != now.settings.build {
        fields.push("tollgate.toml: [build]".to_owned());
    }
    if started.settings.shutdown != now.settings.shutdown {
        fields.push("tollgate.toml: [shutdown]".to_owned());
    }
    if started.settings.telemetry != now.settings.telemetry {
        fields.push("tollgate.toml: [telemetry]".to_owned());
    }
    for id in started.listeners.keys().chain(now.listeners.keys()).collect::<BTreeSet<_>>() {
        match (started.listeners.get(id), now.listeners.get(id)) {
            (Some(old), Some(new)) => {
                let same = [
                    ("address", old.address == new.address),
                    ("tls", old.tls == new.tls),
                    ("plain_http", old.plain_http == new.plain_http),
                    ("dialects", old.dialects == new.dialects),
                    ("trusted_proxies", old.trusted_proxies == new.trusted_proxies),
                    ("limits", old.limits == new.limits),
                ];
                fields.extend(same.into_iter().filter(|(_, same)| !same).map(|(field, _)| format!("{}: {field}", new.file)));
            }
            (old, new) => fields.extend(old.or(new).map(|listener| format!("{}: the whole listener", listener.file))),
        }
    }
    fields
}
