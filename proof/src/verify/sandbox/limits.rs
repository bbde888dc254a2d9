//! P-W1: guests that want more than they may have, one after another beside good traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;
use tollgate_tests::Place;

use super::super::attack::Attack;
use super::super::checks::Checks;
use super::super::good::{Good, Mix, Tally};
use super::super::process::Process;
use super::super::wire::{Http, Wire};
use super::hostile::{CLASSES, Class};
use super::{instances_left, memory_after, place};
use crate::report::Found;
use crate::rows::Here;

/// CPU time that a call may have, and what may go by until it is ended.
const CPU_MS: f64 = 50.0;
const OVER_MS: f64 = 10.0;
/// Text that a request's plugins may log, and what a line has besides its text.
const LOG_BYTES: u64 = 64 << 10;
/// Good requests from which on a class's own p99 is worth comparing.
const ENOUGH: u64 = 1_000;

/// What became of the calls of one class.
#[derive(Debug, Default)]
struct Calls {
    count: u64,
    /// CPU time of the whole gateway for each, in milliseconds, while nothing else was asked of it.
    cpu_ms: Vec<f64>,
    /// By the caller's clock beside good traffic, in milliseconds.
    wall_ms: Vec<f64>,
    /// Answers that are not the error that callers are to get.
    wrong: Vec<String>,
    log_bytes: u64,
    /// What good traffic felt meanwhile.
    others: Value,
}

/// One call; what is wrong with its answer.
async fn call(http: &mut Http, class: Class) -> anyhow::Result<Option<String>> {
    let answer = http.chat(class.name, "a text that is of no interest", Value::Null).await?;
    let is_right = answer.status == 503 && answer.code() == "plugin_failed" && !answer.header("retry-after").is_empty();
    let says_more = ["wasm", "trap", class.name].iter().any(|word| answer.text().contains(word));
    Ok((!is_right || says_more).then(|| format!("{}: {} {}", class.name, answer.status, answer.text())))
}

/// Calls while nothing else happens: the CPU time of the gateway is theirs.
async fn alone(wire: &Wire, process: Process, class: Class, count: u64) -> anyhow::Result<Vec<f64>> {
    let mut http = wire.http().await?;
    let mut times = Vec::new();
    for _ in 0..count {
        let before = process.cpu_ns()?;
        let wrong = call(&mut http, class).await?;
        ensure!(wrong.is_none(), "alone: {wrong:?}");
        times.push(process.cpu_ns()?.saturating_sub(before) as f64 / 1e6);
    }
    Ok(times)
}

/// Calls beside good traffic.
async fn beside(wire: Wire, class: Class, count: u64) -> anyhow::Result<(Vec<f64>, Vec<String>)> {
    let mut http = wire.http().await?;
    let (mut times, mut wrong) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let began = Instant::now();
        wrong.extend(call(&mut http, class).await?);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok((times, wrong))
}

fn most(times: &[f64]) -> f64 {
    times.iter().copied().fold(0.0, f64::max)
}

fn installed() -> anyhow::Result<Place> {
    let place = place();
    for class in CLASSES {
        class.guest().install(&place, class.grants())?;
    }
    Ok(place)
}

/// Bytes of the log's lines that `name` wrote by itself.
fn said(log: &str, name: &str) -> u64 {
    let mark = super::of_plugin(name);
    let own = |line: &&str| line.contains(&mark) && !line.contains("plugin failed") && !line.contains("lines dropped");
    log.lines().filter(own).map(|line| line.len() as u64 + 1).sum()
}

/// Every class beside good traffic, `count` calls each: what that felt, and its p99 beside the worst class.
async fn attack(
    wire: &Wire,
    (count, per_s): (u64, u32),
    calls: &mut BTreeMap<&str, Calls>,
) -> anyhow::Result<(Tally, (f64, &'static str))> {
    let attack = Attack::new()?;
    let (mut under, mut worst) = (Tally::default(), (0.0, ""));
    // Those that are ended at once are too short for a p99 of their own.
    let (long, short) = CLASSES.iter().copied().partition::<Vec<_>, _>(|class| class.reason == "cpu");
    for window in long.chunks(1).chain([short.as_slice()]) {
        let good = Good::start(wire, per_s, Mix::Mixed);
        for class in window {
            let (wall_ms, wrong) = attack.spawn(beside(wire.clone(), *class, count)).await??;
            let entry = calls.get_mut(class.name).context("it was called alone")?;
            entry.count += count;
            (entry.wall_ms, entry.wrong) = (wall_ms, wrong);
        }
        let tally = good.finish().await;
        if let [class] = window {
            if tally.count() >= ENOUGH && tally.quantile_ms(0.99) > worst.0 {
                worst = (tally.quantile_ms(0.99), class.name);
            }
            calls.entry(class.name).or_default().others = tally.json();
        }
        under.add(tally);
    }
    under.sort();
    Ok((under, worst))
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (count, single, per_s) = here.pick((1_000, 20, 500), (20, 3, 100));
    let place = installed()?;
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let before_all = Good::run_for(&wire, per_s, Mix::Mixed, Duration::from_secs(here.pick(30, 5))).await;
    let mut calls = BTreeMap::<&str, Calls>::new();
    for class in CLASSES {
        let cpu_ms = alone(&wire, process, *class, single).await?;
        calls.insert(class.name, Calls { count: single, cpu_ms, ..Calls::default() });
    }
    let before = process.rss_kib()?;
    let (under, worst) = attack(&wire, (count, per_s), &mut calls).await?;
    let left = instances_left(&gateway, Duration::from_secs(10)).await;
    let after = memory_after(process, before).await?;
    let log = place.log();
    for class in CLASSES {
        if let Some(entry) = calls.get_mut(class.name) {
            entry.log_bytes = said(&log, class.name);
        }
    }
    let mut checks = Checks::default();
    judge(&calls, &log, &mut checks);
    super::super::compare(&mut checks, &before_all, &under, 2.0);
    if !worst.1.is_empty() {
        let ratio = worst.0 / before_all.quantile_ms(0.99).max(0.001);
        checks.check(format!("beside the worst class ({}) p99 {:.1} ms ({ratio:.2}x)", worst.1, worst.0), ratio < 2.0);
    }
    let back = after as f64 / before.max(1) as f64;
    checks.check(format!("memory {:.0} MiB before, {:.0} after ({back:.3}x)", mib(before), mib(after)), back <= 1.05);
    checks.check(format!("{left} instances left"), left == 0);
    checks.method("The CPU time of a call is that of the whole gateway while nothing else is asked of it, by the kernel's count; the calls beside good traffic come one after another.");
    Ok(checks.found())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn judge(calls: &BTreeMap<&str, Calls>, log: &str, checks: &mut Checks) {
    let (mut total, mut wrong, mut unlogged, mut longest, mut wordy) = (0, Vec::new(), Vec::new(), (0.0, ""), (0, ""));
    for class in CLASSES {
        let Some(found) = calls.get(class.name) else { continue };
        total += found.count;
        wrong.extend(found.wrong.iter().cloned());
        let mark = super::of_plugin(class.name);
        let failures = log.lines().filter(|line| line.contains("plugin failed") && line.contains(&mark)).collect::<Vec<_>>();
        let reason = super::for_reason(class.reason);
        let as_said = failures.iter().filter(|line| line.contains(&reason)).count() as u64;
        if failures.len() as u64 != found.count || as_said != found.count {
            let sample = failures.first().copied().unwrap_or("no line");
            unlogged.push(format!(
                "{}: {} lines, {as_said} with `{}`, for {} calls: {sample}",
                class.name,
                failures.len(),
                class.reason,
                found.count
            ));
        }
        let cpu = most(&found.cpu_ms);
        if cpu > longest.0 {
            longest = (cpu, class.name);
        }
        let each = found.log_bytes / found.count.max(1);
        if each > wordy.0 {
            wordy = (each, class.name);
        }
    }
    checks.check(format!("{total} calls of {} guests: {} wrong answers", CLASSES.len(), wrong.len()), wrong.is_empty());
    checks.check(format!("{} guests not logged once a call with their reason", unlogged.len()), unlogged.is_empty());
    let line = format!("longest {:.1} ms of CPU ({}), of {CPU_MS} + {OVER_MS}", longest.0, longest.1);
    checks.check(line, longest.0 <= CPU_MS + OVER_MS);
    let escapes = log.bytes().filter(|byte| *byte != b'\n' && byte.is_ascii_control()).count();
    let line = format!(
        "most log text of a call {:.1} KiB ({}), {escapes} control characters in the log",
        wordy.0 as f64 / 1024.0,
        wordy.1
    );
    checks.check(line, wordy.0 <= LOG_BYTES && escapes == 0);
    let each = CLASSES.iter().filter_map(|class| Some((class, calls.get(class.name)?))).map(|(class, found)| {
        let figures = json!({ "class": class.number, "cpu_ms_most": most(&found.cpu_ms), "wall_ms_most": most(&found.wall_ms), "calls": found.count,
            "log_bytes": found.log_bytes, "others": found.others });
        (class.name.to_owned(), figures)
    });
    checks.sample("classes", Value::Object(each.collect()));
    checks.sample("wrong", json!(wrong.iter().take(20).collect::<Vec<_>>()));
    checks.sample("unlogged", json!(unlogged));
}
