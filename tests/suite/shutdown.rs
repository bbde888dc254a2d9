//! The end: streams finish, nobody new is let in, and every order of signals leads there (P-U6).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tollgate_tests::{Gateway, Place};

use crate::support::{DEADLINE, LONG, Stream, port, until};

/// A model with a token every 10 ms, and so long to finish as `grace_s` says.
fn place(grace_s: u32) -> Place {
    let place = Place::new();
    place.write("tollgate.toml", &format!("[shutdown]\ngrace_s = {grace_s}\n"));
    place.write("models/paced.toml", "backend = \"scripted\"\n[scripted]\ntoken_us = 10000\n");
    place
}

async fn refuses_connections(gateway: &Gateway) {
    let port = port(gateway);
    until("connections are refused", || async move { TcpStream::connect(("127.0.0.1", port)).await.is_err() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_finishes_and_nobody_new_is_let_in() {
    let place = place(30);
    let mut gateway = place.start().await;
    let expected = (1..=60).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    let mut stream = Stream::open(&gateway.client, "paced", "count 60", Value::Null).await;
    let first = stream.next().await.unwrap();
    assert!(first.contains("assistant"), "{first}");

    gateway.signal("TERM");
    refuses_connections(&gateway).await;
    // The stream was not over yet when the door closed.
    let told = stream.rest().await;
    assert!(told.is_done);
    assert_eq!(told.content, expected);
    assert_eq!(told.chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(!place.data().join("admin.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_is_ended_after_the_grace_period() {
    let place = place(1);
    let mut gateway = place.start().await;
    let mut stream = Stream::open(&gateway.client, "paced", "forever", json!({ "max_tokens": LONG })).await;
    stream.next().await.unwrap();
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_ends_at_once() {
    // The grace period is longer than this test waits, so that it is not what ends the process.
    let place = place(3_600);
    let mut gateway = place.start().await;
    let mut stream = Stream::open(&gateway.client, "paced", "forever", json!({ "max_tokens": LONG })).await;
    stream.next().await.unwrap();
    gateway.signal("INT");
    refuses_connections(&gateway).await;
    stream.next().await.expect("the stream goes on while the gateway drains");
    gateway.signal("INT");
    assert_eq!(gateway.ended().await.code(), Some(130));
}

/// The next thing that a service manager is told.
async fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = timeout(DEADLINE, manager.recv(&mut buffer)).await.expect("it is told in time").unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_of_the_start_and_of_the_end() {
    let place = place(30);
    let manager = place.manager();
    let mut gateway = place.start().await;
    assert_eq!(told(&manager).await, format!("READY=1\nSTATUS=serving {}", gateway.url));
    gateway.signal("TERM");
    assert!(told(&manager).await.starts_with("STOPPING=1\n"));
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// SplitMix64, so that a storm that failed can be had again.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Storms against gateways with the same data, one after the other.
async fn storms(seed: u64, count: usize) {
    let place = place(1);
    let mut state = seed;
    for storm in 0..count {
        let mut gateway = place.start().await;
        let mut stream = Stream::open(&gateway.client, "paced", "forever", json!({ "max_tokens": LONG })).await;
        stream.next().await.unwrap();
        let mut sent = Vec::new();
        for _ in 0..chance(&mut state) % 8 {
            sent.push(["HUP", "TERM", "INT", "HUP"][usize::try_from(chance(&mut state) % 4).unwrap()]);
        }
        // One of them at least asks it to end.
        sent.push("TERM");
        for name in &sent {
            gateway.signal(name);
            // Signals that come together are one; both cases should occur.
            sleep(Duration::from_millis(chance(&mut state) % 3 * 5)).await;
        }
        let code = gateway.ended().await.code();
        let interrupts = sent.iter().filter(|name| **name == "INT").count();
        assert!(code == Some(0) || (code == Some(130) && interrupts >= 2), "seed {seed}, storm {storm}: {code:?} after {sent:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_storm_of_signals_ends() {
    let mut tasks = JoinSet::new();
    for seed in 1..=4 {
        tasks.spawn(storms(seed, 5));
    }
    tasks.join_all().await;
}
