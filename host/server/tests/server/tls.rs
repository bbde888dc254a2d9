//! TLS as a client sees it: the local authority is trusted, certificates change under way (P-E1, P-E6, P-U7).

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use time::{Duration, OffsetDateTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_server::{Limits, LocalCa, Tls};

use crate::harness::{Server, read_to_close, read_until, short, start_with};

pub(crate) struct Secured {
    pub(crate) server: Server,
    pub(crate) ca: LocalCa,
    pub(crate) tls: Tls,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) fn start_tls(limits: Limits) -> Secured {
    let directory = tempfile::tempdir().unwrap();
    let ca = LocalCa::ensure(directory.path(), OffsetDateTime::now_utc()).unwrap();
    let tls = Tls::new(ca.server.clone()).unwrap();
    let server = start_with(limits, Some(tls.clone()));
    Secured { server, ca, tls, directory }
}

impl Secured {
    pub(crate) async fn connect(&self, alpn: &[&[u8]], name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(rustls::crypto::aws_lc_rs::default_provider(), alpn, name).await
    }

    async fn connect_with(
        &self,
        provider: CryptoProvider,
        alpn: &[&[u8]],
        name: &'static str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca.authority).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = self.server.connect().await;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
    }
}

fn certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn a_client_that_trusts_the_local_authority_is_served() {
    let secured = start_tls(Limits::default());
    for name in ["localhost", "127.0.0.1"] {
        let mut stream = secured.connect(&[b"http/1.1"], name).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        stream.write_all(b"GET /ignore HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(secured.connect(&[b"http/1.1"], "elsewhere.example").await.is_err());
    assert!(secured.connect(&[b"spdy/1"], "localhost").await.is_err(), "ALPN has to agree");
}

#[tokio::test]
async fn the_server_chooses_the_cipher_suite() {
    // P-E6: whatever the client would like best.
    let secured = start_tls(Limits::default());
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    for _ in 0..2 {
        let stream = secured.connect_with(provider.clone(), &[b"h2"], "localhost").await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
        provider.cipher_suites.reverse();
    }
}

#[tokio::test]
async fn half_a_hello_is_closed() {
    // P-E1: a stalled TLS hello.
    let secured = start_tls(short());
    assert_eq!(secured.server.exchange(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await, "");
    secured.server.assert_settles().await;
}

#[tokio::test]
async fn a_silent_client_is_closed_after_its_handshake() {
    let secured = start_tls(short());
    for alpn in [b"h2".as_slice(), b"http/1.1"] {
        let mut stream = secured.connect(&[alpn], "localhost").await.unwrap();
        let _ = read_to_close(&mut stream).await;
    }
    secured.server.assert_settles().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    // P-U7.
    let secured = start_tls(Limits::default());
    let mut old = secured.connect(&[b"http/1.1"], "localhost").await.unwrap();
    let first = certificate(&old);

    std::fs::write(&secured.ca.server.certificate, "half a file").unwrap();
    assert!(secured.tls.store().reload_if_changed().is_err());
    let still = secured.connect(&[b"http/1.1"], "localhost").await.unwrap();
    assert_eq!(certificate(&still), first, "a broken pair leaves the old one in service");

    LocalCa::ensure(secured.directory.path(), OffsetDateTime::now_utc() + Duration::seconds(1)).unwrap();
    assert!(secured.tls.store().reload_if_changed().unwrap());
    let new = secured.connect(&[b"http/1.1"], "localhost").await.unwrap();
    assert_ne!(certificate(&new), first);

    old.write_all(b"GET /ignore HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    read_until(&mut old, "ignored").await;
}

#[tokio::test]
async fn a_watched_certificate_changes_by_itself() {
    let secured = start_tls(Limits::default());
    secured.tls.store().watch(std::time::Duration::from_millis(10), &secured.server.drain);
    let first = certificate(&secured.connect(&[b"http/1.1"], "localhost").await.unwrap());
    std::fs::remove_file(&secured.ca.server.certificate).unwrap();
    LocalCa::ensure(secured.directory.path(), OffsetDateTime::now_utc()).unwrap();
    let changed = async {
        while certificate(&secured.connect(&[b"http/1.1"], "localhost").await.unwrap()) == first {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::harness::HANG, changed).await.expect("the watcher takes the new pair");
}
