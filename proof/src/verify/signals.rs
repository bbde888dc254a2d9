//! Storms of signals and changes while the gateway runs and ends: it always ends in time, and a reload never hangs it (P-U6).

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tollgate_tests::{Gateway, Place};

use super::chance::Chance;
use super::checks::Checks;
use super::wire::Wire;
use crate::report::Found;
use crate::rows::Here;

const GRACE_S: u64 = 1;
/// P-U6: the end comes within the grace period and this.
const OVER: Duration = Duration::from_secs(5);
/// Those that mean something, more often, and those that must not matter.
const SIGNALS: [&str; 12] = ["HUP", "TERM", "INT", "HUP", "TERM", "INT", "PIPE", "CONT", "WINCH", "CHLD", "URG", "HUP"];

fn place() -> Place {
    let place = Place::new();
    place.write(
        "tollgate.toml",
        &format!("[log]\nlevel = \"warn\"\n[shutdown]\ngrace_s = {GRACE_S}\n[reload]\ndebounce_ms = 0\n"),
    );
    place.write("models/paced.toml", "backend = \"scripted\"\n[scripted]\ntoken_us = 10000\n");
    place
}

/// One storm: how long the end took after the first signal that asks for it.
async fn storm(place: &Place, chance: &mut Chance) -> anyhow::Result<Duration> {
    let mut gateway = place.start().await;
    let wire = Wire::new(place, &gateway)?;
    let _stream = wire.http().await?.stream("paced", "forever", json!({ "max_tokens": 100_000 })).await?;
    // An answer that was whole before the storm stays whole: the client has it.
    let before = wire.chat("scripted", "say kept", json!({})).await?;
    ensure!(before.content() == "kept", "{}", before.text());
    let mut sent = Vec::new();
    let mut asked = None;
    for _ in 0..chance.below(10) {
        let signal = *chance.pick(&SIGNALS);
        if chance.below(4) == 0 {
            place.write("routes/chat.toml", &format!("plugins = []\n[limits]\nmax_tokens = {}\n", 1_000 + chance.below(1_000)));
        }
        send(&gateway, signal, &mut asked, &mut sent);
        sleep(Duration::from_millis(chance.next() % 4 * 5)).await;
    }
    send(&gateway, "TERM", &mut asked, &mut sent);
    let code = gateway.ended().await.code();
    let took = asked.map(|asked| asked.elapsed()).unwrap_or_default();
    let interrupts = sent.iter().filter(|name| **name == "INT").count();
    ensure!(code == Some(0) || (code == Some(130) && interrupts >= 2), "{code:?} after {sent:?}");
    Ok(took)
}

fn send(gateway: &Gateway, signal: &'static str, asked: &mut Option<Instant>, sent: &mut Vec<&'static str>) {
    // The process may have ended already: then there is nobody to signal, and that is fine.
    let _ = std::process::Command::new("kill").arg(format!("-{signal}")).arg(gateway.pid().to_string()).output();
    sent.push(signal);
    if matches!(signal, "TERM" | "INT") {
        asked.get_or_insert_with(Instant::now);
    }
}

async fn storms(seed: u64, count: usize) -> anyhow::Result<Vec<Duration>> {
    let (place, mut chance) = (place(), Chance(seed));
    let mut times = Vec::new();
    for number in 0..count {
        let took = storm(&place, &mut chance).await.map_err(|error| error.context(format!("seed {seed}, storm {number}")))?;
        times.push(took);
    }
    Ok(times)
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let each = here.pick(125, 3);
    let mut tasks = JoinSet::new();
    for seed in 1..=4 {
        tasks.spawn(storms(seed, each));
    }
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    while let Some(part) = tasks.join_next().await {
        match part? {
            Ok(part) => times.extend(part),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let longest = times.iter().max().copied().unwrap_or_default();
    let mut checks = Checks::default();
    checks.check(format!("{} storms ended, {} did not end as they should", times.len(), failed.len()), failed.is_empty());
    let limit = Duration::from_secs(GRACE_S) + OVER;
    checks.check(format!("longest end {:.2} s of {} s", longest.as_secs_f64(), limit.as_secs()), longest <= limit);
    checks.method("Up to ten of SIGHUP, SIGTERM, SIGINT, SIGPIPE, SIGCONT, SIGWINCH, SIGCHLD, SIGURG at random moments, with a stream open and the config changing; then SIGTERM.");
    checks.sample("failed", json!(failed));
    Ok(checks.found())
}
