//! The files of a config directory that count, as bytes. All of this crate's I/O is here.
//!
//! Symbolic links are followed, so the `..data` directories that Kubernetes mounts work. What editors and people leave beside
//! config files (dot files, backups, `README*`) is ignored.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::problem::{Problem, closest, shown};
use crate::text::Id;

/// A config file may have this many bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// All config files together may have this many bytes.
const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;
/// A kind may have this many objects.
const MAX_OBJECTS: usize = 1_000;
/// The file of the settings.
const SETTINGS: &str = "tollgate.toml";

/// What a config file describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `tollgate.toml`
    Settings,
    /// `listeners/*.toml`
    Listener,
    /// `models/*.toml`
    Model,
    /// `plugins/*.toml`
    Plugin,
    /// `routes/*.toml`
    Route,
    /// `keys/*.toml`
    Key,
}

impl Kind {
    /// What makes up a generation: everything but the keys, which apply at once.
    pub(crate) const GENERATION: [Self; 5] = [Self::Settings, Self::Listener, Self::Model, Self::Plugin, Self::Route];

    /// The directory of the kind's files.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Settings => "",
            Self::Listener => "listeners",
            Self::Model => "models",
            Self::Plugin => "plugins",
            Self::Route => "routes",
            Self::Key => "keys",
        }
    }
}

/// One config file.
#[derive(Debug)]
pub(crate) struct File {
    /// What it describes.
    pub(crate) kind: Kind,
    /// The object's id; `tollgate` for the settings.
    pub(crate) id: Id,
    /// Relative to the config directory, with `/` between its parts.
    pub(crate) name: String,
    /// As read, not yet known to be UTF-8.
    pub(crate) bytes: Vec<u8>,
}

/// The files of a config directory at one moment, in the order of their kinds and names.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The files that could be read.
    pub(crate) files: Vec<File>,
    /// Why the others could not.
    pub(crate) problems: Vec<Problem>,
    /// What looks like a mistake but stands in nobody's way.
    pub(crate) warnings: Vec<Problem>,
}

impl Snapshot {
    /// A digest of names and bytes, and of what could not be read, so that a file which becomes readable is a change.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            // The length first: no two lists of fields run together to the same bytes.
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        for file in &self.files {
            field(file.name.as_bytes());
            field(&file.bytes);
        }
        field(b"problems");
        for problem in &self.problems {
            field(problem.file.as_bytes());
            field(problem.message.as_bytes());
        }
        hasher.finalize().into()
    }
}

/// A digest of every file that a generation is made of (the keys are not): equal as long as nothing changed. For polling.
/// What components and artifacts the files refer to is not part of it.
#[must_use]
pub fn content_hash(dir: &Path) -> [u8; 32] {
    read(dir, &Kind::GENERATION).hash()
}

/// Reads the files of the given kinds.
pub(crate) fn read(dir: &Path, kinds: &[Kind]) -> Snapshot {
    let mut reader = Reader { snapshot: Snapshot::default(), bytes_left: MAX_TOTAL_BYTES };
    if !dir.is_dir() {
        let message = format!("the config directory `{}` does not exist", shown(&dir.to_string_lossy()));
        reader.problem("", message, "give the right one with `--config DIR`");
        return reader.snapshot;
    }
    for kind in kinds {
        if *kind == Kind::Settings {
            reader.settings(dir);
        } else {
            reader.objects(dir, *kind);
        }
    }
    reader.snapshot
}

struct Reader {
    snapshot: Snapshot,
    bytes_left: u64,
}

impl Reader {
    fn settings(&mut self, dir: &Path) {
        self.strangers(dir);
        // A link that leads nowhere is a mistake, a file that is not there is none.
        if fs::symlink_metadata(dir.join(SETTINGS)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return;
        }
        let id = "tollgate".parse().expect("`tollgate` is an id");
        self.file(dir, Kind::Settings, id, SETTINGS.to_owned());
    }

    fn objects(&mut self, dir: &Path, kind: Kind) {
        let directory = kind.directory();
        let stems = match stems(&dir.join(directory)) {
            Ok(stems) => stems,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.problem(directory, format!("the directory cannot be read: {error}"), "check its permissions");
                return;
            }
        };
        let is_over = stems.len() > MAX_OBJECTS;
        let message = format!("there are more than {MAX_OBJECTS} files");
        if is_over && kind != Kind::Key {
            self.problem(directory, message, "remove what is not in use");
            return;
        }
        for (number, stem) in stems.into_iter().enumerate() {
            let name = format!("{directory}/{stem}.toml");
            // Each key is for itself: too many of them keep none from being revoked.
            if number >= MAX_OBJECTS {
                self.problem(name, message.clone(), "remove what is not in use");
                continue;
            }
            match stem.parse::<Id>() {
                Ok(id) => self.file(dir, kind, id, name),
                Err(malformed) => {
                    let message = format!("`{}` is not {}", shown(&stem), malformed.what);
                    self.problem(format!("{directory}/{}.toml", shown(&stem)), message, malformed.cure);
                }
            }
        }
    }

    fn file(&mut self, dir: &Path, kind: Kind, id: Id, name: String) {
        match bytes(&dir.join(&name)) {
            Ok(bytes) if bytes.len() as u64 > self.bytes_left => {
                let message = format!("the config files together have more than {} MiB", MAX_TOTAL_BYTES >> 20);
                self.problem(name, message, "remove what is not in use");
            }
            Ok(bytes) => {
                self.bytes_left -= bytes.len() as u64;
                self.snapshot.files.push(File { kind, id, name, bytes });
            }
            Err(error) => self.problem(name, format!("the file cannot be read: {error}"), "mend or remove it"),
        }
    }

    /// Warns of what was probably meant to be read: `route/` for `routes/`, a TOML file in the wrong place.
    fn strangers(&mut self, dir: &Path) {
        const DIRECTORIES: [&str; 5] = ["listeners", "models", "plugins", "routes", "keys"];
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut warnings = BTreeSet::new();
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_ignored(&name) || name == SETTINGS || DIRECTORIES.contains(&name.as_str()) || warnings.len() >= 16 {
                continue;
            }
            if entry.path().is_dir() {
                if let Some(meant) = closest(&name, DIRECTORIES) {
                    warnings.insert((shown(&name), format!("did you mean `{meant}`?")));
                }
            } else if name.ends_with(".toml") {
                let cure = format!("settings stand in {SETTINGS}, everything else in a directory of its kind");
                warnings.insert((shown(&name), cure));
            }
        }
        for (name, cure) in warnings {
            self.snapshot.warnings.push(Problem::new(name, None, "", "nothing reads this", cure));
        }
    }

    fn problem(&mut self, file: impl Into<String>, message: String, cure: &str) {
        self.snapshot.problems.push(Problem::new(file, None, "", message, cure));
    }
}

/// The names without `.toml` of the files in a directory that count, sorted; no more than twice as many as are allowed.
fn stems(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut stems = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        // A name that is not UTF-8 is no id; it is kept in its lossy form to be refused as one.
        let name = name.to_string_lossy();
        if is_ignored(&name) {
            continue;
        }
        if let Some(stem) = name.strip_suffix(".toml") {
            stems.insert(stem.to_owned());
        }
        if stems.len() >= 2 * MAX_OBJECTS {
            break;
        }
    }
    Ok(stems)
}

/// Dot files (`..data`, `.#lock`), Emacs's `#autosave#`, and `README*`. Other backups (`*~`, `*.swp`) do not end in `.toml`.
fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.starts_with("README")
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::other(format!("it has more than {} MiB", MAX_FILE_BYTES >> 20));
    let metadata = fs::metadata(path)?;
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // The file may have grown since.
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(too_large()) } else { Ok(bytes) }
}
