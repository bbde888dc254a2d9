//! Noticing that something changed: a watcher for speed, a hash of contents for certainty.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tollgate_config::{Config, Source};

use crate::Trigger;
use crate::links::{links_in, trail};

/// A watcher of the config directory, and of the files elsewhere that the config names or that links in it lead to.
pub(crate) struct Watching {
    watcher: RecommendedWatcher,
    trigger: Trigger,
    /// As it was given: which directory that is may change.
    dir: PathBuf,
    places: Arc<Mutex<Places>>,
    /// What is watched.
    folders: BTreeMap<PathBuf, Watched>,
    /// Where the links to installed models are.
    installed: PathBuf,
}

/// A folder as it was when its watch began. A watch stays with the folder, even if another has its name later.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Watched {
    device: u64,
    inode: u64,
    /// Numbers of inodes are used again; not all file systems know this.
    born: Option<SystemTime>,
    is_recursive: bool,
}

/// Where an event is a reason to look.
struct Places {
    /// The config directory and what is linked into it as a folder, with all that is in them.
    whole: Vec<PathBuf>,
    /// Files and links elsewhere. Their folders are watched, since a file is often replaced by another of its name; whatever else
    /// happens in there is no reason to look.
    named: BTreeSet<PathBuf>,
}

impl Places {
    /// The places of a config that was loaded from `dir`.
    fn of(dir: &Path, config: &Config, installed: &Path) -> Self {
        let root = real(dir);
        let links = links_in(&root);
        let mut whole = links.iter().filter(|link| link.is_dir()).map(|link| real(link)).collect::<Vec<_>>();
        whole.push(root);
        let files = named_files(config, installed).into_iter().map(|file| file.path).chain(links);
        let named = files.flat_map(|path| trail(&path)).filter(|path| !whole.iter().any(|folder| path.starts_with(folder)));
        // Which directory `dir` is, is told by what holds it.
        let named = named.chain(trail(dir)).collect();
        Places { whole, named }
    }

    fn concern(&self, event: &notify::Event) -> bool {
        let concerns = |path: &PathBuf| self.whole.iter().any(|folder| path.starts_with(folder)) || self.named.contains(path);
        event.paths.is_empty() || event.paths.iter().any(concerns)
    }

    /// The folders to be watched that are there.
    fn folders(&self) -> BTreeMap<PathBuf, Watched> {
        let whole = self.whole.iter().map(|folder| (folder.as_path(), true));
        let holding = self.named.iter().filter_map(|path| Some((path.parent()?, false)));
        let there = holding.chain(whole).filter_map(|(folder, is_recursive)| {
            let metadata = std::fs::metadata(folder).ok()?;
            let born = metadata.created().ok();
            Some((folder.to_owned(), Watched { device: metadata.dev(), inode: metadata.ino(), born, is_recursive }))
        });
        there.collect()
    }
}

impl Watching {
    /// Watches `dir`; every event in it is a reason to look.
    pub(crate) fn new(dir: &Path, installed: &Path, trigger: Trigger, changed: Arc<Notify>) -> Result<Self, notify::Error> {
        let root = real(dir);
        let places = Arc::new(Mutex::new(Places { whole: vec![root.clone()], named: BTreeSet::new() }));
        let (own, poked) = (Arc::clone(&places), trigger.clone());
        let on_event = move |event: Result<notify::Event, notify::Error>| {
            // An error (the queue ran over) is a reason to look as well; a mere read is none.
            let is_reason = match event {
                Ok(notify::Event { kind: EventKind::Access(_), .. }) => false,
                Ok(event) => own.lock().unwrap_or_else(PoisonError::into_inner).concern(&event),
                Err(_) => true,
            };
            if is_reason {
                poked.poke();
                changed.notify_one();
            }
        };
        // What is linked is watched where it lies: two watches of one folder are one to the kernel, and end together.
        let mut watcher = RecommendedWatcher::new(on_event, notify::Config::default().with_follow_symlinks(false))?;
        watcher.watch(&root, RecursiveMode::Recursive)?;
        let folders = places.lock().unwrap_or_else(PoisonError::into_inner).folders();
        Ok(Watching { watcher, trigger, dir: dir.to_owned(), places, folders, installed: installed.to_owned() })
    }

    /// Watches what `config` names as well, and every link on the way. A folder that cannot be watched is looked at by the next poll.
    pub(crate) fn follow(&mut self, config: &Config) {
        let places = Places::of(&self.dir, config, &self.installed);
        let wanted = places.folders();
        // Before anything is watched, so that what happens from then on is known to matter.
        *self.places.lock().unwrap_or_else(PoisonError::into_inner) = places;
        // First what is not wanted any more: a watch of a folder ends those of all folders in it that it began.
        self.folders.retain(|folder, watched| {
            let stays = wanted.get(folder) == Some(watched);
            if !stays {
                // It may have been removed, and its watch with it.
                let _ = self.watcher.unwatch(folder);
            }
            stays
        });
        let before = self.folders.len();
        for (folder, watched) in wanted {
            if self.folders.contains_key(&folder) {
                continue;
            }
            let mode = if watched.is_recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            match self.watcher.watch(&folder, mode) {
                Ok(()) => drop(self.folders.insert(folder, watched)),
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "not watched, but polled"),
            }
        }
        if self.folders.len() > before {
            // What happened in there before it was watched.
            self.trigger.poke();
        }
    }
}

/// The path of a folder without links, if there is one.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// A digest of the config files and of what they name. Components are small and hashed; model files are taken by their size and
/// time, for they may have gigabytes, and installed models by what their links lead to.
pub(crate) fn fingerprint(content: [u8; 32], config: &Config, installed: &Path) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(content);
    for file in named_files(config, installed) {
        hasher.update(file.path.as_os_str().as_encoded_bytes());
        if file.is_small {
            hasher.update(std::fs::read(&file.path).map(|bytes| Sha256::digest(bytes).to_vec()).unwrap_or_default());
        } else if let Ok(metadata) = std::fs::metadata(&file.path) {
            hasher.update(format!("{} {:?} {:?}", metadata.len(), metadata.modified().ok(), std::fs::read_link(&file.path).ok()));
        }
    }
    hasher.finalize().into()
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NamedFile {
    path: PathBuf,
    is_small: bool,
}

fn named_files(config: &Config, installed: &Path) -> BTreeSet<NamedFile> {
    let file = |source: &Source, is_small| match source {
        Source::Builtin(_) => None,
        Source::Installed(name) => Some(NamedFile { path: installed.join(name.as_str()), is_small }),
        Source::File(path) => Some(NamedFile { path: config.resolve(path), is_small }),
    };
    let components = config.plugins.values().filter_map(|plugin| file(&plugin.component, true));
    let artifacts = config.models.values().filter_map(|model| file(model.artifact.as_ref()?, false));
    // A provider's key is read for every request; it is named here so that one that was missing is found.
    let providers = config.models.values().filter_map(|model| model.provider.as_ref());
    let of_providers = providers.flat_map(|provider| [&provider.ca, &provider.key_file]).flatten();
    let of_providers = of_providers.map(|path| NamedFile { path: config.resolve(path), is_small: true });
    components.chain(artifacts).chain(of_providers).collect()
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
    if started.settings.models.onnxruntime != now.settings.models.onnxruntime {
        fields.push("tollgate.toml: models.onnxruntime".to_owned());
    }
    if started.settings.models.tune != now.settings.models.tune {
        fields.push("tollgate.toml: models.tune".to_owned());
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
