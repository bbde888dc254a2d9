//! The certificate that is served, replaced while connections live (P-U7).
//!
//! New handshakes see a new certificate at once; established connections keep theirs. A pair that does not
//! fit together leaves the old one in place: writers replace two files one after the other.

use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CertificatePaths, TlsError};
use crate::drain::Drain;

/// A certificate and its key, loaded from two files.
#[derive(Debug)]
pub struct CertificateStore {
    paths: CertificatePaths,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    /// What the files held when they were last judged, good or bad, so that each content is judged once.
    judged: Mutex<u64>,
}

/// When a certificate ends, in seconds since 1970; `None` if it cannot be read.
fn expiry_of(certified: &CertifiedKey) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certified.cert.first()?).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// The bytes of the two files.
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificateStore {
    pub(super) fn open(paths: CertificatePaths, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let pair = Pair::read(&paths)?;
        let certified = pair.load(&paths, &provider)?;
        Ok(Self { judged: Mutex::new(pair.fingerprint()), current: ArcSwap::from_pointee(certified), paths, provider })
    }

    /// Looks at the files and takes a changed pair into service. Gives whether it did.
    ///
    /// It reads files: not for an async task, use [`watch`](Self::watch) there.
    ///
    /// # Errors
    /// [`TlsError`] when the files cannot be used; the old pair is served on. The same bad content is
    /// reported once.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        // One look at a time; held over the loading so that an older pair cannot overtake a newer one.
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = Pair::read(&self.paths)?;
        let fingerprint = pair.fingerprint();
        if *judged == fingerprint {
            return Ok(false);
        }
        *judged = fingerprint;
        let certified = pair.load(&self.paths, &self.provider)?;
        self.current.store(Arc::new(certified));
        Ok(true)
    }

    /// When the certificate that is served ends, in seconds since 1970; `None` if it does not say.
    #[must_use]
    pub fn expires_s(&self) -> Option<i64> {
        expiry_of(&self.current.load())
    }

    /// Looks at the files every `interval` until the drain begins.
    pub fn watch(self: &Arc<Self>, interval: Duration, drain: &Drain) {
        let store = Arc::clone(self);
        let tracker = drain.tracker().clone();
        let signal = drain.signal();
        drain.tracker().spawn(async move {
            // A file that cannot be read is reported once, not at every look.
            let mut is_failing = false;
            loop {
                tokio::select! {
                    () = signal.draining() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                let looking = Arc::clone(&store);
                let Ok(outcome) = tracker.spawn_blocking(move || looking.reload_if_changed()).await else { return };
                match outcome {
                    Ok(true) => tracing::info!(certificate = %store.paths.certificate.display(), "certificate reloaded"),
                    Ok(false) => {}
                    Err(error) if is_failing && matches!(error, TlsError::Read { .. }) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "certificate not reloaded, the old one is served on");
                        is_failing = true;
                        continue;
                    }
                }
                is_failing = false;
            }
        });
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Pair {
    fn read(paths: &CertificatePaths) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Self { certificate: read(&paths.certificate)?, key: read(&paths.key)? })
    }

    /// Tells one content from another; it guards against nothing.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_usize(self.certificate.len());
        hasher.write(&self.certificate);
        hasher.write(&self.key);
        hasher.finish()
    }

    fn load(&self, paths: &CertificatePaths, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let pem = |path: &Path, what, reason: String| TlsError::Pem { path: path.to_owned(), what, reason };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| pem(&paths.certificate, "certificate", error.to_string()))?;
        if chain.is_empty() {
            return Err(pem(&paths.certificate, "certificate", "no items found".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| pem(&paths.key, "private key", error.to_string()))?;
        // This compares the public keys of the two.
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair { paths: paths.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Files {
        _directory: tempfile::TempDir,
        paths: CertificatePaths,
    }

    fn issue() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn files() -> Files {
        let directory = tempfile::tempdir().unwrap();
        let paths =
            CertificatePaths { certificate: directory.path().join("server.pem"), key: directory.path().join("server.key") };
        let files = Files { _directory: directory, paths };
        files.write(&issue());
        files
    }

    impl Files {
        fn write(&self, (certificate, key): &(String, String)) {
            std::fs::write(&self.paths.certificate, certificate).unwrap();
            std::fs::write(&self.paths.key, key).unwrap();
        }

        fn open(&self) -> Result<CertificateStore, TlsError> {
            CertificateStore::open(self.paths.clone(), super::super::provider())
        }
    }

    #[test]
    fn a_new_pair_replaces_the_old_one_and_a_broken_one_does_not() {
        // P-U7.
        let files = files();
        let store = files.open().unwrap();
        let served = || store.current.load().cert[0].clone();
        assert!(store.expires_s().unwrap() > 0);
        let first = served();
        assert!(!store.reload_if_changed().unwrap());

        let next = issue();
        std::fs::write(&files.paths.certificate, &next.0).unwrap();
        assert!(matches!(store.reload_if_changed(), Err(TlsError::Pair { .. })));
        assert_eq!(served(), first);
        assert!(!store.reload_if_changed().unwrap(), "the same bad pair is reported once");

        std::fs::write(&files.paths.key, &next.1).unwrap();
        assert!(store.reload_if_changed().unwrap());
        let second = served();
        assert_ne!(second, first);

        std::fs::write(&files.paths.certificate, "half a file").unwrap();
        assert!(matches!(store.reload_if_changed(), Err(TlsError::Pem { .. })));
        std::fs::remove_file(&files.paths.key).unwrap();
        assert!(matches!(store.reload_if_changed(), Err(TlsError::Read { .. })));
        assert_eq!(served(), second);
    }

    #[test]
    fn errors_name_the_file() {
        let files = files();
        std::fs::write(&files.paths.key, "nothing").unwrap();
        let text = files.open().err().unwrap().to_string();
        assert!(text.contains("server.key") && text.contains("private key"), "{text}");
    }
}
