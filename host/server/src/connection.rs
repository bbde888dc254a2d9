//! One connection, from its TLS handshake to its close.
//!
//! HTTP/2 is chosen by ALPN alone; a plain connection speaks HTTP/1.1. Nothing is guessed from the first
//! bytes: hyper's guessing has no deadline.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::drain::Signal;
use crate::edge::{Edge, Handler};
use crate::error::ErrorResponder;
use crate::frames::Frames;
use crate::gate::Gate;
use crate::gauges::{Gauges, HandshakeFailure};
use crate::info::{ConnectionInfo, TlsInfo};
use crate::limits::Limits;
use crate::progress::{Check, Expiry, Progress, Protocol};
use crate::socket::Socket;
use crate::streams::StreamExecutor;

/// How long an HTTP/2 connection that was told to go away may take to do so.
const CLOSING: Duration = Duration::from_secs(1);

/// Fields that hyper parses without allocating for them.
const HYPER_INLINE_HEADERS: usize = 100;

/// What all connections of a listener share.
pub(crate) struct Shared {
    pub(crate) listener: Arc<str>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) handler: Handler,
    pub(crate) errors: ErrorResponder,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) tracker: TaskTracker,
    pub(crate) signal: Signal,
}

/// How a connection ended, for the log.
#[derive(Debug)]
enum End {
    Closed,
    Failed(hyper::Error),
    Expired(Expiry),
    Aborted,
}

/// Serves a connection until it ends.
pub(crate) async fn run(shared: &Shared, stream: TcpStream, peer: SocketAddr, id: u64) {
    // Without an address the client is gone already.
    let Ok(local) = stream.local_addr() else { return };
    let listener = Arc::clone(&shared.listener);
    let mut info = ConnectionInfo { peer, local, listener, tls: None, id };
    let socket = Socket::new(stream, shared.limits.stalled_reader);
    let end = match &shared.tls {
        None => serve_http1(shared, socket, info).await,
        Some(acceptor) => {
            let Some(stream) = handshake(shared, acceptor, socket, id).await else { return };
            let tls = TlsInfo::of(stream.get_ref().1);
            let is_http2 = tls.alpn.as_deref() == Some(b"h2".as_slice());
            info.tls = Some(Arc::new(tls));
            if is_http2 { serve_http2(shared, stream, info).await } else { serve_http1(shared, stream, info).await }
        }
    };
    match end {
        End::Closed => tracing::trace!(connection = id, "connection closed"),
        End::Failed(error) => tracing::debug!(connection = id, %error, "connection failed"),
        End::Expired(reason) => tracing::debug!(connection = id, ?reason, "connection closed: too late"),
        End::Aborted => tracing::debug!(connection = id, "connection closed: the server stops"),
    }
}

async fn handshake(
    shared: &Shared,
    acceptor: &TlsAcceptor,
    socket: Socket,
    id: u64,
) -> Option<tokio_rustls::server::TlsStream<Socket>> {
    let outcome = tokio::select! {
        outcome = timeout(shared.limits.tls_handshake, acceptor.accept(socket)) => outcome,
        // Nothing has been asked yet, so nothing is lost.
        () = shared.signal.draining() => return None,
    };
    match outcome {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            shared.gauges.handshake_failed(HandshakeFailure::of(&error));
            tracing::debug!(connection = id, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            shared.gauges.handshake_failed(HandshakeFailure::Timeout);
            tracing::debug!(connection = id, "TLS handshake took too long");
            None
        }
    }
}

async fn serve_http1<T>(shared: &Shared, io: T, info: ConnectionInfo) -> End
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &shared.limits;
    let progress = Progress::new(Protocol::Http1);
    let gate = Gate::new(io, Arc::clone(&progress), limits);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // A second line behind `progress`: hyper counts from the end of the last response.
        .header_read_timeout(limits.idle.saturating_add(limits.header))
        .max_buf_size(limits.http1_buffer_bytes())
        .max_header_size(limits.header_bytes.saturating_add(1))
        .keep_alive(true)
        .half_close(false);
    if limits.headers > HYPER_INLINE_HEADERS {
        builder.max_headers(limits.headers);
    }
    let edge = edge(shared, &progress, info);
    let connection = builder.serve_connection(TokioIo::new(gate), edge);
    drive(shared, &progress, connection, http1::Connection::graceful_shutdown).await
}

async fn serve_http2<T>(shared: &Shared, io: T, info: ConnectionInfo) -> End
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &shared.limits;
    let progress = Progress::new(Protocol::Http2);
    let executor =
        StreamExecutor { tracker: shared.tracker.clone(), signal: shared.signal.clone(), stalled_reader: limits.stalled_reader };
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_pending_accept_reset_streams(limits.h2_pending_reset_streams)
        .max_local_error_reset_streams(limits.h2_local_reset_streams)
        .max_header_list_size(limits.h2_header_list_bytes)
        .initial_stream_window_size(limits.h2_stream_window_bytes)
        .initial_connection_window_size(limits.h2_connection_window_bytes)
        .max_send_buf_size(limits.stream_buffer_bytes)
        .keep_alive_interval(limits.h2_ping)
        .keep_alive_timeout(limits.h2_ping);
    let edge = edge(shared, &progress, info);
    let io = Frames::new(io, Arc::clone(&progress), limits.h2_control_frames);
    let connection = builder.serve_connection(TokioIo::new(io), edge);
    drive(shared, &progress, connection, http2::Connection::graceful_shutdown).await
}

fn edge(shared: &Shared, progress: &Arc<Progress>, info: ConnectionInfo) -> Edge {
    Edge {
        handler: Arc::clone(&shared.handler),
        errors: shared.errors,
        limits: Arc::clone(&shared.limits),
        gauges: Arc::clone(&shared.gauges),
        progress: Arc::clone(progress),
        info,
    }
}

/// Polls a connection to its end, and ends it when a deadline passes or the server stops.
async fn drive<C>(shared: &Shared, progress: &Progress, connection: C, shutdown: fn(Pin<&mut C>)) -> End
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut alarm = pin!(sleep_until(Instant::now()));
    let mut is_draining = false;
    loop {
        let step = std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                return Poll::Ready(outcome.map_or_else(End::Failed, |()| End::Closed));
            }
            poll_expiry(cx, progress, &shared.limits, alarm.as_mut()).map(End::Expired)
        });
        let end = tokio::select! {
            end = step => end,
            () = shared.signal.draining(), if !is_draining => {
                is_draining = true;
                shutdown(connection.as_mut());
                continue;
            }
            () = shared.signal.aborted() => End::Aborted,
        };
        if matches!(end, End::Expired(_)) && progress.protocol() == Protocol::Http2 {
            // The client is told to go away before the connection closes (RFC 9113, 6.8).
            shutdown(connection.as_mut());
            let _ = timeout(CLOSING, connection.as_mut()).await;
        }
        return end;
    }
}

/// Ready when a deadline of the connection has passed. What it reports as the next deadline may lie too
/// early, never too late, so an alarm that is set is only ever moved forward once it rang.
fn poll_expiry(cx: &mut Context<'_>, progress: &Progress, limits: &Limits, mut alarm: Pin<&mut Sleep>) -> Poll<Expiry> {
    loop {
        match progress.check(limits, Instant::now()) {
            Check::Expired(expiry) => return Poll::Ready(expiry),
            Check::Wait(until) => {
                if until < alarm.deadline() || alarm.is_elapsed() || alarm.deadline() <= Instant::now() {
                    alarm.as_mut().reset(until);
                }
                std::task::ready!(alarm.as_mut().poll(cx));
            }
        }
    }
}
