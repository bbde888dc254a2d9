//! Which path means what below the store's folder, and the links there. Nothing is decided here.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::files::{At, FileError, remove, sync_folder, write_atomically};
use crate::name::ArtifactName;

const LINK_PREFIX: &str = "../cache/versions/";
const GITIGNORE: &str = "current/*\ncache/*\nrollback/*\ntune/\n!current/.gitkeep\n!cache/.gitkeep\n!rollback/.gitkeep\n";

/// The paths of a store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Layout { root: root.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    pub(super) fn rollback(&self) -> PathBuf {
        self.root.join("rollback")
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    pub(super) fn versions(&self) -> PathBuf {
        self.cache().join("versions")
    }

    pub(super) fn version(&self, digest: &Digest) -> PathBuf {
        self.versions().join(digest.to_string())
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.cache().join("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.to_string())
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.cache().join("staging")
    }

    pub(super) fn partial(&self) -> PathBuf {
        self.cache().join("partial")
    }

    pub(super) fn newest(&self) -> PathBuf {
        self.cache().join("newest")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.cache().join("lock")
    }

    /// Makes what is missing. A store that is complete is not written to.
    pub(super) fn make(&self) -> Result<(), FileError> {
        for folder in [self.current(), self.rollback(), self.versions(), self.blobs(), self.newest()] {
            fs::create_dir_all(&folder).at(&folder)?;
        }
        for folder in [self.staging(), self.partial()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).at(&folder)?;
        }
        for folder in [self.current(), self.rollback(), self.cache()] {
            write_if_missing(&folder.join(".gitkeep"), "")?;
        }
        write_if_missing(&self.root.join(".gitignore"), GITIGNORE)
    }

    /// The version that is current under `name`.
    pub(super) fn current_link(&self, name: &ArtifactName) -> Result<Option<Digest>, FileError> {
        read_link(&self.current().join(name.as_str()))
    }

    /// The version that was current under `name` before.
    pub(super) fn rollback_link(&self, name: &ArtifactName) -> Result<Option<Digest>, FileError> {
        read_link(&self.rollback().join(name.as_str()))
    }

    /// All links in `folder`; what is no link of ours is left out.
    pub(super) fn links(&self, folder: &Path) -> Result<Vec<(ArtifactName, Digest)>, FileError> {
        let mut links = Vec::new();
        for name in names_in(folder)? {
            if let Ok(name) = name.parse::<ArtifactName>()
                && let Ok(Some(digest)) = read_link(&folder.join(name.as_str()))
            {
                links.push((name, digest));
            }
        }
        Ok(links)
    }

    /// Makes the link called `name` in `folder` lead to a version, in one step.
    pub(super) fn set_link(&self, folder: &Path, name: &ArtifactName, digest: &Digest) -> Result<(), FileError> {
        let path = folder.join(name.as_str());
        let temporary = folder.join(format!(".{name}.tmp"));
        remove(&temporary)?;
        symlink(format!("{LINK_PREFIX}{digest}"), &temporary).at(&temporary)?;
        fs::rename(&temporary, &path).at(&path)?;
        sync_folder(folder)
    }

    /// Lets what is current under `name` and what was so before change places, in one step. False where the file system cannot, and
    /// nothing was changed.
    pub(super) fn exchange_links(&self, name: &ArtifactName) -> Result<bool, FileError> {
        let (current, rollback) = (self.current(), self.rollback());
        let path = current.join(name.as_str());
        match renameat_with(CWD, &path, CWD, rollback.join(name.as_str()), RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => return Ok(false),
            Err(errno) => return Err(errno).at(&path),
        }
        sync_folder(&current)?;
        sync_folder(&rollback)?;
        Ok(true)
    }

    /// The digests of all versions.
    pub(super) fn version_digests(&self) -> Result<Vec<Digest>, FileError> {
        Ok(names_in(&self.versions())?.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

/// The names in a folder that are text.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, FileError> {
    let names = || fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>();
    Ok(names().at(folder)?.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn read_link(path: &Path) -> Result<Option<Digest>, FileError> {
    match fs::read_link(path) {
        Ok(target) => {
            let digest =
                target.to_str().and_then(|target| target.strip_prefix(LINK_PREFIX)).and_then(|digest| digest.parse().ok());
            let digest = digest.ok_or_else(|| io::Error::other("this link leads out of the store; remove it"));
            digest.map(Some).at(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(io::Error::other("it should be a link to a version; move it away and use `tollgate model import`")).at(path)
        }
        Err(error) => Err(error).at(path),
    }
}

fn write_if_missing(path: &Path, text: &str) -> Result<(), FileError> {
    if path.exists() { Ok(()) } else { write_atomically(path, text.as_bytes(), 0o644) }
}
