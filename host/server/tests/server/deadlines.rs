//! Clients that are slow, silent or deaf (P-E1, P-L4).

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate_server::Limits;

use crate::harness::{read_to_close, read_until, short, start, statuses};

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed() {
    let server = start(short());
    assert_eq!(server.exchange(b"").await, "");
    server.assert_settles().await;
}

#[tokio::test]
async fn a_client_that_sends_half_a_head_is_closed() {
    let server = start(short());
    assert_eq!(server.exchange(b"GET / HTTP/1.1\r\nhost: a\r\nx-").await, "");
    server.assert_settles().await;
}

#[tokio::test]
async fn a_client_that_drips_a_head_is_closed() {
    let server = start(short());
    let (mut read, mut write) = server.connect().await.into_split();
    let dripping = async {
        let mut line: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n";
        while write.write_all(line).await.is_ok() {
            line = b"x: y\r\n";
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (closed, ()) = tokio::join!(read_to_close(&mut read), dripping);
    // Too late or too large, whichever came first; never served.
    assert!(closed.is_empty() || statuses(&closed) == [431], "{closed}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_request() {
    let server = start(short());
    let answer = server.exchange(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(statuses(&answer), [200]);
    server.assert_settles().await;
}

/// A connection that says nothing for a second gives up its buffers, and is served as before when it goes on.
#[tokio::test]
async fn a_connection_that_rested_goes_on() {
    let server = start(Limits::default());
    let mut stream = server.connect().await;
    let whole = b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n";
    for split in [whole.len(), 20, 1] {
        let (before, after) = whole.split_at(split);
        stream.write_all(before).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        stream.write_all(after).await.unwrap();
        read_until(&mut stream, "ignored").await;
        tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    }
    // Two at once after a rest, the second one refused.
    stream.write_all(&[whole, b"GET /ignore HTTP/1.1\r\n\r\n".as_slice()].concat()).await.unwrap();
    assert_eq!(statuses(&read_to_close(&mut stream).await), [200, 400]);
    server.assert_settles().await;
}

#[tokio::test]
async fn a_request_in_flight_is_not_idle() {
    let server = start(Limits { idle: std::time::Duration::from_millis(50), ..Limits::default() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "first \r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    server.release.add_permits(1);
    let rest = read_until(&mut stream, "0\r\n\r\n").await;
    assert!(rest.contains("second"), "{rest}");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let server = start(short());
    let answer = server.exchange(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf").await;
    assert_eq!(statuses(&answer), [408]);
    server.assert_settles().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed() {
    // P-L4.
    let server = start(short());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    while server.gauges.requests() == 0 {
        tokio::task::yield_now().await;
    }
    server.assert_settles().await;
    // The socket is still open on this side, and what the server managed to send ends.
    let mut sink = Vec::new();
    let _ = stream.take(1 << 30).read_to_end(&mut sink).await;
    assert!(sink.len() < 64 << 20, "{} bytes were sent to a client that read nothing", sink.len());
    server.assert_serves().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    // P-L3.
    let server = start(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\nGET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    while server.gauges.requests() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    server.assert_settles().await;
}

#[tokio::test]
async fn one_address_has_its_share_of_connections() {
    let server = start(Limits { connections_per_ip: 2, ..Limits::default() });
    let mut first = server.connect().await;
    first.write_all(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut first, "ignored").await;
    let mut second = server.connect().await;
    second.write_all(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut second, "ignored").await;

    assert_eq!(server.exchange(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await, "");
    assert_eq!(server.gauges.refused(), 1);
    drop((first, second));
    server.assert_settles().await;
    server.assert_serves().await;
}
