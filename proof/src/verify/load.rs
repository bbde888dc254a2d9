//! Many clients, clients that leave, and an hour of all of it (P-L1, P-L3, P-L6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::{Gateway, Place};

use super::chance::Chance;
use super::checks::Checks;
use super::good::{Good, Mix};
use super::process::{Process, slope_kib_per_hour};
use super::wire::{CHAT, JSON, Wire, chat_body};
use crate::report::Found;
use crate::rows::Here;

/// Warnings alone.
pub(super) const LEVEL: &str = "[log]\nlevel = \"warn\"\n";

fn place() -> Place {
    let place = Place::new();
    place.write("tollgate.toml", &format!("{LEVEL}[reload]\npoll_s = 1\ndebounce_ms = 20\n"));
    place.write("models/paced.toml", "backend = \"scripted\"\nsequences = 64\nqueue = 4096\n[scripted]\ntoken_us = 10000\n");
    place
}

/// What a model has under way: waiting, running and parked together.
async fn busy(gateway: &Gateway, model: &str) -> u64 {
    let models = gateway.admin(&["models"]).await;
    let found =
        models.as_array().and_then(|models| models.iter().find(|entry| entry["id"] == model)).cloned().unwrap_or_default();
    ["waiting", "running", "parked"].iter().map(|name| found[*name].as_u64().unwrap_or(0)).sum()
}

/// Waits until a model has nothing under way; what it has at the end.
pub(super) async fn settles(gateway: &Gateway, model: &str, patience: Duration) -> u64 {
    let end = Instant::now() + patience;
    loop {
        let left = busy(gateway, model).await;
        if left == 0 || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// P-L1, the number of the design: a hundred clients of the demo model on its default settings, each asking again at once.
pub(crate) async fn clients(here: Here) -> anyhow::Result<Found> {
    let seconds = here.pick(600, 15);
    let place = place();
    place.write("models/demo.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\n");
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..100_u64 {
        let (wire, stop) = (wire.clone(), Arc::clone(&stop));
        tasks.spawn(async move {
            let (mut answered, mut wrong, mut longest) = (0_u64, Vec::new(), Duration::ZERO);
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                asked += 1;
                let more = json!({ "max_tokens": 32, "seed": number });
                let body = chat_body("demo", &format!("Question {asked} of client {number}: what is a gateway?"), more);
                let asking = async {
                    let mut http = wire.http().await?;
                    let (status, _, body) = http.open("POST", CHAT, &[JSON], &body).await?;
                    let text = body.collect().await?.to_bytes();
                    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&text));
                    anyhow::Ok(())
                };
                match timeout(Duration::from_secs(300), asking).await.context("no answer in 300 s").and_then(|result| result) {
                    Ok(()) => answered += 1,
                    Err(error) => wrong.push(format!("{error:#}")),
                }
                longest = longest.max(began.elapsed());
            }
            (answered, wrong, longest)
        });
    }
    sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut answered, mut wrong, mut longest) = (0, Vec::new(), Duration::ZERO);
    while let Some(part) = tasks.join_next().await {
        let (a, b, c) = part?;
        answered += a;
        wrong.extend(b);
        longest = longest.max(c);
    }
    let mut checks = Checks::default();
    checks.check(
        format!("100 clients for {seconds} s: {answered} answered, {} not", wrong.len()),
        wrong.is_empty() && answered >= 100,
    );
    checks.state(format!("longest wait {:.1} s", longest.as_secs_f64()));
    checks.sample("wrong", json!(wrong.iter().take(10).collect::<Vec<_>>()));
    Ok(checks.found())
}

/// P-L3: calls that are given up, then one that is not; and clients that leave at random moments.
pub(crate) async fn leavers(here: Here) -> anyhow::Result<Found> {
    let (cancels, disconnects) = here.pick((200, 10_000), (40, 300));
    let place = place();
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    wire.chat("paced", "say warm", Value::Null).await?;
    let (files, threads) = (process.descriptors()?, process.threads()?);
    let mut tasks = JoinSet::new();
    for _ in 0..cancels {
        let wire = wire.clone();
        tasks.spawn(async move {
            let _ = timeout(Duration::from_millis(500), wire.chat("paced", "forever", json!({ "max_tokens": 10_000 }))).await;
        });
    }
    while tasks.join_next().await.is_some() {}
    let began = Instant::now();
    let last = wire.chat("paced", "say last", Value::Null).await?;
    let last_took = began.elapsed();
    let left = settles(&gateway, "paced", Duration::from_secs(5)).await;
    let mut checks = Checks::default();
    let is_answered = last.status.is_success() && last_took < Duration::from_secs(5);
    checks.check(format!("{cancels} cancelled; the next answered after {:.2} s", last_took.as_secs_f64()), is_answered);
    checks.check(format!("{left} sequences in use after them"), left == 0);

    let mut tasks = JoinSet::new();
    for worker in 0..32_u64 {
        let wire = wire.clone();
        tasks.spawn(async move {
            let mut chance = Chance(worker);
            for _ in 0..disconnects / 32 + 1 {
                let wait = Duration::from_millis(chance.next() % 120);
                let _ = timeout(wait, wire.chat("paced", "forever", json!({ "max_tokens": 1_000 }))).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let left = settles(&gateway, "paced", Duration::from_secs(10)).await;
    let status = gateway.admin(&["status"]).await;
    sleep(Duration::from_secs(2)).await;
    let (files_after, threads_after) = (process.descriptors()?, process.threads()?);
    let requests = status["listeners"][0]["requests"].as_u64().unwrap_or(u64::MAX);
    let is_free = status["plugin_slots"]["free"] == status["plugin_slots"]["total"];
    let line = format!(
        "{disconnects} random disconnects: {left} sequences and {requests} requests left, all plugin slots free: {is_free}"
    );
    checks.check(line, left == 0 && requests == 0 && is_free);
    let line = format!("descriptors {files} before, {files_after} after; threads {threads}, {threads_after}");
    checks.check(line, files_after <= files + 4 && threads_after <= threads + 4);
    Ok(checks.found())
}

/// P-L6: an hour at a steady pace with reloads, a plugin on the route, and one request in a hundred that fails on purpose.
pub(crate) async fn soak(here: Here) -> anyhow::Result<Found> {
    let (seconds, rate) = here.pick((3_600_u64, 300), (30, 100));
    let place = place();
    place.plugin("probe", "probe", "grants = [\"log\"]\n");
    place.write("routes/chat.toml", "plugins = [\"probe\"]\n");
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let good = Good::start(&wire, rate, Mix::Mixed);
    let (began, mut points, mut reloads, mut faults) = (Instant::now(), Vec::new(), 0, 0_u64);
    let (mut files, mut threads) = (Vec::new(), Vec::new());
    while began.elapsed().as_secs() < seconds {
        sleep(Duration::from_secs(here.pick(10, 2))).await;
        for _ in 0..rate / 10 {
            let answer = wire.chat("scripted", if faults % 2 == 0 { "trap" } else { "refuse" }, Value::Null).await?;
            ensure!(answer.status.is_client_error() || answer.status.is_server_error(), "{}", answer.status);
            faults += 1;
        }
        if points.len() % 3 == 0 {
            reloads += 1;
            place.write("routes/chat.toml", &format!("plugins = [\"probe\"]\n[limits]\nmax_tokens = {}\n", 1_000 + reloads));
            let status = gateway.reload().await;
            ensure!(status["state"] == "ok", "{status}");
        }
        points.push((began.elapsed().as_secs_f64(), process.rss_kib()? as f64));
        files.push(process.descriptors()?);
        threads.push(process.threads()?);
    }
    let tally = good.finish().await;
    // The first half warms pools and arenas; the second has to be flat.
    let slope = slope_kib_per_hour(&points[points.len() / 2..]) / 1024.0;
    let range = |values: &[u64]| (values.iter().min().copied().unwrap_or(0), values.iter().max().copied().unwrap_or(0));
    let mut checks = Checks::default();
    checks.state(format!("{seconds} s at {rate}/s, {reloads} reloads, {faults} faults on purpose"));
    checks.check(format!("{} failed of {} good requests", tally.failed, tally.count()), tally.failed == 0);
    checks.check(format!("RSS slope of the second half {slope:+.2} MiB/h"), here.is_quick || slope < 1.0);
    let (half, threads_half) = (range(&files[files.len() / 2..]), range(&threads[threads.len() / 2..]));
    checks.check(
        format!("descriptors {} to {}, threads {} to {}", half.0, half.1, threads_half.0, threads_half.1),
        half.1 <= half.0 + 64 && threads_half.1 <= threads_half.0 + 16,
    );
    checks.state(tally.shape());
    checks.method("An hour here in the place of the promise's 24; the slope is by least squares over the second half.");
    checks.sample("rss_kib", json!(points));
    checks.sample("good", tally.json());
    Ok(checks.found())
}
