//! Requests that could be read in two ways: one answer, then the connection closes (P-E4).
//!
//! Every payload is followed by a request that must never be answered as a second one.

use tokio::io::AsyncWriteExt as _;
use tollgate_server::Limits;

use crate::harness::{read_until, start, statuses};

const SMUGGLED: &str = "GET /ignore HTTP/1.1\r\nhost: smuggled\r\n\r\n";

/// Name, request, and the statuses of the whole conversation.
const PAYLOADS: &[(&str, &str, &[u16])] = &[
    ("CL.TE", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX", &[400]),
    (
        "TE.CL",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[400],
    ),
    ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\n", &[400]),
    ("two equal lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n", &[400]),
    ("list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0, 0\r\n\r\n", &[400]),
    ("signed length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +0\r\n\r\n", &[400]),
    ("negative length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", &[400]),
    ("hexadecimal length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x0\r\n\r\n", &[400]),
    ("empty length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", &[400]),
    ("overflowing length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551616\r\n\r\n", &[400]),
    ("length with a blank inside", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1 0\r\n\r\n", &[400]),
    ("two codings", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[400]),
    (
        "coding twice",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "hidden coding",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    ("unknown coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", &[400]),
    ("quoted coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", &[400]),
    ("vertical tab in coding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[400]),
    ("coding on HTTP/1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
    ("blank before colon", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\n", &[400]),
    ("blank before name", "POST / HTTP/1.1\r\n host: a\r\n\r\n", &[400]),
    ("folded field", "POST / HTTP/1.1\r\nhost: a\r\nx: y\r\n content-length: 5\r\n\r\n", &[400]),
    ("bare line feed", "GET / HTTP/1.1\nhost: a\n\n", &[400]),
    ("bare line feed in a field", "GET / HTTP/1.1\r\nhost: a\r\nx: y\ncontent-length: 5\r\n\r\n", &[400]),
    ("bare return in a field", "GET / HTTP/1.1\r\nhost: a\r\nx: y\rcontent-length: 5\r\n\r\n", &[400]),
    ("zero byte", "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", &[400]),
    ("no colon", "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n", &[400]),
    ("empty name", "GET / HTTP/1.1\r\nhost: a\r\n: y\r\n\r\n", &[400]),
    ("no host", "GET / HTTP/1.1\r\n\r\n", &[400]),
    ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", &[400]),
    ("empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n", &[400]),
    ("host with a user", "GET / HTTP/1.1\r\nhost: me@a\r\n\r\n", &[400]),
    ("host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", &[400]),
    ("another host in the target", "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("relative target", "GET x HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("star without options", "GET * HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("fragment in the target", "GET /#x HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("two blanks in the request line", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("tab in the request line", "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("no version", "GET /\r\nhost: a\r\n\r\n", &[400]),
    ("another version", "GET / HTTP/1.2\r\nhost: a\r\n\r\n", &[400]),
    ("preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400]),
    ("TLS on a plain port", "\x16\x03\x01\x02\x00\x01\x00", &[400]),
    ("leading empty line", "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
    ("connect", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", &[501]),
    ("early upgrade", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", &[501]),
    (
        "upgrade to HTTP/2",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n\r\n",
        &[501],
    ),
    ("chunk with bare line feeds", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n", &[400]),
    (
        "chunk that is longer than it says",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nhello\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunk size with a prefix",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunk size that overflows",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\nhello\r\n0\r\n\r\n",
        &[400],
    ),
];

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_nothing_after_it_is_served() {
    let server = start(Limits::default());
    for (name, request, expected) in PAYLOADS {
        let answer = server.exchange(format!("{request}{SMUGGLED}").as_bytes()).await;
        assert_eq!(statuses(&answer), *expected, "{name}: {answer}");
        // Once the head has passed the service answers, and hyper closes without announcing it.
        assert!(name.starts_with("chunk") || answer.contains("connection: close"), "{name}: {answer}");
    }
    server.assert_settles().await;
}

#[tokio::test]
async fn the_split_into_packets_changes_no_answer() {
    let server = start(Limits::default());
    for (name, request, expected) in PAYLOADS.iter().take(12) {
        let (mut read, mut write) = server.connect().await.into_split();
        let sending = async {
            for byte in request.bytes() {
                if write.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let (answer, ()) = tokio::join!(crate::harness::read_to_close(&mut read), sending);
        assert_eq!(statuses(&answer), *expected, "{name}: {answer}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(Limits::default());
    let answer = server
        .exchange(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
              POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
              GET /ignore HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(statuses(&answer), [200, 200, 200], "{answer}");
    let positions: Vec<_> = ["read 5", "read 3", "ignored"].iter().map(|text| answer.find(text).unwrap()).collect();
    assert!(positions.is_sorted(), "{answer}");
}

#[tokio::test]
async fn a_body_that_nobody_read_is_never_taken_for_a_request() {
    let server = start(Limits::default());
    let mut stream = server.connect().await;
    // The body looks like a request, and the answer comes before it is read.
    let body = SMUGGLED;
    let head = format!("POST /ignore HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "ignored").await;
    let _ = stream.write_all(body.as_bytes()).await;
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let rest = crate::harness::read_to_close(&mut stream).await;
    // Either the body was drained and the second request answered, or the connection was closed.
    assert!(rest.is_empty() || (statuses(&rest) == [200] && rest.contains("read 0")), "{rest}");
}

#[tokio::test]
async fn a_second_request_after_an_early_answer_is_served() {
    let server = start(Limits::default());
    let answer = server
        .exchange(
            b"POST /ignore HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello\
              GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        )
        .await;
    let statuses = statuses(&answer);
    assert!(statuses == [200, 200] || statuses == [200], "{answer}");
    assert!(!answer.contains("400"), "{answer}");
}
