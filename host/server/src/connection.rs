//! One connection, from its TLS handshake to its close.
//!
//! HTTP/2 is chosen by ALPN alone; a plain connection speaks HTTP/1.1. Nothing is guessed from the first
//! bytes: hyper's guessing has no deadline. hyper and its buffers are there only while an HTTP/1 connection has something to say:
//! one that is silent costs its TLS state and little more (P-E1).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::body::BoxError;
use crate::drain::Signal;
use crate::edge::{Edge, Handler};
use crate::error::ErrorResponder;
use crate::frames::Frames;
use crate::gate::Gate;
use crate::gauges::{Gauges, HandshakeFailure};
use crate::info::{ConnectionInfo, TlsInfo};
use crate::limits::Limits;
use crate::progress::{Expiry, Progress, Protocol};
use crate::socket::Socket;
use crate::streams::StreamExecutor;
use crate::watch::{Turn, Watch};

/// How long a connection that is closed in good order may take to do so.
const CLOSING: Duration = Duration::from_secs(1);

/// Of an answer that its client does not take, what is kept encrypted: one record (P-L4).
const UNSENT_TLS_BYTES: usize = 16 * 1024;

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
    Failed(BoxError),
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
            // Boxed, so that what waits for its first byte does not take the room of what does not.
            if is_http2 { Box::pin(serve_http2(shared, stream, info)).await } else { serve_http1(shared, stream, info).await }
        }
    };
    match end {
        End::Closed => tracing::trace!(connection = id, "connection closed"),
        End::Failed(error) => tracing::debug!(connection = id, %error, "connection failed"),
        End::Expired(reason) => tracing::debug!(connection = id, ?reason, "connection closed: too late"),
        End::Aborted => tracing::debug!(connection = id, "connection closed: the server stops"),
    }
}

async fn handshake(shared: &Shared, acceptor: &TlsAcceptor, socket: Socket, id: u64) -> Option<Box<TlsStream<Socket>>> {
    // TLS states are large and move often: they stay where they are, and a box is moved.
    let accepting = Box::pin(acceptor.accept(socket));
    let outcome = tokio::select! {
        outcome = timeout(shared.limits.tls_handshake, accepting) => outcome,
        // Nothing has been asked yet, so nothing is lost.
        () = shared.signal.draining() => return None,
    };
    match outcome {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(UNSENT_TLS_BYTES));
            Some(Box::new(stream))
        }
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
    let progress = Progress::new(Protocol::Http1);
    let mut builder = http1_builder(&shared.limits);
    let mut watch = Watch::new(&progress, &shared.limits, &shared.signal);
    let mut gate = Gate::new(io, Arc::clone(&progress), &shared.limits);
    let mut edge = edge(shared, &progress, info);
    loop {
        match watch.over(pin!(poll_fn(|cx| gate.poll_heard(cx)))).await {
            Turn::Done(Ok(())) => {}
            Turn::Done(Err(error)) => return End::Failed(error.into()),
            Turn::Drains if gate.is_silent() => {
                // It asks for nothing.
                let _ = timeout(CLOSING, gate.shutdown()).await;
                return End::Closed;
            }
            Turn::Drains | Turn::Rests => continue,
            Turn::Expired(reason) => return End::Expired(reason),
            Turn::Aborted => return End::Aborted,
        }
        // Told to shut down before it has read, hyper would close without an answer to the head that is here.
        builder.keep_alive(!watch.is_draining());
        let mut connection = builder.serve_connection(TokioIo::new(gate), edge);
        loop {
            match watch.over(Pin::new(&mut connection)).await {
                Turn::Done(Ok(())) => return End::Closed,
                Turn::Done(Err(error)) => return End::Failed(error.into()),
                Turn::Drains => Pin::new(&mut connection).graceful_shutdown(),
                Turn::Rests => break,
                Turn::Expired(reason) => return End::Expired(reason),
                Turn::Aborted => return End::Aborted,
            }
        }
        let parts = connection.into_parts();
        // The gate lets one request through at a time, so hyper has nothing of the next one.
        debug_assert!(parts.read_buf.is_empty(), "a connection that rests has been read to its end");
        (gate, edge) = (parts.io.into_inner(), parts.service);
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // A second line behind `progress`: hyper counts from the end of the last response.
        .header_read_timeout(limits.idle.saturating_add(limits.header))
        .max_buf_size(limits.http1_buffer_bytes())
        .max_header_size(limits.header_bytes.saturating_add(1))
        .half_close(false);
    if limits.headers > HYPER_INLINE_HEADERS {
        builder.max_headers(limits.headers);
    }
    builder
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
        .max_send_buf_size(limits.stream_buffer_bytes / 2)
        .keep_alive_interval(limits.h2_ping)
        .keep_alive_timeout(limits.h2_ping);
    let edge = edge(shared, &progress, info);
    let io = Frames::new(io, Arc::clone(&progress), limits.h2_control_frames);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), edge));
    let mut watch = Watch::new(&progress, limits, &shared.signal);
    loop {
        match watch.over(connection.as_mut()).await {
            Turn::Done(Ok(())) => return End::Closed,
            Turn::Done(Err(error)) => return End::Failed(error.into()),
            Turn::Drains => connection.as_mut().graceful_shutdown(),
            Turn::Rests => {}
            Turn::Expired(reason) => {
                // The client is told to go away before the connection closes (RFC 9113, 6.8).
                connection.as_mut().graceful_shutdown();
                let _ = timeout(CLOSING, connection.as_mut()).await;
                return End::Expired(reason);
            }
            Turn::Aborted => return End::Aborted,
        }
    }
}

fn edge(shared: &Shared, progress: &Arc<Progress>, info: ConnectionInfo) -> Edge {
    Edge {
        handler: Arc::clone(&shared.handler),
        errors: shared.errors,
        limits: Arc::clone(&shared.limits),
        gauges: Arc::clone(&shared.gauges),
        progress: Arc::clone(progress),
        info,
        tracker: shared.tracker.clone(),
    }
}
