//! What a crash can leave behind is cleared away when the lock is taken. Nothing here touches what `current` leads to (P-M10).

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::held::Held;
use super::layout::{Layout, names_in};
use super::{Staging, StoreError, newest};
use crate::digest::Digest;
use crate::files::{At, FileError, remove, sync_folder};

/// Downloads that nobody has gone on with for so long are given up.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Folders within folders, at most, that are looked at for the age of a download.
const MAX_DEPTH: u32 = 4;

/// A version's folder before it has its name.
pub(super) const NEW: &str = ".new-";
/// A version's folder that is being replaced, where two folders cannot change places in one step.
pub(super) const OLD: &str = ".old-";

pub(super) fn heal(held: &Held) -> Result<(), StoreError> {
    let layout = held.layout();
    for name in names_in(&layout.staging())? {
        Staging::clear(&layout.staging().join(name))?;
    }
    heal_versions(layout)?;
    for folder in [layout.current(), layout.rollback()] {
        heal_links(layout, &folder)?;
    }
    for name in names_in(&layout.newest())?.iter().filter(|name| name.starts_with('.')) {
        remove(&layout.newest().join(name))?;
    }
    // A version that came just before a crash may not have been remembered.
    for version in held.store().versions()? {
        if let Err(error) = newest::accept(layout, &version.manifest) {
            // One record that cannot be read is no reason to change nothing else.
            tracing::warn!(name = %version.manifest.name, %error, "the highest version of a model cannot be remembered");
        }
    }
    held.drop_unused_blobs()?;
    drop_old_downloads(&layout.partial())
}

/// Puts back what was being replaced, and removes what was being made or removed.
fn heal_versions(layout: &Layout) -> Result<(), StoreError> {
    let folder = layout.versions();
    for name in names_in(&folder)?.iter().filter(|name| name.starts_with('.')) {
        let path = folder.join(name);
        match name.strip_prefix(OLD).and_then(|digest| digest.parse::<Digest>().ok()) {
            Some(digest) if !layout.version(&digest).exists() => fs::rename(&path, layout.version(&digest)).at(&path)?,
            _ => remove(&path)?,
        }
    }
    Ok(sync_folder(&folder)?)
}

/// Removes links that lead nowhere, and halves of links.
fn heal_links(layout: &Layout, folder: &Path) -> Result<(), FileError> {
    for name in names_in(folder)?.iter().filter(|name| name.starts_with('.') && *name != ".gitkeep") {
        remove(&folder.join(name))?;
    }
    for (name, digest) in layout.links(folder)? {
        if !layout.version(&digest).is_dir() {
            let path = folder.join(name.as_str());
            tracing::warn!(link = %path.display(), %digest, "a link led to a model that is not there and was removed");
            remove(&path)?;
        }
    }
    Ok(())
}

fn drop_old_downloads(partial: &Path) -> Result<(), StoreError> {
    let now = SystemTime::now();
    for name in names_in(partial)? {
        let path = partial.join(name);
        let changed = match last_change(&path, MAX_DEPTH) {
            // A pull moves its files about meanwhile.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => now,
            changed => changed?,
        };
        let age = now.duration_since(changed).unwrap_or_default();
        if age > PARTIAL_AGE {
            // A pull that goes on with it right now holds its folder.
            let Ok(folder) = fs::File::open(&path) else { continue };
            if folder.try_lock().is_ok() {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

/// When anything in `path` last changed.
fn last_change(path: &Path, depth: u32) -> Result<SystemTime, FileError> {
    let metadata = fs::symlink_metadata(path).at(path)?;
    let mut last = metadata.modified().at(path)?;
    if metadata.is_dir() && depth > 0 {
        for name in names_in(path)? {
            last = last.max(last_change(&path.join(name), depth - 1)?);
        }
    }
    Ok(last)
}
