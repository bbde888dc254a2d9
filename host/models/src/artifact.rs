//! Model files: those that the operator names, those that were installed, and those inside the binary.

mod digests;
mod folder;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tollgate_artifacts::{Format, Store, StoreError};
use tollgate_config::Source;
use tollgate_formats::gguf::{self, Gguf};
use tollgate_formats::{FormatError, gguf::check_model};

use self::digests::{Digests, Stamp, stamp};
use crate::Tuner;

/// Model files, built in, installed or on disk.
#[derive(Debug, Clone)]
pub struct Library {
    builtin: &'static [(&'static str, &'static [u8])],
    /// Where built-in files are laid out for backends that want a path.
    directory: PathBuf,
    /// What relative paths are relative to.
    config: PathBuf,
    /// What was installed.
    store: Store,
    /// Where ONNX Runtime is, if the config says.
    onnxruntime: Option<PathBuf>,
    /// What measures how a model is computed best, if that is to be measured.
    tuner: Option<Tuner>,
    digests: Arc<Digests>,
}

/// A model that is there, with headers that are in order.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    /// Where: a file, or a folder.
    pub(crate) path: PathBuf,
    /// What it says of itself.
    pub(crate) header: Header,
    /// SHA-256, 64 hex digits, where it is known without reading the files.
    pub(crate) digest: Option<String>,
    /// Whether nobody but the gateway writes there, so that it may be mapped.
    pub(crate) is_ours: bool,
    /// The files that it is made of, with the digests that they should have where that is known.
    files: Vec<(PathBuf, Option<String>)>,
    /// Of a folder, the names of the files that may count when it was looked at.
    listing: Option<Vec<String>>,
}

/// What a model says of itself.
#[derive(Debug, Clone)]
pub(crate) enum Header {
    Gguf(Arc<Gguf>),
    /// Elements of all tensors.
    Safetensors(u64),
    Onnx {
        /// Bytes of all weights.
        bytes: u64,
        /// The name of the graph's file in the folder.
        graph: String,
    },
    /// It was not read.
    Unread,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Gguf,
    Safetensors,
    Onnx,
    /// One file whose reader is the caller.
    Adapter,
    /// A folder with an adapter as PEFT writes it, whose reader is the caller.
    Peft,
}

/// What a source leads to.
struct Place {
    path: PathBuf,
    digest: Option<String>,
    is_ours: bool,
    /// Digests of the files by their paths in the folder.
    known: BTreeMap<String, String>,
}

impl Place {
    /// Files of its folder, with the digests that they should have.
    fn files(&self, names: Vec<String>) -> Result<Vec<(PathBuf, Option<String>)>, ArtifactError> {
        if let Some(name) = names.iter().find(|name| !self.known.is_empty() && !self.known.contains_key(*name)) {
            let what = format!("`{name}` is not in the manifest that it was installed with: install it again");
            return Err(ArtifactError::Folder { path: self.path.clone(), what });
        }
        Ok(names.into_iter().map(|name| (self.path.join(&name), self.known.get(&name).cloned())).collect())
    }

    fn artifact(self, header: Header, files: Vec<(PathBuf, Option<String>)>, listing: Option<Vec<String>>) -> Artifact {
        Artifact { path: self.path, header, digest: self.digest, is_ours: self.is_ours, files, listing }
    }
}

impl Artifact {
    /// Its files of safetensors.
    pub(crate) fn safetensors(&self) -> Vec<PathBuf> {
        let is_one = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
        self.files.iter().map(|(path, _)| path).filter(is_one).cloned().collect()
    }

    /// Whether it is loaded by the name of its folder, rather than through a file that was opened.
    fn is_folder(&self) -> bool {
        self.files.len() != 1 || self.listing.is_some()
    }

    /// Whether the folder has the files that it had when they were checked.
    fn check_listing(&self) -> Result<(), ArtifactError> {
        if let Some(listing) = &self.listing
            && folder::names(&self.path)? != *listing
        {
            let what = "it has other files than when they were checked: put them back, or restart the gateway".to_owned();
            return Err(ArtifactError::Folder { path: self.path.clone(), what });
        }
        Ok(())
    }
}

/// A model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not one of those inside the binary.
    #[error("there is no built-in model `{name}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Not one of those in the data directory.
    #[error("no model `{name}` is installed: `tollgate model import` or `tollgate model pull` does that")]
    NotInstalled {
        /// What was asked for.
        name: String,
    },
    /// It is installed in a format that llama.cpp does not run.
    #[error(
        "`{name}` is installed as {format}, and llama.cpp runs GGUF: `tollgate model import {} --name {name} --convert auto{}` makes \
         that of it",
        folder.display(), if *format == Format::LoraPeft { " --base ITS-BASE" } else { "" }
    )]
    Unconverted {
        /// What was asked for.
        name: String,
        /// What it is installed as.
        format: Format,
        /// Where it is.
        folder: PathBuf,
    },
    /// What is installed cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is missing or cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not what such a file is.
    #[error("{}: {error}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: FormatError,
    },
    /// The folder is not what the backend takes.
    #[error("{}: {what}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// It is another one than it should be.
    #[error("{}: it has the digest {found}, and should have {expected}: install it again", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// SHA-256 of what is there.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl Library {
    /// `builtin` are the files inside the binary by name, which are laid out in `directory`; relative paths begin at `config`;
    /// installed models are in `store`.
    #[must_use]
    pub fn new(builtin: &'static [(&'static str, &'static [u8])], directory: PathBuf, config: PathBuf, store: Store) -> Self {
        Library { builtin, directory, config, store, onnxruntime: None, tuner: None, digests: Arc::default() }
    }

    /// Takes ONNX Runtime from this path, relative to the config directory.
    #[must_use]
    pub fn with_onnxruntime(self, path: Option<&Path>) -> Self {
        Library { onnxruntime: path.map(|path| self.config.join(path)), ..self }
    }

    /// Has models computed as is best on this machine, which `tuner` measures once for each.
    #[must_use]
    pub fn with_tuner(self, tuner: Option<Tuner>) -> Self {
        Library { tuner, ..self }
    }

    /// What measures, if anything does.
    pub(crate) fn tuner(&self) -> Option<&Tuner> {
        self.tuner.as_ref()
    }

    /// What was installed.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Where ONNX Runtime is, if the config says.
    pub(crate) fn onnxruntime(&self) -> Option<&Path> {
        self.onnxruntime.as_deref()
    }

    /// Where the links to installed models are.
    #[must_use]
    pub fn installed(&self) -> PathBuf {
        self.store.root().join("current")
    }

    /// Finds an artifact and checks its headers.
    ///
    /// # Errors
    /// It is not there, or no model of this kind.
    pub(crate) fn find(&self, source: &Source, wanted: Wanted) -> Result<Artifact, ArtifactError> {
        let place = match source {
            Source::Builtin(name) => {
                let (path, digest) = self.lay_out(name.as_str())?;
                Place { path, digest: Some(digest), is_ours: true, known: BTreeMap::new() }
            }
            Source::Installed(name) => self.current(name.as_str(), wanted)?,
            Source::File(path) => Place { path: self.config.join(path), digest: None, is_ours: false, known: BTreeMap::new() },
        };
        if wanted == Wanted::Adapter {
            if place.path.is_dir() {
                let what = "for this backend an adapter is one file; `tollgate model import` makes a GGUF file of a PEFT folder";
                return Err(ArtifactError::Folder { path: place.path, what: what.to_owned() });
            }
            let files = vec![(place.path.clone(), place.digest.clone())];
            return Ok(place.artifact(Header::Unread, files, None));
        }
        let is_one_file = wanted == Wanted::Gguf;
        if is_one_file == place.path.is_dir() && place.path.exists() {
            let what = if is_one_file {
                "llama.cpp runs one GGUF file; `tollgate model import` makes one of a folder of safetensors"
            } else {
                "this backend wants a folder, and this is a file; one that is GGUF runs with `backend = \"llama\"`"
            };
            return Err(ArtifactError::Folder { path: place.path, what: what.to_owned() });
        }
        if wanted == Wanted::Peft {
            let files = place.files(folder::peft(&place.path)?)?;
            return Ok(place.artifact(Header::Unread, files, None));
        }
        if wanted != Wanted::Gguf {
            let folder::Look { header, files, listing } = folder::look(&place.path, wanted)?;
            let files = place.files(files)?;
            return Ok(place.artifact(header, files, Some(listing)));
        }
        let path = place.path.clone();
        let file = File::open(&path).map_err(|error| ArtifactError::Io { path: path.clone(), error })?;
        let header = gguf::read(&mut BufReader::new(file)).and_then(|gguf| check_model(&gguf).map(|()| gguf));
        let header = header.map_err(|error| ArtifactError::Format { path: path.clone(), error })?;
        let files = vec![(path, place.digest.clone())];
        Ok(place.artifact(Header::Gguf(Arc::new(header)), files, None))
    }

    /// Opens an artifact's files and takes the digest of what it opened, which is what is then to be loaded (P-M8). A file that
    /// has not changed since is not read again.
    ///
    /// # Errors
    /// One cannot be read, or is another one than it should be.
    pub(crate) fn open(&self, artifact: &Artifact) -> Result<Opened, ArtifactError> {
        artifact.check_listing()?;
        let (mut files, mut stamps, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for (path, expected) in &artifact.files {
            let io = |error| ArtifactError::Io { path: path.clone(), error };
            let mut file = File::open(path).map_err(io)?;
            stamps.push(file.metadata().map(|metadata| stamp(&metadata)).map_err(io)?);
            let found = self.digests.of(&mut file).map_err(io)?;
            if let Some(expected) = expected.clone().filter(|expected| *expected != found) {
                return Err(ArtifactError::Digest { path: path.clone(), found, expected });
            }
            if matches!(artifact.header, Header::Gguf(_)) && !artifact.is_ours {
                // It may have been written since it was found: native code sees nothing that the strict reader has not.
                file.rewind().map_err(io)?;
                let header = gguf::read(&mut BufReader::new(&mut file)).and_then(|gguf| check_model(&gguf));
                header.map_err(|error| ArtifactError::Format { path: path.clone(), error })?;
            }
            let name = path.strip_prefix(&artifact.path).unwrap_or(path).display().to_string();
            files.push(file);
            digests.push((name, found));
        }
        let digest = match (&artifact.digest, digests.as_slice()) {
            (Some(digest), _) => digest.clone(),
            (None, [(_, digest)]) => digest.clone(),
            (None, digests) => {
                let list = digests.iter().map(|(name, digest)| format!("{digest} {name}\n")).collect::<String>();
                hex::encode(Sha256::digest(list))
            }
        };
        Ok(Opened { files, stamps, digest })
    }

    /// What a name stands for: its one file for llama.cpp, else its folder.
    fn current(&self, name: &str, wanted: Wanted) -> Result<Place, ArtifactError> {
        let missing = || ArtifactError::NotInstalled { name: name.to_owned() };
        let parsed = name.parse().map_err(|_| missing())?;
        let version = self.store.current(&parsed)?.ok_or_else(missing)?;
        let format = version.manifest.format;
        if matches!((wanted, format), (Wanted::Gguf, Format::Safetensors) | (Wanted::Adapter, Format::LoraPeft)) {
            return Err(ArtifactError::Unconverted { name: name.to_owned(), format, folder: version.folder });
        }
        let known = version.manifest.files.iter().map(|file| (file.path.to_string(), file.sha256.to_string())).collect();
        let (path, digest) = match wanted {
            Wanted::Gguf | Wanted::Adapter => {
                let file = version.manifest.main_file();
                (version.folder.join(file.path.as_str()), file.sha256.to_string())
            }
            Wanted::Safetensors | Wanted::Onnx | Wanted::Peft => (version.folder, version.digest.to_string()),
        };
        Ok(Place { path, digest: Some(digest), is_ours: true, known })
    }

    /// Writes a built-in file where a backend can map it, once; returns it with its digest.
    fn lay_out(&self, name: &str) -> Result<(PathBuf, String), ArtifactError> {
        let found = self.builtin.iter().find(|(known, _)| *known == name);
        let (_, bytes) = found.ok_or_else(|| ArtifactError::Unknown {
            name: name.to_owned(),
            known: self.builtin.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "),
        })?;
        let sha256 = hex::encode(Sha256::digest(bytes));
        let path = self.directory.join(format!("{name}-{}.gguf", sha256.get(..16).unwrap_or(&sha256)));
        let io = |error| ArtifactError::Io { path: path.clone(), error };
        let there = File::open(&path).and_then(|mut file| self.digests.of(&mut file));
        if there.ok().as_deref() != Some(&sha256) {
            std::fs::create_dir_all(&self.directory).map_err(io)?;
            let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
            let write = || {
                let mut file = File::create(&temporary)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)
            };
            write().map_err(io)?;
        }
        Ok((path, sha256))
    }
}

/// Files whose digests were taken, and which are open since.
#[derive(Debug)]
pub(crate) struct Opened {
    files: Vec<File>,
    /// What they were before their digests were taken.
    stamps: Vec<Stamp>,
    /// SHA-256, 64 hex digits.
    pub(crate) digest: String,
}

impl Opened {
    /// Where a backend finds what was opened: the open file itself, or the folder, by its name.
    pub(crate) fn place_of(&self, artifact: &Artifact) -> PathBuf {
        let own = if artifact.is_folder() { None } else { self.path() };
        own.unwrap_or_else(|| artifact.path.clone())
    }

    /// To be asked after a load: whether a folder, which is loaded by its name, still is what its digest was taken of (P-M8). One
    /// where nobody but the gateway writes is not looked at: its files get names more and less, and stay what they are.
    ///
    /// # Errors
    /// A file was written to, replaced or put beside it.
    pub(crate) fn confirm(&self, artifact: &Artifact) -> Result<(), ArtifactError> {
        if artifact.is_ours || !artifact.is_folder() {
            return Ok(());
        }
        artifact.check_listing()?;
        for ((path, _), before) in artifact.files.iter().zip(&self.stamps) {
            let now = std::fs::metadata(path).map_err(|error| ArtifactError::Io { path: path.clone(), error })?;
            if stamp(&now) != *before {
                let what = "it changed while it was loaded: load it again once nobody writes to it".to_owned();
                return Err(ArtifactError::Folder { path: path.clone(), what });
            }
        }
        Ok(())
    }

    /// A path to the open file itself, whatever becomes of its name, where there is one. Good for as long as this lives.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.files.first().map(|file| Path::new("/proc/self/fd").join(file.as_raw_fd().to_string()))
    }
}

#[cfg(test)]
mod tests;
