//! The head of an HTTP/1 request and a chunked body: judged the same however the bytes come in.
#![no_main]
#![allow(dead_code, reason = "parts of crates are taken in by path")]

#[path = "../../host/server/src/error.rs"]
mod error;
mod framing;
#[path = "../../host/server/src/limits.rs"]
mod limits;

use framing::chunked::Chunked;
use framing::head::{HeadLimits, HeadScanner, check};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let limits = HeadLimits::from(&limits::Limits::default());
    let whole = HeadScanner::default().scan(data, limits);
    let mut scanner = HeadScanner::default();
    let mut parts = Ok(None);
    for end in 1..=data.len() {
        parts = scanner.scan(&data[..end], limits);
        if !matches!(parts, Ok(None)) {
            break;
        }
    }
    if !data.is_empty() && whole.is_ok() {
        assert_eq!(whole, parts);
    }
    if let Ok(Some(length)) = whole {
        let _ = check(&data[..length], limits);
    }
    let body = Chunked::new(1_024).advance(data);
    let (mut follower, mut used) = (Chunked::new(1_024), 0);
    let bytewise = data.iter().try_for_each(|byte| follower.advance(&[*byte]).map(|step| used += step));
    assert_eq!(body.is_ok(), bytewise.is_ok());
    if let Ok(body) = body {
        assert_eq!(body, used);
    }
});
