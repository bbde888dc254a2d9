//! The head of a request: finding its end, and refusing what could be read in two ways.
//!
//! It judges; it does not build a request. What it lets through is read again by hyper.

use http::Uri;
use http::uri::Authority;

use crate::error::EdgeError;
use crate::limits::Limits;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// The whole head with its final empty line, in bytes.
    pub(crate) bytes: usize,
    /// The request target, in bytes.
    pub(crate) target: usize,
    /// Fields.
    pub(crate) fields: usize,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// That many bytes of body, possibly none.
    Known(u64),
    /// A body in chunks.
    Chunked,
}

/// Finds the end of a head in a buffer that grows, looking at each byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    position: usize,
    lines: usize,
    line_bytes: usize,
    previous: u8,
}

/// What the fields said about the body and the host.
#[derive(Debug, Default)]
struct Fields<'a> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'a [u8]>,
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

const LINE_END: &[u8] = b"\r\n";

impl From<&Limits> for HeadLimits {
    fn from(limits: &Limits) -> Self {
        Self { bytes: limits.header_bytes, target: limits.uri_bytes, fields: limits.headers }
    }
}

impl HeadScanner {
    /// Looks at what is new in `buffer`, which starts at the head and keeps what earlier calls saw. Gives the
    /// length of the head, its empty line included, once that is there.
    pub(crate) fn scan(&mut self, buffer: &[u8], limits: HeadLimits) -> Result<Option<usize>, EdgeError> {
        for byte in buffer.iter().skip(self.position).copied() {
            if self.position == 0 && !is_token_byte(byte) {
                // No method begins like this: a TLS hello on a plain port, or noise.
                return Err(EdgeError::Malformed("the request line is malformed"));
            }
            self.position += 1;
            self.line_bytes += 1;
            if byte == b'\n' {
                if self.previous != b'\r' {
                    return Err(EdgeError::Malformed("a line does not end in CRLF"));
                }
                if self.line_bytes == LINE_END.len() {
                    return if self.position > limits.bytes { Err(self.too_large(limits)) } else { Ok(Some(self.position)) };
                }
                self.lines += 1;
                self.line_bytes = 0;
            }
            self.previous = byte;
        }
        if self.position >= limits.bytes { Err(self.too_large(limits)) } else { Ok(None) }
    }

    fn too_large(&self, limits: HeadLimits) -> EdgeError {
        if self.lines == 0 {
            EdgeError::UriTooLong { limit: limits.target }
        } else {
            EdgeError::HeadersTooLarge { limit: limits.bytes }
        }
    }
}

/// Judges a whole head, its final empty line included, and says what follows it.
pub(crate) fn check(head: &[u8], limits: HeadLimits) -> Result<Length, EdgeError> {
    let mut lines = Lines(head);
    let request_line = lines.next().unwrap_or_default();
    let (method, target, version) = split_request_line(request_line)?;
    if target.len() > limits.target {
        return Err(EdgeError::UriTooLong { limit: limits.target });
    }
    if method == b"CONNECT" {
        return Err(EdgeError::NotImplemented("CONNECT is not served"));
    }
    let mut fields = Fields::default();
    let mut count = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > limits.fields {
            return Err(EdgeError::HeadersTooLarge { limit: limits.bytes });
        }
        fields.read(line)?;
    }
    check_target(method, target, fields.host, version)?;
    if fields.upgrade {
        return Err(EdgeError::NotImplemented("no protocol is served by upgrade"));
    }
    match (fields.chunked, fields.length) {
        (true, Some(_)) => Err(EdgeError::Malformed("content-length and transfer-encoding exclude each other")),
        (true, None) if version == Version::Http10 => Err(EdgeError::Malformed("HTTP/1.0 has no transfer-encoding")),
        (true, None) => Ok(Length::Chunked),
        (false, length) => Ok(Length::Known(length.unwrap_or(0))),
    }
}

/// The lines of a head, without their ends.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.windows(LINE_END.len()).position(|pair| pair == LINE_END)?;
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(LINE_END.len()..).unwrap_or_default();
        Some(line)
    }
}

fn split_request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), EdgeError> {
    const MALFORMED: EdgeError = EdgeError::Malformed("the request line is malformed");
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(MALFORMED);
    };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(EdgeError::Malformed("the protocol version is not served")),
    };
    let is_method = !method.is_empty() && method.iter().copied().all(is_token_byte);
    // A fragment is never sent (RFC 9112, 3.2), and a URI parser would cut it off silently.
    let is_target = !target.is_empty() && target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    if is_method && is_target { Ok((method, target, version)) } else { Err(MALFORMED) }
}

impl<'a> Fields<'a> {
    fn read(&mut self, line: &'a [u8]) -> Result<(), EdgeError> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(EdgeError::Malformed("a field is folded over several lines"));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?))) else {
            return Err(EdgeError::Malformed("a field has no colon"));
        };
        // This refuses white space before the colon too (RFC 9112, 5.1).
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return Err(EdgeError::Malformed("a field name is malformed"));
        }
        if !value.iter().copied().all(is_value_byte) {
            return Err(EdgeError::Malformed("a field value holds control characters"));
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.content_length(value)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding(value)
        } else if name.eq_ignore_ascii_case(b"host") {
            match self.host.replace(value) {
                None => Ok(()),
                Some(_) => Err(EdgeError::Malformed("there is more than one host")),
            }
        } else {
            self.upgrade |= name.eq_ignore_ascii_case(b"upgrade");
            Ok(())
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), EdgeError> {
        // Digits alone: `parse` would take a sign, and a list of equal lengths is read differently by others.
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(length) = digits.and_then(|text| text.parse::<u64>().ok()) else {
            return Err(EdgeError::Malformed("the content-length is malformed"));
        };
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(EdgeError::Malformed("there is more than one content-length")),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), EdgeError> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(EdgeError::Malformed("the only transfer-encoding served is a single chunked"));
        }
        self.chunked = true;
        Ok(())
    }
}

/// The target has one of the forms of RFC 9112, 3.2, and names no other host than the host field.
fn check_target(method: &[u8], target: &[u8], host: Option<&[u8]>, version: Version) -> Result<(), EdgeError> {
    let host = match host {
        Some(value) => Some(parse_authority(value)?),
        None if version == Version::Http11 => return Err(EdgeError::Malformed("the host is missing")),
        None => None,
    };
    if target == b"*" {
        return if method == b"OPTIONS" { Ok(()) } else { Err(EdgeError::Malformed("the target is malformed")) };
    }
    let uri = Uri::try_from(target).map_err(|_| EdgeError::Malformed("the target is malformed"))?;
    if target.starts_with(b"/") {
        return Ok(());
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) => same_host(authority, host.as_ref()),
        _ => Err(EdgeError::Malformed("the target is malformed")),
    }
}

/// A host without user information.
pub(crate) fn parse_authority(value: &[u8]) -> Result<Authority, EdgeError> {
    match Authority::try_from(value) {
        Ok(authority) if !authority.as_str().contains('@') => Ok(authority),
        _ => Err(EdgeError::Malformed("the host is malformed")),
    }
}

/// Both name the same host; without a second there is nothing to differ from.
pub(crate) fn same_host(target: &Authority, host: Option<&Authority>) -> Result<(), EdgeError> {
    if target.as_str().contains('@') {
        return Err(EdgeError::Malformed("the host is malformed"));
    }
    match host {
        Some(host) if !host.as_str().eq_ignore_ascii_case(target.as_str()) => {
            Err(EdgeError::Malformed("the target and the host field name different hosts"))
        }
        _ => Ok(()),
    }
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a field value may hold: visible characters, blanks and bytes above ASCII (RFC 9110, 5.5).
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
