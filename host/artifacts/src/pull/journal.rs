//! What is known of a file that is being fetched: one header line, then one line for each part of 8 MiB that is safely on the
//! disk.
//!
//! `tollgate-pull 1 BYTES SHA256|- ETAG|- MODIFIED|-` (the last two in hex), then `INDEX SHA256`. A line without its end was torn
//! by a crash and does not count.

use crate::digest::Digest;

const MAGIC: &str = "tollgate-pull 1";
/// A validator of a server is no longer.
const MAX_VALIDATOR: usize = 512;

/// Which bytes these are, whatever their URL is: parts of two files are never mixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The whole file.
    pub(crate) bytes: u64,
    /// What was announced by a manifest, the hub or the registry.
    pub(crate) sha256: Option<Digest>,
    /// The server's strong `ETag`.
    pub(crate) etag: Option<String>,
    /// The server's `Last-Modified`.
    pub(crate) modified: Option<String>,
}

/// A journal as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Journal {
    /// Its header.
    pub(crate) identity: Identity,
    /// Length of the header line.
    pub(crate) header_end: u64,
    /// For each finished part: its digest, and where its line ends.
    pub(crate) parts: Vec<(Digest, u64)>,
}

impl Identity {
    /// What `If-Range` takes: the strong `ETag`, else the date.
    pub(crate) fn validator(&self) -> Option<&str> {
        self.etag.as_deref().or(self.modified.as_deref())
    }

    /// The header line.
    pub(crate) fn line(&self) -> String {
        let digest = self.sha256.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let [etag, modified] = [&self.etag, &self.modified].map(|text| text.as_ref().map_or_else(|| "-".to_owned(), hex::encode));
        format!("{MAGIC} {} {digest} {etag} {modified}\n", self.bytes)
    }

    fn parse(line: &str) -> Option<Identity> {
        let mut words = line.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
        let bytes = words.next()?.parse().ok()?;
        let sha256 = match words.next()? {
            "-" => None,
            digest => Some(digest.parse().ok()?),
        };
        let mut next = || match words.next() {
            Some("-") => Some(None),
            Some(word) => String::from_utf8(hex::decode(word).ok()?).ok().and_then(validator).map(Some),
            None => None,
        };
        let (etag, modified) = (next()?, next()?);
        words.next().is_none().then_some(Identity { bytes, sha256, etag, modified })
    }
}

impl Journal {
    /// Reads a journal of a file in parts of `part_bytes`. Nothing where the header is not whole; the parts up to the first odd
    /// line.
    pub(crate) fn parse(text: &str, part_bytes: u64) -> Option<Journal> {
        let (first, mut rest) = text.split_once('\n')?;
        let identity = Identity::parse(first)?;
        let header_end = first.len() as u64 + 1;
        let mut end = header_end;
        let mut parts = Vec::new();
        for index in 0..identity.bytes.div_ceil(part_bytes) {
            let Some((line, after)) = rest.split_once('\n') else { break };
            let Some(digest) = parse_part(line, index) else { break };
            end += line.len() as u64 + 1;
            parts.push((digest, end));
            rest = after;
        }
        Some(Journal { identity, header_end, parts })
    }
}

/// The line of a finished part.
pub(crate) fn part_line(index: u64, digest: &Digest) -> String {
    format!("{index} {digest}\n")
}

/// A validator that is fit to be kept and sent back: short, visible ASCII and spaces.
pub(crate) fn validator(text: String) -> Option<String> {
    let plain = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    (plain && !text.is_empty() && text.len() <= MAX_VALIDATOR).then_some(text)
}

fn parse_part(line: &str, index: u64) -> Option<Digest> {
    let (number, digest) = line.split_once(' ')?;
    (number.parse() == Ok(index)).then(|| digest.parse().ok())?
}
