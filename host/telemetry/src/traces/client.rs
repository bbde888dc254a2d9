//! The HTTP client of the exporter: one connection to one collector, kept while it lives.
//!
//! It speaks HTTP/1.1, by TLS with the one crypto provider or in the clear, follows no redirect and knows no proxy. It has no
//! deadline of its own: whoever sends has one.

use std::error::Error;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tollgate_config::Endpoint;

use super::TracesError;

/// Where OTLP over HTTP takes traces unless the endpoint says otherwise.
const DEFAULT_PATH: &str = "/v1/traces";

/// A collector's answer is a few bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Where distributions keep the authorities that the system trusts: Debian and its kin, Red Hat and its kin, Alpine.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

type BoxError = Box<dyn Error + Send + Sync>;

/// Why a batch did not get there.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// Another try may go better.
    pub(super) may_pass: bool,
}

/// Speaks to one collector.
pub(super) struct Client {
    endpoint: Endpoint,
    headers: HeaderMap,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Kept from one export to the next.
    open: Option<Open>,
}

/// A connection, and what drives it.
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// `None` when the collector has closed it.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

/// What a socket and a TLS stream have in common.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of `endpoint` that trusts the authorities in the file `ca`, or those of the system, and sends `headers` along.
    pub(super) fn new(endpoint: &Endpoint, ca: Option<&Path>, headers: HeaderMap) -> Result<Self, TracesError> {
        let setup = |error: &dyn Error| TracesError::Setup(error.to_string());
        let tls = if endpoint.is_tls() {
            let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|error| setup(&error))?;
            Some((connector(ca)?, name))
        } else {
            None
        };
        let mut headers = headers;
        headers.insert(HOST, HeaderValue::from_str(&authority(endpoint)).map_err(|error| setup(&error))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"))));
        Ok(Client { endpoint: endpoint.clone(), headers, tls, open: None })
    }

    /// Sends one message, on the connection there is or else on a new one: the collector may have closed the old one meanwhile.
    pub(super) async fn send(&mut self, body: Bytes) -> Result<(), Failure> {
        let response = self.exchange(body).await;
        let response = response.map_err(|error| Failure { reason: with_causes(&*error), may_pass: true })?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        // What OTLP says may be sent again.
        let may_pass = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        Err(Failure { reason: format!("the collector answered {status}"), may_pass })
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Response<Bytes>, BoxError> {
        if let Some(mut open) = self.open.take()
            && let Ok(response) = open.exchange(self.request(body.clone())?).await
        {
            self.open = open.connection.is_some().then_some(open);
            return Ok(response);
        }
        let mut open = self.connect().await?;
        let response = open.exchange(self.request(body)?).await?;
        self.open = open.connection.is_some().then_some(open);
        Ok(response)
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = if self.endpoint.path().is_empty() { DEFAULT_PATH } else { self.endpoint.path() };
        let mut request = Request::post(path).body(Full::new(body))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    async fn connect(&self) -> Result<Open, BoxError> {
        let tcp = TcpStream::connect((self.endpoint.host(), self.endpoint.port())).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Open { sender, connection: Some(Box::pin(connection)) })
    }
}

impl Open {
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, BoxError> {
        let Open { sender, connection } = self;
        let mut exchange = pin!(async {
            sender.ready().await?;
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::from_parts(parts, body))
        });
        if let Some(open) = connection {
            tokio::select! {
                biased;
                response = &mut exchange => return response,
                // An answer may have come with the close; if none has, the exchange fails when the connection is dropped.
                _ = open => *connection = None,
            }
        }
        exchange.await
    }
}

/// The value of `Host`: an IPv6 address in brackets, and the port.
fn authority(endpoint: &Endpoint) -> String {
    let host = endpoint.host();
    if host.contains(':') { format!("[{host}]:{}", endpoint.port()) } else { format!("{host}:{}", endpoint.port()) }
}

/// An error and what caused it, in one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, TracesError> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TracesError::Setup(error.to_string()))?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TracesError> {
    let system = SYSTEM_AUTHORITIES.map(Path::new).into_iter().find(|path| path.exists());
    let path = ca.or(system).ok_or(TracesError::NoAuthorities)?;
    let bytes = std::fs::read(path).map_err(|source| TracesError::Read { path: path.to_owned(), source })?;
    let unusable = |reason: String| TracesError::Authorities { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    // A system's file may hold old ones that are not usable any more.
    roots.add_parsable_certificates(certificates.map_err(|error| unusable(error.to_string()))?);
    if roots.is_empty() { Err(unusable("it holds no certificate in PEM that can be used".to_owned())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Client {
        Client::new(&endpoint.parse().expect("an endpoint"), None, HeaderMap::new()).expect("a client")
    }

    #[test]
    fn a_path_is_added_where_there_is_none_and_the_host_is_named() {
        for (endpoint, path, host) in
            [("http://localhost:4318/", "/v1/traces", "localhost:4318"), ("http://[::1]/otlp", "/otlp", "[::1]:80")]
        {
            let request = client(endpoint).request(Bytes::new()).expect("a request");
            assert_eq!((request.uri().path(), request.headers()[HOST].to_str().expect("text")), (path, host));
            assert_eq!(request.headers()[CONTENT_TYPE], "application/x-protobuf");
        }
    }

    #[test]
    fn authorities_have_to_be_some() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(roots(Some(file.path())), Err(TracesError::Authorities { .. })));
        assert!(matches!(roots(Some(Path::new("/nonexistent"))), Err(TracesError::Read { .. })));
    }
}
