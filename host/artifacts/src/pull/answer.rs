//! What the head of an answer to a download means. Pure: no network and no disk.

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{StatusCode, Url};

use super::error::Fault;
use super::http::{check_body_kind, content_length, status_fault, text};
use super::journal::{Identity, validator};
use super::part::Expected;

/// A file as it is asked for.
pub(crate) struct Ask<'a> {
    /// Its address.
    pub(crate) url: &'a Url,
    /// What was announced of it.
    pub(crate) expected: &'a Expected,
    /// Which file the bytes are of that are here.
    pub(crate) known: Option<&'a Identity>,
    /// How many are here.
    pub(crate) at: u64,
}

/// What the body of an answer is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A file from its first byte; what was here is of no use.
    Whole(Identity),
    /// The bytes after those that are here.
    Rest,
    /// The file from its first byte, whose beginning is here: a digest tells in the end that it is the same.
    Again,
    /// Nothing that fits what is here, which has to be thrown away.
    Stale(String),
}

impl Ask<'_> {
    /// The headers that ask for what is missing: nothing for a new file, else the rest of the same one (RFC 9110, 13.1.5 and
    /// 14.2). Where a digest tells whether it is the same, no validator has to: mirrors have different ones.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.at == 0 {
            return headers;
        }
        if let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.at)) {
            headers.insert(RANGE, range);
        }
        if self.expected.sha256.is_none()
            && let Some(Ok(validator)) = self.known.and_then(Identity::validator).map(HeaderValue::from_str)
        {
            headers.insert(IF_RANGE, validator);
        }
        headers
    }

    /// Reads the head of an answer.
    pub(crate) fn read(&self, status: StatusCode, headers: &HeaderMap) -> Result<Answer, Fault> {
        match (status, self.known) {
            (StatusCode::OK, Some(known)) if self.at > 0 => self.read_again(headers, known),
            (StatusCode::OK, _) => self.read_whole(headers).map(Answer::Whole),
            (StatusCode::PARTIAL_CONTENT, Some(known)) if self.at > 0 => self.read_rest(headers, known),
            (StatusCode::PARTIAL_CONTENT, _) => {
                Err(Fault::retry("answers with a part of the file, though the whole was asked for"))
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, _) if self.at > 0 => {
                Ok(Answer::Stale(format!("has no byte {}: its file is another one now", self.at)))
            }
            _ => Err(status_fault(self.url, status, headers)),
        }
    }

    fn check_kind(&self, headers: &HeaderMap) -> Result<(), Fault> {
        check_body_kind(headers, self.url.path().ends_with(".jinja"))
    }

    fn read_whole(&self, headers: &HeaderMap) -> Result<Identity, Fault> {
        self.check_kind(headers)?;
        let length = content_length(headers);
        let bytes = match (self.expected.bytes, length) {
            (Some(expected), Some(length)) if expected != length => {
                return Err(Fault::retry(format!("sends {length} bytes, but the file is announced with {expected}")));
            }
            (Some(bytes), _) | (None, Some(bytes)) => bytes,
            (None, None) => return Err(Fault::retry("does not say how long the file is (Content-Length)")),
        };
        Ok(Identity { bytes, sha256: self.expected.sha256, etag: strong_etag(headers), modified: last_modified(headers) })
    }

    /// The whole file, though its rest was asked for.
    fn read_again(&self, headers: &HeaderMap, known: &Identity) -> Result<Answer, Fault> {
        let length = content_length(headers);
        if self.expected.sha256.is_some() {
            self.check_kind(headers)?;
            return match length {
                Some(length) if length != known.bytes => {
                    Err(Fault::retry(format!("sends {length} bytes, but the file is announced with {}", known.bytes)))
                }
                _ => Ok(Answer::Again),
            };
        }
        // Nothing tells a new file from the words of a proxy. What is here is not given up for what looks like those.
        let is_json = text(headers, CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
        if is_json && !self.url.path().ends_with(".json") {
            return Err(Fault::retry("answers with JSON where the rest of a file is expected"));
        }
        match length {
            Some(length) if length >= self.at / 2 => self.read_whole(headers).map(Answer::Whole),
            Some(length) => Err(Fault::retry(format!(
                "sends another file of only {length} bytes, where {} bytes of the one before are here; if it is right, remove the \
                 folder cache/partial of the models and pull again",
                self.at
            ))),
            None => Err(Fault::retry("sends another file, and does not say how long it is (Content-Length)")),
        }
    }

    fn read_rest(&self, headers: &HeaderMap, known: &Identity) -> Result<Answer, Fault> {
        self.check_kind(headers)?;
        let found = text(headers, CONTENT_RANGE).unwrap_or_default();
        let Some(range) = parse_range(found) else {
            return Err(Fault::retry(format!("sends a part without saying which (Content-Range {found:?})")));
        };
        if range.total.is_some_and(|total| total != known.bytes) {
            return Ok(Answer::Stale(format!(
                "has another file now: {found:?}, where {} bytes were announced before",
                known.bytes
            )));
        }
        // A server may ignore If-Range. Without a digest it has to say that this is the same file.
        let validator = if known.etag.is_some() { strong_etag(headers) } else { last_modified(headers) };
        if self.expected.sha256.is_none() && (validator.is_none() || validator.as_deref() != known.validator()) {
            return Ok(Answer::Stale("does not say that its file is the same as before: its ETag or date changed".to_owned()));
        }
        let length = range.last.checked_sub(range.first).and_then(|span| span.checked_add(1));
        let is_right = range.first == self.at && range.last < known.bytes && length.is_some();
        if !is_right || content_length(headers).is_some_and(|sent| Some(sent) != length) {
            return Err(Fault::retry(format!(
                "sends another part (Content-Range {found:?}) than the one asked for, from byte {}",
                self.at
            )));
        }
        Ok(Answer::Rest)
    }
}

struct Range {
    first: u64,
    last: u64,
    /// `None` where the server does not know it.
    total: Option<u64>,
}

/// `bytes FIRST-LAST/TOTAL` or `bytes FIRST-LAST/*`.
fn parse_range(text: &str) -> Option<Range> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some(Range { first: first.parse().ok()?, last: last.parse().ok()?, total })
}

/// A weak one says of two files that they mean the same, not that they are.
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, ETAG).filter(|etag| etag.starts_with('"'))?;
    validator(etag.to_owned())
}

fn last_modified(headers: &HeaderMap) -> Option<String> {
    validator(text(headers, LAST_MODIFIED)?.to_owned())
}
