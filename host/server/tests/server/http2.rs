//! HTTP/2 over TLS: good clients with the h2 crate, bad ones with bytes (P-E1 to P-E4, P-L4).

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tollgate_server::{Drained, Limits};

use crate::harness::{HANG, read_to_close, short};
use crate::tls::{Secured, start_tls};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

async fn client(secured: &Secured) -> SendRequest<Bytes> {
    let stream = secured.connect(&[b"h2"], "localhost").await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    // The connection belongs to the test's runtime and ends with it.
    #[allow(clippy::disallowed_methods, reason = "the connection ends with the test")]
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("https://localhost{path}")).body(()).unwrap()
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The head of `GET https://a/wait`, from the static table of HPACK and literals.
fn wait_head() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x41, 1, b'a', 0x44, 5];
    block.extend_from_slice(b"/wait");
    block
}

/// The error code of the server's GOAWAY, if one comes before the end.
async fn goaway(stream: &mut (impl AsyncRead + Unpin)) -> Option<u32> {
    let reading = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.ok()?;
            if head[3] == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    };
    tokio::time::timeout(HANG, reading).await.expect("the server says goodbye or closes")
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let secured = start_tls(Limits::default());
    let mut client = client(&secured).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        client = client.ready().await.unwrap();
        answers.push(client.send_request(get("/ignore"), true).unwrap().0);
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(secured.server.gauges.connections(), 1);
}

#[tokio::test]
async fn half_a_preface_is_closed() {
    // P-E1.
    let secured = start_tls(short());
    let whole = [PREFACE, EMPTY_SETTINGS].concat();
    for sent in [&PREFACE[..10], PREFACE, whole.as_slice()] {
        let mut stream = secured.connect(&[b"h2"], "localhost").await.unwrap();
        stream.write_all(sent).await.unwrap();
        read_to_close(&mut stream).await;
    }
    secured.server.assert_settles().await;
}

/// Streams that are opened and reset at once, `count` of them from the given one on.
fn resets(first: u32, count: u32) -> Vec<u8> {
    let ids = (first..first + count).map(|index| index * 2 + 1);
    // END_STREAM and END_HEADERS, then RST_STREAM with CANCEL.
    ids.flat_map(|id| [frame(1, 0x5, id, &wait_head()), frame(3, 0, id, &8_u32.to_be_bytes())].concat()).collect()
}

#[tokio::test]
async fn a_burst_of_resets_is_answered_with_goaway() {
    // P-E2.
    let secured = start_tls(Limits::default());
    let mut stream = secured.connect(&[b"h2"], "localhost").await.unwrap();
    stream.write_all(&[PREFACE, EMPTY_SETTINGS, &resets(0, 100)].concat()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(goaway(&mut stream).await, Some(ENHANCE_YOUR_CALM));
    drop(stream);
    secured.server.assert_settles().await;
}

#[tokio::test]
async fn ten_thousand_resets_leave_nothing() {
    // P-E2: the client writes on whatever it is told; the connection ends and nothing stays in flight.
    let secured = start_tls(Limits::default());
    let (mut read, mut write) = tokio::io::split(secured.connect(&[b"h2"], "localhost").await.unwrap());
    let sending = async {
        let _ = write.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await;
        for burst in 0..100 {
            if write.write_all(&resets(burst * 100, 100)).await.is_err() {
                break;
            }
        }
        let _ = write.flush().await;
    };
    let (code, ()) = tokio::join!(goaway(&mut read), sending);
    // There is none if the connection was reset under our writes.
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM || code == 0), "{code:?}");
    drop((read, write));
    secured.server.assert_settles().await;
    assert_eq!(secured.server.gauges.requests(), 0);
}

#[tokio::test]
async fn a_flood_of_pings_is_cut() {
    // P-E3: pings have to be answered, and ask for nothing.
    let secured = start_tls(Limits { h2_control_frames: 100, ..Limits::default() });
    let (mut read, mut write) = tokio::io::split(secured.connect(&[b"h2"], "localhost").await.unwrap());
    let pings = frame(6, 0, 0, &[0; 8]).repeat(1_000);
    let sending = async {
        let _ = write.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await;
        // It goes on until the server has had enough.
        while write.write_all(&pings).await.is_ok() && write.flush().await.is_ok() {}
    };
    let reading = async {
        let mut sink = Vec::new();
        let _ = read.read_to_end(&mut sink).await;
    };
    tokio::time::timeout(HANG, async { tokio::join!(sending, reading) }).await.expect("the connection ends");
    secured.server.assert_settles().await;
}

#[tokio::test]
async fn a_client_that_cancels_without_end_is_sent_away() {
    // P-E2, the slow form: every stream reaches the service before it is reset.
    let secured = start_tls(Limits { h2_cancelled_streams: 10, ..Limits::default() });
    let mut stream = secured.connect(&[b"h2"], "localhost").await.unwrap();
    stream.write_all(&[PREFACE, EMPTY_SETTINGS].concat()).await.unwrap();
    for index in 0..11_u32 {
        let id = index * 2 + 1;
        stream.write_all(&frame(1, 0x5, id, &wait_head())).await.unwrap();
        stream.flush().await.unwrap();
        while secured.server.gauges.requests() == 0 {
            tokio::task::yield_now().await;
        }
        stream.write_all(&frame(3, 0, id, &8_u32.to_be_bytes())).await.unwrap();
        stream.flush().await.unwrap();
        while secured.server.gauges.requests() > 0 {
            tokio::task::yield_now().await;
        }
    }
    // The verdict is looked at with the next sign of life.
    stream.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
    stream.flush().await.unwrap();
    assert!(goaway(&mut stream).await.is_some());
    secured.server.assert_settles().await;
}

#[tokio::test]
async fn a_stream_without_window_is_closed_and_the_others_go_on() {
    // P-L4 on HTTP/2: the body is never read, so its window stays used up.
    let secured = start_tls(Limits { idle: HANG, ..short() });
    let mut client = client(&secured).await;
    let (stalled, _) = client.send_request(get("/endless"), true).unwrap();
    let mut stalled = stalled.await.unwrap().into_body();
    let ended = async {
        // The bytes of the first window are there; their credit is never given back.
        while let Some(piece) = stalled.data().await {
            if piece.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, ended).await.expect("the stream is reset");
    drop(stalled);
    let (other, _) = client.send_request(get("/ignore"), true).unwrap();
    assert_eq!(other.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_that_name_two_hosts_are_refused() {
    // P-E4: what a proxy would turn into another request.
    let secured = start_tls(Limits::default());
    let mut client = client(&secured).await;
    let request = Request::builder().uri("https://localhost/ignore").header("host", "other").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_drain_sends_the_client_away_after_its_request() {
    let secured = start_tls(Limits::default());
    let mut client = client(&secured).await;
    let (answer, _) = client.send_request(get("/wait"), true).unwrap();
    while secured.server.gauges.requests() == 0 {
        tokio::task::yield_now().await;
    }
    secured.server.drain.start();
    secured.server.release.add_permits(1);
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    assert_eq!(secured.server.drain.wait(HANG).await, Drained::Finished);
}

/// A client that still sends must not lose the answer of a service that does not read: curl 7.88 did.
#[tokio::test]
async fn a_body_that_nobody_reads_does_not_close_its_stream() {
    let secured = start_tls(Limits { body_bytes: 1_000, ..Limits::default() });
    let post = |path: &str, length: Option<&str>| {
        let request = Request::builder().method("POST").uri(format!("https://localhost{path}"));
        length.into_iter().fold(request, |request, length| request.header("content-length", length)).body(()).unwrap()
    };
    // What the service ignores, what it does not read to its end, and what is refused before it.
    for (path, length, status) in [
        ("/ignore", None, StatusCode::OK),
        ("/read", None, StatusCode::PAYLOAD_TOO_LARGE),
        ("/read", Some("100000"), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let mut client = client(&secured).await;
        let (answer, mut body) = client.send_request(post(path, length), false).unwrap();
        body.send_data(Bytes::from(vec![b'x'; 2_000]), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{path}");
        // The answer is whole, and more than the stream's first window is still taken.
        body.send_data(Bytes::from(vec![b'x'; 97_999]), false).unwrap();
        body.reserve_capacity(1);
        std::future::poll_fn(|cx| body.poll_capacity(cx)).await.expect("the stream is open").unwrap();
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
    }
    // One that never ends is told that it need not go on.
    let mut client = client(&secured).await;
    let (answer, mut body) = client.send_request(post("/ignore", None), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    let reset = tokio::time::timeout(HANG, std::future::poll_fn(|cx| body.poll_reset(cx))).await.expect("it is reset");
    assert_eq!(reset.unwrap(), h2::Reason::NO_ERROR);
}
