//! TLS as a listener speaks it: 1.3 and 1.2 with authenticated encryption, one crypto provider (P-E6).
//!
//! The process's default provider is never used, so no other crate can change what is spoken here.

mod store;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::server::ResolvesServerCert;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

pub use store::CertificateStore;

/// Protocols offered by ALPN, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePaths {
    /// A PEM file with the chain, end entity first.
    pub certificate: PathBuf,
    /// A PEM file with the private key.
    pub key: PathBuf,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is no PEM file, or not of the right kind.
    #[error("{path} holds no {what}: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate does not belong to the key, or one of them cannot be used.
    #[error("{certificate} and {key} cannot be used together: {source}",
        certificate = .paths.certificate.display(), key = .paths.key.display())]
    Pair {
        /// The two files.
        paths: CertificatePaths,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What a listener needs to speak TLS. Clones share the certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    store: Arc<CertificateStore>,
}

impl Tls {
    /// Loads the certificate and sets TLS up.
    ///
    /// # Errors
    /// [`TlsError`] names the file that is wrong.
    pub fn new(paths: CertificatePaths) -> Result<Self, TlsError> {
        let provider = provider();
        let store = Arc::new(CertificateStore::open(paths, Arc::clone(&provider))?);
        let resolver: Arc<dyn ResolvesServerCert> = store.clone();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        // The order of suites is the provider's, the strongest first, as scanners (testssl.sh) ask for.
        config.ignore_client_order = true;
        // Keys for tickets live in memory and are replaced every six hours.
        config.ticketer = Ticketer::new()?;
        // Early data can be replayed; nothing here may be asked twice.
        config.max_early_data_size = 0;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), store })
    }

    /// The certificate, to be reloaded when its files change.
    #[must_use]
    pub fn store(&self) -> &Arc<CertificateStore> {
        &self.store
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

/// The one crypto provider.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
