//! Where models are kept: files by their content, versions as folders of links to them, and one link per name that says which version
//! is current. Reading needs no lock; every change goes through [`Held`], and each of its steps leaves `current` complete (P-M10).
//!
//! ```text
//! current/NAME       -> ../cache/versions/DIGEST, replaced by a rename
//! rollback/NAME      -> the version that was current before
//! cache/versions/DIGEST/   the files (links to blobs), manifest.json, manifest.json.sig, .installed.json
//! cache/blobs/SHA256       a file by its content, never written again
//! cache/staging/  cache/partial/   what is being installed and downloaded
//! cache/newest/NAME        the highest version that was ever accepted
//! cache/lock               held while something changes
//! ```

mod error;
mod heal;
mod held;
mod install;
mod layout;
mod newest;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::files::{At, open_beneath, read_small};
use crate::manifest::{Format, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest};
use crate::name::{ArtifactName, Which};
use crate::progress::{Progress, Work};
use layout::Layout;

pub use error::StoreError;
pub use held::{Activated, Held, Removed};
pub use install::{Checked, Installed};
pub use staging::Staging;

/// How long a change waits for another process to finish its own.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// The file in a version's folder that says how it came there.
const RECORD_FILE: &str = ".installed.json";
const MAX_RECORD_BYTES: u64 = 4096;

/// The models of one data directory.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
}

/// An installed version.
#[derive(Debug, Clone)]
pub struct Version {
    /// What it is known by.
    pub digest: Digest,
    /// Where its files are. They are never written again; the folder goes away when the version is removed.
    pub folder: PathBuf,
    /// What it is made of.
    pub manifest: Manifest,
}

/// A line of the list of models: a version under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Under what name.
    pub name: ArtifactName,
    /// What it is known by.
    pub digest: Digest,
    /// The version that its manifest says.
    pub version: u64,
    /// What its files are.
    pub format: Format,
    /// Length of all its files, in bytes.
    pub bytes: u64,
    /// Whether it is what the name stands for.
    pub is_current: bool,
    /// Whether it was that before.
    pub is_rollback: bool,
    /// The id of the key that its manifest was verified with; none if it was taken unsigned.
    pub signed_by: Option<String>,
    /// When it was installed, RFC 3339.
    pub installed: String,
}

/// A file of a version that is not as its manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub path: String,
    /// What is wrong.
    pub why: String,
}

/// How a version came here.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    installed: String,
    signed_by: Option<String>,
}

impl Store {
    /// Opens the store in `root` and makes the folders that are missing.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(root);
        layout.make()?;
        Ok(Store { layout })
    }

    /// The folder of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Where downloads keep what they have: a folder that is not cleared until it was left alone for seven days.
    #[must_use]
    pub fn partial(&self) -> PathBuf {
        self.layout.partial()
    }

    /// Makes a folder for what is about to be installed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn stage(&self) -> Result<Staging, StoreError> {
        Staging::make(&self.layout.staging())
    }

    /// The version number that comes next under `name`, or the last one if that has the same content.
    ///
    /// # Errors
    /// The record of the last one cannot be read.
    pub fn next_version(&self, name: &ArtifactName, digest: &Digest) -> Result<u64, StoreError> {
        Ok(match newest::read(&self.layout, name)? {
            Some(newest) if newest.digest == *digest => newest.version,
            Some(newest) => newest.version.saturating_add(1),
            None => 1,
        })
    }

    /// Takes the lock, waiting up to ten seconds for it, and clears away what a crash left behind.
    ///
    /// # Errors
    /// Another process holds it, or something cannot be cleared.
    pub fn hold(&self) -> Result<Held, StoreError> {
        self.hold_within(LOCK_WAIT)
    }

    /// The same, waiting up to `wait`.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub fn hold_within(&self, wait: Duration) -> Result<Held, StoreError> {
        let held = Held::take(self.clone(), wait)?;
        heal::heal(&held)?;
        Ok(held)
    }

    /// Clears away what a crash left behind, as taking the lock does. Does nothing while another process holds the lock: it has done so.
    ///
    /// # Errors
    /// The lock cannot be opened, or something cannot be cleared.
    pub fn heal_if_free(&self) -> Result<(), StoreError> {
        match self.hold_within(Duration::ZERO) {
            Ok(_) | Err(StoreError::Busy { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What `name` stands for; none if there is no such name.
    ///
    /// # Errors
    /// Its version cannot be read.
    pub fn current(&self, name: &ArtifactName) -> Result<Option<Version>, StoreError> {
        self.layout.current_link(name)?.map(|digest| self.version(&digest)).transpose()
    }

    /// The version with this digest, or the current one of a name; if it has none, the highest version that is installed under it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn find(&self, which: &Which) -> Result<Version, StoreError> {
        match which {
            Which::Digest(digest) => self.version(digest),
            Which::Name(name) => match self.current(name)? {
                Some(version) => Ok(version),
                None => self.newest_of(name)?.ok_or_else(|| StoreError::Missing(name.to_string())),
            },
        }
    }

    /// All versions, each once per name that it goes by, in order of names and then versions.
    ///
    /// # Errors
    /// A folder cannot be read. A single version that cannot be read is left out and logged.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let current = self.layout.links(&self.layout.current())?;
        let rollback = self.layout.links(&self.layout.rollback())?;
        let mut entries = Vec::new();
        for version in self.versions()? {
            let digest = version.digest;
            let linked =
                |links: &[(ArtifactName, Digest)], name: &ArtifactName| links.iter().any(|(n, d)| n == name && *d == digest);
            let mut names: BTreeSet<_> =
                current.iter().chain(&rollback).filter(|(_, linked)| *linked == digest).map(|(name, _)| name.clone()).collect();
            if names.is_empty() {
                names.insert(version.manifest.name.clone());
            }
            let record = version.record()?;
            entries.extend(names.into_iter().map(|name| Entry {
                digest,
                version: version.manifest.version,
                format: version.manifest.format,
                bytes: version.manifest.total_bytes(),
                is_current: linked(&current, &name),
                is_rollback: linked(&rollback, &name),
                signed_by: record.signed_by.clone(),
                installed: record.installed.clone(),
                name,
            }));
        }
        entries.sort_by(|a, b| (&a.name, a.version, a.digest).cmp(&(&b.name, b.version, b.digest)));
        Ok(entries)
    }

    /// Reads every byte of a version again; answers the files that are not as the manifest says.
    ///
    /// # Errors
    /// There is no such version, or its manifest cannot be read.
    pub fn verify(&self, which: &Which, progress: &dyn Progress) -> Result<Vec<Damage>, StoreError> {
        let version = self.find(which)?;
        let mut damaged = Vec::new();
        if version.manifest.digest() != version.digest {
            damaged.push(Damage { path: MANIFEST_FILE.to_owned(), why: "it is of another model".to_owned() });
        }
        for file in &version.manifest.files {
            let _work = Work::begin(progress, &format!("verifying {}", file.path), file.bytes);
            let why = match open_beneath(&version.folder, &file.path) {
                Err(error) => Some(error.source.to_string()),
                Ok(mut open) => match Digest::of_reader(&mut open, progress) {
                    Err(error) => Some(error.to_string()),
                    Ok((_, bytes)) if bytes != file.bytes => {
                        Some(format!("it has {bytes} bytes, and should have {}", file.bytes))
                    }
                    Ok((digest, _)) if digest != file.sha256 => {
                        Some(format!("its digest is {digest}, and should be {}", file.sha256))
                    }
                    Ok(_) => None,
                },
            };
            damaged.extend(why.map(|why| Damage { path: file.path.to_string(), why }));
        }
        Ok(damaged)
    }

    /// Reads an installed version's manifest.
    fn version(&self, digest: &Digest) -> Result<Version, StoreError> {
        let folder = self.layout.version(digest);
        if !folder.is_dir() {
            return Err(StoreError::Missing(digest.to_string()));
        }
        let path = folder.join(MANIFEST_FILE);
        let bytes = File::open(&path).and_then(|mut file| read_small(&mut file, MAX_MANIFEST_BYTES)).at(&path)?;
        Ok(Version { digest: *digest, folder, manifest: Manifest::read(&bytes)? })
    }

    /// All versions that can be read.
    fn versions(&self) -> Result<Vec<Version>, StoreError> {
        let read = |digest: Digest| match self.version(&digest) {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::warn!(%digest, %error, "an installed model cannot be read");
                None
            }
        };
        Ok(self.layout.version_digests()?.into_iter().filter_map(read).collect())
    }

    /// The highest version whose manifest says `name`.
    fn newest_of(&self, name: &ArtifactName) -> Result<Option<Version>, StoreError> {
        let versions = self.versions()?.into_iter().filter(|version| version.manifest.name == *name);
        Ok(versions.max_by_key(|version| (version.manifest.version, version.digest)))
    }
}

impl Version {
    /// Looks whether all files are there in their length, without reading them.
    fn glance(&self) -> Result<(), StoreError> {
        for file in &self.manifest.files {
            let bytes = open_beneath(&self.folder, &file.path)?.metadata().at(&self.folder)?.len();
            if bytes != file.bytes {
                let why = format!("it has {bytes} bytes, and its manifest says {}", file.bytes);
                return Err(StoreError::Damaged { path: self.folder.join(file.path.as_str()), why });
            }
        }
        Ok(())
    }

    fn record(&self) -> Result<Record, StoreError> {
        let path = self.folder.join(RECORD_FILE);
        let bytes = File::open(&path).and_then(|mut file| read_small(&mut file, MAX_RECORD_BYTES)).at(&path)?;
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Damaged { path, why: error.to_string() })
    }
}
