//! A server on a free port, with a service that does what the path says, and plain ways to talk to it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tollgate_server::{BodyError, ConnectionInfo, Drain, Gauges, Limits, Listener, RequestBody, Tls, plain_text, serve};

/// Long enough that only a hang reaches it.
pub(crate) const HANG: Duration = Duration::from_secs(60);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) gauges: Arc<Gauges>,
    /// `/wait` and the second half of `/halves` wait for a permit of this.
    pub(crate) release: Arc<Semaphore>,
}

/// Limits that pass quickly, for the tests that wait for them.
pub(crate) fn short() -> Limits {
    let moment = Duration::from_millis(500);
    Limits {
        tls_handshake: moment,
        first_byte: moment,
        header: moment,
        idle: moment,
        body_idle: moment,
        body_grace: moment,
        stalled_reader: moment,
        ..Limits::default()
    }
}

pub(crate) fn start(limits: Limits) -> Server {
    start_with(limits, None)
}

pub(crate) fn start_with(limits: Limits, tls: Option<Tls>) -> Server {
    let release = Arc::new(Semaphore::new(0));
    let service = {
        let release = Arc::clone(&release);
        tower::service_fn(move |request| answer(request, Arc::clone(&release)))
    };
    let listener = Listener::bind("test", &["127.0.0.1:0".parse().unwrap()], tls, limits).unwrap();
    let address = listener.local_addresses()[0];
    let drain = Drain::new();
    let gauges = serve(listener, service, plain_text, &drain);
    Server { address, drain, gauges, release }
}

async fn answer(request: Request<RequestBody>, release: Arc<Semaphore>) -> Result<Answer, Infallible> {
    let info = request.extensions().get::<ConnectionInfo>().expect("the server adds it");
    assert_eq!(info.listener.as_ref(), "test");
    Ok(match request.uri().path() {
        "/ignore" => text(StatusCode::OK, "ignored"),
        "/wait" => {
            release.acquire().await.expect("the semaphore is never closed").forget();
            text(StatusCode::OK, "waited")
        }
        "/halves" => halves(release),
        "/endless" => {
            let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
            stream(repeated(move || Some(chunk.clone())))
        }
        _ => match request.into_body().collect().await {
            Ok(body) => text(StatusCode::OK, &format!("read {}", body.to_bytes().len())),
            Err(BodyError::TooLarge { .. }) => text(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
            Err(BodyError::TooSlow | BodyError::Idle) => text(StatusCode::REQUEST_TIMEOUT, "too slow"),
            Err(BodyError::Malformed(_)) => text(StatusCode::BAD_REQUEST, "malformed"),
            Err(_) => text(StatusCode::BAD_REQUEST, "broken"),
        },
    })
}

fn text(status: StatusCode, text: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = status;
    response
}

fn stream<B>(body: B) -> Answer
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    Response::new(UnsyncBoxBody::new(body))
}

/// A body that never ends by itself.
fn repeated(
    mut next: impl FnMut() -> Option<Bytes> + Send + 'static,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send {
    StreamBody::new(futures_util::stream::poll_fn(move |_| {
        std::task::Poll::Ready(next().map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))
    }))
}

/// One half at once, the other when it is released.
fn halves(release: Arc<Semaphore>) -> Answer {
    let parts = futures_util::stream::unfold((0, release), |(part, release)| async move {
        match part {
            0 => Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"first "))), (1, release))),
            1 => {
                release.acquire().await.expect("the semaphore is never closed").forget();
                Some((Ok(Frame::data(Bytes::from_static(b"second"))), (2, release)))
            }
            _ => None,
        }
    });
    stream(StreamBody::new(parts))
}

impl Server {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read all of it.
        let _ = stream.write_all(bytes).await;
        read_to_close(&mut stream).await
    }

    /// A second, ordinary client is still served.
    pub(crate) async fn assert_serves(&self) {
        let answer = self.exchange(b"GET /ignore HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// Waits until nothing is open or in flight.
    pub(crate) async fn assert_settles(&self) {
        let settled = async {
            while self.gauges.connections() + self.gauges.requests() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, settled).await.expect("connections and requests end");
    }
}

/// Reads until the other side closes; a reset counts as a close.
pub(crate) async fn read_to_close(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    let reading = async {
        let mut chunk = [0; 4096];
        while let Ok(count) = stream.read(&mut chunk).await {
            if count == 0 {
                break;
            }
            read.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(HANG, reading).await.expect("the server closes the connection");
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads until `end` has been read.
pub(crate) async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end.as_bytes()) {
            read.push(stream.read_u8().await.expect("the answer goes on"));
        }
    };
    tokio::time::timeout(HANG, reading).await.expect("the answer comes");
    String::from_utf8_lossy(&read).into_owned()
}

/// The status codes of an HTTP/1 conversation.
pub(crate) fn statuses(answer: &str) -> Vec<u16> {
    answer.split("HTTP/1.1 ").skip(1).map(|response| response[..3].parse().unwrap()).collect()
}
