//! The manifest section of a component.
#![no_main]
#![allow(dead_code, reason = "parts of crates are taken in by path")]

#[path = "../../host/plugins/src/manifest.rs"]
mod manifest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = manifest::Manifest::read(data) {
        assert!(!manifest.name.is_empty());
    }
});
