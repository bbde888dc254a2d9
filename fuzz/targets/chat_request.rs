//! The body of a chat request: it is refused, or read; and what is read as JSON is written as JSON that means the same.
#![no_main]
#![allow(dead_code, reason = "parts of crates are taken in by path")]

#[path = "../../host/api/src/json.rs"]
mod json;
mod openai;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(json) = json::parse(data) else { return };
    let again = json::parse(json.to_text().as_bytes());
    assert_eq!(again.as_ref(), Ok(&json));
    if let Err(refusal) = openai::request::decode(json) {
        // The client's own text comes back cut and without control characters.
        assert!(refusal.message.len() < 1_024 && !refusal.message.contains(char::is_control), "{}", refusal.message);
    }
});
