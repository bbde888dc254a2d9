//! Takes a model that lies on this machine: a GGUF file, a folder or a `model.zip`. Every way ends in [`Store::check`] and
//! [`crate::store::Held::put`].

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use crate::describe::{About, describe};
use crate::files::{At, FileError, copy, open_beneath, read_small};
use crate::inspect::{InspectError, gguf_format, is_pickle, select};
use crate::manifest::{Format, MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, ManifestError, SIGNATURE_FILE};
use crate::name::{ArtifactName, RelativePath, Which};
use crate::progress::{Progress, Work};
use crate::space::{self, SpaceError};
use crate::store::{Installed, Staging, Store, StoreError};
use crate::trust::{Trust, TrustError, read_signature};
use crate::zip_file::{Archive, ArchiveError};

/// How often a version number is asked for.
const NUMBERS: u32 = 4;

/// How a model is taken.
#[derive(Debug, Clone)]
pub struct ImportOptions<'a> {
    /// The version for files without a manifest; one more than the last one if absent.
    pub version: Option<u64>,
    /// The base of an adapter without a manifest.
    pub base: Option<Which>,
    /// Which manifests are believed, and whether files without one are taken.
    pub trust: &'a Trust,
    /// What time it is.
    pub now: SystemTime,
    /// Whether the files are linked instead of copied: for a download, which lies on the same disk and is discarded afterwards.
    pub is_moved: bool,
}

/// A model cannot be taken. What was current is current still.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What the files are.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its signature.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Not enough room.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest has another name.
    #[error("the manifest is of `{said}`, and `{asked}` was asked for; leave the name out, or pack the model again under it")]
    OtherName {
        /// The manifest's.
        said: ArtifactName,
        /// The operator's.
        asked: ArtifactName,
    },
    /// A file that is none of the three.
    #[error("{0}: neither a GGUF file, nor a model.zip, nor a folder with a model")]
    Unknown(String),
}

/// Installs the model at `path`. It is not current yet: see [`crate::store::Held::activate`].
///
/// # Errors
/// It is no model, is not believed, does not fit on the disk, or anything of [`Store::check`].
pub fn import(
    store: &Store,
    path: &Path,
    name: Option<&ArtifactName>,
    options: &ImportOptions<'_>,
    progress: &dyn Progress,
) -> Result<Installed, ImportError> {
    let import = Import { store, name, options, progress };
    if path.is_dir() {
        let signature = open_beneath(path, &known(SIGNATURE_FILE));
        return match open_beneath(path, &known(MANIFEST_FILE)) {
            Ok(mut manifest) => {
                let bytes = read_small(&mut manifest, MAX_MANIFEST_BYTES).at(&path.join(MANIFEST_FILE))?;
                let signature = read_signature(signature, &path.join(SIGNATURE_FILE))?;
                import.described(path, &bytes, signature.as_deref())
            }
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
                options.trust.allows_unsigned()?;
                let (format, paths) = select(path)?;
                import.undescribed(path, format, &paths)
            }
            Err(error) => Err(error.into()),
        };
    }
    let mut magic = [0; 4];
    // Only a file is opened: a named pipe would wait for a writer.
    let is_file = std::fs::metadata(path).at(path)?.is_file();
    let has_magic = is_file && File::open(path).at(path)?.read_exact(&mut magic).is_ok();
    match &magic {
        b"GGUF" if has_magic => import.gguf(path),
        b"PK\x03\x04" if has_magic => import.archive(path),
        _ => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_pickle = name.parse().is_ok_and(|name| is_pickle(&name));
            Err(if is_pickle {
                InspectError::Pickle(name.into_owned()).into()
            } else {
                ImportError::Unknown(path.display().to_string())
            })
        }
    }
}

/// Installs files that lie in `folder` and are described by a manifest that does not, as a download leaves them.
///
/// # Errors
/// As [`import`].
pub fn import_described(
    store: &Store,
    folder: &Path,
    manifest: (&[u8], Option<&[u8]>),
    name: Option<&ArtifactName>,
    options: &ImportOptions<'_>,
    progress: &dyn Progress,
) -> Result<Installed, ImportError> {
    Import { store, name, options, progress }.described(folder, manifest.0, manifest.1)
}

struct Import<'a> {
    store: &'a Store,
    name: Option<&'a ArtifactName>,
    options: &'a ImportOptions<'a>,
    progress: &'a dyn Progress,
}

impl Import<'_> {
    /// A single file: an artifact of its own.
    fn gguf(&self, path: &Path) -> Result<Installed, ImportError> {
        self.options.trust.allows_unsigned()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let file: Option<RelativePath> = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let file = file.ok_or_else(|| {
            let what = "its name has characters that an artifact's file cannot have; rename it to model.gguf".to_owned();
            InspectError::Unknown(path.display().to_string(), what)
        })?;
        let format = gguf_format(folder, &file)?;
        let suggested = ArtifactName::suggested(&stem);
        Import { name: self.name.or(Some(&suggested)), ..*self }.undescribed(folder, format, &[file])
    }

    fn archive(&self, path: &Path) -> Result<Installed, ImportError> {
        let mut archive = Archive::open(path)?;
        let (bytes, signature) = archive.manifest()?;
        let manifest = self.believe(&bytes, signature.as_deref())?;
        let staging = self.store.stage()?;
        archive.extract(&manifest, &staging, self.progress)?;
        self.install(&staging, &bytes, signature.as_deref())
    }

    /// A folder with a manifest: what it lists is taken, the rest is left.
    fn described(&self, folder: &Path, bytes: &[u8], signature: Option<&[u8]>) -> Result<Installed, ImportError> {
        let manifest = self.believe(bytes, signature)?;
        let files: Vec<_> = manifest.files.iter().map(|file| (file.path.clone(), file.bytes)).collect();
        let staging = self.gather(folder, &files)?;
        self.install(&staging, bytes, signature)
    }

    /// Files without a manifest, which the operator trusts.
    fn undescribed(&self, folder: &Path, format: Format, paths: &[RelativePath]) -> Result<Installed, ImportError> {
        let folder_name = folder.file_name().unwrap_or_default().to_string_lossy();
        let name = self.name.cloned().unwrap_or_else(|| ArtifactName::suggested(&folder_name));
        let mut files = Vec::new();
        for path in paths {
            files.push((path.clone(), open_beneath(folder, path)?.metadata().at(folder)?.len()));
        }
        let staging = self.gather(folder, &files)?;
        let about = About {
            name,
            version: 1,
            created: self.options.now,
            expires: None,
            base: self.options.base.clone(),
            description: None,
            source: None,
        };
        let mut manifest = describe(staging.path(), format, paths, about, self.progress)?;
        if let Some(version) = self.options.version {
            manifest.version = version;
            return self.install(&staging, &manifest.to_bytes()?, None);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            manifest.version = self.store.next_version(&manifest.name, &manifest.digest())?;
            match self.install(&staging, &manifest.to_bytes()?, None) {
                // Somebody else took the number while the files were verified, and nobody asked for that one.
                Err(ImportError::Store(StoreError::Reused { .. } | StoreError::Downgrade { .. })) if tries < NUMBERS => {}
                installed => return installed,
            }
        }
    }

    /// Verifies a manifest before anything is made from it. [`Store::check`] does so again with the files.
    fn believe(&self, bytes: &[u8], signature: Option<&[u8]>) -> Result<Manifest, ImportError> {
        self.options.trust.verify(bytes, signature)?;
        let manifest = Manifest::parse(bytes, self.options.now)?;
        match self.name {
            Some(asked) if *asked != manifest.name => Err(ImportError::OtherName { said: manifest.name, asked: asked.clone() }),
            _ => Ok(manifest),
        }
    }

    /// Copies or links files into a staging folder, each of at most its length in bytes.
    fn gather(&self, folder: &Path, files: &[(RelativePath, u64)]) -> Result<Staging, ImportError> {
        let staging = self.store.stage()?;
        let total = files.iter().fold(0u64, |total, (_, bytes)| total.saturating_add(*bytes));
        space::check(staging.path(), if self.options.is_moved { 0 } else { total })?;
        for (path, bytes) in files {
            if self.options.is_moved {
                staging.take(folder, path)?;
                continue;
            }
            let named = folder.join(path.as_str());
            let mut from = open_beneath(folder, path)?;
            let _work = Work::begin(self.progress, &format!("copying {path}"), *bytes);
            copy(&mut from, &mut staging.create(path)?, *bytes, self.progress).at(&named)?;
        }
        Ok(staging)
    }

    fn install(&self, staging: &Staging, bytes: &[u8], signature: Option<&[u8]>) -> Result<Installed, ImportError> {
        let ImportOptions { trust, now, .. } = self.options;
        let checked = self.store.check(staging, (bytes, signature), trust, *now, self.progress)?;
        Ok(self.store.hold()?.put(checked)?)
    }
}

fn known(path: &'static str) -> RelativePath {
    path.parse().expect("the paths written here are paths")
}
