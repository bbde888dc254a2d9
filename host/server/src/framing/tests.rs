//! What is let through, what is refused, and that nothing ever depends on how the bytes were split.

use proptest::prelude::*;

use super::*;
use crate::error::EdgeError;
use crate::limits::Limits;

fn limits() -> HeadLimits {
    HeadLimits::from(&Limits::default())
}

fn judge(head: &str) -> Result<Length, EdgeError> {
    let bytes = head.as_bytes();
    match HeadScanner::default().scan(bytes, limits())? {
        Some(end) => check(&bytes[..end], limits()),
        None => Err(EdgeError::Malformed("unfinished")),
    }
}

#[test]
fn plain_requests_pass() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Length::Known(0)),
        ("GET /x?y=%20 HTTP/1.0\r\n\r\n", Length::Known(0)),
        ("OPTIONS * HTTP/1.1\r\nHost: a:8443\r\n\r\n", Length::Known(0)),
        ("GET http://a.example/x HTTP/1.1\r\nHost: A.example\r\n\r\n", Length::Known(0)),
        ("POST / HTTP/1.1\r\nHost: [::1]:8443\r\nContent-Length: 5\r\n\r\n", Length::Known(5)),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tChunked \r\n\r\n", Length::Chunked),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Name: caf\u{e9}\r\nX-Empty:\r\n\r\n", Length::Known(0)),
    ];
    for (head, length) in cases {
        assert_eq!(judge(head), Ok(length), "{head:?}");
    }
}

#[test]
fn a_head_ends_at_its_empty_line_and_not_before_or_after() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
    assert_eq!(HeadScanner::default().scan(stream, limits()), Ok(Some(27)));
}

#[test]
fn sizes_have_their_own_errors() {
    // P-E5.
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    assert_eq!(judge(&long_target), Err(EdgeError::UriTooLong { limit: 8192 }));
    let endless_target = format!("GET /{}", "a".repeat(20_000));
    assert_eq!(judge(&endless_target), Err(EdgeError::UriTooLong { limit: 8192 }));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    assert_eq!(judge(&long_field), Err(EdgeError::HeadersTooLarge { limit: 16_384 }));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(judge(&many), Err(EdgeError::HeadersTooLarge { limit: 16_384 }));
}

fn follow(body: &[u8]) -> Result<(usize, bool), EdgeError> {
    let mut chunked = Chunked::new(64);
    let used = chunked.advance(body)?;
    Ok((used, chunked.is_done()))
}

#[test]
fn a_chunked_body_ends_where_it_says() {
    assert_eq!(follow(b"0\r\n\r\nGET"), Ok((5, true)));
    assert_eq!(follow(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok((15, true)));
    assert_eq!(follow(b"a;name=value\r\n0123456789\r\n000\r\nX: y\r\n\r\nGET"), Ok((39, true)));
    assert_eq!(follow(b"5\r\nhel"), Ok((6, false)));
}

#[test]
fn a_chunked_body_that_can_be_read_in_two_ways_is_refused() {
    let cases: [&[u8]; 16] = [
        b"5\nhello\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-1\r\n",
        b"\r\n",
        b"ffffffffffffffff\r\n",
        b"5\r\rhello\r\n",
        b"5;a\nb\r\nhello",
        b"0\r\n\n",
        b"0\r\n X: folded\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
    ];
    for body in cases {
        assert!(follow(body).is_err(), "{:?}", String::from_utf8_lossy(body));
    }
    assert!(follow(format!("1;{}\r\n", "e".repeat(100)).as_bytes()).is_err());
}

proptest! {
    // P-E4: no input panics, and the split of a stream into reads decides nothing.
    #[test]
    fn any_bytes_are_judged_alike_however_they_are_split(
        bytes in proptest::collection::vec(prop_oneof![
            3 => Just(b'\r'), 3 => Just(b'\n'), 2 => Just(b' '), 2 => Just(b':'),
            4 => proptest::sample::select(b"GET/HP1.0aAf;0".to_vec()), 1 => any::<u8>(),
        ], 0..200),
        cut in 0_usize..200,
    ) {
        let cut = cut.min(bytes.len());
        let whole = HeadScanner::default().scan(&bytes, limits());
        let mut scanner = HeadScanner::default();
        let split = match scanner.scan(&bytes[..cut], limits()) {
            Ok(None) => scanner.scan(&bytes, limits()),
            early => early,
        };
        prop_assert_eq!(whole, split);
        if let Ok(Some(end)) = whole {
            let _ = check(&bytes[..end], limits());
        }

        let mut one = Chunked::new(64);
        let whole = one.advance(&bytes);
        let mut two = Chunked::new(64);
        let split = match two.advance(&bytes[..cut]) {
            Ok(used) if used == cut => two.advance(&bytes[cut..]).map(|more| used + more),
            early => early,
        };
        prop_assert_eq!(whole, split);
        prop_assert_eq!(one.is_done(), two.is_done());
    }

    #[test]
    fn what_was_chunked_is_found_again(chunks in proptest::collection::vec(1_usize..3000, 0..6), rest in "[A-Z ]{0,20}") {
        let mut body = Vec::new();
        for size in chunks {
            body.extend_from_slice(format!("{size:X}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'\n', size));
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        let end = body.len();
        body.extend_from_slice(rest.as_bytes());
        prop_assert_eq!(follow(&body), Ok((end, true)));
    }
}
