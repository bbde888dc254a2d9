//! Between the socket and hyper on an HTTP/1 connection: only whole, unambiguous messages pass (P-E4).
//!
//! A head is held back until all of it is there and [`crate::framing`] has judged it. A good one
//! passes unchanged, its body after it byte for byte. For a bad one hyper is given a stand-in request,
//! which `edge` answers with the error; nothing is read after it. One request passes at a time: while it is
//! being answered the next one waits here, and the socket is still watched for the client leaving.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::EdgeError;
use crate::framing::{self, Chunked, HeadLimits, HeadScanner, Length};
use crate::limits::Limits;
use crate::progress::Progress;

/// What hyper reads in the place of a rejected request.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: rejected.invalid\r\nconnection: close\r\n\r\n";

/// How much is read from the socket at once.
const READ_BYTES: usize = 8 * 1024;

/// The reader and writer that hyper is given.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    io: T,
    progress: Arc<Progress>,
    limits: HeadLimits,
    /// Bytes read and not passed on yet; freed when empty, so that an idle connection holds none.
    buffer: BytesMut,
    phase: Phase,
    is_ended: bool,
}

#[derive(Debug)]
enum Phase {
    /// Before or in a head.
    Head(HeadScanner),
    /// The head passes.
    Passing { head: Bytes, then: Next },
    /// A body of known length passes.
    Sized { left: u64 },
    /// A chunked body passes.
    Chunked(Chunked),
    /// A request was rejected: nothing that follows has a meaning.
    Rejected,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Body(Length),
    Nothing,
}

impl<T> Gate<T> {
    pub(crate) fn new(io: T, progress: Arc<Progress>, limits: &Limits) -> Self {
        Self {
            io,
            progress,
            limits: HeadLimits::from(limits),
            buffer: BytesMut::new(),
            phase: Phase::Head(HeadScanner::default()),
            is_ended: false,
        }
    }

    fn reject(&mut self, error: EdgeError) {
        self.buffer = BytesMut::new();
        self.progress.head_passed(Some(error));
        self.phase = Phase::Passing { head: Bytes::from_static(STAND_IN), then: Next::Nothing };
    }

    /// Looks for a head in the buffer. Gives whether the phase has changed.
    fn take_head(&mut self) -> bool {
        let Phase::Head(scanner) = &mut self.phase else { return true };
        let judged = match scanner.scan(&self.buffer, self.limits) {
            Ok(None) => {
                if !self.buffer.is_empty() {
                    self.progress.head_pending();
                }
                return false;
            }
            Ok(Some(end)) => {
                let head = self.buffer.split_to(end).freeze();
                framing::check(&head, self.limits).map(|length| (head, length))
            }
            Err(error) => Err(error),
        };
        match judged {
            Ok((head, length)) => {
                self.progress.head_passed(None);
                self.phase = Phase::Passing { head, then: Next::Body(length) };
            }
            Err(error) => self.reject(error),
        }
        true
    }

    /// Enters the phase after a head, or after a body of which nothing is left.
    fn enter(&mut self, next: Next) {
        self.phase = match next {
            Next::Nothing => Phase::Rejected,
            Next::Body(Length::Known(0)) => Phase::Head(HeadScanner::default()),
            Next::Body(Length::Known(left)) => Phase::Sized { left },
            Next::Body(Length::Chunked) => Phase::Chunked(Chunked::new(self.limits.bytes)),
        };
    }

    /// Passes as much of a body as is buffered and fits.
    fn pass_body(&mut self, target: &mut ReadBuf<'_>) -> io::Result<()> {
        let room = self.buffer.len().min(target.remaining());
        let offered = self.buffer.get(..room).unwrap_or_default();
        let (used, is_over) = match &mut self.phase {
            Phase::Sized { left } => {
                let used = usize::try_from(*left).map_or(room, |left| left.min(room));
                *left = left.saturating_sub(used as u64);
                (used, *left == 0)
            }
            Phase::Chunked(chunked) => {
                let used = chunked.advance(offered).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                (used, chunked.is_done())
            }
            Phase::Head(_) | Phase::Passing { .. } | Phase::Rejected => (0, false),
        };
        target.put_slice(self.buffer.get(..used).unwrap_or_default());
        self.buffer.advance(used);
        if is_over {
            self.enter(Next::Body(Length::Known(0)));
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> Gate<T> {
    /// Reads more into the buffer; at the end of the stream it marks that and adds nothing.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            self.is_ended = true;
        } else {
            self.progress.byte_arrived();
            self.buffer.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when there is something for hyper: a head, or the end of the stream.
    pub(crate) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.phase, Phase::Head(_)) { self.poll_head(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Whether nothing of a next request is there.
    pub(crate) fn is_silent(&self) -> bool {
        self.buffer.is_empty() && matches!(self.phase, Phase::Head(_))
    }

    /// Waits for a head. Ready without a change of phase means the end of the stream.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.progress.is_busy(cx.waker()) {
                // The next request waits its turn. Beyond one head and one read nothing more is taken in.
                if self.is_ended {
                    return Poll::Ready(Ok(()));
                }
                if self.buffer.len() >= self.limits.bytes {
                    return Poll::Pending;
                }
            } else if self.take_head() || self.is_ended {
                return Poll::Ready(Ok(()));
            } else if self.buffer.is_empty() {
                self.progress.listens();
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            ready!(self.poll_fill(cx))?;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gate<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if target.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match &mut this.phase {
                Phase::Passing { head, then } => {
                    let part = head.split_to(head.len().min(target.remaining()));
                    target.put_slice(&part);
                    if head.is_empty() {
                        let then = *then;
                        this.enter(then);
                    }
                    return Poll::Ready(Ok(()));
                }
                // hyper closes the connection once the rejection is answered, so nobody waits for this.
                Phase::Rejected => return Poll::Pending,
                Phase::Sized { .. } | Phase::Chunked(_) => {
                    if this.buffer.is_empty() && !this.is_ended {
                        ready!(this.poll_fill(cx))?;
                    }
                    return Poll::Ready(this.pass_body(target));
                }
                Phase::Head(_) => {
                    ready!(this.poll_head(cx))?;
                    if matches!(this.phase, Phase::Head(_)) {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gate<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.progress.flushed(false);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        if outcome.is_ready() {
            self.progress.flushed(true);
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.flushed(false);
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::progress::Protocol;

    /// What hyper reads of `sent` if every request is answered as soon as its head is there.
    async fn passed(sent: &[u8]) -> (String, Option<EdgeError>) {
        let progress = Progress::new(Protocol::Http1);
        let mut gate = Gate::new(sent, Arc::clone(&progress), &Limits::default());
        let mut read = Vec::new();
        let mut rejection = None;
        // A stand-in is the last thing that ever passes.
        while !read.ends_with(STAND_IN) {
            let before = read.len();
            let mut chunk = [0; 7];
            let Ok(count) = gate.read(&mut chunk).await else { break };
            read.extend_from_slice(&chunk[..count]);
            if count == 0 {
                break;
            }
            if read.ends_with(b"\r\n\r\n") && read.len() > before {
                rejection = rejection.or(progress.request_began());
                progress.request_ended(false);
            }
        }
        (String::from_utf8(read).unwrap(), rejection)
    }

    #[tokio::test]
    async fn good_requests_pass_unchanged() {
        let stream = "GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(passed(stream.as_bytes()).await, (stream.to_owned(), None));
    }

    #[tokio::test]
    async fn a_bad_request_is_replaced_and_nothing_follows_it() {
        let (read, rejection) = passed(b"GET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(read.as_bytes(), STAND_IN);
        assert_eq!(rejection, Some(EdgeError::Malformed("the host is missing")));
    }

    #[tokio::test]
    async fn a_second_request_waits_for_the_first() {
        let progress = Progress::new(Protocol::Http1);
        let sent: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n";
        let (mut client, server) = tokio::io::duplex(1024);
        tokio::io::AsyncWriteExt::write_all(&mut client, sent).await.unwrap();
        let mut gate = Gate::new(server, Arc::clone(&progress), &Limits::default());
        let mut first = [0; 28];
        gate.read_exact(&mut first).await.unwrap();
        progress.request_began();

        let mut rest = [0; 64];
        let mut second = std::pin::pin!(gate.read(&mut rest));
        std::future::poll_fn(|cx| {
            assert!(second.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        progress.request_ended(false);
        assert_eq!(second.await.unwrap(), 28);
        assert_eq!(&rest[..28], b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_behind_a_waiting_request() {
        // P-L3: pipelined bytes must not hide the end of the stream.
        let progress = Progress::new(Protocol::Http1);
        let sent: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut gate = Gate::new(sent, Arc::clone(&progress), &Limits::default());
        let mut first = [0; 28];
        gate.read_exact(&mut first).await.unwrap();
        progress.request_began();
        assert_eq!(gate.read(&mut [0; 64]).await.unwrap(), 0);
    }
}
