//! A model that is exchanged while streams run: none fails, and every reply is of one version from its first token to its last
//! (P-U4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::{Gateway, Place};

use super::super::checks::Checks;
use super::super::wire::{CHAT, JSON, Wire, chat_body};
use super::{NAME, SERVED, demo, good, import, other};
use crate::report::Found;
use crate::rows::Here;
use crate::stats::{median, percentile};

const STREAMS: usize = 50;
const PROMPTS: [&str; 5] = ["What is Tollgate?", "How do I add a key?", "Who are you?", "What is a plugin?", "Apa itu Tollgate?"];
const MAX_TOKENS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);
/// Failures that are kept.
const REASONS: usize = 10;

/// What a version says to each prompt.
type Said = BTreeMap<String, Vec<String>>;

/// What came of the streams.
#[derive(Default)]
struct Tally {
    whole: BTreeMap<String, usize>,
    failed: Vec<String>,
    mixed: Vec<String>,
}

/// A thousand exchanges.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    swaps(here.pick(1_000, 10)).await
}

/// Few of them, for how long one takes.
pub(crate) async fn timed(here: Here) -> anyhow::Result<Found> {
    swaps(here.pick(50, 3)).await
}

async fn swaps(count: usize) -> anyhow::Result<Found> {
    let (place, gateway, digests) = prepared().await?;
    let wire = Wire::new(&place, &gateway)?;
    let said = Arc::new(say(&place, &wire, &digests).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for number in 0..STREAMS {
        tasks.spawn(stream(wire.clone(), Arc::clone(&said), number, Arc::clone(&stop)));
    }
    let (mut times, mut commands) = (Vec::new(), Vec::new());
    for number in 0..count {
        let digest = &digests[number % 2];
        let began = Instant::now();
        let switched = good(&place, &["activate", NAME, digest, "--no-probe"]).await?;
        ensure!(switched["gateway"]["quarantined"] == json!([]), "exchange {number}: {switched}");
        commands.push(began.elapsed().as_secs_f64() * 1e3);
        while reply(&wire, PROMPTS[0], 1).await?.0 != *digest {
            ensure!(began.elapsed() < PATIENCE, "{digest} does not answer");
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if times.len().is_multiple_of(50) {
            tell(count, &times, &commands);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(tally?);
    }
    let left = live_generations(&gateway).await;
    let replies = all.whole.values().sum::<usize>();
    let mut checks = Checks::default();
    checks.check(
        format!("{count} exchanges under {STREAMS} streams: {} failed of {}", all.failed.len(), replies + all.failed.len()),
        all.failed.is_empty(),
    );
    checks.check(format!("{} of two versions", all.mixed.len()), all.mixed.is_empty());
    checks.check(format!("{replies} replies of {} versions", all.whole.len()), all.whole.len() == digests.len());
    checks.state(format!(
        "from the command to the first answer of the other version {:.0} ms, {:.0} at most; {:.0} of it the command, which ends with \
         the new version loaded",
        median(&times),
        percentile(&times, 1.0),
        median(&commands)
    ));
    checks.check(format!("{left} generation left at the end"), left == 1);
    checks.method(
        "The demo model and one with two of its matrices exchanged, so that they say different things, in turn by `tollgate model \
         activate`. Replies are greedy and `deterministic`: each has to be, to the letter, what the version in its \
         `x-tollgate-model-digest` said when it was alone. The exchange's time holds a reply of one token beside the streams.",
    );
    checks.sample("failed", json!(all.failed.iter().take(REASONS).collect::<Vec<_>>()));
    checks.sample("mixed", json!(all.mixed.iter().take(REASONS).collect::<Vec<_>>()));
    checks.sample("swap_ms", json!(times));
    checks.sample("command_ms", json!(commands));
    Ok(checks.found())
}

/// How long exchanges take by now, so that one sees whether it grows.
fn tell(count: usize, times: &[f64], commands: &[f64]) {
    let last = |times: &[f64]| median(&times[times.len().saturating_sub(50)..]);
    let (whole, command) = (last(times), last(commands));
    eprintln!("   {} of {count} exchanges; the last 50 took {whole:.0} ms each, {command:.0} of it the command", times.len());
}

/// A gateway, and the digests of the two versions; the second one is current.
async fn prepared() -> anyhow::Result<(Place, Gateway, [String; 2])> {
    let (place, folder) = (Place::new(), tempfile::tempdir()?);
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, demo()?)?;
    let first = import(&place, &path).await?;
    std::fs::write(&path, other()?)?;
    let second = import(&place, &path).await?;
    // Every sequence has an equal share of the context.
    place.write("models/m.toml", &format!("{SERVED}deterministic = true\ncontext_tokens = 4096\n"));
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n[reload]\npoll_s = 2\ndebounce_ms = 0\ngenerations = 64\n");
    let gateway = place.start().await;
    Ok((place, gateway, [first, second]))
}

/// What each version says while it is alone.
async fn say(place: &Place, wire: &Wire, digests: &[String; 2]) -> anyhow::Result<Said> {
    let mut said = Said::new();
    for digest in digests {
        good(place, &["activate", NAME, digest, "--no-probe"]).await?;
        let mut texts = Vec::new();
        for prompt in PROMPTS {
            let (answered, text) = reply(wire, prompt, MAX_TOKENS).await?;
            ensure!(answered == *digest, "{answered} answers, {digest} is current");
            texts.push(text);
        }
        said.insert(digest.clone(), texts);
    }
    let differ = said[&digests[0]].iter().zip(&said[&digests[1]]).filter(|(first, second)| first != second).count();
    ensure!(differ == PROMPTS.len(), "the versions say the same to {} prompts", PROMPTS.len() - differ);
    Ok(said)
}

impl Tally {
    fn add(&mut self, other: Tally) {
        for (digest, count) in other.whole {
            *self.whole.entry(digest).or_default() += count;
        }
        self.failed.extend(other.failed);
        self.mixed.extend(other.mixed);
    }
}

async fn stream(wire: Wire, said: Arc<Said>, number: usize, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut at = number;
    while !stop.load(Ordering::Relaxed) {
        at = (at + 1) % PROMPTS.len();
        match reply(&wire, PROMPTS[at], MAX_TOKENS).await {
            Ok((digest, text)) if said.get(&digest).is_some_and(|texts| texts[at] == text) => {
                *tally.whole.entry(digest).or_default() += 1;
            }
            Ok((digest, text)) => tally.mixed.push(format!("{digest} to {:?}: {text:?}", PROMPTS[at])),
            Err(error) => tally.failed.push(format!("{error:#}")),
        }
    }
    tally
}

/// A streamed reply: which version it names, and what it says.
async fn reply(wire: &Wire, prompt: &str, max_tokens: usize) -> anyhow::Result<(String, String)> {
    let body = chat_body(NAME, prompt, json!({ "temperature": 0, "max_tokens": max_tokens, "stream": true }));
    let exchange = async {
        let mut http = wire.http().await?;
        let (status, headers, incoming) = http.open("POST", CHAT, &[JSON], &body).await?;
        let events = incoming.collect().await?.to_bytes();
        anyhow::Ok((status, headers, String::from_utf8_lossy(&events).into_owned()))
    };
    let (status, headers, events) = timeout(PATIENCE, exchange).await.context("no answer in time")??;
    ensure!(status.is_success() && events.ends_with("data: [DONE]\n\n") && !events.contains("\"error\":"), "{status}: {events}");
    let digest = headers.get("x-tollgate-model-digest").and_then(|digest| digest.to_str().ok()).context("no digest")?;
    Ok((digest.to_owned(), content(&events)?))
}

/// The text of a stream's events.
fn content(events: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    for data in events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let chunk = serde_json::from_str::<Value>(data).with_context(|| data.to_owned())?;
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    Ok(text)
}

/// Generations that are alive once the replies have ended; the old ones may take a moment.
async fn live_generations(gateway: &Gateway) -> u64 {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let left = gateway.admin(&["status"]).await["live_generations"].as_u64().unwrap_or(u64::MAX);
        if left == 1 || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
