//! What the quick compiler made of a component, kept for its next build: a changed config changes nothing of it.
//!
//! One file per component, signed like the compiled plugins since its content becomes code. It only saves time: a file that is
//! missing, damaged, forged, or of another component or engine is none.

use std::path::Path;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::{MacKey, write_atomically};

const MAGIC: &[u8; 4] = b"TGQ1";
const DIGEST_BYTES: usize = 32;

/// Where it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) path: &'a Path,
    pub(crate) key: &'a MacKey,
}

impl Kept<'_> {
    /// What `engine` makes of `code`: as it was kept, or compiled and kept.
    pub(super) fn component(self, engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
        let digest = Sha256::digest(code);
        if let Some(component) = self.read(engine, &digest) {
            return Ok(component);
        }
        let component = Component::new(engine, code)?;
        let data = [digest.as_slice(), &component.serialize()?].concat();
        // It only saves time; a full disk shows when the plugin itself is written.
        let _ = write_atomically(self.path, &self.key.seal(MAGIC, &data));
        Ok(component)
    }

    #[allow(unsafe_code, reason = "wasmtime runs what it is given here")]
    fn read(self, engine: &Engine, digest: &[u8]) -> Option<Component> {
        let sealed = std::fs::read(self.path).ok()?;
        let at = self.key.open(MAGIC, &sealed).ok()?;
        let (of, compiled) = sealed.get(at..)?.split_at_checked(DIGEST_BYTES)?;
        if of != digest {
            return None;
        }
        // SAFETY: the MAC was verified over just these bytes in memory (P-W6), so that they are what wasmtime's own compiler wrote
        // for this component in an earlier build; wasmtime checks version and settings.
        unsafe { Component::deserialize(engine, compiled) }.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_again_for_the_same_code_and_key_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, key, other) = (dir.path().join("a.quick"), MacKey::new([1; 32]), MacKey::new([2; 32]));
        let engine = Engine::default();
        // A component without anything, and one with an empty module in it.
        let one = b"\0asm\x0d\0\x01\0".as_slice();
        let two = b"\0asm\x0d\0\x01\0\x01\x08\0asm\x01\0\0\0".as_slice();
        let kept = Kept { path: &path, key: &key };
        let found = |kept: Kept<'_>, code: &[u8]| kept.read(&engine, &Sha256::digest(code)).is_some();
        assert!(!found(kept, one));
        kept.component(&engine, one).expect("compiled");
        assert!(found(kept, one) && !found(kept, two));
        assert!(!found(Kept { path: &path, key: &other }, one), "another key's code is not run");
        kept.component(&engine, two).expect("compiled");
        assert!(found(kept, two) && !found(kept, one));
        let mut bytes = std::fs::read(&path).expect("it is there");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, bytes).expect("written");
        assert!(!found(kept, two), "no byte can be changed");
    }
}
