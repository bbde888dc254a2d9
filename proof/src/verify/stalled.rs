//! Streams that nobody reads, beside streams that are read (P-L4).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tollgate_tests::{Gateway, Place};

use super::attack::Attack;
use super::checks::Checks;
use super::load::{LEVEL, settles};
use super::process::Process;
use super::wire::{CHAT, JSON, Wire, chat_body};
use crate::report::Found;
use crate::rows::Here;
use crate::stats::percentile;

/// What of a stream that is not read may lie in its client's receive buffer.
const UNREAD: u32 = 4 * 1024;
/// Streams that are read.
const READ: usize = 8;
/// Stalled streams opened in a second.
const PER_S: u64 = 50;

/// Streams that are read.
struct Readers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<Vec<f64>>>,
}

impl Readers {
    fn start(wire: &Wire) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..READ {
            tasks.spawn(read(wire.clone(), Arc::clone(&stop)));
        }
        Readers { stop, tasks }
    }

    /// The gaps between what came of each stream, in milliseconds.
    async fn finish(mut self) -> anyhow::Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut gaps = Vec::new();
        while let Some(more) = self.tasks.join_next().await {
            gaps.extend(more??);
        }
        Ok(gaps)
    }

    async fn run_for(wire: &Wire, time: Duration) -> anyhow::Result<Vec<f64>> {
        let readers = Self::start(wire);
        sleep(time).await;
        readers.finish().await
    }
}

async fn read(wire: Wire, stop: Arc<AtomicBool>) -> anyhow::Result<Vec<f64>> {
    let mut body = wire.http().await?.stream("still", "forever", Value::Null).await?;
    let (mut gaps, mut last) = (Vec::new(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        body.frame().await.context("a stream that is read ended")??;
        let before = std::mem::replace(&mut last, Instant::now());
        gaps.push((last - before).as_secs_f64() * 1e3);
    }
    Ok(gaps)
}

/// Opens a stream and never reads of it; it is held until `until`, or until the gateway closes it.
async fn stall(wire: Wire, source: Ipv4Addr, until: Instant) -> anyhow::Result<()> {
    let mut http = wire.narrow_http_from(source, UNREAD).await?;
    // What is told of each token fills the buffers soon: the gateway closes a stalled stream after 30 s.
    let asked = chat_body("still", "forever", json!({ "stream": true, "logprobs": true, "top_logprobs": 20 }));
    // It is either open and unread, or waits for a sequence.
    let body = timeout_at(until, http.open("POST", CHAT, &[JSON], &asked)).await;
    tokio::time::sleep_until(until).await;
    drop(body);
    Ok(())
}

/// The most rows that the model had parked, looked at while `during` goes on.
async fn most_parked<T>(gateway: &Gateway, during: impl Future<Output = T>) -> (T, u64) {
    let mut during = std::pin::pin!(during);
    let mut most = 0;
    loop {
        tokio::select! {
            done = &mut during => return (done, most),
            () = sleep(Duration::from_secs(1)) => {
                let models = gateway.admin(&["models"]).await;
                let still = models.as_array().and_then(|models| models.iter().find(|model| model["id"] == "still"));
                most = most.max(still.and_then(|model| model["parked"].as_u64()).unwrap_or(0));
            }
        }
    }
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (count, seconds) = here.pick((1_000_u64, 60), (60, 6));
    let place = Place::new();
    place.write("tollgate.toml", LEVEL);
    place.write(
        "listeners/main.toml",
        "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\n[limits]\nconnections_per_ip = 4000\n",
    );
    place.write(
        "models/still.toml",
        "backend = \"scripted\"\nsequences = 256\nqueue = 4096\ncontext_tokens = 1048576\n[scripted]\ntoken_us = 5000\n",
    );
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let alone = Readers::run_for(&wire, Duration::from_secs(here.pick(20, 3))).await?;
    let before = process.rss_kib()?;
    let (readers, attack) = (Readers::start(&wire), Attack::new()?);
    let until = Instant::now() + Duration::from_secs(seconds);
    let opening = async {
        let mut pace = interval(Duration::from_secs(1) / u32::try_from(PER_S).unwrap_or(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..count {
            pace.tick().await;
            let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number % 16).unwrap_or(0));
            attack.spawn(stall(wire.clone(), source, until));
        }
        tokio::time::sleep_until(until).await;
    };
    let (((), peak), parked) = {
        let (peaked, parked) = most_parked(&gateway, process.peak_kib(opening)).await;
        (peaked?, parked)
    };
    let beside = readers.finish().await?;
    drop(attack);
    let left = settles(&gateway, "still", Duration::from_secs(10)).await;
    let mut checks = Checks::default();
    checks.check(format!("{parked} of {count} stalled at once"), parked * 10 >= count * 8);
    let grown = peak.saturating_sub(before);
    checks.check(format!("RSS +{:.1} MiB", grown as f64 / 1024.0), grown <= 128 << 10);
    let (one, other) = (percentile(&alone, 0.99), percentile(&beside, 0.99));
    let line = format!(
        "p99 of the gap in {READ} streams that are read {other:.1} ms against {one:.1} ms alone ({:.2}x; p50 {:.1} and {:.1}, {} gaps)",
        other / one,
        percentile(&beside, 0.5),
        percentile(&alone, 0.5),
        beside.len()
    );
    checks.check(line, other < 2.0 * one);
    checks.check(format!("{left} sequences in use after them"), left == 0);
    checks.method("The scripted model, a token in 5 ms to each stream, 256 sequences; stalled clients with receive buffers of 4 KiB that ask for the log-probabilities of 20 tokens, opened at 50/s at low priority.");
    Ok(checks.found())
}
