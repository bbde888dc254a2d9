//! Accepting connections, within the caps, until the drain begins.
//!
//! What happens on a connection is `connection`'s business.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tower_service::Service;

use crate::body::{BoxError, RequestBody};
use crate::caps::Caps;
use crate::connection::{self, Shared};
use crate::drain::Drain;
use crate::edge;
use crate::error::ErrorResponder;
use crate::gauges::Gauges;
use crate::listener::Listener;
use crate::tls::Tls;

/// The first and the longest wait after the system could not accept, as when file descriptors ran out.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Names connections in the log; unique in the process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Serves a listener until `drain` starts: spawns its tasks on the drain's tracker and returns at once.
///
/// The service finds a [`ConnectionInfo`](crate::ConnectionInfo) in each request's extensions. It is cloned
/// for each request. Requests refused before it are answered by `errors`.
pub fn serve<S, B>(listener: Listener, service: S, errors: ErrorResponder, drain: &Drain) -> Arc<Gauges>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let gauges = Arc::new(Gauges::default());
    let limits = listener.limits;
    let caps = Caps::new(limits.connections, limits.connections_per_ip, Arc::clone(&gauges));
    let shared = Arc::new(Shared {
        listener: listener.name,
        tls: listener.tls.as_ref().map(Tls::acceptor),
        limits,
        handler: edge::handler(service),
        errors,
        gauges: Arc::clone(&gauges),
        tracker: drain.tracker().clone(),
        signal: drain.signal(),
    });
    for socket in listener.sockets {
        drain.tracker().spawn(accept(socket, Arc::clone(&shared), Arc::clone(&caps)));
    }
    gauges
}

/// Accepts until the drain begins; then the socket closes with the task.
async fn accept(socket: TcpListener, shared: Arc<Shared>, caps: Arc<Caps>) {
    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.signal.draining() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Duration::ZERO;
                admit(&shared, &caps, stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if pause.is_zero() {
                    tracing::warn!(listener = %shared.listener, %error, "cannot accept");
                }
                pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                tokio::select! {
                    () = shared.signal.draining() => return,
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, caps: &Arc<Caps>, stream: TcpStream, peer: std::net::SocketAddr) {
    // Over a cap the stream is dropped here, which closes it.
    let Some(permit) = caps.admit(peer.ip()) else { return };
    // Tokens leave one by one; none waits for the next. Failing is no reason to refuse the client.
    let _ = stream.set_nodelay(true);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let shared = Arc::clone(shared);
    shared.tracker.clone().spawn(async move {
        let _permit = permit;
        connection::run(&shared, stream, peer, id).await;
    });
}

/// Errors of a connection that was gone before it was accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}
