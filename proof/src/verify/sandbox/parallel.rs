//! P-W10 and P-W11: many instances beside each other for minutes, and traps while llama.cpp generates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tollgate_tests::Place;

use super::super::checks::Checks;
use super::super::process::{Process, slope_kib_per_hour};
use super::super::wire::Wire;
use super::hostile::CLASSES;
use super::{instances_left, place};
use crate::report::Found;
use crate::rows::Here;

const PLUGINS: usize = 8;
const CLIENTS: usize = 16;

/// Asks again at once until it is told to stop; answers that are wrong.
async fn asks(wire: Wire, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> anyhow::Result<u64> {
    let (mut http, mut wrong) = (wire.http().await?, 0);
    while !stop.load(Ordering::Relaxed) {
        let answer = http.chat("scripted", "say well", Value::Null).await?;
        wrong += u64::from(!answer.status.is_success() || answer.content() != "well");
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(wrong)
}

/// P-W10: eight plugins on one route, as many requests as are answered here.
pub(crate) async fn leak(here: Here) -> anyhow::Result<Found> {
    let (warm, seconds) = here.pick((120, 420), (4, 16));
    let place = place();
    let ids = (0..PLUGINS).map(|number| format!("probe{number}")).collect::<Vec<_>>();
    for id in &ids {
        // Each has a config of its own, hence a snapshot and compiled code of its own.
        place.plugin(id, "probe", &format!("grants = [\"log\"]\n[config]\nword = \"{id}\"\n"));
    }
    place.write("routes/chat.toml", &format!("plugins = {ids:?}\n"));
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        tasks.spawn(asks(wire.clone(), Arc::clone(&stop), Arc::clone(&answered)));
    }
    sleep(Duration::from_secs(warm)).await;
    let (began, first, mut points) = (Instant::now(), answered.load(Ordering::Relaxed), Vec::new());
    while began.elapsed().as_secs() < seconds {
        points.push((began.elapsed().as_secs_f64(), process.rss_kib()? as f64));
        sleep(Duration::from_millis(500)).await;
    }
    let calls = answered.load(Ordering::Relaxed) - first;
    stop.store(true, Ordering::Relaxed);
    let mut wrong = 0;
    while let Some(part) = tasks.join_next().await {
        wrong += part??;
    }
    let left = instances_left(&gateway, super::PATIENCE).await;
    let slope = slope_kib_per_hour(&points) / 1024.0;
    let mut checks = Checks::default();
    let rate = calls / seconds;
    checks.check(
        format!("{calls} requests through {PLUGINS} plugins ({rate}/s) in {seconds} s: {wrong} wrong"),
        wrong == 0 && calls > 0,
    );
    let line = format!("RSS slope {slope:.2} MiB/h after {warm} s");
    if here.is_quick {
        // A run of seconds still warms arenas.
        checks.state(line);
    } else {
        checks.check(line, slope < 1.0);
    }
    checks.check(format!("{left} instances left"), left == 0);
    checks.method("The promise's 2,000 requests/s for 2 hours are not held on two cores beside their client: as many as are answered, for minutes.");
    checks.sample("rss_kib", json!(points.iter().map(|point| point.1).collect::<Vec<_>>()));
    Ok(checks.found())
}

/// How each class ended, by answer; the log's reasons are counted apart.
type Ends = BTreeMap<String, u64>;

async fn ends(wire: &Wire, count: usize) -> anyhow::Result<Ends> {
    let (mut http, mut ends) = (wire.http().await?, Ends::new());
    for _ in 0..count {
        for class in CLASSES {
            let answer = http.chat(class.name, "a text", Value::Null).await?;
            *ends.entry(format!("{} {} {}", class.name, answer.status.as_u16(), answer.code())).or_default() += 1;
        }
    }
    Ok(ends)
}

/// The reasons of each plugin's ends in a part of the log.
fn reasons(log: &str) -> Ends {
    let mut reasons = Ends::new();
    for line in log.lines().filter(|line| line.contains("plugin failed")) {
        let line = serde_json::from_str::<Value>(line).unwrap_or_default();
        *reasons.entry(format!("{} {} {}", line["plugin"], line["hook"], line["reason"])).or_default() += 1;
    }
    reasons
}

/// Has the demo model write until it is told to stop; replies, and those that are wrong.
async fn writes(wire: Wire, stop: Arc<AtomicBool>) -> anyhow::Result<(u64, Vec<String>)> {
    let (mut http, mut replies, mut wrong) = (wire.http().await?, 0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let answer =
            http.chat("demo", "Tell me about the sea.", json!({ "max_tokens": 48, "seed": 7, "temperature": 0.0 })).await?;
        if answer.status.is_success() && answer.json()["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 0) {
            replies += 1;
        } else {
            wrong.push(answer.text());
        }
    }
    Ok((replies, wrong))
}

fn with_demo() -> anyhow::Result<Place> {
    let place = place();
    place.write("models/demo.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\n");
    for class in CLASSES {
        class.guest().install(&place, class.grants())?;
    }
    Ok(place)
}

/// P-W11: the suite alone, and while the demo model writes; both have to end alike, and the model has to go on.
pub(crate) async fn traps(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(100, 3);
    let place = with_demo()?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let alone = ends(&wire, count).await?;
    let alone_log = place.log();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..4).map(|_| tokio::spawn(writes(wire.clone(), Arc::clone(&stop)))).collect::<Vec<_>>();
    let under = ends(&wire, count).await?;
    stop.store(true, Ordering::Relaxed);
    let (mut replies, mut wrong) = (0, Vec::new());
    for writer in writers {
        let (a, b) = writer.await??;
        replies += a;
        wrong.extend(b);
    }
    let log = place.log();
    let (first, second) = (reasons(&alone_log), reasons(log.get(alone_log.len()..).unwrap_or_default()));
    let differ = second.iter().filter(|(name, count)| first.get(*name) != Some(count)).count()
        + under.iter().filter(|(name, count)| alone.get(*name) != Some(count)).count();
    let mut checks = Checks::default();
    let calls = count * CLASSES.len();
    checks.check(
        format!("{calls} hostile calls alone and {calls} beside llama.cpp: {differ} ends differ"),
        differ == 0 && first.len() == second.len() && alone.len() == CLASSES.len(),
    );
    checks.check(format!("{replies} replies of the model meanwhile, {} wrong", wrong.len()), wrong.is_empty() && replies > 0);
    let left = instances_left(&gateway, super::PATIENCE).await;
    checks.check(format!("{left} instances left"), left == 0);
    checks.method("Of the engines, llama.cpp is in this binary; the others of the promise are not yet.");
    checks.sample("alone", json!({ "answers": alone, "reasons": first }));
    checks.sample("beside", json!({ "answers": under, "reasons": second }));
    checks.sample("wrong", json!(wrong.iter().take(5).collect::<Vec<_>>()));
    Ok(checks.found())
}
