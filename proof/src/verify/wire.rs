//! Plain ways to talk to a gateway: sockets from any loopback address, TLS, HTTP/1.1 requests whose failures are values.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_tests::{Answer, Gateway, Place};

use super::bodies;

/// The longest that anything here waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The path of chats.
pub(crate) const CHAT: &str = "/v1/chat/completions";
/// The header of a JSON body.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Where a gateway is and how to reach it; clones share the TLS settings.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    address: SocketAddr,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    pub(crate) key: String,
}

/// An open HTTP/1.1 connection.
pub(crate) struct Http {
    sender: SendRequest<Full<Bytes>>,
    key: String,
}

/// A protocol to agree on by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http1,
    Http2,
}

impl Wire {
    /// Of the gateway that runs in `place`, with its admin key.
    pub(crate) fn new(place: &Place, gateway: &Gateway) -> anyhow::Result<Self> {
        let key = std::fs::read_to_string(place.data().join("admin.key"))?.trim().to_owned();
        Self::at(place, &gateway.url, key)
    }

    /// Of the listener at `url` (`https://localhost:PORT`).
    pub(crate) fn at(place: &Place, url: &str, key: String) -> anyhow::Result<Self> {
        let port = url.rsplit(':').next().unwrap_or_default().trim_end_matches('/').parse::<u16>().context(url.to_owned())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(place.data().join("tls/ca.pem"))?)?;
        let config = |protocol: &[u8]| -> anyhow::Result<Arc<ClientConfig>> {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(Arc::new(config))
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Wire { address, http1: config(b"http/1.1")?, http2: config(b"h2")?, key })
    }

    /// The TLS settings of HTTP/1.1, for a handshake of one's own.
    pub(crate) fn http1_config(&self) -> &Arc<ClientConfig> {
        &self.http1
    }

    /// The same with another key; empty is none.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Wire { key: key.to_owned(), ..self.clone() }
    }

    /// A TCP connection from a loopback address, so that caps per address do not meet the row's own load.
    pub(crate) async fn tcp(&self, source: Ipv4Addr) -> anyhow::Result<TcpStream> {
        self.connect(TcpSocket::new_v4()?, source).await
    }

    /// The same with a receive buffer of so many bytes, so that little of what is not read leaves the gateway.
    pub(crate) async fn narrow_tcp(&self, source: Ipv4Addr, bytes: u32) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        self.connect(socket, source).await
    }

    async fn connect(&self, socket: TcpSocket, source: Ipv4Addr) -> anyhow::Result<TcpStream> {
        socket.bind(SocketAddr::from((source, 0)))?;
        let stream = timeout(PATIENCE, socket.connect(self.address)).await.context("connect")??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A TLS connection on which nothing has been said.
    pub(crate) async fn tls(&self, alpn: Alpn, source: Ipv4Addr) -> anyhow::Result<TlsStream<TcpStream>> {
        let config = match alpn {
            Alpn::Http1 => &self.http1,
            Alpn::Http2 => &self.http2,
        };
        self.secure(self.tcp(source).await?, config).await
    }

    async fn secure(&self, stream: TcpStream, config: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
        let connecting = TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from("localhost")?, stream);
        Ok(timeout(PATIENCE, connecting).await.context("handshake")??)
    }

    /// An HTTP/1.1 connection.
    pub(crate) async fn http(&self) -> anyhow::Result<Http> {
        self.http_from(Ipv4Addr::LOCALHOST).await
    }

    /// The same from another loopback address.
    pub(crate) async fn http_from(&self, source: Ipv4Addr) -> anyhow::Result<Http> {
        self.speak(self.tls(Alpn::Http1, source).await?).await
    }

    /// The same with a narrow receive buffer (see [`Wire::narrow_tcp`]).
    pub(crate) async fn narrow_http_from(&self, source: Ipv4Addr, bytes: u32) -> anyhow::Result<Http> {
        let stream = self.narrow_tcp(source, bytes).await?;
        self.speak(self.secure(stream, &self.http1).await?).await
    }

    async fn speak(&self, stream: TlsStream<TcpStream>) -> anyhow::Result<Http> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its error is the request's too.
            let _ = connection.await;
        });
        Ok(Http { sender, key: self.key.clone() })
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> anyhow::Result<Answer> {
        self.http().await?.ask(method, path, headers, body).await
    }

    /// One chat on a connection of its own.
    pub(crate) async fn chat(&self, model: &str, text: &str, more: Value) -> anyhow::Result<Answer> {
        self.http().await?.chat(model, text, more).await
    }
}

impl Http {
    /// One request; waits for the whole answer.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let exchange = async {
            let (status, headers, incoming) = self.open(method, path, headers, body).await?;
            let body = incoming.collect().await?.to_bytes();
            anyhow::Ok(Answer { status, headers, body })
        };
        let answer = timeout(PATIENCE, exchange).await.context("no whole answer in time")??;
        if !answer.status.is_success() {
            bodies::note(&answer.body);
        }
        Ok(answer)
    }

    /// One request; the body is left to be read.
    pub(crate) async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<(http::StatusCode, http::HeaderMap, Incoming)> {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)))?;
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok((parts.status, parts.headers, body))
    }

    /// One chat with a single message of the user's, and `more` fields.
    pub(crate) async fn chat(&mut self, model: &str, text: &str, more: Value) -> anyhow::Result<Answer> {
        self.ask("POST", CHAT, &[JSON], &chat_body(model, text, more)).await
    }

    /// One streamed chat; the events are left to be read.
    pub(crate) async fn stream(&mut self, model: &str, text: &str, mut more: Value) -> anyhow::Result<Incoming> {
        if let Some(more) = more.as_object_mut() {
            more.insert("stream".to_owned(), Value::Bool(true));
        } else {
            more = json!({ "stream": true });
        }
        let (status, _, body) = timeout(PATIENCE, self.open("POST", CHAT, &[JSON], &chat_body(model, text, more))).await??;
        ensure!(status.is_success(), "{status}");
        Ok(body)
    }
}

/// The body of a chat completion.
pub(crate) fn chat_body(model: &str, text: &str, more: Value) -> Vec<u8> {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": text }] });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body.to_string().into_bytes()
}
