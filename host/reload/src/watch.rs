//! Noticing that something changed: a watcher for speed, a hash of contents for certainty.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tollgate_config::{Config, Source};

use crate::Trigger;
use crate::links::{links_in, trail};

/// A watcher of the config directory, and of the files elsewhere that the config names or that links in it lead to.
pub(crate) struct Watching {
    watcher: RecommendedWatcher,
    /// As it was given: which directory that is may change.
    dir: PathBuf,
    places: Arc<Mutex<Places>>,
    folders: BTreeSet<PathBuf>,
}

/// Where an event is a reason to look.
struct Places {
    /// The config directory, with all that is in it.
    dir: PathBuf,
    /// Files and links elsewhere. Their folders are watched, since a file is often replaced by another of its name; whatever else
    /// happens in there is no reason to look.
    named: BTreeSet<PathBuf>,
}

impl Places {
    fn concern(&self, event: &notify::Event) -> bool {
        event.paths.is_empty() || event.paths.iter().any(|path| path.starts_with(&self.dir) || self.named.contains(path))
    }
}

impl Watching {
    /// Watches `dir`; every event in it is a reason to look.
    pub(crate) fn new(dir: &Path, trigger: Trigger, changed: Arc<Notify>) -> Result<Self, notify::Error> {
        let places = Arc::new(Mutex::new(Places { dir: real(dir), named: BTreeSet::new() }));
        let own = Arc::clone(&places);
        let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            // An error (the queue ran over) is a reason to look as well; a mere read is none.
            let is_reason = match event {
                Ok(notify::Event { kind: EventKind::Access(_), .. }) => false,
                Ok(event) => own.lock().unwrap_or_else(PoisonError::into_inner).concern(&event),
                Err(_) => true,
            };
            if is_reason {
                trigger.poke();
                changed.notify_one();
            }
        })?;
        watcher.watch(&real(dir), RecursiveMode::Recursive)?;
        Ok(Watching { watcher, dir: dir.to_owned(), places, folders: BTreeSet::new() })
    }

    /// Watches what `config` names as well, and every link on the way. A folder that cannot be watched is looked at by the next poll.
    pub(crate) fn follow(&mut self, config: &Config) {
        let dir = real(&self.dir);
        let before = self.lock().dir.clone();
        if dir != before {
            let _ = self.watcher.unwatch(&before);
            self.watch(&dir, RecursiveMode::Recursive);
        }
        let named = named_files(config).into_iter().map(|file| file.path);
        let named = named.chain(links_in(&dir)).chain([self.dir.clone()]).flat_map(|path| trail(&path));
        let named = named.filter(|path| !path.starts_with(&dir)).collect::<BTreeSet<_>>();
        let wanted = named.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect::<BTreeSet<_>>();
        for gone in self.folders.difference(&wanted) {
            // It may have been removed, and its watch with it.
            let _ = self.watcher.unwatch(gone);
        }
        self.folders.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            if !self.folders.contains(&folder) && self.watch(&folder, RecursiveMode::NonRecursive) {
                self.folders.insert(folder);
            }
        }
        *self.lock() = Places { dir, named };
    }

    fn watch(&mut self, folder: &Path, mode: RecursiveMode) -> bool {
        let watched = self.watcher.watch(folder, mode);
        if let Err(error) = &watched {
            tracing::debug!(folder = %folder.display(), %error, "not watched, but polled");
        }
        watched.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of a folder without links, if there is one.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
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
