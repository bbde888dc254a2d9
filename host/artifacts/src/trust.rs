//! Who may offer models: ed25519 keys, and signatures over the exact bytes of a manifest (P-M8).

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::files::{At, FileError, read_small};

const PREFIX: &str = "ed25519:";
const SIGNATURE_BYTES: usize = 64;
/// A signature file is 88 characters, perhaps with white space around.
const MAX_SIGNATURE_TEXT: usize = 256;
const MAX_KEY_FILE: u64 = 4096;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A key, a signature or a model that is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not a public key.
    #[error("not a public key; write `{PREFIX}` and the 32 bytes in base64, as `tollgate model key` shows it")]
    PublicKey,
    /// Not a private key.
    #[error("{path} is not an ed25519 private key; it must be PKCS#8 in PEM, as `tollgate model key` makes it")]
    PrivateKey {
        /// Which file.
        path: String,
    },
    /// There is no signature.
    #[error("the model is not signed; [models] unsigned = true in tollgate.toml allows it")]
    Unsigned,
    /// There are no keys.
    #[error("the model is signed, and no key is trusted; name the signer's in [models] trusted_keys in tollgate.toml")]
    NoKeys,
    /// Not a signature.
    #[error("the signature is not 64 bytes in base64; sign the manifest again")]
    Malformed,
    /// Another key, or changed bytes.
    #[error("the signature is of none of the trusted keys ({0}), or the manifest was changed after it was signed")]
    Forged(String),
    /// A key cannot be made or used.
    #[error("the cryptographic library failed to make or use a key")]
    Library,
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Half of a key: what signatures are verified with. As text `ed25519:` and 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// A short name for log lines and lists: the first 16 hex digits of the SHA-256 of the key.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = Digest::of(&self.0).to_string();
        id.truncate(16);
        id
    }

    fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = TrustError;

    fn from_str(text: &str) -> Result<Self, TrustError> {
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 64).ok_or(TrustError::PublicKey)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| TrustError::PublicKey)?;
        bytes.try_into().map(PublicKey).map_err(|_| TrustError::PublicKey)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Who has signed a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// The trusted key with this id.
    By(String),
    /// Nobody whose signature was verified.
    Nobody,
}

/// Which manifests are believed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The keys of those who may offer models.
    pub keys: Vec<PublicKey>,
    /// Whether a manifest without a signature will do. One with a wrong signature never does.
    pub unsigned: bool,
}

impl Trust {
    /// Whether the manifest with these bytes is believed, `signature` being the text of its signature file.
    ///
    /// # Errors
    /// It is not signed and has to be, or its signature is malformed or of no trusted key.
    pub fn verify(&self, manifest: &[u8], signature: Option<&[u8]>) -> Result<Signed, TrustError> {
        let Some(signature) = signature else {
            return if self.unsigned { Ok(Signed::Nobody) } else { Err(TrustError::Unsigned) };
        };
        let signature = decode(signature).ok_or(TrustError::Malformed)?;
        match self.keys.iter().find(|key| key.has_signed(manifest, &signature)) {
            Some(key) => Ok(Signed::By(key.id())),
            // Nobody can tell whose it is: it counts as none.
            None if self.keys.is_empty() && self.unsigned => Ok(Signed::Nobody),
            None if self.keys.is_empty() => Err(TrustError::NoKeys),
            None => Err(TrustError::Forged(self.keys.iter().map(PublicKey::id).collect::<Vec<_>>().join(", "))),
        }
    }

    /// Whether files without a manifest may become an artifact.
    ///
    /// # Errors
    /// They may not.
    pub fn allows_unsigned(&self) -> Result<(), TrustError> {
        if self.unsigned { Ok(()) } else { Err(TrustError::Unsigned) }
    }
}

fn decode(signature: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    if signature.len() > MAX_SIGNATURE_TEXT {
        return None;
    }
    STANDARD.decode(signature.trim_ascii()).ok()?.try_into().ok()
}

/// The secret half of a key: what manifests are signed with. Never shown.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate() -> Result<Self, TrustError> {
        Ed25519KeyPair::generate().map(SigningKey).map_err(|_| TrustError::Library)
    }

    /// Reads a PEM file with an unencrypted PKCS#8 key, also one that `openssl genpkey -algorithm ed25519` made.
    ///
    /// # Errors
    /// It cannot be read, or is no such key.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let bytes = File::open(path).and_then(|mut file| read_small(&mut file, MAX_KEY_FILE)).at(path)?;
        from_pem(&bytes).map(SigningKey).ok_or_else(|| TrustError::PrivateKey { path: path.display().to_string() })
    }

    /// Writes the key to a new file that only its owner can read. A file that is there is left alone.
    ///
    /// # Errors
    /// The file is there, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrustError> {
        let pkcs8 = self.0.to_pkcs8v1().map_err(|_| TrustError::Library)?;
        let write = || {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{PEM_BEGIN}\n{}\n{PEM_END}", STANDARD.encode(pkcs8.as_ref()))?;
            file.sync_all()
        };
        Ok(write().at(path)?)
    }

    /// The text of a signature file over `bytes`.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let mut text = STANDARD.encode(self.0.sign(bytes));
        text.push('\n');
        text.into_bytes()
    }

    /// The half that others verify with.
    ///
    /// # Panics
    /// Never: an ed25519 public key has 32 bytes.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let bytes: &[u8] = self.0.public_key().as_ref();
        PublicKey(bytes.try_into().expect("an ed25519 public key has 32 bytes"))
    }
}

fn from_pem(bytes: &[u8]) -> Option<Ed25519KeyPair> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once(PEM_BEGIN)?;
    let (encoded, _) = rest.split_once(PEM_END)?;
    let encoded: String = encoded.split_ascii_whitespace().collect();
    Ed25519KeyPair::from_pkcs8(&STANDARD.decode(encoded).ok()?).ok()
}

/// Reads a signature file beside a manifest, if there is one.
pub(crate) fn read_signature(open: Result<File, FileError>, path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match open {
        Ok(mut file) => {
            let limit = u64::try_from(MAX_SIGNATURE_TEXT).unwrap_or(u64::MAX);
            read_small(&mut file, limit).map(Some).at(path)
        }
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
