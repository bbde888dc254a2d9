//! Good traffic: requests at a set pace over kept connections, while something else happens to the gateway.
//!
//! A request's time counts from the moment that the pace set for it, so that a stall is felt by all that had to wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::wire::{Http, PATIENCE, Wire};

/// What good traffic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// By turns: `/health`, a chat of the model `scripted` with 32 tokens, the same as a stream.
    Mixed,
    /// A chat whose answer is the word of the plugin on its route; it is kept with the answer's generation.
    Word,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Microseconds, sorted.
    pub(crate) times: Vec<u32>,
    /// Requests without a right answer.
    pub(crate) failed: u64,
    /// Why, of the first.
    pub(crate) why: Vec<String>,
    /// What the answers of each generation said, for [`Mix::Word`].
    pub(crate) words: BTreeMap<u64, BTreeSet<String>>,
}

/// Traffic under way.
pub(crate) struct Good {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Tally>,
}

/// Failures whose reason is kept.
const REASONS: usize = 8;

impl Good {
    /// Starts `per_s` requests a second.
    pub(crate) fn start(wire: &Wire, per_s: u32, mix: Mix) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let workers = (per_s / 10).clamp(4, 48);
        let period = Duration::from_secs(1) * workers / per_s.max(1);
        for worker in 0..workers {
            let (wire, stop) = (wire.clone(), Arc::clone(&stop));
            tasks.spawn(work(wire, mix, period, period / workers * worker, stop));
        }
        Good { stop, tasks }
    }

    /// Ends it and adds up.
    pub(crate) async fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        while let Some(part) = self.tasks.join_next().await {
            match part {
                Ok(part) => all.add(part),
                Err(error) => all.fail(&error.to_string()),
            }
        }
        all.sort();
        all
    }

    /// Runs it for so long and adds up.
    pub(crate) async fn run_for(wire: &Wire, per_s: u32, mix: Mix, time: Duration) -> Tally {
        let good = Self::start(wire, per_s, mix);
        tokio::time::sleep(time).await;
        good.finish().await
    }
}

impl Tally {
    fn fail(&mut self, why: &str) {
        self.failed += 1;
        if self.why.len() < REASONS {
            self.why.push(why.to_owned());
        }
    }

    /// Adds another's; [`Tally::sort`] has to follow before anything is asked of the times.
    pub(crate) fn add(&mut self, other: Tally) {
        self.times.extend(other.times);
        self.failed += other.failed;
        self.why.extend(other.why.into_iter().take(REASONS.saturating_sub(self.why.len())));
        for (generation, words) in other.words {
            self.words.entry(generation).or_default().extend(words);
        }
    }

    /// Puts the times in order.
    pub(crate) fn sort(&mut self) {
        self.times.sort_unstable();
    }

    /// Answers, right or not.
    pub(crate) fn count(&self) -> u64 {
        self.times.len() as u64 + self.failed
    }

    /// The time that this share of the requests stayed below, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is one")]
        let at = (self.times.len() as f64 * share) as usize;
        self.times.get(at.min(last)).map_or(0.0, |time| f64::from(*time) / 1_000.0)
    }

    /// p50, p99 and the longest, for people.
    pub(crate) fn shape(&self) -> String {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.quantile_ms(share));
        format!("p50 {p50:.1} ms, p99 {p99:.1} ms, longest {max:.0} ms")
    }

    /// For a row's samples.
    pub(crate) fn json(&self) -> Value {
        json!({ "requests": self.count(), "failed": self.failed, "why": self.why, "times": self.shape() })
    }
}

async fn work(wire: Wire, mix: Mix, period: Duration, offset: Duration, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut pace = interval_at(Instant::now() + offset, period.max(Duration::from_micros(100)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut connection = None;
    for number in 0_u64.. {
        let due = pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match one(&wire, &mut connection, mix, number, &mut tally).await {
            Ok(()) => tally.times.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX)),
            Err(error) => {
                tally.fail(&format!("{error:#}"));
                connection = None;
            }
        }
    }
    tally
}

async fn one(wire: &Wire, connection: &mut Option<Http>, mix: Mix, number: u64, tally: &mut Tally) -> anyhow::Result<()> {
    if connection.is_none() {
        *connection = Some(wire.http().await?);
    }
    let http = connection.as_mut().context("it was opened above")?;
    let tokens = json!({ "max_tokens": 32 });
    match (mix, number % 3) {
        (Mix::Word, _) => {
            let answer = http.chat("scripted", "config", Value::Null).await?;
            ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
            let generation = answer.header("x-tollgate-generation").parse::<u64>().context("no generation")?;
            tally.words.entry(generation).or_default().insert(answer.content());
        }
        (Mix::Mixed, 0) => {
            let answer = http.ask("GET", "/health", &[], b"").await?;
            ensure!(answer.status.is_success(), "/health: {}", answer.status);
        }
        (Mix::Mixed, 1) => {
            let body = http.stream("scripted", "forever", tokens).await?;
            let events = timeout(PATIENCE, body.collect()).await.context("the stream does not end")??.to_bytes();
            ensure!(events.ends_with(b"data: [DONE]\n\n"), "a stream without its end");
        }
        (Mix::Mixed, _) => {
            let answer = http.chat("scripted", "forever", tokens).await?;
            ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
            ensure!(answer.json()["usage"]["completion_tokens"] == 32, "{}", answer.text());
        }
    }
    Ok(())
}
