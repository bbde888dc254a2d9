//! Keys and signatures, right, wrong and malformed.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// What `openssl genpkey -algorithm ed25519` writes between its two lines; made for this test only.
const OPENSSL: &str = "MC4CAQAwBQYDK2VwBCIEIFmsNgj8OhhrOi0b6mNyObw58IsXPFg7Osqc4Mpc3Ia4";

fn trusting(key: &SigningKey) -> Trust {
    Trust { keys: vec![key.public()], unsigned: false }
}

#[test]
fn a_signature_of_a_trusted_key_is_believed() {
    let key = SigningKey::generate().unwrap();
    let signature = key.sign(b"manifest");
    assert_eq!(trusting(&key).verify(b"manifest", Some(&signature)).unwrap(), Signed::By(key.public().id()));
    let mut both = trusting(&SigningKey::generate().unwrap());
    both.keys.push(key.public());
    assert!(both.verify(b"manifest", Some(&signature)).is_ok());
}

#[test]
fn everything_else_is_refused() {
    let key = SigningKey::generate().unwrap();
    let other = SigningKey::generate().unwrap();
    let trust = trusting(&key);
    let good = key.sign(b"manifest");
    let mut flipped = STANDARD.decode(good.trim_ascii()).unwrap();
    flipped[7] ^= 1;
    let flipped = STANDARD.encode(flipped);
    let long = [b'A'; 300];
    let forged = other.sign(b"manifest");
    let cases: [(&str, Option<&[u8]>, &str); 8] = [
        ("manifest", None, "[models] unsigned = true in tollgate.toml"),
        ("Manifest", Some(&good), "changed after it was signed"),
        ("manifest", Some(&forged), "none of the trusted keys"),
        ("manifest", Some(flipped.as_bytes()), "none of the trusted keys"),
        ("manifest", Some(b""), "64 bytes in base64"),
        ("manifest", Some(b"AAAA"), "64 bytes in base64"),
        ("manifest", Some(b"\xff\xff"), "64 bytes in base64"),
        ("manifest", Some(&long), "64 bytes in base64"),
    ];
    for (bytes, signature, words) in cases {
        let error = trust.verify(bytes.as_bytes(), signature).unwrap_err().to_string();
        assert!(error.contains(words), "{error} should say {words}");
    }
}

#[test]
fn unsigned_is_a_choice_and_a_wrong_signature_is_never_one() {
    let key = SigningKey::generate().unwrap();
    let mut trust = trusting(&key);
    trust.unsigned = true;
    assert_eq!(trust.verify(b"manifest", None).unwrap(), Signed::Nobody);
    assert!(trust.verify(b"changed", Some(&key.sign(b"manifest"))).is_err());
    trust.keys.clear();
    assert_eq!(trust.verify(b"manifest", Some(&key.sign(b"manifest"))).unwrap(), Signed::Nobody);
    trust.unsigned = false;
    assert!(matches!(trust.verify(b"manifest", Some(&key.sign(b"manifest"))), Err(TrustError::NoKeys)));
    assert!(matches!(trust.allows_unsigned(), Err(TrustError::Unsigned)));
}

#[test]
fn keys_are_written_for_their_owner_only_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let key = SigningKey::generate().unwrap();
    key.write(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SigningKey::read(&path).unwrap().public(), key.public());
    assert!(key.write(&path).is_err(), "a key is not written over");
    assert_eq!(format!("{key:?}"), "SigningKey(..)");

    std::fs::write(&path, format!("{PEM_BEGIN}\n{OPENSSL}\n{PEM_END}\n")).unwrap();
    assert_eq!(SigningKey::read(&path).unwrap().public().to_string(), "ed25519:WhdyKJ7zlzPWy5peLK9mkPXkM5HNmrkrz7Z1rvaukZo=");
    for bad in ["", "hello", &format!("{PEM_BEGIN}\nAAAA\n{PEM_END}\n"), &"x".repeat(5000)] {
        std::fs::write(&path, bad).unwrap();
        assert!(SigningKey::read(&path).is_err(), "{bad:.20}");
    }
}

#[test]
fn public_keys_are_read_as_they_are_written() {
    let key = SigningKey::generate().unwrap().public();
    assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
    assert_eq!(key.id().len(), 16);
    for bad in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", &key.to_string()["ed25519:".len()..], &"ed25519:A".repeat(20)] {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
}
