//! The whole directory: loading it, and what the loaded form is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::{self, Kind, Snapshot};
use crate::listener::Listener;
use crate::model::Model;
use crate::parse::{self, Positions};
use crate::plugin::Plugin;
use crate::problem::{Problem, Problems};
use crate::route::Route;
use crate::settings::Settings;
use crate::text::Id;
use crate::{canonical, schema, validate};

/// A config directory that is right in itself: what a generation is built from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory, as given to [`load`].
    pub dir: PathBuf,
    /// What [`content_hash`](crate::content_hash) gave for the files that this was made from.
    pub hash: [u8; 32],
    /// `tollgate.toml`
    pub settings: Settings,
    /// `listeners/*.toml`
    pub listeners: BTreeMap<Id, Object<Listener>>,
    /// `models/*.toml`
    pub models: BTreeMap<Id, Object<Model>>,
    /// `plugins/*.toml`
    pub plugins: BTreeMap<Id, Object<Plugin>>,
    /// `routes/*.toml`
    pub routes: BTreeMap<Id, Object<Route>>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
    /// Every id and alias, to the model's id.
    names: BTreeMap<String, Id>,
}

/// One object with the file that describes it. Derefs to what the file says.
#[derive(Debug, Clone)]
pub struct Object<T> {
    /// The stem of the file.
    pub id: Id,
    /// The file, relative to the config directory: `routes/chat.toml`.
    pub file: String,
    spec: T,
    positions: Positions,
}

/// Loads a config directory: reads its files (the keys excepted, see [`load_keys`](crate::load_keys)), parses them, and
/// checks what they say of each other. What they refer to (components, artifacts, certificates) is not read.
///
/// # Errors
/// Everything that is wrong, not only the first. References to objects of a kind are checked as soon as every file of that
/// kind is right in itself, so that one slip is one problem.
pub fn load(dir: &Path) -> Result<Config, Problems> {
    let mut snapshot = files::read(dir, &Kind::GENERATION);
    let mut problems = std::mem::take(&mut snapshot.problems);
    let mut broken: BTreeSet<Kind> = BTreeSet::new();
    if !problems.is_empty() {
        broken.extend(Kind::GENERATION);
    }

    let mut settings = objects::<Settings>(Kind::Settings, &snapshot, &mut problems);
    let mut config = Config {
        dir: dir.to_owned(),
        hash: [0; 32],
        settings: settings.pop_first().map(|(_, settings)| settings.spec).unwrap_or_default(),
        listeners: tracked(Kind::Listener, &snapshot, &mut problems, &mut broken),
        models: tracked(Kind::Model, &snapshot, &mut problems, &mut broken),
        plugins: tracked(Kind::Plugin, &snapshot, &mut problems, &mut broken),
        routes: tracked(Kind::Route, &snapshot, &mut problems, &mut broken),
        warnings: std::mem::take(&mut snapshot.warnings),
        names: BTreeMap::new(),
    };
    config.names = validate::names(&config.models, &mut problems);
    validate::validate(&config, &broken, &mut problems);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    config.hash = snapshot.hash();
    config.warnings.extend(validate::warnings(&config));
    Ok(config)
}

impl Config {
    /// The model that a client's name means: an id or an alias.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Object<Model>> {
        self.names.get(name).and_then(|id| self.models.get(id))
    }

    /// The id of the model that `name` means, or `name` itself where it means none.
    #[must_use]
    pub fn canonical_model<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, Id::as_str)
    }

    /// A path from a config file: relative ones begin at the config directory.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }
}

impl<T> Object<T> {
    /// Whether the file says something at `path`.
    pub(crate) fn is_written(&self, path: &str) -> bool {
        self.positions.contains_key(path)
    }

    /// A problem with the field at `path`, at its place in the file where that is known.
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>, cure: impl Into<String>) -> Problem {
        Problem::new(self.file.as_str(), self.positions.get(path).copied(), path, message, cure)
    }
}

impl<T: Serialize> Object<T> {
    /// What the file says as JSON with sorted keys and every default filled in, for digests: files that mean the same give
    /// the same text, whatever their comments and order.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        canonical::json(&self.spec)
    }
}

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.spec
    }
}

/// Parses the files of one kind; what is wrong goes to `problems`, and the rest is returned.
pub(crate) fn objects<T: DeserializeOwned + JsonSchema>(
    kind: Kind,
    snapshot: &Snapshot,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Id, Object<T>> {
    let schema = schema::of::<T>();
    let mut objects = BTreeMap::new();
    for file in snapshot.files.iter().filter(|file| file.kind == kind) {
        if let Some((spec, positions)) = parse::parse(file, &schema, problems) {
            let object = Object { id: file.id.clone(), file: file.name.clone(), spec, positions };
            objects.insert(file.id.clone(), object);
        }
    }
    objects
}

/// [`objects`], noting the kind as broken where a file of it is wrong.
fn tracked<T: DeserializeOwned + JsonSchema>(
    kind: Kind,
    snapshot: &Snapshot,
    problems: &mut Vec<Problem>,
    broken: &mut BTreeSet<Kind>,
) -> BTreeMap<Id, Object<T>> {
    let before = problems.len();
    let objects = objects(kind, snapshot, problems);
    if problems.len() > before {
        broken.insert(kind);
    }
    objects
}
