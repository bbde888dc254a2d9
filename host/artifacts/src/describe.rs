//! Makes a manifest for files that have none.

use std::path::Path;
use std::time::SystemTime;

use crate::digest::Digests;
use crate::files::{At, FileError, open_beneath};
use crate::manifest::{CHUNK_BYTES, FileEntry, Format, MAX_MANIFEST_BYTES, MAX_TOTAL_BYTES, Manifest, rfc3339};
use crate::name::{ArtifactName, RelativePath, Which};
use crate::progress::{Progress, Work};

/// What a chunk's digest takes in a manifest, in bytes: 64 digits, quotes, a comma and its share of the layout.
const CHUNK_TEXT: u64 = 80;

/// What a manifest says beside its files.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) name: ArtifactName,
    pub(crate) version: u64,
    pub(crate) created: SystemTime,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) base: Option<Which>,
    pub(crate) description: Option<String>,
    pub(crate) source: Option<String>,
}

/// Reads the files and writes down what they are. Digests of chunks are left out where they would make the manifest too long.
pub(crate) fn describe(
    folder: &Path,
    format: Format,
    paths: &[RelativePath],
    about: About,
    progress: &dyn Progress,
) -> Result<Manifest, FileError> {
    let mut files = Vec::new();
    for path in paths {
        let named = folder.join(path.as_str());
        let mut file = open_beneath(folder, path)?;
        let bytes = file.metadata().at(&named)?.len();
        let _work = Work::begin(progress, &format!("hashing {path}"), bytes);
        let found = Digests::of_reader(&mut file, MAX_TOTAL_BYTES, progress).at(&named)?;
        files.push(FileEntry { path: path.clone(), bytes: found.bytes, sha256: found.whole, chunks: found.chunks });
    }
    let chunks = files.iter().fold(0u64, |chunks, file| chunks.saturating_add(file.bytes.div_ceil(CHUNK_BYTES)));
    if chunks.saturating_mul(CHUNK_TEXT) > MAX_MANIFEST_BYTES / 2 {
        files.iter_mut().for_each(|file| file.chunks.clear());
    }
    let time = |time| rfc3339(time).unwrap_or_default();
    Ok(Manifest {
        schema: 1,
        name: about.name,
        version: about.version,
        created: time(about.created),
        expires: about.expires.map(time),
        format,
        base: about.base,
        description: about.description,
        source: about.source,
        check: None,
        files,
    })
}
