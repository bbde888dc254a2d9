//! What is too large is refused before it is buffered (P-E5).

use tokio::io::AsyncWriteExt as _;
use tollgate_server::Limits;

use crate::harness::{read_until, start, statuses};

#[tokio::test]
async fn heads_have_a_limit() {
    let server = start(Limits::default());
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(9_000));
    assert_eq!(statuses(&server.exchange(long_target.as_bytes()).await), [414]);
    let large_field = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    assert_eq!(statuses(&server.exchange(large_field.as_bytes()).await), [431]);
    let many_fields = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert_eq!(statuses(&server.exchange(many_fields.as_bytes()).await), [431]);
    assert_eq!(server.gauges.rejected().map(|(_, count)| count).sum::<u64>(), 3);
    server.assert_serves().await;
}

#[tokio::test]
async fn an_announced_body_is_refused_before_a_byte_of_it() {
    let server = start(Limits { body_bytes: 1000, ..Limits::default() });
    let mut stream = server.connect().await;
    let head = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let answer = crate::harness::read_to_close(&mut stream).await;
    assert_eq!(statuses(&answer), [413], "{answer}");
}

#[tokio::test]
async fn an_unannounced_body_is_refused_when_it_grows_too_large() {
    let server = start(Limits { body_bytes: 1000, ..Limits::default() });
    let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
    let request = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(11)
    );
    let answer = server.exchange(request.as_bytes()).await;
    assert_eq!(statuses(&answer), [413], "{answer}");
}

#[tokio::test]
async fn a_body_at_the_limit_is_read() {
    let server = start(Limits { body_bytes: 1000, ..Limits::default() });
    let mut stream = server.connect().await;
    let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(1000));
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "read 1000").await;
}
