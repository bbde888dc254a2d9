//! A small HTTP/1.1 client over TLS that trusts only the gateway's own authority.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
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
use tokio_rustls::client::TlsStream;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the assistant said.
    #[must_use]
    pub fn content(&self) -> String {
        let json = self.json();
        json["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
    }

    /// The code of an error.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Speaks to one gateway; a clone shares nothing but where and how.
#[derive(Debug, Clone)]
pub struct Client {
    port: u16,
    tls: Arc<ClientConfig>,
    key: String,
}

/// An open connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    key: String,
}

impl Client {
    /// A client of the gateway on `port` whose authority is in `ca`.
    #[must_use]
    pub fn new(port: u16, ca: &Path, key: String) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Client { port, tls: Arc::new(tls.with_root_certificates(roots).with_no_client_auth()), key }
    }

    /// The same with another key; empty is none.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Client { key: key.to_owned(), ..self.clone() }
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Connection {
        let stream = self.connect_raw().await;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "the connection's task ends with the test")]
        tokio::spawn(async move {
            // Its error is the request's too.
            let _ = connection.await;
        });
        Connection { sender, key: self.key.clone() }
    }

    /// A TLS connection on which nothing has been said, for bytes that no HTTP client would send.
    pub async fn connect_raw(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.unwrap()
    }

    /// One request on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.connect().await.send(method, path, headers, body).await
    }

    /// One GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    /// One chat completion with a single message of the user's, and `more` fields.
    pub async fn chat(&self, model: &str, text: &str, more: Value) -> Answer {
        self.connect().await.chat(model, text, more).await
    }
}

/// The body of a chat completion.
fn chat_body(model: &str, text: &str, more: Value) -> Vec<u8> {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": text }] });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body.to_string().into_bytes()
}

impl Connection {
    /// One chat completion.
    pub async fn chat(&mut self, model: &str, text: &str, more: Value) -> Answer {
        let body = chat_body(model, text, more);
        self.send("POST", "/v1/chat/completions", &[("content-type", "application/json")], &body).await
    }

    /// One request; waits for the whole answer.
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let (status, headers, incoming) = self.open(method, path, headers, body).await;
        let body = incoming.collect().await.unwrap().to_bytes();
        Answer { status, headers, body }
    }

    /// One request; the body is left to be read.
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (StatusCode, HeaderMap, Incoming) {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if !self.key.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        self.sender.ready().await.unwrap();
        let (parts, body) = self.sender.send_request(request).await.unwrap().into_parts();
        (parts.status, parts.headers, body)
    }
}
