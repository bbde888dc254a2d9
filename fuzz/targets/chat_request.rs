//! The body of a chat request: it is refused, or read; and what is read as JSON is written as JSON that means the same.
#![no_main]
#![allow(dead_code, reason = "parts of crates are taken in by path")]

#[path = "../../host/api/src/json.rs"]
mod json;
mod openai;

use json::Json;

/// Whether two values are the same; numbers that are not whole to the precision that serde_json reads them with.
fn is_same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => one == other || (a - b).abs() <= a.abs() * 1e-15,
            _ => false,
        },
        (Json::List(one), Json::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && is_same(&one.1, &other.1))
        }
        _ => one == other,
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(json) = json::parse(data) else { return };
    let again = json::parse(json.to_text().as_bytes()).expect("what was written can be read");
    assert!(is_same(&again, &json), "{again:?} is not {json:?}");
    if let Err(refusal) = openai::request::decode(json) {
        // The client's own text comes back cut and without control characters.
        assert!(refusal.message.len() < 1_024 && !refusal.message.contains(char::is_control), "{}", refusal.message);
    }
});
