//! A folder of its own for what is about to be installed. It goes away with its value, and after a crash with the next lock of the
//! store: a process holds a lock (flock) on its folder, and nobody holds one on what a crash left.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::files::{At, FileError, create_beneath, open_beneath, remove};
use crate::name::RelativePath;

/// A folder that files are gathered in before they are verified. Only this user can look into it.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    _lock: File,
}

/// Somebody who clears away may take a folder that is new for one that a crash left: then another is made.
const TRIES: u32 = 8;

impl Staging {
    pub(super) fn make(parent: &Path) -> Result<Self, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(StoreError::Randomness)?;
            let path = parent.join(hex::encode(random));
            DirBuilder::new().mode(0o700).create(&path).at(&path)?;
            match lock(&path) {
                Ok(lock) => return Ok(Staging { path, _lock: lock }),
                Err(_) if tries < TRIES => {}
                Err(error) => return Err(error).at(&path).map_err(StoreError::from),
            }
        }
    }

    /// Removes a folder that no process holds.
    pub(super) fn clear(path: &Path) -> Result<(), FileError> {
        let folder = match File::open(path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).at(path),
        };
        match folder.try_lock() {
            Ok(()) => remove(path),
            Err(_) => Ok(()),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file in it that was not there, with the folders on its way.
    ///
    /// # Errors
    /// It was there, or cannot be made.
    pub fn create(&self, path: &RelativePath) -> Result<File, FileError> {
        create_beneath(&self.path, path)
    }

    /// Links a regular file from below `folder`, which must be on the same disk, as a download's is. It stays there, too: an
    /// installation that fails or is interrupted does not lose it.
    ///
    /// # Errors
    /// It is no regular file, or cannot be linked.
    pub fn take(&self, folder: &Path, path: &RelativePath) -> Result<(), FileError> {
        open_beneath(folder, path)?;
        // Making the file makes the folders on its way; the link replaces it.
        self.create(path)?;
        let to = self.path.join(path.as_str());
        remove(&to)?;
        std::fs::hard_link(folder.join(path.as_str()), &to).at(&to)
    }
}

/// Locks a folder that was just made, if it is there still.
fn lock(path: &Path) -> io::Result<File> {
    let folder = File::open(path)?;
    folder.try_lock()?;
    let (named, held) = (std::fs::symlink_metadata(path)?, folder.metadata()?);
    if (named.dev(), named.ino()) == (held.dev(), held.ino()) { Ok(folder) } else { Err(io::ErrorKind::NotFound.into()) }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "a staging folder is left for the next start");
        }
    }
}
