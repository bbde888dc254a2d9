//! SHA-256 digests: what a file or a model is known by.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::progress::Progress;

/// How much is read at a time: large enough for a disk, small enough for the cache of a small processor.
const READ_BYTES: usize = 256 << 10;

/// A text that is not a digest. Never holds the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest; a SHA-256 digest is 64 hex digits in lower case")]
pub struct NotADigest;

/// A SHA-256 digest. As text: 64 hex digits in lower case, nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of all that `reader` gives, and how many bytes that was. `progress` only advances: its begin and end are the caller's.
    ///
    /// # Errors
    /// The reader's.
    pub fn of_reader(reader: &mut impl Read, progress: &dyn Progress) -> io::Result<(Self, u64)> {
        let mut hasher = Hasher::default();
        let bytes = read_through(reader, |piece| {
            hasher.update(piece);
            progress.advance(len(piece));
            Ok(())
        })?;
        Ok((hasher.finish(), bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NotADigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest)?;
        Ok(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// What a file is known by: as a whole and chunk by chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Of the whole.
    pub whole: Digest,
    /// Of each chunk of [`CHUNK_BYTES`](crate::manifest::CHUNK_BYTES); the last may be shorter. None for an empty file.
    pub chunks: Vec<Digest>,
    /// Length in bytes.
    pub bytes: u64,
}

impl Digests {
    /// Reads all that `reader` gives, which may be at most `max_bytes`. `progress` only advances.
    ///
    /// # Errors
    /// The reader's, and more bytes than `max_bytes`.
    pub fn of_reader(reader: &mut impl Read, max_bytes: u64, progress: &dyn Progress) -> io::Result<Self> {
        let mut whole = Hasher::default();
        let mut chunks = Vec::new();
        let mut bytes = 0;
        // One byte more than allowed is enough to tell that it is too long.
        let mut reader = reader.take(max_bytes.saturating_add(1));
        loop {
            let mut chunk = Hasher::default();
            let got = read_through(&mut (&mut reader).take(crate::manifest::CHUNK_BYTES), |piece| {
                whole.update(piece);
                chunk.update(piece);
                progress.advance(len(piece));
                Ok(())
            })?;
            if got == 0 {
                break;
            }
            bytes += got;
            chunks.push(chunk.finish());
        }
        if bytes > max_bytes {
            return Err(io::Error::other(format!("it is longer than {max_bytes} bytes")));
        }
        Ok(Digests { whole: whole.finish(), chunks, bytes })
    }
}

/// Gives every piece that `reader` has to `take`; answers how many bytes there were.
pub(crate) fn read_through(reader: &mut impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let got = match reader.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = buffer.get(..got).ok_or(io::ErrorKind::InvalidData)?;
        take(piece)?;
        bytes += len(piece);
    }
}

/// A length as the number that files are measured in.
pub(crate) fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::CHUNK_BYTES;
    use crate::progress::Silent;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_64_lower_case_hex_digits() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        for bad in [
            "",
            "e3",
            &EMPTY[1..],
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}0"),
            &EMPTY.replace('e', "g"),
            &format!(" {}", &EMPTY[1..]),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(NotADigest), "{bad:?}");
        }
        let json = serde_json::to_string(&Digest::of(b"")).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), Digest::of(b""));
    }

    #[test]
    fn a_reader_gives_the_same_digest_as_its_bytes() {
        let bytes = vec![7; READ_BYTES + 1];
        let (digest, count) = Digest::of_reader(&mut bytes.as_slice(), &Silent).unwrap();
        assert_eq!((digest, count), (Digest::of(&bytes), len(&bytes)));
    }

    #[test]
    fn chunks_are_hashed_apart_and_a_file_that_is_too_long_is_told() {
        let chunk = usize::try_from(CHUNK_BYTES).unwrap();
        let bytes = vec![3; chunk + 5];
        let digests = Digests::of_reader(&mut bytes.as_slice(), len(&bytes), &Silent).unwrap();
        assert_eq!(digests.whole, Digest::of(&bytes));
        assert_eq!(digests.chunks, [Digest::of(&bytes[..chunk]), Digest::of(&bytes[chunk..])]);
        assert_eq!(digests.bytes, CHUNK_BYTES + 5);
        let error = Digests::of_reader(&mut bytes.as_slice(), 4, &Silent).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 4 bytes");
        assert_eq!(Digests::of_reader(&mut [].as_slice(), 4, &Silent).unwrap().chunks, []);
    }
}
