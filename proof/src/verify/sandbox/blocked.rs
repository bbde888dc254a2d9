//! P-W2: calls to the host that do not come back by themselves, and callers that leave at any moment.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::wire::Wire;
use super::guest::{Guest, Import};
use super::inside::{Inside, context, request};
use super::{instances_left, place};
use crate::report::Found;
use crate::rows::Here;

const IMPORTS: [Import; 3] = [
    Import {
        interface: "wasi:clocks/monotonic-clock@0.2.0",
        function: "subscribe-duration",
        kind: "$after (param i64) (result i32)",
    },
    Import { interface: "wasi:io/poll@0.2.0", function: "[method]pollable.block", kind: "$block (param i32)" },
    Import { interface: "wasi:io/poll@0.2.0", function: "[resource-drop]pollable", kind: "$drop (param i32)" },
];
/// An hour, in one call.
const SLEEPS: &str = "(call $block (call $after (i64.const 3_600_000_000_000))) (i32.const 1024)";
/// A thousandth of a second, again and again.
const NAPS: &str =
    "(loop $again (local.set $a (call $after (i64.const 1_000_000))) (call $block (local.get $a)) (call $drop (local.get $a))
    (br $again)) unreachable";

/// What a request's calls to the host may take together here, and what may go by until it is released.
const HOST_TIME: Duration = Duration::from_millis(500);
const OVER: Duration = Duration::from_millis(50);
const CLIENTS: usize = 8;

fn guest(name: &'static str, filter: &'static str) -> Guest<'static> {
    Guest { name, imports: &IMPORTS, filter, ..Guest::default() }
}

/// Calls that wait until they are ended: how long each took, and answers that are wrong.
async fn waits(wire: Wire, model: &'static str, count: usize) -> anyhow::Result<(Vec<Duration>, Vec<String>)> {
    let (mut http, mut times, mut wrong) = (wire.http().await?, Vec::new(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        let answer = http.chat(model, "a text", Value::Null).await?;
        times.push(began.elapsed());
        if answer.status != 503 || answer.code() != "plugin_failed" {
            wrong.push(answer.text());
        }
    }
    Ok((times, wrong))
}

/// Callers that leave after up to 30 ms.
async fn leaves(wire: Wire, seed: u64, count: usize) -> anyhow::Result<()> {
    let mut chance = Chance(seed);
    for _ in 0..count {
        let mut http = wire.http().await?;
        let model = *chance.pick(&["sleeps", "naps"]);
        let wait = Duration::from_micros(chance.next() % 30_000);
        // The end of the time is the caller's leaving.
        let _ = timeout(wait, http.chat(model, "a text", Value::Null)).await;
    }
    Ok(())
}

/// Drops a call after each number of polls up to 24, again and again; how many calls, and the most polls that one lived to.
async fn drops(count: usize) -> anyhow::Result<(usize, usize)> {
    let inside = Inside::new(&guest("naps", NAPS), 4).await?;
    let mut most = 0;
    for number in 0..count {
        let polls = number % 24 + 1;
        let call = async {
            let mut instance = inside.start().await??;
            instance.filter_prompt(context(), request("a text")).await?;
            anyhow::Ok(())
        };
        let mut call = pin!(call);
        let mut seen = 0;
        let left = poll_fn(|cx| {
            seen += 1;
            match call.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending if seen >= polls => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let ended = timeout(Duration::from_secs(30), left).await.context("a call is neither polled nor done")?;
        ensure!(ended.is_none(), "it ended by itself: {ended:?}");
        most = most.max(seen);
    }
    ensure!(inside.host.slots().free() == 4, "{} of 4 slots are free", inside.host.slots().free());
    Ok((count, most))
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (each, leavers, dropped) = here.pick((100, 50_000, 20_000), (3, 500, 500));
    let place = place();
    let limits = format!("[limits]\nwall_ms = {}", HOST_TIME.as_millis());
    guest("sleeps", SLEEPS).install(&place, &limits)?;
    guest("naps", NAPS).install(&place, &limits)?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let mut checks = Checks::default();
    for model in ["sleeps", "naps"] {
        let (mut tasks, mut times, mut wrong) = (JoinSet::new(), Vec::new(), Vec::new());
        for _ in 0..CLIENTS {
            tasks.spawn(waits(wire.clone(), model, each));
        }
        while let Some(part) = tasks.join_next().await {
            let (a, b) = part??;
            times.extend(a);
            wrong.extend(b);
        }
        let most = times.iter().max().copied().unwrap_or_default();
        let early = times.iter().filter(|time| **time < HOST_TIME).count();
        let line = format!(
            "{} calls that {}: longest {:.0} ms of {} + {}, {} wrong answers, {early} too early",
            times.len(),
            if model == "sleeps" { "sleep for an hour" } else { "nap again and again" },
            most.as_secs_f64() * 1e3,
            HOST_TIME.as_millis(),
            OVER.as_millis(),
            wrong.len()
        );
        checks.check(line, most <= HOST_TIME + OVER && wrong.is_empty() && early == 0);
        checks.sample(model, json!({ "wrong": wrong.iter().take(5).collect::<Vec<_>>() }));
    }
    let is_end = |line: &&str| line.contains("plugin failed") && line.contains(&super::for_reason("host-time"));
    let ended = place.log().lines().filter(is_end).count();
    let calls = 2 * CLIENTS * each;
    checks.check(format!("{ended} ends logged for {calls} calls"), ended == calls);
    let mut tasks = JoinSet::new();
    for seed in 0..32 {
        tasks.spawn(leaves(wire.clone(), seed, leavers / 32));
    }
    while let Some(part) = tasks.join_next().await {
        part??;
    }
    let left = instances_left(&gateway, HOST_TIME + Duration::from_secs(2)).await;
    let requests = gateway.admin(&["status"]).await["listeners"][0]["requests"].as_u64().unwrap_or(u64::MAX);
    checks
        .check(format!("{leavers} callers left meanwhile: {left} instances and {requests} requests left"), left + requests == 0);
    let (count, most) = drops(dropped).await?;
    checks.check(format!("{count} calls dropped after 1 to {most} polls: 0 slots kept"), most == 24);
    checks.method("Waiting is by WASI's clock, the only import that can wait as long as a guest likes. The drops at each poll are made in a plugin host within this process.");
    Ok(checks.found())
}
