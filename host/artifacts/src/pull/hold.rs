//! The folder that one pull works in, held against a second pull of the same source.
//!
//! `partial/SOURCE/work` has what is not whole, with its journals; `partial/SOURCE/model` has what is. The journals stay until
//! the folder is removed: should the installation fail, the next pull finds everything and asks the server only whether it is
//! still the same.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Wanted;
use super::error::PullError;
use super::source::PullSource;

/// A held folder.
#[derive(Debug)]
pub(crate) struct Hold {
    root: PathBuf,
    /// The lock (flock) is on this handle.
    _folder: File,
}

impl Hold {
    /// Makes the folder where it is missing and takes it.
    pub(crate) fn take(partial_dir: &Path, source: &PullSource) -> Result<Hold, PullError> {
        let root = partial_dir.join(source.folder_name());
        let busy = || PullError::Busy { origin: source.to_string() };
        let open = || {
            std::fs::create_dir_all(&root)?;
            File::open(&root)
        };
        let folder = open().map_err(PullError::io(format!("make {}", root.display())))?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy()),
            Err(TryLockError::Error(cause)) => return Err(PullError::io(format!("lock {}", root.display()))(cause)),
        }
        // The one who held it may have removed it in between.
        let is_there = std::fs::metadata(&root).and_then(|there| Ok(there.ino() == folder.metadata()?.ino()));
        if is_there.unwrap_or(false) { Ok(Hold { root, _folder: folder }) } else { Err(busy()) }
    }

    /// What is not whole yet.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// What is whole.
    pub(crate) fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// The folder of both.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes room for a pull of `files`: what an earlier one left whole goes back to `work`, to be checked with the rest, and
    /// `model` is empty. Answers how many bytes of them are already here.
    pub(crate) fn prepare(&self, files: &[Wanted]) -> io::Result<u64> {
        let (work, model) = (self.work(), self.model());
        std::fs::create_dir_all(&work)?;
        std::fs::create_dir_all(&model)?;
        let mut here = 0u64;
        for file in files {
            let (whole, part) = (model.join(file.path.as_str()), work.join(format!("{}.part", file.path)));
            let is_file = std::fs::symlink_metadata(&whole).is_ok_and(|whole| whole.is_file());
            if is_file && !part.exists() {
                if let Some(parent) = part.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                take_back(&whole, &part)?;
            }
            here = here.saturating_add(std::fs::metadata(&part).map_or(0, |part| part.len()));
        }
        std::fs::remove_dir_all(&model)?;
        std::fs::create_dir(&model)?;
        Ok(here)
    }
}

/// Moves a whole file back, to be written to again. An installation that was interrupted may have made it read-only, or part of the
/// store, where nobody may change it: then it is copied.
fn take_back(whole: &Path, part: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(whole)?.nlink() > 1 {
        if let Err(error) = std::fs::copy(whole, part) {
            let _ = std::fs::remove_file(part);
            return Err(error);
        }
    } else {
        std::fs::rename(whole, part)?;
    }
    std::fs::set_permissions(part, std::fs::Permissions::from_mode(0o600))
}
