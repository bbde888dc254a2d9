//! `model.zip`: an artifact in one file. The archive is taken apart by our own rules (P-M1, P-M3): its directory is checked as a whole
//! before anything is written, only what the manifest lists is extracted, and no file gets a byte more than the manifest says.

mod check;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use zip::ZipReadOptions;
use zip::read::OwnedZipFileEntry;

use crate::files::{At, FileError, copy, read_small};
use crate::manifest::{MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_FILE};
use crate::name::RelativePath;
use crate::progress::{Progress, Work};
use crate::space::{self, SpaceError};
use crate::store::Staging;

/// A signature file is 89 bytes; nothing near this is one.
const MAX_SIGNATURE_BYTES: u64 = 4096;

/// An archive is not taken. Nothing of it was installed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read as an archive.
    #[error("{}: not a zip archive that can be read: {source}", .path.display())]
    Unreadable {
        /// Which archive.
        path: PathBuf,
        /// Why not.
        source: zip::result::ZipError,
    },
    /// It breaks a rule.
    #[error("{}: {what}", .path.display())]
    Refused {
        /// Which archive.
        path: PathBuf,
        /// Which rule.
        what: String,
    },
    /// It has no manifest.
    #[error(
        "{}: no manifest.json is at its top; make such an archive with `tollgate model pack FOLDER --out model.zip`", .path.display()
    )]
    NoManifest {
        /// Which archive.
        path: PathBuf,
    },
    /// Not enough room for what is in it.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// An archive whose directory was checked.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    reader: BufReader<File>,
    /// The files in it; folders are left out.
    entries: BTreeMap<RelativePath, OwnedZipFileEntry>,
}

impl Archive {
    /// Opens an archive and checks its directory.
    ///
    /// # Errors
    /// It is no archive, or breaks a rule.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let mut reader = BufReader::new(File::open(path).at(path)?);
        let entries = check::entries(&mut reader).map_err(|problem| problem.of(path))?;
        Ok(Archive { path: path.to_owned(), reader, entries })
    }

    /// The bytes of its manifest and of the manifest's signature.
    ///
    /// # Errors
    /// It has no manifest, or the two are too long or damaged.
    pub fn manifest(&mut self) -> Result<(Vec<u8>, Option<Vec<u8>>), ArchiveError> {
        let manifest = self.read(MANIFEST_FILE, MAX_MANIFEST_BYTES)?;
        let manifest = manifest.ok_or_else(|| ArchiveError::NoManifest { path: self.path.clone() })?;
        Ok((manifest, self.read(SIGNATURE_FILE, MAX_SIGNATURE_BYTES)?))
    }

    /// Extracts what `manifest` lists, whose signature the caller has verified.
    ///
    /// # Errors
    /// The archive holds anything else, lacks something, or does not keep to the lengths; the disk is too full.
    pub fn extract(&mut self, manifest: &Manifest, staging: &Staging, progress: &dyn Progress) -> Result<(), ArchiveError> {
        let refused = |what: String| ArchiveError::Refused { path: self.path.clone(), what };
        for path in self.entries.keys() {
            let is_own = path.as_str() == MANIFEST_FILE || path.as_str() == SIGNATURE_FILE;
            if !is_own && manifest.file(path.as_str()).is_none() {
                return Err(refused(format!("it holds `{path}`, which its manifest does not list")));
            }
        }
        for file in &manifest.files {
            let entry = self.entries.get(&file.path);
            let entry = entry.ok_or_else(|| refused(format!("its manifest lists `{}`, which it does not hold", file.path)))?;
            if entry.size() != file.bytes {
                let what =
                    format!("`{}` has {} bytes in its directory, and {} in its manifest", file.path, entry.size(), file.bytes);
                return Err(refused(what));
            }
        }
        space::check(staging.path(), manifest.total_bytes())?;
        for file in &manifest.files {
            let Some(entry) = self.entries.get(&file.path) else { continue };
            let _work = Work::begin(progress, &format!("extracting {}", file.path), file.bytes);
            let mut out = staging.create(&file.path)?;
            let unreadable = |source| ArchiveError::Unreadable { path: self.path.clone(), source };
            let mut from = entry.as_ref().with_reader(&mut self.reader, ZipReadOptions::new()).map_err(unreadable)?;
            let damaged =
                |what: String| ArchiveError::Refused { path: self.path.clone(), what: format!("`{}`: {what}", file.path) };
            let copied = copy(&mut from, &mut out, file.bytes, progress).map_err(|error| damaged(error.to_string()))?;
            if copied != file.bytes {
                return Err(damaged(format!("it ends after {copied} bytes of {}", file.bytes)));
            }
        }
        Ok(())
    }

    fn read(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some((_, entry)) = self.entries.iter().find(|(path, _)| path.as_str() == name) else { return Ok(None) };
        let refused =
            |error: std::io::Error| ArchiveError::Refused { path: self.path.clone(), what: format!("`{name}`: {error}") };
        let unreadable = |source| ArchiveError::Unreadable { path: self.path.clone(), source };
        let mut from = entry.as_ref().with_reader(&mut self.reader, ZipReadOptions::new()).map_err(unreadable)?;
        read_small(&mut from, limit).map(Some).map_err(refused)
    }
}
