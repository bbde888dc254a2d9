//! What the tests of this crate share: small models, keys and a store of their own.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::describe::{About, describe};
use crate::manifest::{Format, Manifest};
use crate::name::RelativePath;
use crate::progress::Silent;
use crate::store::{Held, Installed, Staging, Store, StoreError};
use crate::trust::{SigningKey, Trust};

/// 2026-11-20T00:00:00Z.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_132_800)
}

/// The model that ships with the gateway.
pub(crate) fn demo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo-model")
}

/// A GGUF model; another `variant` has another weight.
pub(crate) fn gguf(variant: u8) -> Vec<u8> {
    let mut bytes = std::fs::read(demo_folder().join("demo.gguf")).unwrap();
    *bytes.last_mut().unwrap() ^= variant;
    bytes
}

/// A file in the safetensors format, with tensors of zeros in f32.
pub(crate) fn safetensors(tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<u64>();
        header.insert((*name).to_owned(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + usize::try_from(at).unwrap(), 0);
    bytes
}

/// A folder with files in it.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

/// A manifest for files in a folder.
pub(crate) fn manifest(folder: &Path, format: Format, paths: &[&str], version: u64) -> Manifest {
    let about = About {
        name: "demo".parse().unwrap(),
        version,
        created: now(),
        expires: None,
        base: None,
        description: None,
        source: None,
    };
    let paths: Vec<RelativePath> = paths.iter().map(|path| path.parse().unwrap()).collect();
    describe(folder, format, &paths, about, &Silent).unwrap()
}

/// A store with one trusted key.
pub(crate) struct Case {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) key: SigningKey,
    pub(crate) trust: Trust,
}

impl Case {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("models")).unwrap();
        let key = SigningKey::generate().unwrap();
        let trust = Trust { keys: vec![key.public()], unsigned: false };
        Case { folder, store, key, trust }
    }

    /// Stages a GGUF model and makes a manifest for it.
    pub(crate) fn stage(&self, version: u64, variant: u8) -> (Staging, Manifest) {
        let staging = self.store.stage().unwrap();
        std::fs::write(staging.path().join("model.gguf"), gguf(variant)).unwrap();
        let manifest = manifest(staging.path(), Format::Gguf, &["model.gguf"], version);
        (staging, manifest)
    }

    /// Signs a manifest and installs what was staged.
    pub(crate) fn install_as(&self, held: &Held, staging: &Staging, manifest: &Manifest) -> Result<Installed, StoreError> {
        let bytes = manifest.to_bytes().unwrap();
        let signature = self.key.sign(&bytes);
        held.put(self.store.check(staging, (&bytes, Some(&signature)), &self.trust, now(), &Silent)?)
    }

    /// Installs a version.
    pub(crate) fn install(&self, held: &Held, version: u64, variant: u8) -> Result<Installed, StoreError> {
        let (staging, manifest) = self.stage(version, variant);
        self.install_as(held, &staging, &manifest)
    }
}
