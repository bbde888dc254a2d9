//! A file that is not whole yet: its bytes, its journal, and what of it is known to be good. Blocking; no network here.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::hold::Hold;
use super::journal::{Identity, Journal, part_line};
use crate::digest::{Digest, Hasher};
use crate::manifest::CHUNK_BYTES;
use crate::name::RelativePath;

/// A journal is no longer: 80 bytes for each part of a file of 4 TiB, and the header.
const MAX_JOURNAL: u64 = 48 << 20;

/// What has to arrive, as far as it was announced.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Its size.
    pub(crate) bytes: Option<u64>,
    /// Its digest.
    pub(crate) sha256: Option<Digest>,
    /// Digests of its parts of 8 MiB, or none.
    pub(crate) chunks: Vec<Digest>,
}

/// Bytes that cannot be taken.
#[derive(Debug)]
pub(crate) enum PartFault {
    /// A part is not what the manifest says; it was thrown away, as `copies` were since the file last grew.
    Damaged { chunk: u64, copies: u32 },
    /// The disk fails.
    Io(io::Error),
}

impl From<io::Error> for PartFault {
    fn from(error: io::Error) -> Self {
        PartFault::Io(error)
    }
}

/// A file that is not whole yet.
pub(crate) struct Part {
    file: File,
    journal: File,
    path: PathBuf,
    expected: Expected,
    identity: Option<Identity>,
    /// Bytes that are here.
    at: u64,
    journal_end: u64,
    /// Over the part that is being filled.
    chunk: Hasher,
    /// Over everything that is here.
    whole: Hasher,
    /// Over everything before the part that is being filled.
    whole_before: Hasher,
    /// Finished parts, in the best of all beginnings.
    best_chunks: u64,
    /// Damaged copies since `best_chunks` last rose. A server that begins anew each time cannot set it back.
    damaged_copies: u32,
    /// A write that outlives its pull still holds the folder.
    _hold: Arc<Hold>,
}

impl Part {
    /// Opens what an earlier pull left of `path`, and keeps of it what its journal and the manifest agree to.
    pub(crate) fn open(hold: Arc<Hold>, path: &RelativePath, expected: Expected) -> io::Result<Part> {
        let work = hold.work();
        let (part, journal) = (work.join(format!("{path}.part")), work.join(format!("{path}.journal")));
        if let Some(parent) = part.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut part = Part {
            file: open(&part)?,
            journal: open(&journal)?,
            path: part,
            expected,
            identity: None,
            at: 0,
            journal_end: 0,
            chunk: Hasher::default(),
            whole: Hasher::default(),
            whole_before: Hasher::default(),
            best_chunks: 0,
            damaged_copies: 0,
            _hold: hold,
        };
        match part.read_journal()? {
            Some(journal) if part.is_same(&journal.identity) => part.resume(journal)?,
            _ => part.reset()?,
        }
        Ok(part)
    }

    /// How many bytes are here.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Which file this is, once a server or an earlier pull has said so.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether every byte is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.bytes == self.at)
    }

    /// Throws everything away and begins with the file that `identity` names.
    pub(crate) fn begin(&mut self, identity: Identity) -> io::Result<()> {
        self.reset()?;
        let line = identity.line();
        self.journal.write_all_at(line.as_bytes(), 0)?;
        self.journal_end = line.len() as u64;
        self.identity = Some(identity);
        Ok(())
    }

    /// Throws everything away.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        // The journal first: without it the bytes mean nothing, the other way round they would be missed.
        self.journal.set_len(0)?;
        self.file.set_len(0)?;
        (self.at, self.journal_end, self.identity) = (0, 0, None);
        (self.chunk, self.whole, self.whole_before) = (Hasher::default(), Hasher::default(), Hasher::default());
        Ok(())
    }

    /// Throws away the part that is being filled, which may hold what is not of the file. What the journal names stays.
    pub(crate) fn back(&mut self) -> io::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        self.at -= self.at % CHUNK;
        self.file.set_len(self.at)?;
        (self.chunk, self.whole) = (Hasher::default(), self.whole_before.clone());
        Ok(())
    }

    /// Appends. Nothing is written past the size that the identity says.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<(), PartFault> {
        let size = self.identity.as_ref().map_or(0, |identity| identity.bytes);
        while !bytes.is_empty() {
            let room = (CHUNK - self.at % CHUNK).min(size.saturating_sub(self.at));
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let Some((now, later)) = bytes.split_at_checked(take).filter(|_| take > 0) else {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more bytes than the file has").into());
            };
            self.file.write_all_at(now, self.at)?;
            self.chunk.update(now);
            self.whole.update(now);
            self.at += now.len() as u64;
            if self.at == size || self.at.is_multiple_of(CHUNK) {
                self.finish_chunk()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// The digest of everything that is here.
    pub(crate) fn digest(&self) -> Digest {
        self.whole.clone().finish()
    }

    /// Moves the whole file to its place.
    pub(crate) fn move_to(&self, place: &Path) -> io::Result<()> {
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::rename(&self.path, place)
    }

    fn finish_chunk(&mut self) -> Result<(), PartFault> {
        let index = self.at.saturating_sub(1) / CHUNK;
        let digest = std::mem::take(&mut self.chunk).finish();
        if expected_chunk(&self.expected, index).is_some_and(|expected| *expected != digest) {
            self.at = index * CHUNK;
            self.file.set_len(self.at)?;
            self.whole = self.whole_before.clone();
            self.damaged_copies = self.damaged_copies.saturating_add(1);
            return Err(PartFault::Damaged { chunk: index, copies: self.damaged_copies });
        }
        if index >= self.best_chunks {
            (self.best_chunks, self.damaged_copies) = (index + 1, 0);
        }
        // The bytes are safe before the journal says so.
        self.file.sync_data()?;
        let line = part_line(index, &digest);
        self.journal.write_all_at(line.as_bytes(), self.journal_end)?;
        self.journal.sync_data()?;
        self.journal_end += line.len() as u64;
        self.whole_before = self.whole.clone();
        Ok(())
    }

    fn read_journal(&self) -> io::Result<Option<Journal>> {
        let mut text = Vec::new();
        (&self.journal).take(MAX_JOURNAL).read_to_end(&mut text)?;
        Ok(std::str::from_utf8(&text).ok().and_then(|text| Journal::parse(text, CHUNK)))
    }

    /// Whether a journal is of the file that is wanted. Without a digest or a validator no one can tell, so it is not.
    fn is_same(&self, identity: &Identity) -> bool {
        self.expected.bytes.is_none_or(|bytes| bytes == identity.bytes)
            && self.expected.sha256 == identity.sha256
            && (identity.sha256.is_some() || identity.validator().is_some())
    }

    /// Hashes the parts that the journal names, and keeps those before the first that is not what it was.
    fn resume(&mut self, journal: Journal) -> io::Result<()> {
        let size = journal.identity.bytes;
        // Without a digest the server has to say once more that its file is the same: the last part is fetched again.
        let whole = journal.parts.len() as u64 == size.div_ceil(CHUNK);
        let keep = journal.parts.len().saturating_sub(usize::from(whole && journal.identity.sha256.is_none()));
        self.journal_end = journal.header_end;
        let mut buffer = Vec::new();
        for (index, (digest, end)) in (0..).zip(journal.parts.iter().take(keep)) {
            buffer.resize(usize::try_from((size - self.at).min(CHUNK)).unwrap_or(usize::MAX), 0);
            match self.file.read_exact_at(&mut buffer, self.at) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            let found = Digest::of(&buffer);
            if found != *digest || expected_chunk(&self.expected, index).is_some_and(|expected| *expected != found) {
                break;
            }
            self.whole.update(&buffer);
            self.at += buffer.len() as u64;
            self.journal_end = *end;
            self.best_chunks = index + 1;
        }
        self.whole_before = self.whole.clone();
        self.file.set_len(self.at)?;
        self.journal.set_len(self.journal_end)?;
        self.identity = Some(journal.identity);
        Ok(())
    }
}

/// Parts have the size of the manifest's.
const CHUNK: u64 = CHUNK_BYTES;

fn expected_chunk(expected: &Expected, index: u64) -> Option<&Digest> {
    expected.chunks.get(usize::try_from(index).ok()?)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}
