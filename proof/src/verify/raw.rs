//! HTTP as bytes, for what no client library would send: conversations over HTTP/1.1, and requests over HTTP/2 with any field at all.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The longest that one conversation may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// What came back of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// The statuses of all final answers, in their order. On HTTP/2 a reset stream has none.
    pub(crate) statuses: Vec<u16>,
    /// All bytes that came.
    pub(crate) bytes: Vec<u8>,
    /// Whether the other side ended it in time.
    pub(crate) is_closed: bool,
}

impl Talk {
    /// Whether the bytes hold this text.
    pub(crate) fn says(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// Writes all of `bytes` and reads to the close.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Talk {
    let mut talk = Talk::default();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let talking = async {
        // The other side may close before it has read everything: then the reads tell.
        let sending = async {
            let _ = writer.write_all(bytes).await;
            let _ = writer.flush().await;
        };
        let reading = async {
            let mut chunk = [0; 4_096];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                talk.bytes.extend_from_slice(&chunk[..count]);
            }
        };
        tokio::join!(sending, reading);
    };
    talk.is_closed = timeout(DEADLINE, talking).await.is_ok();
    talk.statuses = statuses(&talk.bytes);
    talk
}

/// The statuses of final answers in a stream of HTTP/1 answers whose bodies never look like a status line.
fn statuses(bytes: &[u8]) -> Vec<u16> {
    let is_line = |part: &[u8]| part.starts_with(b"HTTP/1.") && part[8] == b' ' && part[9..12].iter().all(u8::is_ascii_digit);
    let lines = bytes.windows(12).filter(|part| is_line(part));
    lines.filter_map(|part| std::str::from_utf8(&part[9..12]).ok()?.parse().ok()).filter(|status| *status >= 200).collect()
}

/// What an HTTP/2 client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113, 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as HPACK literals without indexing, without Huffman's code (RFC 7541, 6.2.2): any bytes at all.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn put_length(block: &mut Vec<u8>, length: usize) {
    let mut rest = match u8::try_from(length) {
        Ok(small) if small < 127 => return block.push(small),
        _ => length - 127,
    };
    block.push(127);
    while rest >= 128 {
        block.push(0x80 | u8::try_from(rest % 128).unwrap_or(0));
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap_or(0));
}

/// One request over HTTP/2 on stream 1 of a fresh connection: a block of fields, and a body or none.
pub(crate) fn request(block: &[u8], body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let end = u8::from(body.is_none());
    // In pieces that fit the smallest frame.
    let mut parts = block.chunks(16_000).peekable();
    let mut kind = 1;
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { 0x4 } else { 0 };
        bytes.extend(frame(kind, last | if kind == 1 { end } else { 0 }, 1, part));
        kind = 9;
    }
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body));
    }
    bytes
}

/// Sends what [`request`] made and reads until its stream or the connection is over. Statuses are those of the heads that came.
pub(crate) async fn exchange2<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Talk {
    let mut talk = Talk::default();
    let talking = async {
        if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        let mut unread = Vec::new();
        let mut chunk = [0; 4_096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            unread.extend_from_slice(&chunk[..count]);
            if take_frames(&mut unread, &mut talk) {
                break;
            }
        }
    };
    talk.is_closed = timeout(DEADLINE, talking).await.is_ok();
    talk
}

/// Reads whole frames; true once a stream or the connection has ended.
fn take_frames(unread: &mut Vec<u8>, talk: &mut Talk) -> bool {
    while unread.len() >= 9 {
        let length = usize::from(unread[0]) << 16 | usize::from(unread[1]) << 8 | usize::from(unread[2]);
        if unread.len() < 9 + length {
            return false;
        }
        let (kind, flags) = (unread[3], unread[4]);
        let payload = unread[9..9 + length].to_vec();
        unread.drain(..9 + length);
        match kind {
            0 => talk.bytes.extend_from_slice(&payload),
            1 => talk.statuses.extend(status_of(&payload)),
            _ => {}
        }
        // RST_STREAM, GOAWAY, or END_STREAM on a head or on data.
        if kind == 3 || kind == 7 || (kind < 2 && flags & 1 == 1) {
            return true;
        }
    }
    false
}

/// The status at the head of a block: indexed, or a literal of the indexed name with plain or Huffman-coded digits.
fn status_of(block: &[u8]) -> Option<u16> {
    // A change of the table's size may come first.
    let block = if block.first().is_some_and(|byte| byte & 0xe0 == 0x20) { &block[1..] } else { block };
    match *block.first()? {
        0x88 => Some(200),
        0x89 => Some(204),
        0x8a => Some(206),
        0x8b => Some(304),
        0x8c => Some(400),
        0x8d => Some(404),
        0x8e => Some(500),
        0x48 | 0x08 | 0x18 => digits(block.get(1).copied()?, block.get(2..)?),
        _ => None,
    }
}

fn digits(length: u8, value: &[u8]) -> Option<u16> {
    if length & 0x80 == 0 {
        return std::str::from_utf8(value.get(..usize::from(length))?).ok()?.parse().ok();
    }
    let bits = value.iter().take(usize::from(length & 0x7f)).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let total = u32::from(length & 0x7f) * 8;
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let take = |count: u32| (bits >> (total.saturating_sub(at + count))) & ((1 << count) - 1);
        // 0 to 2 have five bits, 3 to 9 six (RFC 7541, appendix B).
        let (digit, used) = if take(5) < 3 { (take(5), 5) } else { ((take(6)).checked_sub(0x19)? + 3, 6) };
        status = status * 10 + u16::try_from(digit).ok()?;
        at += used;
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_not_their_bodies() {
        let bytes =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 8\r\n\r\nHTTP/1.0HTTP/1.1 400 Bad\r\n\r\n";
        assert_eq!(statuses(bytes), [404, 400]);
    }

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status_of(&[0x88]), Some(200));
        assert_eq!(status_of(b"\x48\x03503"), Some(503));
        // RFC 7541, C.6.1 and C.6.2: 302 and 307 in Huffman's code.
        assert_eq!(status_of(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status_of(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
    }

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        let mut bytes = Vec::new();
        put_length(&mut bytes, 126);
        put_length(&mut bytes, 3_900);
        assert_eq!(bytes, [126, 0x7f, 0xbd, 0x1d]);
    }
}
