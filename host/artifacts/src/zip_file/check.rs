//! The rules that an archive's directory keeps before anything of it is extracted.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};
use std::path::Path;

use zip::read::{ArchiveOffset, Config, OwnedZipFileEntry, ZipFileEntry};
use zip::result::ZipError;
// Of what the crate offers, only this walks a directory without an index of it in memory and shows names that occur twice.
use zip::unstable::read::ZipIterable;
use zip::{CompressionMethod, ZipReadOptions};

use super::ArchiveError;
use crate::name::RelativePath;

/// Entries of an archive, at most.
const MAX_ENTRIES: usize = 4096;
/// Length of an archive's directory in bytes, at most: 4 MiB.
const MAX_DIRECTORY_BYTES: u64 = 4 << 20;
/// How many times its length in the archive a file may have.
const MAX_RATIO: u64 = 200;
/// Up to this length, in bytes, the ratio does not matter: 1 MiB.
const RATIO_FLOOR: u64 = 1 << 20;
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Why an archive is not taken, before its own name is known here.
pub(super) enum Problem {
    Unreadable(ZipError),
    Refused(String),
}

impl Problem {
    pub(super) fn of(self, path: &Path) -> ArchiveError {
        let path = path.to_owned();
        match self {
            Problem::Unreadable(source) => ArchiveError::Unreadable { path, source },
            Problem::Refused(what) => ArchiveError::Refused { path, what },
        }
    }
}

impl From<ZipError> for Problem {
    fn from(error: ZipError) -> Self {
        Problem::Unreadable(error)
    }
}

/// The files of an archive, each of them a plain file under a name that an artifact can have.
pub(super) fn entries<R: Read + Seek>(reader: &mut R) -> Result<BTreeMap<RelativePath, OwnedZipFileEntry>, Problem> {
    let mut found = Vec::new();
    {
        // Nothing stands before the archive: what one reader skips another may execute or extract.
        let config = Config { archive_offset: ArchiveOffset::Known(0) };
        let mut archive = ZipIterable::try_new(&mut *reader, config)?.enforce_header_consistency(true);
        if archive.len() > MAX_ENTRIES {
            return Err(Problem::Refused(format!("it has {} entries, and {MAX_ENTRIES} are the most", archive.len())));
        }
        let mut start = None;
        for entry in archive.files()? {
            let entry = entry?;
            let at = entry.central_header_start();
            if at.saturating_sub(*start.get_or_insert(at)) > MAX_DIRECTORY_BYTES {
                return Err(Problem::Refused(format!("its directory is longer than {MAX_DIRECTORY_BYTES} bytes")));
            }
            found.push(OwnedZipFileEntry::from(entry));
        }
    }
    check_spans(reader, &found)?;
    let mut seen = BTreeSet::new();
    let mut files = BTreeMap::new();
    for entry in found {
        let (path, is_folder) = name(&entry)?;
        if !seen.insert(path.folded()) {
            return Err(Problem::Refused(format!(
                "it holds `{path}` twice, or another name that differs in the case of letters only"
            )));
        }
        check(&entry.as_ref(), &path, is_folder)?;
        if !is_folder {
            files.insert(path, entry);
        }
    }
    Ok(files)
}

/// The name of an entry, and whether it is a folder.
fn name(entry: &OwnedZipFileEntry) -> Result<(RelativePath, bool), Problem> {
    let raw = entry.name_raw();
    let text = std::str::from_utf8(raw).ok();
    let is_folder = raw.ends_with(b"/");
    match text.map(|text| text.strip_suffix('/').unwrap_or(text).parse()) {
        Some(Ok(path)) => Ok((path, is_folder)),
        _ => {
            let shown: String = String::from_utf8_lossy(raw).chars().take(100).flat_map(char::escape_debug).collect();
            Err(Problem::Refused(format!("it holds `{shown}`, which is not a path inside an artifact")))
        }
    }
}

fn check(entry: &ZipFileEntry<'_>, path: &RelativePath, is_folder: bool) -> Result<(), Problem> {
    let refused = |what: &str| Err(Problem::Refused(format!("`{path}` {what}")));
    let wanted = if is_folder { FOLDER } else { REGULAR };
    if entry.unix_mode().is_some_and(|mode| mode & FILE_TYPE != 0 && mode & FILE_TYPE != wanted) {
        return refused("is a link or a device; only plain files are taken");
    }
    if entry.encrypted() {
        return refused("is encrypted; make the archive without a password");
    }
    if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        return refused("is neither stored nor deflated; make the archive with one of these");
    }
    if is_folder && (entry.size() != 0 || entry.compressed_size() != 0) {
        return refused("is a folder with content");
    }
    if entry.size() > RATIO_FLOOR && entry.size() > entry.compressed_size().saturating_mul(MAX_RATIO) {
        return refused("would become more than 200 times as long; store it instead of deflating it");
    }
    Ok(())
}

/// No two files share bytes of the archive, and none reaches into its directory.
fn check_spans<R: Read + Seek>(reader: &mut R, entries: &[OwnedZipFileEntry]) -> Result<(), Problem> {
    let mut spans = Vec::with_capacity(entries.len());
    for entry in entries {
        // The header is all that is read here. The checks of method and encryption come later, with better words.
        let start = entry.header_start();
        let data = match entry.as_ref().with_reader(&mut *reader, ZipReadOptions::new().ignore_encryption_flag(true)) {
            Ok(file) => file.data_start(),
            Err(ZipError::CompressionMethodNotSupported(_) | ZipError::UnsupportedArchive(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let end = data.and_then(|data| data.checked_add(entry.compressed_size()));
        spans.push((start, end.ok_or_else(|| Problem::Refused("an entry has no end".to_owned()))?));
    }
    spans.sort_unstable();
    let directory = entries.iter().map(OwnedZipFileEntry::central_header_start).min().unwrap_or(u64::MAX);
    let starts = spans.iter().skip(1).map(|(start, _)| *start).chain([directory]);
    if spans.iter().zip(starts).any(|((_, end), next)| *end > next) {
        return Err(Problem::Refused("its entries overlap".to_owned()));
    }
    Ok(())
}
