//! The bytes of a file with their bounds: nothing is read, allocated or skipped beyond the end, and every refusal names the place.

use std::fmt::Display;
use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::error::{FormatError, ensure, malformed};

/// A position in a file of known length.
pub(crate) struct Source<'a, R> {
    reader: BufReader<&'a mut R>,
    at: u64,
    length: u64,
    most: u64,
}

impl<'a, R: Read + Seek> Source<'a, R> {
    /// The file from its first byte; reading past the byte `most` is refused as too long a header.
    pub(crate) fn new(source: &'a mut R, most: u64) -> Result<Self, FormatError> {
        let length = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        Ok(Source { reader: BufReader::with_capacity(1 << 16, source), at: 0, length, most })
    }

    /// Bytes from the start of the file.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the whole file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Where a span of `bytes` from here ends, which is inside the file.
    pub(crate) fn end_of(&self, bytes: u64, what: impl Display) -> Result<u64, FormatError> {
        let end = self.at.checked_add(bytes).ok_or_else(|| malformed(format!("{what} has the length {bytes}")))?;
        ensure!(end <= self.length, "it is cut short: {what} ends at byte {end}, the file has {}", self.length);
        Ok(end)
    }

    /// Fills `buffer` from here.
    pub(crate) fn fill(&mut self, buffer: &mut [u8], what: impl Display) -> Result<(), FormatError> {
        let end = self.end_of(buffer.len() as u64, what)?;
        ensure!(end <= self.most, "its header is longer than {} MiB, which is the most that is read", self.most >> 20);
        self.reader.read_exact(buffer)?;
        self.at = end;
        Ok(())
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// The next `length` bytes, `most` of them at most.
    pub(crate) fn bytes(&mut self, length: u64, most: u64, what: impl Display) -> Result<Vec<u8>, FormatError> {
        ensure!(length <= most, "{what} has {length} bytes, the most is {most}");
        self.end_of(length, &what)?;
        let length = usize::try_from(length).map_err(|_| malformed(format!("{what} has {length} bytes")))?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    /// The next `length` bytes as text.
    pub(crate) fn text(&mut self, length: u64, most: u64, what: impl Display) -> Result<String, FormatError> {
        let bytes = self.bytes(length, most, &what)?;
        String::from_utf8(bytes).map_err(|_| malformed(format!("{what} is not UTF-8")))
    }

    /// Goes over `bytes` without reading them.
    pub(crate) fn skip(&mut self, bytes: u64, what: impl Display) -> Result<(), FormatError> {
        let end = self.end_of(bytes, &what)?;
        let step = i64::try_from(bytes).map_err(|_| malformed(format!("{what} has {bytes} bytes")))?;
        self.reader.seek_relative(step)?;
        self.at = end;
        Ok(())
    }
}
