//! The load generator: HTTP/1.1 over TLS or plain, on connections that stay open, to loopback only. It understands event streams
//! and notes when each event came; what is in them is read after the reply has ended, so that reading costs nothing while time runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The path of chats, here and at every peer.
pub(crate) const CHAT: &str = "/v1/chat/completions";
/// Longer than any reply of a row may take; rows have deadlines of their own.
const DEADLINE: Duration = Duration::from_secs(900);

/// A server, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Target {
    /// What it is called in figures.
    pub(crate) name: &'static str,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    bearer: String,
    /// The model's name in requests.
    pub(crate) model: String,
}

impl Target {
    /// A server on loopback that speaks plain HTTP and asks for no key.
    pub(crate) fn plain(name: &'static str, port: u16, model: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Target { name, address, tls: None, bearer: String::new(), model: model.to_owned() }
    }

    /// A server on loopback whose authority is in `ca`.
    pub(crate) fn tls(name: &'static str, port: u16, ca: &Path, bearer: &str, model: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).with_context(|| ca.display().to_string())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = Some(Arc::new(tls.with_root_certificates(roots).with_no_client_auth()));
        Ok(Target { tls, bearer: bearer.to_owned(), ..Self::plain(name, port, model) })
    }

    /// Where it is on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Link> {
        let stream = TcpStream::connect(self.address).await.with_context(|| format!("{} at {}", self.name, self.address))?;
        stream.set_nodelay(true)?;
        let sender = match &self.tls {
            None => handshake(stream).await?,
            Some(tls) => {
                let name = ServerName::try_from("localhost")?;
                handshake(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?).await?
            }
        };
        Ok(Link { sender, target: self.clone() })
    }

    /// One GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let mut link = self.connect().await?;
        let request = Request::get(path).header("host", "localhost").body(Full::default())?;
        link.whole(request, Duration::from_secs(10)).await
    }

    /// The body of a chat with one message of the user's and `more` fields.
    pub(crate) fn body(&self, text: &str, more: Value) -> Bytes {
        let mut body = json!({ "model": self.model, "messages": [{ "role": "user", "content": text }] });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body.to_string().into()
    }
}

async fn handshake<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its error is the request's too.
        let _ = connection.await;
    });
    Ok(sender)
}

/// An open connection. Dropping it closes it.
pub(crate) struct Link {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body.
    pub(crate) body: Bytes,
    /// From the first byte sent to the last byte read.
    pub(crate) took: Duration,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| String::from_utf8_lossy(&self.body).into_owned())
    }

    /// Fails where the status is another than 200, with what the server said.
    pub(crate) fn succeeded(self) -> anyhow::Result<Self> {
        ensure!(self.status == StatusCode::OK, "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(self)
    }
}

impl Link {
    /// Connects anew where a peer has closed: `llama-server` does after 100 requests, and after five idle seconds. Peers speak plain HTTP;
    /// a gateway that closes a connection in use fails its row.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<()> {
        if self.target.tls.is_none() && self.sender.ready().await.is_err() {
            *self = self.target.connect().await?;
        }
        Ok(())
    }

    /// One chat; waits for the whole answer, whatever its status.
    pub(crate) async fn post(&mut self, body: &Bytes) -> anyhow::Result<Answer> {
        self.post_to(CHAT, body).await
    }

    /// The same at another path.
    pub(crate) async fn post_to(&mut self, path: &str, body: &Bytes) -> anyhow::Result<Answer> {
        let request = self.request(path, body)?;
        self.whole(request, DEADLINE).await
    }

    async fn whole(&mut self, request: Request<Full<Bytes>>, within: Duration) -> anyhow::Result<Answer> {
        let began = Instant::now();
        let answer = async {
            let (parts, incoming) = self.send(request).await?.into_parts();
            let body = incoming.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: parts.status, body, took: began.elapsed() })
        };
        tokio::time::timeout(within, answer).await.context("no answer in time")?
    }

    fn request(&self, path: &str, body: &Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
        if !self.target.bearer.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.target.bearer));
        }
        Ok(request.body(Full::new(body.clone()))?)
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<http::Response<Incoming>> {
        self.sender.ready().await.with_context(|| format!("{} closed the connection", self.target.name))?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Begins a streamed chat; `body` asks for a stream. Fails where the status is another than 200.
    pub(crate) async fn stream(mut self, body: &Bytes) -> anyhow::Result<Stream> {
        let began = Instant::now();
        let request = self.request(CHAT, body)?;
        let response = tokio::time::timeout(DEADLINE, self.send(request)).await.context("no answer in time")??;
        let status = response.status();
        let body = response.into_body();
        if status != StatusCode::OK {
            let text = body.collect().await?.to_bytes();
            anyhow::bail!("{}: {status}: {}", self.target.name, String::from_utf8_lossy(&text));
        }
        Ok(Stream { body, began, unread: Vec::new(), events: Vec::new(), is_open: true, _link: self })
    }
}

/// A streamed reply on its way. Dropping it closes the connection.
pub(crate) struct Stream {
    body: Incoming,
    began: Instant,
    unread: Vec<u8>,
    events: Vec<(Instant, Vec<u8>)>,
    is_open: bool,
    _link: Link,
}

impl Stream {
    /// Reads until `count` events are there. False if the reply ended before.
    pub(crate) async fn read(&mut self, count: usize) -> anyhow::Result<bool> {
        while self.events.len() < count && self.is_open {
            self.read_frame().await?;
        }
        Ok(self.events.len() >= count)
    }

    /// Reads until there is text, `patience` long at most. False if the reply ended without.
    pub(crate) async fn first_text(&mut self, patience: Duration) -> anyhow::Result<bool> {
        let (end, mut seen) = (Instant::now() + patience, 0);
        loop {
            if self.events[seen..].iter().any(|(_, event)| text_of(event).is_some()) {
                return Ok(true);
            }
            seen = self.events.len();
            if !self.is_open {
                return Ok(false);
            }
            tokio::time::timeout_at(end.into(), self.read_frame()).await.context("no text in time")??;
        }
    }

    /// Reads to the end.
    pub(crate) async fn rest(mut self) -> anyhow::Result<Told> {
        while self.is_open {
            self.read_frame().await?;
        }
        Ok(self.into_told(true))
    }

    /// Reads to the end, or until the moment that `end` brings when it is known; then closes.
    pub(crate) async fn until(mut self, end: impl Future<Output = Instant>) -> anyhow::Result<Told> {
        let end = async {
            let moment = end.await;
            tokio::time::sleep_until(moment.into()).await;
        };
        tokio::pin!(end);
        while self.is_open {
            tokio::select! {
                read = self.read_frame() => read?,
                () = &mut end => return Ok(self.into_told(false)),
            }
        }
        Ok(self.into_told(true))
    }

    async fn read_frame(&mut self) -> anyhow::Result<()> {
        let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.context("the stream stands still")?;
        let Some(frame) = frame else {
            self.is_open = false;
            return Ok(());
        };
        let now = Instant::now();
        if let Ok(data) = frame?.into_data() {
            self.unread.extend_from_slice(&data);
            while let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                self.events.push((now, self.unread.drain(..end + 2).collect()));
            }
        }
        Ok(())
    }

    fn into_told(self, is_whole: bool) -> Told {
        let mut told =
            Told { began: self.began, pieces: Vec::new(), usage: None, is_done: false, is_whole, ended: Instant::now() };
        for (at, event) in self.events {
            told.ended = at;
            let text = String::from_utf8_lossy(&event);
            // Anything else is a comment that keeps the line alive.
            let Some(data) = text.trim_end().strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                told.is_done = true;
                continue;
            }
            let Ok(chunk) = serde_json::from_str::<Value>(data) else { continue };
            if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
                told.usage = Some(usage.clone());
            }
            if let Some(content) = content(&chunk) {
                told.pieces.push((at, content.to_owned()));
            }
        }
        told
    }
}

/// The text that a chunk brings, if any.
fn content(chunk: &Value) -> Option<&str> {
    chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The text that an event brings, if any.
fn text_of(event: &[u8]) -> Option<String> {
    let data = event.trim_ascii().strip_prefix(b"data: ")?;
    content(&serde_json::from_slice(data).ok()?).map(str::to_owned)
}

/// A streamed reply that has ended or was left.
#[derive(Debug)]
pub(crate) struct Told {
    /// When the request was sent.
    pub(crate) began: Instant,
    /// What was said, and when it came.
    pub(crate) pieces: Vec<(Instant, String)>,
    /// `usage`, where the request asked for it.
    pub(crate) usage: Option<Value>,
    /// Whether `[DONE]` came.
    pub(crate) is_done: bool,
    /// Whether it was read to its end.
    pub(crate) is_whole: bool,
    /// When the last event came.
    pub(crate) ended: Instant,
}

impl Told {
    /// When the first text came.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.pieces.first().map(|(at, _)| *at)
    }

    /// From the request to the first text, in milliseconds.
    pub(crate) fn first_ms(&self) -> Option<f64> {
        self.first().map(|at| at.duration_since(self.began).as_secs_f64() * 1e3)
    }

    /// Between two texts, in milliseconds.
    pub(crate) fn gaps_ms(&self) -> Vec<f64> {
        let times = self.pieces.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64() * 1e3).collect()
    }

    /// A number of `usage`.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.usage.as_ref()?.get(name)?.as_u64()
    }
}
