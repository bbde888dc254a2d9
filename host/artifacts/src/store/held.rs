//! The store while this process has its lock: everything that changes something.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Store, StoreError, Version, newest};
use crate::digest::Digest;
use crate::files::{At, FileError, remove, sync_folder};
use crate::name::{ArtifactName, Which};

/// How often the lock is tried.
const LOCK_TRY: Duration = Duration::from_millis(50);
/// No holder has a longer name.
const MAX_HOLDER: u64 = 256;
/// A version's folder, and the folders within one that a file's path may name.
const MAX_DEPTH: u32 = 3;

/// The store, locked. The lock ends with this value, and with the process.
#[derive(Debug)]
pub struct Held {
    store: Store,
    _lock: File,
}

/// A name stands for another version now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// What it stands for.
    pub digest: Digest,
    /// What it stood for before, if that was another version. It is what a rollback goes to.
    pub previous: Option<Digest>,
}

/// Versions are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Which.
    pub digests: Vec<Digest>,
    /// How much room their files took that no other version uses, in bytes.
    pub freed_bytes: u64,
}

impl Held {
    pub(super) fn take(store: Store, wait: Duration) -> Result<Self, StoreError> {
        let path = store.layout.lock();
        let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(&path).at(&path)?;
        let deadline = Instant::now() + wait;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error).at(&path).map_err(StoreError::from),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_TRY),
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Busy { holder: holder(&mut lock), waited_s: wait.as_secs() });
                }
            }
        }
        // On a full disk models have to be removable still. Who waits is told of "another process" then.
        let _ = sign(&mut lock);
        Ok(Held { store, _lock: lock })
    }

    /// The store, to read.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes `name` stand for the version with `digest`, or for the highest one that is installed under it. What it stood for becomes
    /// what a rollback goes to.
    ///
    /// # Errors
    /// There is no such version, or a file of it is missing.
    pub fn activate(&self, name: &ArtifactName, digest: Option<&Digest>) -> Result<Activated, StoreError> {
        let layout = &self.store.layout;
        let version = match digest {
            Some(digest) => self.store.version(digest)?,
            None => self.latest(name)?,
        };
        version.glance()?;
        let digest = version.digest;
        let previous = layout.current_link(name)?.filter(|previous| *previous != digest);
        // The way back is made before the step forward: a crash between the two leaves what was current.
        if let Some(previous) = &previous {
            layout.set_link(&layout.rollback(), name, previous)?;
        }
        layout.set_link(&layout.current(), name, &digest)?;
        Ok(Activated { digest, previous })
    }

    /// Makes `name` stand for the version that it stood for before, and the other way round.
    ///
    /// # Errors
    /// There is no version to go back to, or a file of it is missing.
    pub fn rollback(&self, name: &ArtifactName) -> Result<Activated, StoreError> {
        let layout = &self.store.layout;
        let digest = layout.rollback_link(name)?.ok_or_else(|| StoreError::NoRollback(name.clone()))?;
        self.store.version(&digest)?.glance()?;
        let previous = layout.current_link(name)?.filter(|previous| *previous != digest);
        if previous.is_some() && layout.exchange_links(name)? {
            return Ok(Activated { digest, previous });
        }
        layout.set_link(&layout.current(), name, &digest)?;
        match &previous {
            Some(previous) => layout.set_link(&layout.rollback(), name, previous)?,
            None => remove(&layout.rollback().join(name.as_str()))?,
        }
        Ok(Activated { digest, previous })
    }

    /// Removes a version, or all versions of a name that no other name stands for. `is_forced` removes what is current, too.
    ///
    /// # Errors
    /// There is none, it is current, or something cannot be removed.
    pub fn remove(&self, which: &Which, is_forced: bool) -> Result<Removed, StoreError> {
        let layout = &self.store.layout;
        let current = layout.links(&layout.current())?;
        let rollback = layout.links(&layout.rollback())?;
        let (names, digests) = match which {
            Which::Name(name) => (BTreeSet::from([name.clone()]), self.versions_of(name, &current, &rollback)?),
            Which::Digest(digest) => {
                let names = current.iter().chain(&rollback).filter(|(_, linked)| linked == digest).map(|(name, _)| name.clone());
                let digests = layout.version(digest).is_dir().then_some(*digest);
                (names.collect(), digests.into_iter().collect())
            }
        };
        let is_linked = |links: &[(ArtifactName, Digest)]| {
            links.iter().any(|(name, digest)| names.contains(name) && digests.contains(digest))
        };
        if digests.is_empty() && !is_linked(&current) && !is_linked(&rollback) {
            return Err(StoreError::Missing(which.to_string()));
        }
        if is_linked(&current) && !is_forced {
            return Err(StoreError::Current(which.to_string()));
        }
        for (links, folder) in [(&current, layout.current()), (&rollback, layout.rollback())] {
            for (name, _) in links.iter().filter(|(name, digest)| names.contains(name) && digests.contains(digest)) {
                remove(&folder.join(name.as_str()))?;
            }
            sync_folder(&folder)?;
        }
        // Versions that another name stands for stay.
        let kept: BTreeSet<_> = [layout.current(), layout.rollback()]
            .iter()
            .map(|folder| layout.links(folder))
            .collect::<Result<Vec<_>, FileError>>()?
            .into_iter()
            .flatten()
            .map(|(_, digest)| digest)
            .collect();
        let digests: Vec<_> = digests.difference(&kept).copied().collect();
        for digest in &digests {
            self.drop_version(&layout.version(digest))?;
        }
        Ok(Removed { digests, freed_bytes: self.drop_unused_blobs()? })
    }

    /// Everything that `name` stands, stood or could stand for.
    fn versions_of(
        &self,
        name: &ArtifactName,
        current: &[(ArtifactName, Digest)],
        rollback: &[(ArtifactName, Digest)],
    ) -> Result<BTreeSet<Digest>, StoreError> {
        let linked = current.iter().chain(rollback).filter(|(linked, _)| linked == name).map(|(_, digest)| *digest);
        let said =
            self.store.versions()?.into_iter().filter(|version| version.manifest.name == *name).map(|version| version.digest);
        Ok(linked.chain(said).collect())
    }

    /// The highest version that was accepted under a name, if it is still installed, or else the highest one that is.
    fn latest(&self, name: &ArtifactName) -> Result<Version, StoreError> {
        if let Some(newest) = newest::read(&self.store.layout, name)?
            && let Ok(version) = self.store.version(&newest.digest)
        {
            return Ok(version);
        }
        self.store.newest_of(name)?.ok_or_else(|| StoreError::Missing(name.to_string()))
    }

    /// Takes a version's folder out of sight in one step and removes it.
    fn drop_version(&self, folder: &Path) -> Result<(), StoreError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let gone = folder.with_file_name(format!(".gone-{name}"));
        fs::rename(folder, &gone).at(folder)?;
        sync_folder(&self.store.layout.versions())?;
        Ok(remove(&gone)?)
    }

    /// Removes the files that no version has a link to; answers their length in bytes. Other links do not count: a download that was
    /// interrupted may be one.
    pub(super) fn drop_unused_blobs(&self) -> Result<u64, StoreError> {
        let mut used = BTreeSet::new();
        inodes(&self.store.layout.versions(), MAX_DEPTH, &mut used)?;
        let blobs = self.store.layout.blobs();
        let mut freed = 0u64;
        for entry in fs::read_dir(&blobs).at(&blobs)? {
            let path = entry.at(&blobs)?.path();
            let metadata = fs::symlink_metadata(&path).at(&path)?;
            if !metadata.is_file() || !used.contains(&metadata.ino()) {
                remove(&path)?;
                freed = freed.saturating_add(metadata.len());
            }
        }
        Ok(freed)
    }

    pub(super) fn layout(&self) -> &super::layout::Layout {
        &self.store.layout
    }
}

/// The inodes of the files in `folder`, which is one file system with the blobs: a link would not have been possible otherwise.
fn inodes(folder: &Path, depth: u32, found: &mut BTreeSet<u64>) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).at(folder)? {
        let path = entry.at(folder)?.path();
        let metadata = fs::symlink_metadata(&path).at(&path)?;
        if metadata.is_file() {
            found.insert(metadata.ino());
        } else if metadata.is_dir() && depth > 0 {
            inodes(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Writes into the lock who has it.
fn sign(lock: &mut File) -> std::io::Result<()> {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "process {} ({program})", std::process::id())
}

/// Who has the lock, as it wrote itself there.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(MAX_HOLDER).read_to_string(&mut text);
    let text = text.trim();
    if read.is_err() || text.is_empty() || text.contains(char::is_control) {
        "another process".to_owned()
    } else {
        text.to_owned()
    }
}
