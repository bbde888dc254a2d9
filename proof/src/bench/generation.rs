//! Rows over tokens: decode and prefill at several streams, alone and beside busy loops, and time to first token under load.
//! Tollgate and `llama-server` are asked the same, in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

use super::pair::Pair;
use crate::load::{Target, Told};
use crate::process::busy_loops;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::median;

/// What keeps the cores busy in the rows beside busy loops.
const LOOPS: usize = 3;
/// A stream without a first token for as long as this has none.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a row over tokens measures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests at once.
    pub(crate) streams: usize,
    /// Whether busy loops run beside it.
    pub(crate) is_busy: bool,
    /// How often llama-server's rate has to be reached.
    pub(crate) aim: f64,
}

impl Load {
    fn loops(self) -> usize {
        if self.is_busy { LOOPS } else { 0 }
    }
}

/// Tokens per second while all streams decode.
pub(crate) async fn decode(here: Here, load: Load) -> anyhow::Result<Found> {
    let pair = Pair::start(&here).await?;
    let _loops = busy_loops(load.loops(), pair.folder.path())?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut samples = Vec::new();
    for run in 0..here.pick(3, 2) {
        for (target, rates) in pair.targets.iter().zip(&mut rates) {
            let window = here.pick(Duration::from_secs(20), Duration::from_secs(2));
            let sample = decode_once(target, load.streams, here.pick(400, 64), window, run).await?;
            eprintln!("   {} {}: {sample}", run + 1, target.name);
            rates.push(sample["tok_s"].as_f64().context("a rate")?);
            samples.push(sample);
        }
    }
    let what = "Tokens that came while all streams decoded, 20 s at most; a word is a token in this model.";
    Ok(compare(&pair, "tok/s", load.aim, &rates, &samples, what))
}

/// Prompt tokens per second until the last of the streams has its reply of one token.
pub(crate) async fn prefill(here: Here, load: Load) -> anyhow::Result<Found> {
    let pair = Pair::start(&here).await?;
    let _loops = busy_loops(load.loops(), pair.folder.path())?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut samples = Vec::new();
    let tokens = here.pick(if load.is_busy { 64 } else { 256 }, 64);
    for run in 0..here.pick(3, 2) {
        for (target, rates) in pair.targets.iter().zip(&mut rates) {
            let sample = prefill_once(target, load.streams, tokens, run).await?;
            eprintln!("   {} {}: {sample}", run + 1, target.name);
            rates.push(sample["tok_s"].as_f64().context("a rate")?);
            samples.push(sample);
        }
    }
    let what =
        format!("About {tokens} tokens a prompt, no two alike; the time until the last of the one-token replies is there.");
    Ok(compare(&pair, "tok/s", load.aim, &rates, &samples, &what))
}

/// Time to first token of a request that comes while eight streams decode.
pub(crate) async fn first_token(here: Here) -> anyhow::Result<Found> {
    let pair = Pair::start(&here).await?;
    let mut times = [Vec::new(), Vec::new()];
    let mut samples = Vec::new();
    for run in 0..here.pick(3, 1) {
        for (target, times) in pair.targets.iter().zip(&mut times) {
            let sample = first_once(target, run, here.pick(3, 2)).await?;
            eprintln!("   {} {}: {sample}", run + 1, target.name);
            times.extend(sample["first_ms"].as_array().into_iter().flatten().filter_map(Value::as_f64));
            samples.push(sample);
        }
    }
    let (ours, theirs) = (median(&times[0]), median(&times[1]));
    Ok(Found {
        figure: format!("{ours:.0} ms; llama-server {theirs:.0} ms; {:.2}x of its time", ours / theirs),
        verdict: Verdict::of(ours <= theirs),
        method: format!("A prompt of about 64 tokens while eight streams decode, one at a time. {}", pair.method),
        samples: json!(samples),
    })
}

/// The figure of a row: median rates and their ratio.
fn compare(pair: &Pair, unit: &str, aim: f64, rates: &[Vec<f64>; 2], samples: &[Value], what: &str) -> Found {
    let (ours, theirs) = (median(&rates[0]), median(&rates[1]));
    let ratio = ours / theirs;
    Found {
        figure: format!("{ours:.1} {unit}; llama-server {theirs:.1}; {ratio:.2}x"),
        verdict: Verdict::of(ratio >= aim),
        method: format!("{what} {}", pair.method),
        samples: json!(samples),
    }
}

/// Text that no other request has, of about `tokens` tokens: two letters make one.
fn prompt(tokens: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap_or_default())
    };
    // Words of eight letters and a space: five tokens.
    (0..tokens.div_ceil(5)).map(|_| (0..8).map(|_| letter()).collect::<String>()).collect::<Vec<_>>().join(" ")
}

fn body(target: &Target, run: usize, number: usize, prompt_tokens: usize, max_tokens: usize) -> Bytes {
    let seed = (run * 1_000 + number) as u64;
    let sampling = json!({ "temperature": 0.8, "top_p": 0.95, "seed": seed, "max_tokens": max_tokens,
        "stream": true, "stream_options": { "include_usage": true } });
    target.body(&prompt(prompt_tokens, seed + 1), sampling)
}

/// Words in a text of the random model: each is a token of its own and begins with `w`; a pair of letters is one as well.
fn words(told: &Told, from: Instant, to: Instant) -> usize {
    let pieces = told.pieces.iter().filter(|(at, _)| *at > from && *at <= to);
    pieces.map(|(_, text)| text.matches('w').count().max(1)).sum()
}

/// One measurement of decoding: `tok_s` and more.
pub(super) async fn decode_once(
    target: &Target,
    streams: usize,
    max: usize,
    window: Duration,
    run: usize,
) -> anyhow::Result<Value> {
    let firsts = Arc::new(AtomicUsize::new(0));
    let (all_began, end) = watch::channel(None::<Instant>);
    let all_began = Arc::new(all_began);
    let start = Arc::new(Barrier::new(streams));
    let mut tasks = JoinSet::new();
    for number in 0..streams {
        let (target, body) = (target.clone(), body(target, run, number, 16, max));
        let (firsts, all_began, mut end, start) = (Arc::clone(&firsts), Arc::clone(&all_began), end.clone(), Arc::clone(&start));
        tasks.spawn(async move {
            let link = target.connect().await?;
            start.wait().await;
            let mut stream = link.stream(&body).await?;
            ensure!(stream.first_text(PATIENCE).await?, "a reply ended without a word");
            if firsts.fetch_add(1, Ordering::Relaxed) + 1 == streams {
                all_began.send_replace(Some(Instant::now() + window));
            }
            // Reads on while others wait for their first.
            let limit = Instant::now() + PATIENCE;
            let known = async move {
                let known = tokio::time::timeout(PATIENCE, end.wait_for(Option::is_some)).await;
                known.ok().and_then(Result::ok).and_then(|end| *end).unwrap_or(limit)
            };
            stream.until(known).await
        });
    }
    let mut told = Vec::new();
    while let Some(stream) = tasks.join_next().await {
        told.push(stream??);
    }
    let from = told.iter().filter_map(Told::first).max().context("no stream began")?;
    let to = told.iter().map(|told| told.ended).min().context("no stream ended")?;
    let seconds = to.saturating_duration_since(from).as_secs_f64();
    ensure!(seconds > 0.0, "a stream had ended before the last one began: longer replies are needed");
    let tokens = told.iter().map(|told| words(told, from, to)).sum::<usize>();
    let firsts = told.iter().filter_map(Told::first_ms).collect::<Vec<_>>();
    let gaps = told.iter().flat_map(Told::gaps_ms).collect::<Vec<_>>();
    Ok(json!({
        "target": target.name, "streams": streams, "tok_s": round(tokens as f64 / seconds), "tokens": tokens,
        "seconds": round(seconds), "first_ms": round(median(&firsts)), "gap_ms": round(median(&gaps)),
        "gap_p99_ms": round(crate::stats::percentile(&gaps, 0.99)),
    }))
}

/// One measurement of reading prompts: `tok_s` and more.
pub(super) async fn prefill_once(target: &Target, streams: usize, tokens: usize, run: usize) -> anyhow::Result<Value> {
    let start = Arc::new(Barrier::new(streams));
    let mut tasks = JoinSet::new();
    for number in 0..streams {
        let (target, body, start) = (target.clone(), body(target, 100 + run, number, tokens, 1), Arc::clone(&start));
        tasks.spawn(async move {
            let link = target.connect().await?;
            start.wait().await;
            link.stream(&body).await?.rest().await
        });
    }
    let mut told = Vec::new();
    while let Some(stream) = tasks.join_next().await {
        told.push(stream??);
    }
    let began = told.iter().map(|told| told.began).min().context("no stream began")?;
    let ended = told.iter().map(|told| told.ended).max().context("no stream ended")?;
    let seconds = ended.duration_since(began).as_secs_f64();
    let prompts = told.iter().map(|told| Some(told.count("prompt_tokens")? - cached(told))).sum::<Option<u64>>();
    let prompts = prompts.context("a reply without usage")?;
    Ok(json!({ "target": target.name, "streams": streams, "tok_s": round(prompts as f64 / seconds), "tokens": prompts,
        "seconds": round(seconds) }))
}

/// Prompt tokens that a server had computed before.
fn cached(told: &Told) -> u64 {
    let usage = told.usage.as_ref().and_then(|usage| usage.pointer("/prompt_tokens_details/cached_tokens"));
    usage.and_then(Value::as_u64).unwrap_or_default()
}

async fn first_once(target: &Target, run: usize, probes: usize) -> anyhow::Result<Value> {
    const BESIDE: usize = 8;
    // Ends with this function, and the replies with it.
    let mut beside = JoinSet::new();
    for number in 0..BESIDE {
        let mut stream = target.connect().await?.stream(&body(target, 200 + run, number, 16, 900)).await?;
        ensure!(stream.first_text(PATIENCE).await?, "a reply ended without a word");
        beside.spawn(stream.rest());
    }
    let mut firsts = Vec::new();
    for number in 0..probes {
        let told = target.connect().await?.stream(&body(target, 300 + run, number, 64, 2)).await?.rest().await?;
        firsts.push(round(told.first_ms().context("a reply without a word")?));
    }
    ensure!(beside.try_join_next().is_none(), "a reply beside ended before the last request: longer ones are needed");
    Ok(json!({ "target": target.name, "first_ms": firsts }))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_differ_from_their_beginning() {
        let (one, two) = (prompt(64, 1), prompt(64, 2));
        assert_ne!(one[..8], two[..8]);
        assert_eq!(one.split(' ').count(), 13);
    }
}
