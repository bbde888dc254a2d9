//! Six models and memory for two: everybody is served, nobody is cut short, and memory is what was predicted (B22, X16, P-M12).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::process::Process;
use super::super::scrape::{Scrape, whole};
use super::super::wire::{CHAT, JSON, Wire, chat_body};
use crate::bench::limited::Limited;
use crate::generated::{self, Generated};
use crate::report::Found;
use crate::rows::Here;
use crate::weigh::{self, Weight};

const CLIENTS: usize = 12;
/// The model's own deadline, and a little.
const PATIENCE: Duration = Duration::from_secs(310);
const MIB: u64 = 1 << 20;
/// What the process may have beside its models.
const BESIDE_MIB: u64 = 256;

/// What clients felt.
#[derive(Default)]
struct Felt {
    /// From the request to the whole answer, in seconds.
    times: Vec<f64>,
    wrong: Vec<String>,
}

/// Runs it.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let requests: usize = here.pick(10_000, 300);
    let models = generated::six(&here)?;
    let weights = weigh::all(&models).await?;
    let mut checks = Checks::default();
    let budget = budget_mib(&weights);
    let place = generated::place(&models, &format!("memory_mib = {budget}\n"));
    let limit = Limited::to((budget + BESIDE_MIB) * MIB);
    let wrapper = limit.wrapper.iter().map(String::as_str).collect::<Vec<_>>();
    let mut gateway = place.start_under(&wrapper).await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let began = Instant::now();
    let ((felt, most_held), peak) = process.peak_kib(crowd(&wire, &models, requests)).await?;
    let felt = felt?;
    let seconds = began.elapsed().as_secs();
    let scrape = Scrape::of(&wire).await.with_context(|| format!("the gateway is gone: {}", place.log()))?;
    let count = |name: &str| whole(scrape.sum(name, &[], &[]));
    let (loads, unloads) = (count("tollgate_models_loads_total"), count("tollgate_models_unloads_total"));
    let (limit_bytes, waiting) = (count("tollgate_models_budget_bytes"), count("tollgate_models_requests_waiting"));
    gateway.signal("TERM");
    let has_ended_well = gateway.ended().await.success();

    let answered = felt.times.len();
    let longest = felt.times.iter().copied().fold(0.0, f64::max);
    checks.check(
        format!(
            "{requests} requests of {CLIENTS} clients over {} models, room for 2, {seconds} s: {answered} whole, {} not",
            models.len(),
            felt.wrong.len()
        ),
        felt.wrong.is_empty() && answered == requests,
    );
    checks.state(format!("longest wait {longest:.1} s; {loads} loads, {unloads} evictions"));
    checks.check(
        format!("{waiting} left waiting; the gateway ended as it should: {has_ended_well}"),
        waiting == 0 && has_ended_well,
    );
    checks.check(
        format!("models held {} MiB at most of {}", most_held / MIB, limit_bytes / MIB),
        most_held > 0 && most_held <= limit_bytes,
    );
    checks.state(format!("resident {} MiB at most, limited to {} by {}", peak / 1_024, budget + BESIDE_MIB, limit.by));
    for weight in &weights {
        // The small models of a short run are smaller than what a process needs to serve anything.
        checks.check(weight.figure(), here.is_quick || weight.off().abs() <= weigh::MOST);
    }
    checks.method(format!(
        "{} The budget is what the two largest take. Each client asks a model at random, streamed or not, 1 to 12 tokens; a wait is from \
         the request to the end of its answer.",
        weigh::METHOD
    ));
    checks.sample("weights", weights.iter().map(Weight::json).collect());
    checks.sample("wrong", json!(felt.wrong.iter().take(10).collect::<Vec<_>>()));
    Ok(checks.found())
}

/// MiB that the two largest take.
fn budget_mib(weights: &[Weight]) -> u64 {
    let mut sizes = weights.iter().map(|weight| weight.predicted.max(weight.used)).collect::<Vec<_>>();
    sizes.sort_unstable();
    sizes.iter().rev().take(2).sum::<u64>().div_ceil(MIB) + 1
}

/// All clients to their end, and the most that models held meanwhile.
async fn crowd(wire: &Wire, models: &[Generated], requests: usize) -> (anyhow::Result<Felt>, u64) {
    let ids = models.iter().map(|model| model.id).collect::<Arc<[_]>>();
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let share = requests / CLIENTS + usize::from(number < requests % CLIENTS);
        tasks.spawn(client(wire.clone(), Arc::clone(&ids), number, share));
    }
    let (mut all, mut most, mut done) = (Felt::default(), 0, 0);
    while !tasks.is_empty() {
        match timeout(Duration::from_millis(250), tasks.join_next()).await {
            Ok(Some(Ok(felt))) => {
                all.times.extend(felt.times);
                all.wrong.extend(felt.wrong);
                done += 1;
                eprintln!("   {done} of {CLIENTS} clients are done");
            }
            Ok(Some(Err(error))) => return (Err(error.into()), most),
            Ok(None) | Err(_) => {}
        }
        if let Ok(scrape) = Scrape::of(wire).await {
            most = most.max(whole(scrape.sum("tollgate_models_held_bytes", &[], &[])));
        }
    }
    (Ok(all), most)
}

async fn client(wire: Wire, ids: Arc<[&'static str]>, number: usize, requests: usize) -> Felt {
    let (mut chance, mut felt) = (Chance(number as u64), Felt::default());
    for at in 0..requests {
        let model = *chance.pick(&ids[..]);
        let (words, tokens, is_stream) = (chance.below(40), chance.below(12) + 1, chance.below(2) == 0);
        let text = format!("Request {at} of client {number}: {}", "what is a gateway? ".repeat(words / 4));
        let began = Instant::now();
        match timeout(PATIENCE, ask(&wire, model, &text, tokens, is_stream)).await.context("no answer in time") {
            Ok(Ok(())) => felt.times.push(began.elapsed().as_secs_f64()),
            Ok(Err(error)) | Err(error) => felt.wrong.push(format!("{model}: {error:#}")),
        }
        sleep(Duration::from_millis(chance.next() % 50)).await;
    }
    felt
}

async fn ask(wire: &Wire, model: &str, text: &str, tokens: usize, is_stream: bool) -> anyhow::Result<()> {
    let body = chat_body(model, text, json!({ "max_tokens": tokens, "stream": is_stream }));
    let mut http = wire.http().await?;
    let (status, headers, incoming) = http.open("POST", CHAT, &[JSON], &body).await?;
    let text = incoming.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&text);
    ensure!(status.is_success() && headers.contains_key("x-tollgate-model-digest"), "{status}: {text}");
    let is_whole = ["\"finish_reason\":\"length\"", "\"finish_reason\":\"stop\""].iter().any(|end| text.contains(end));
    ensure!(is_whole && !text.contains("\"error\":"), "cut short: {text}");
    ensure!(!is_stream || text.ends_with("data: [DONE]\n\n"), "a stream without its end: {text}");
    Ok(())
}
