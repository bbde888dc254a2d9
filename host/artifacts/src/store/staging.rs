//! A folder of its own for what is about to be installed. It goes away with its value, and after a crash with the next lock.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use crate::files::{At, FileError, create_beneath, open_beneath, remove};
use crate::name::RelativePath;

/// A folder that files are gathered in before they are verified. Only this user can look into it.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
}

impl Staging {
    pub(super) fn make(parent: &Path) -> Result<Self, StoreError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(StoreError::Randomness)?;
        let path = parent.join(hex::encode(random));
        DirBuilder::new().mode(0o700).create(&path).at(&path)?;
        Ok(Staging { path })
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

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "a staging folder is left for the next start");
        }
    }
}
