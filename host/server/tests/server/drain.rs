//! The end of a server: what is in flight is finished, nothing new is taken (decision 16, P-U6).

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tollgate_server::{Drained, Limits};

use crate::harness::{HANG, read_to_close, read_until, start};

#[tokio::test]
async fn a_stream_in_flight_is_finished_and_then_closed() {
    let server = start(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut stream, "first \r\n").await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "ignored").await;

    let mut resting = server.connect().await;
    resting.write_all(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut resting, "ignored").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    idle.write_all(b"GET /ignore HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "ignored").await;

    server.drain.start();
    assert_eq!(read_to_close(&mut idle).await, "", "an idle connection is closed");
    assert_eq!(read_to_close(&mut resting).await, "", "and one that rests");
    server.release.add_permits(1);
    let rest = read_to_close(&mut stream).await;
    assert!(rest.contains("second") && rest.ends_with("0\r\n\r\n"), "{rest}");
    drop((stream, idle, resting));
    assert_eq!(server.drain.wait(HANG).await, Drained::Finished);
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

/// Who has begun to ask is answered; who has said nothing is not waited for.
#[tokio::test]
async fn a_head_that_is_whole_only_after_the_drain_began_is_answered() {
    let server = start(Limits::default());
    let (mut silent, mut half) = (server.connect().await, server.connect().await);
    half.write_all(b"GET /ignore HTTP/1.1\r\nho").await.unwrap();
    // It has been read when this one, which came later, is answered.
    server.assert_serves().await;
    server.drain.start();
    assert_eq!(read_to_close(&mut silent).await, "");
    half.write_all(b"st: a\r\n\r\n").await.unwrap();
    let answer = read_to_close(&mut half).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    drop((silent, half));
    assert_eq!(server.drain.wait(HANG).await, Drained::Finished);
}

#[tokio::test]
async fn what_outlives_the_grace_period_is_closed() {
    let server = start(Limits::default());
    let mut stream = server.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    while server.gauges.requests() == 0 {
        tokio::task::yield_now().await;
    }
    let drained = server.drain.wait(Duration::from_millis(100)).await;
    assert_eq!(drained, Drained::Aborted { tasks: 1 });
    assert_eq!(read_to_close(&mut stream).await, "");
    assert_eq!(server.gauges.requests(), 0);
}
