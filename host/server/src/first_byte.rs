//! Notes when the first byte of an HTTP/2 connection arrives; everything passes unchanged.
//!
//! On HTTP/1 `gate` sees the bytes anyway.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::progress::Progress;

/// The reader and writer that hyper is given for HTTP/2.
#[derive(Debug)]
pub(crate) struct FirstByte<T> {
    io: T,
    /// Let go of once the byte was seen.
    progress: Option<Arc<Progress>>,
}

impl<T> FirstByte<T> {
    pub(crate) fn new(io: T, progress: Arc<Progress>) -> Self {
        Self { io, progress: Some(progress) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FirstByte<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = target.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, target);
        if target.filled().len() > before
            && let Some(progress) = self.progress.take()
        {
            progress.byte_arrived();
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FirstByte<T> {
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
