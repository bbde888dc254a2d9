//! Follows the frames of an HTTP/2 connection as they come; everything passes unchanged.
//!
//! It notes when the first byte arrives, and counts the frames that ask for work and carry none: PING and SETTINGS, which have to be
//! answered, PRIORITY, and kinds that nobody knows (RFC 9113, 5.5 and 10.5). hyper bounds what a client resets and what it makes
//! the server reset, and not these.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::progress::Progress;

/// The span over which control frames are counted.
const SPAN: Duration = Duration::from_secs(10);
/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// The last kind of RFC 9113, CONTINUATION.
const LAST_KNOWN: u8 = 9;

/// The reader and writer that hyper is given for HTTP/2.
#[derive(Debug)]
pub(crate) struct Frames<T> {
    io: T,
    /// Let go of once a byte was seen.
    progress: Option<Arc<Progress>>,
    follower: Follower,
}

/// Where in the stream of frames the client is, and how much of it was control.
#[derive(Debug)]
struct Follower {
    /// Bytes of the preface, or of a frame's payload, that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of `header` that are there.
    held: usize,
    /// Control frames that may come in a span.
    limit: u32,
    counted: u32,
    since: Instant,
}

impl<T> Frames<T> {
    /// Lets a client send `limit` control frames in any ten seconds.
    pub(crate) fn new(io: T, progress: Arc<Progress>, limit: u32) -> Self {
        Self { io, progress: Some(progress), follower: Follower::new(limit, Instant::now()) }
    }
}

impl Follower {
    fn new(limit: u32, now: Instant) -> Self {
        Follower { skip: PREFACE_BYTES, header: [0; HEADER_BYTES], held: 0, limit, counted: 0, since: now }
    }

    /// Follows what came; false when there were too many control frames.
    fn advance(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip -= skipped.len();
            let (head, rest) = rest.split_at((HEADER_BYTES - self.held).min(rest.len()));
            for (place, byte) in self.header.iter_mut().skip(self.held).zip(head) {
                *place = *byte;
            }
            self.held += head.len();
            bytes = rest;
            if self.held == HEADER_BYTES {
                self.held = 0;
                let [high, middle, low, kind, ..] = self.header;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                if (matches!(kind, PRIORITY | SETTINGS | PING) || kind > LAST_KNOWN) && !self.count(now) {
                    return false;
                }
            }
        }
        true
    }

    fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= SPAN {
            (self.since, self.counted) = (now, 0);
        }
        self.counted = self.counted.saturating_add(1);
        self.counted <= self.limit
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Frames<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = target.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, target);
        let Some(new) = target.filled().get(before..).filter(|new| !new.is_empty()) else { return outcome };
        if let Some(progress) = self.progress.take() {
            progress.byte_arrived();
        }
        if self.follower.advance(new, Instant::now()) {
            outcome
        } else {
            // Who floods is not told: writing to it would be more of the work that it asks for.
            Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many HTTP/2 control frames")))
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Frames<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut frame = vec![0, high, low, kind, 0, 0, 0, 0, 0];
        frame.resize(HEADER_BYTES + usize::from(length), PING);
        frame
    }

    fn preface() -> Vec<u8> {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
    }

    #[test]
    fn control_frames_are_counted_over_ten_seconds() {
        let now = Instant::now();
        let mut follower = Follower::new(3, now);
        assert!(follower.advance(&preface(), now));
        for _ in 0..3 {
            assert!(follower.advance(&frame(PING, 8), now));
        }
        assert!(!follower.advance(&frame(SETTINGS, 0), now));
        assert!(follower.advance(&frame(PING, 8), now + SPAN));
    }

    proptest! {
        /// Frames are found however the bytes are cut, and what lies in a payload is none.
        #[test]
        fn cuts_do_not_matter(kinds in proptest::collection::vec((0_u8..12, 0_u16..300), 0..40), cut in 1_usize..50) {
            let bytes = [preface(), kinds.iter().flat_map(|(kind, length)| frame(*kind, *length)).collect()].concat();
            let now = Instant::now();
            let mut follower = Follower::new(u32::MAX, now);
            for part in bytes.chunks(cut) {
                prop_assert!(follower.advance(part, now));
            }
            let control = kinds.iter().filter(|(kind, _)| [PRIORITY, SETTINGS, PING].contains(kind) || *kind > LAST_KNOWN).count();
            prop_assert_eq!(follower.counted as usize, control);
            prop_assert_eq!((follower.skip, follower.held), (0, 0));
        }
    }
}
