//! Makes an artifact from a model: a manifest, its signature and, if wanted, a `model.zip` that is the same whenever it is made of the
//! same files, manifest and key.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::describe::{About, describe};
use crate::digest::{Digest, Hasher, read_through};
use crate::files::{At, FileError, open_beneath, remove, sync_folder, write_atomically};
use crate::inspect::{InspectError, gguf_format, inspect, select};
use crate::manifest::{FileEntry, Format, KnownAnswer, MANIFEST_FILE, Manifest, ManifestError, SIGNATURE_FILE};
use crate::name::{ArtifactName, RelativePath, Which};
use crate::progress::{Progress, Work};
use crate::space::{self, SpaceError};
use crate::trust::SigningKey;

const DAY: u64 = 24 * 60 * 60;
/// From this length on a file needs the long form of a zip entry.
const LARGE: u64 = 0xffff_ffff;

/// What an artifact is made with.
#[derive(Debug)]
pub struct PackOptions<'a> {
    /// Under what name.
    pub name: ArtifactName,
    /// Its version, from 1.
    pub version: u64,
    /// For how many days it may be installed; for ever, if absent.
    pub expires_days: Option<u32>,
    /// For an adapter, the model that it was made for.
    pub base: Option<Which>,
    /// A few words for people.
    pub description: Option<String>,
    /// Where it came from.
    pub source: Option<String>,
    /// What it has to answer before it becomes current, if anything.
    pub check: Option<KnownAnswer>,
    /// What time it is.
    pub now: SystemTime,
    /// What it is signed with, if at all.
    pub key: Option<&'a SigningKey>,
}

/// Where an artifact goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackTo {
    /// Into an archive.
    Zip(PathBuf),
    /// Manifest and signature are written beside the files.
    InPlace,
}

/// An artifact was made.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What the model is known by.
    pub digest: Digest,
    /// What it is made of.
    pub manifest: Manifest,
    /// Whether it is signed.
    pub is_signed: bool,
}

/// An artifact cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What the files are.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Not enough room.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The archive cannot be written.
    #[error("{}: the archive cannot be written: {source}", .path.display())]
    Zip {
        /// Which archive.
        path: PathBuf,
        /// Why not.
        source: zip::result::ZipError,
    },
}

/// Makes an artifact from the GGUF file or the folder at `source`.
///
/// # Errors
/// There is no model, its structure is damaged, or something cannot be written.
pub fn pack(source: &Path, options: &PackOptions<'_>, to: &PackTo, progress: &dyn Progress) -> Result<Packed, PackError> {
    let (folder, format, paths) = found(source)?;
    let about = About {
        name: options.name.clone(),
        version: options.version,
        created: options.now,
        expires: options.expires_days.map(|days| options.now + Duration::from_secs(u64::from(days) * DAY)),
        base: options.base.clone(),
        description: options.description.clone(),
        source: options.source.clone(),
    };
    let mut manifest = describe(folder, format, &paths, about, progress)?;
    manifest.check.clone_from(&options.check);
    let bytes = manifest.to_bytes()?;
    inspect(folder, &manifest)?;
    let signature = options.key.map(|key| key.sign(&bytes));
    match to {
        PackTo::InPlace => {
            // An old signature never stands beside a new manifest.
            remove(&folder.join(SIGNATURE_FILE))?;
            write_atomically(&folder.join(MANIFEST_FILE), &bytes, 0o644)?;
            if let Some(signature) = &signature {
                write_atomically(&folder.join(SIGNATURE_FILE), signature, 0o644)?;
            }
        }
        PackTo::Zip(path) => write_zip(folder, &manifest, &bytes, signature.as_deref(), path, progress)?,
    }
    Ok(Packed { digest: manifest.digest(), manifest, is_signed: signature.is_some() })
}

/// What the model at `source` is, where a backend finds it (the file, or else the folder), and its length in bytes.
///
/// # Errors
/// There is no model, or it cannot be read.
pub fn look(source: &Path) -> Result<(Format, PathBuf, u64), PackError> {
    let (folder, format, paths) = found(source)?;
    let mut bytes = 0u64;
    for path in &paths {
        bytes = bytes.saturating_add(open_beneath(folder, path)?.metadata().at(&folder.join(path.as_str()))?.len());
    }
    let file = paths.iter().find(|path| matches!(format, Format::Gguf | Format::LoraGguf) && path.has_extension("gguf"));
    Ok((format, file.map_or_else(|| folder.to_owned(), |file| folder.join(file.as_str())), bytes))
}

/// The folder, the format and the files of the model at `source`.
fn found(source: &Path) -> Result<(&Path, Format, Vec<RelativePath>), PackError> {
    if source.is_dir() {
        let (format, paths) = select(source)?;
        return Ok((source, format, paths));
    }
    let folder = source.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file: Option<RelativePath> = source.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let unnamed = || io::Error::other("its name has characters that an artifact's file cannot have; rename it to model.gguf");
    let file = file.ok_or_else(unnamed).at(source)?;
    Ok((folder, gguf_format(folder, &file)?, vec![file]))
}

/// Writes the archive beside its name and renames it, so that nobody takes half of one.
fn write_zip(
    folder: &Path,
    manifest: &Manifest,
    bytes: &[u8],
    signature: Option<&[u8]>,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(), PackError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    space::check(parent, manifest.total_bytes())?;
    let temporary = parent.join(format!(".{}.tmp", path.file_name().unwrap_or_default().to_string_lossy()));
    let write = || -> Result<(), PackError> {
        let failed = |source: zip::result::ZipError| PackError::Zip { path: path.to_owned(), source };
        let mut zip = ZipWriter::new(BufWriter::new(File::create(&temporary).at(&temporary)?));
        for (name, content) in [(MANIFEST_FILE, Some(bytes)), (SIGNATURE_FILE, signature)] {
            if let Some(content) = content {
                zip.start_file(name, stored(crate::digest::len(content))).map_err(failed)?;
                zip.write_all(content).at(&temporary)?;
            }
        }
        let mut files: Vec<_> = manifest.files.iter().collect();
        files.sort_by_key(|file| &file.path);
        for file in files {
            zip.start_file(file.path.as_str(), stored(file.bytes)).map_err(failed)?;
            let _work = Work::begin(progress, &format!("packing {}", file.path), file.bytes);
            add(folder, file, &mut zip, progress)?;
        }
        let out = zip.finish().map_err(failed)?.into_inner().map_err(io::IntoInnerError::into_error).at(&temporary)?;
        out.sync_all().at(&temporary)?;
        std::fs::rename(&temporary, path).at(path)?;
        Ok(sync_folder(parent)?)
    };
    let written = write();
    if written.is_err() {
        let _ = remove(&temporary);
    }
    written
}

/// Adds a file, which must be what the manifest says still.
fn add(folder: &Path, file: &FileEntry, zip: &mut impl Write, progress: &dyn Progress) -> Result<(), FileError> {
    let mut hasher = Hasher::default();
    read_through(&mut open_beneath(folder, &file.path)?, |piece| {
        hasher.update(piece);
        progress.advance(crate::digest::len(piece));
        zip.write_all(piece)
    })
    .and_then(|_| {
        if hasher.finish() == file.sha256 { Ok(()) } else { Err(io::Error::other("it was changed while it was being packed")) }
    })
    .at(&folder.join(file.path.as_str()))
}

/// Neither the time nor the machine shows in an archive. Weights do not deflate, so nothing is.
fn stored(bytes: u64) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .large_file(bytes >= LARGE)
}
