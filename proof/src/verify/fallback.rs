//! The server that a model is asked of is killed while streams run, and started again: requests go on through the next one (C18).
//!
//! First in line is `llama-server`, behind it a second Tollgate. A short run has a scripted Tollgate in the place of `llama-server`, and
//! says so in its figure.

mod first;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tollgate_tests::{Gateway, Place};

use super::checks::Checks;
use super::scrape::{Scrape, whole};
use super::wire::{CHAT, JSON, Wire, chat_body};
use crate::report::Found;
use crate::rows::Here;
use crate::stats::percentile;
use first::{First, tollgate};

/// What clients ask for, and the model that answers where it cannot.
const MODEL: &str = "brain";
const NEXT: &str = "second";
const CLIENTS: usize = 32;
const PROMPTS: &[&str] = &["What is Tollgate?", "How do I add a key?", "Who are you?", "What is a plugin?"];
/// What the scripted model is told: about a third of a second of tokens.
const COUNT: &[&str] = &["count 60"];
const SCRIPTED: &str = "backend = \"scripted\"\nsequences = 64\nqueue = 1024\n[scripted]\ntoken_us = 5000\n";
const MAX_TOKENS: usize = 64;
/// Longer than any reply takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// A stream that was under way hears of the kill by then.
const CUT_WITHIN: Duration = Duration::from_secs(5);
/// The longest that a breaker leaves a provider alone, and a second.
const BACK_WITHIN: Duration = Duration::from_secs(61);
/// How often the breaker is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Failures that are kept.
const REASONS: usize = 10;

/// The directories of the gateway in front of both.
fn front(first: &First, second: (&Place, &Gateway), model: &str) -> anyhow::Result<Place> {
    let (place, gateway) = second;
    let port = gateway.url.rsplit(':').next().unwrap_or_default().parse::<u16>().context("the second gateway's port")?;
    let front = Place::new();
    let (own, to) = (first.port, format!("\"localhost:{port}\""));
    let egress = format!("\"127.0.0.1:{own}\", \"localhost:{own}\", {to}");
    let settings = "[log]\nlevel = \"warn\"\n[reload]\npoll_s = 60\ndebounce_ms = 20\n";
    front.write("tollgate.toml", &format!("{settings}[models]\negress = [{egress}]\n"));
    let provider = "backend = \"provider\"\nqueue = 1024\n";
    front.write(&format!("models/{MODEL}.toml"), &format!("{provider}fallback = [\"{NEXT}\"]\n{}", first.provider()));
    front.write(&format!("models/{NEXT}.toml"), &format!("{provider}{}", tollgate(place, port, model)));
    Ok(front)
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A whole reply of the first.
    First,
    /// A whole reply of the next, and the header says so.
    Next,
    /// A reply of the first that ended with one error event.
    Cut,
    /// Anything else.
    Wrong(String),
}

/// A request that has ended.
struct Asked {
    began: Instant,
    /// From the request to the answer's head, which waits for the first token.
    waited: Duration,
    ended: Instant,
    outcome: Outcome,
}

/// What the row tells its clients, and they it.
#[derive(Default)]
struct Shared {
    is_killed: AtomicBool,
    /// The first has answered a request that began after the kill.
    is_back: AtomicBool,
    stop: AtomicBool,
}

/// Runs it.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let quarter = Duration::from_millis(here.pick(30_000, 2_500));
    let mut first = First::new(&here).await?;
    let (behind, model) = (Place::new(), here.pick("demo", "scripted"));
    behind.write("models/scripted.toml", SCRIPTED);
    if model == "demo" {
        behind.write("models/demo.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\nqueue = 1024\n");
    }
    let second = behind.start().await;
    let place = front(&first, (&behind, &second), model)?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;

    let (shared, mut clients, mut watch) = (Arc::new(Shared::default()), JoinSet::new(), JoinSet::new());
    for number in 0..CLIENTS {
        let prompts = here.pick(PROMPTS, COUNT);
        clients.spawn(client(wire.clone(), Arc::clone(&shared), prompts, number));
    }
    watch.spawn(breaker(wire.clone(), Arc::clone(&shared)));
    let began = Instant::now();
    sleep_until(began + quarter).await;
    let killed = Instant::now();
    first.kill();
    shared.is_killed.store(true, Ordering::SeqCst);
    sleep_until(began + quarter * 2).await;
    first.start().await?;
    let ready = Instant::now();
    sleep_until(began + quarter * 4).await;
    while !shared.is_back.load(Ordering::SeqCst) && ready.elapsed() < BACK_WITHIN {
        sleep(LOOK).await;
    }
    let seconds = began.elapsed().as_secs();
    shared.stop.store(true, Ordering::SeqCst);
    let mut asked = Vec::new();
    while let Some(of_client) = clients.join_next().await {
        asked.extend(of_client?);
    }
    let open = watch.join_next().await.context("the breaker is watched")???;
    let scrape = Scrape::of(&wire).await?;

    let mut checks = Checks::default();
    if here.is_quick {
        checks.state("short: a scripted Tollgate in the place of llama-server");
    }
    replies(&mut checks, &asked, killed, seconds);
    told(&mut checks, &asked, &scrape, &place.log());
    returned(&mut checks, &asked, killed, ready, open);
    checks.method(format!(
        "First {}; next a Tollgate with the same demo model; {CLIENTS} clients stream replies of {MAX_TOKENS} tokens at most from a gateway \
         in front of both. After a quarter of the time the first is killed (SIGKILL), after half of it started again. A client whose \
         stream is under way gets one error event, `provider_failed`, and no `[DONE]`; who asks afterwards is answered by the next one, with \
         `x-tollgate-fallback`, and hears nothing of the kill but the time that it takes.",
        first.method()
    ));
    Ok(checks.found())
}

/// What clients got.
fn replies(checks: &mut Checks, asked: &[Asked], killed: Instant, seconds: u64) {
    let count = |outcome: &Outcome| asked.iter().filter(|one| one.outcome == *outcome).count();
    let (by_first, by_next, cut) = (count(&Outcome::First), count(&Outcome::Next), count(&Outcome::Cut));
    let wrong = asked.iter().filter_map(|one| match &one.outcome {
        Outcome::Wrong(why) => Some(why),
        _ => None,
    });
    let wrong = wrong.collect::<Vec<_>>();
    checks.check(
        format!(
            "{} requests of {CLIENTS} clients in {seconds} s: {by_first} answered by the first, {by_next} by the next, {cut} cut in \
             mid-stream with one error event, {} failed otherwise",
            asked.len(),
            wrong.len()
        ),
        wrong.is_empty() && by_first > 0 && by_next > 0 && (1..=CLIENTS).contains(&cut),
    );
    let is_of_kill = |one: &Asked| one.ended >= killed && one.ended <= killed + CUT_WITHIN;
    let stray = asked.iter().filter(|one| one.outcome == Outcome::Cut && !is_of_kill(one)).count();
    checks.check(format!("{stray} cut at another time than the kill's"), stray == 0);
    let early = asked.iter().filter(|one| one.outcome == Outcome::Next && one.began + one.waited < killed).count();
    checks.state(format!("{early} by the next before the kill"));
    let waits = |outcome: &Outcome| {
        asked.iter().filter(|one| one.outcome == *outcome).map(|one| one.waited.as_secs_f64() * 1e3).collect::<Vec<_>>()
    };
    let (of_first, of_next) = (waits(&Outcome::First), waits(&Outcome::Next));
    checks.state(format!(
        "first token p50 {:.0} ms, longest {:.0}, from the first; {:.0}, {:.0} from the next",
        percentile(&of_first, 0.5),
        percentile(&of_first, 1.0),
        percentile(&of_next, 0.5),
        percentile(&of_next, 1.0)
    ));
    checks.sample("wrong", json!(wrong.iter().take(REASONS).collect::<Vec<_>>()));
    checks.sample("first_token_ms", json!({ "first": of_first, "next": of_next }));
}

/// Whether the operator hears of every fallback.
fn told(checks: &mut Checks, asked: &[Asked], scrape: &Scrape, log: &str) {
    let fallbacks = |with: &str| whole(scrape.sum("tollgate_model_fallbacks_total", &[&format!("model=\"{MODEL}\""), with], &[]));
    let counted = fallbacks(&format!("to=\"{NEXT}\""));
    let in_header = asked.iter().filter(|one| one.outcome == Outcome::Next).count() as u64;
    let logged = log.lines().filter(|line| line.contains("another model answers in its place")).count() as u64;
    let reasons =
        ["unreachable", "breaker_open", "timeout", "server_error", "malformed", "rate_limited", "refused", "queue_full"]
            .map(|reason| (reason, fallbacks(&format!("reason=\"{reason}\""))));
    let reasons = reasons.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{count} {reason}"));
    checks.check(
        format!(
            "fallbacks: {in_header} in headers, {counted} in the metric ({}), {logged} in the log",
            reasons.collect::<Vec<_>>().join(", ")
        ),
        in_header == counted && counted == logged,
    );
    let opened = log.lines().filter(|line| line.contains("its breaker opens")).count();
    checks.check(format!("the breaker opened {opened} times"), opened > 0);
}

/// When the first was asked again.
fn returned(checks: &mut Checks, asked: &[Asked], killed: Instant, ready: Instant, open: Duration) {
    let outage = ready.duration_since(killed).as_secs_f64();
    checks.state(format!("breaker not closed for {:.1} s of an outage of {outage:.1}", open.as_secs_f64()));
    let later = asked.iter().filter(|one| one.outcome == Outcome::First && one.began > killed);
    match later.map(|one| one.began + one.waited).min().map(|back| back.saturating_duration_since(ready)) {
        Some(back) => {
            checks.check(format!("the first answers again {:.1} s after it can", back.as_secs_f64()), back <= BACK_WITHIN);
        }
        None => checks.check("the first does not answer again", false),
    }
}

/// Asks again and again.
async fn client(wire: Wire, shared: Arc<Shared>, prompts: &'static [&'static str], number: usize) -> Vec<Asked> {
    let (mut all, mut at) = (Vec::new(), number);
    while !shared.stop.load(Ordering::SeqCst) {
        at += 1;
        let is_after_kill = shared.is_killed.load(Ordering::SeqCst);
        let asked = ask(&wire, prompts[at % prompts.len()]).await;
        if is_after_kill && asked.outcome == Outcome::First {
            shared.is_back.store(true, Ordering::SeqCst);
        }
        if matches!(asked.outcome, Outcome::Wrong(_)) {
            // Not as fast as a gateway can refuse.
            sleep(LOOK).await;
        }
        all.push(asked);
    }
    all
}

async fn ask(wire: &Wire, prompt: &str) -> Asked {
    let body = chat_body(MODEL, prompt, json!({ "temperature": 0, "max_tokens": MAX_TOKENS, "stream": true }));
    let began = Instant::now();
    let exchange = async {
        let mut http = wire.http().await?;
        let (status, headers, incoming) = http.open("POST", CHAT, &[JSON], &body).await?;
        let waited = began.elapsed();
        let events = incoming.collect().await.context("the stream broke off")?.to_bytes();
        anyhow::Ok((waited, outcome(status, &headers, &String::from_utf8_lossy(&events))))
    };
    let done = timeout(PATIENCE, exchange).await.context("no whole answer in time").and_then(|done| done);
    let (waited, outcome) = done.unwrap_or_else(|error| (began.elapsed(), Outcome::Wrong(format!("{error:#}"))));
    Asked { began, waited, ended: Instant::now(), outcome }
}

/// What an answer is.
fn outcome(status: StatusCode, headers: &HeaderMap, events: &str) -> Outcome {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect::<Vec<_>>();
    let is_done = data.last() == Some(&"[DONE]");
    let chunks = data.iter().filter_map(|data| serde_json::from_str::<Value>(data).ok()).collect::<Vec<_>>();
    let text = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty());
    let (has_text, errors) = (chunks.iter().any(text), chunks.iter().filter_map(|chunk| chunk.get("error")).collect::<Vec<_>>());
    let by = headers.get("x-tollgate-fallback").and_then(|by| by.to_str().ok());
    match (by, errors.as_slice()) {
        (None, []) if status == StatusCode::OK && is_done && has_text => Outcome::First,
        (Some(NEXT), []) if status == StatusCode::OK && is_done && has_text => Outcome::Next,
        (None, [error]) if status == StatusCode::OK && !is_done && error["code"] == "provider_failed" => Outcome::Cut,
        _ => Outcome::Wrong(format!("{status}, by {by:?}: {events}")),
    }
}

/// How long the breaker was not closed, until the row ends.
async fn breaker(wire: Wire, shared: Arc<Shared>) -> anyhow::Result<Duration> {
    let (mut open, mut last) = (Duration::ZERO, Instant::now());
    while !shared.stop.load(Ordering::SeqCst) {
        sleep(LOOK).await;
        let scrape = Scrape::of(&wire).await?;
        let now = Instant::now();
        if whole(scrape.sum("tollgate_model_alive", &[&format!("model=\"{MODEL}\"")], &[])) == 0 {
            open += now - last;
        }
        last = now;
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let (none, mut next) = (HeaderMap::new(), HeaderMap::new());
        next.insert("x-tollgate-fallback", NEXT.parse().unwrap());
        let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        let whole = format!("{piece}data: [DONE]\n\n");
        let failed = |code: &str| format!("{piece}data: {{\"error\":{{\"code\":\"{code}\"}}}}\n\n");
        let of = |headers: &HeaderMap, events: &str| outcome(StatusCode::OK, headers, events);
        assert_eq!((of(&none, &whole), of(&next, &whole)), (Outcome::First, Outcome::Next));
        assert_eq!(of(&none, &failed("provider_failed")), Outcome::Cut);
        // One from the next, one that goes on, one that ends without a word, one of another kind.
        for (headers, events) in [
            (&next, failed("provider_failed")),
            (&none, format!("{}data: [DONE]\n\n", failed("provider_failed"))),
            (&none, piece.to_owned()),
            (&none, failed("stopping")),
            (&none, "data: [DONE]\n\n".to_owned()),
        ] {
            assert!(matches!(of(headers, &events), Outcome::Wrong(_)), "{events}");
        }
        assert!(matches!(outcome(StatusCode::SERVICE_UNAVAILABLE, &none, &whole), Outcome::Wrong(_)));
    }
}
