//! Decode steps from a client's going to its slot's being free: in the queue, in prefill, in decode.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tollgate_tests::Place;

use super::admin::Admin;
use super::pair;
use crate::load::Stream;
use crate::report::{Found, Verdict};
use crate::rows::Here;

/// Long enough to be told apart by a look every millisecond.
const STEP_MS: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(30);
const MODEL: &str = "scripted";

/// Where the request is when its client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for a sequence.
    Queue,
    /// Its prompt is being computed, over many steps.
    Prefill,
    /// It writes.
    Decode,
}

/// The rows.
pub(crate) async fn cancel(here: Here, stage: Stage) -> anyhow::Result<Found> {
    let place = Place::new();
    let prefill = if stage == Stage::Prefill { STEP_MS * 1_000 / 16 } else { 0 };
    let scripted = format!("token_us = {}\nprefill_us_per_token = {prefill}\n", STEP_MS * 1_000);
    place.write(
        &format!("models/{MODEL}.toml"),
        &format!("backend = \"scripted\"\nsequences = 1\nstep_tokens = 16\nprefix_cache = false\n[scripted]\n{scripted}"),
    );
    let gateway = place.start().await;
    let target = pair::target(&gateway, &place, MODEL)?;
    let mut admin = Admin::connect(&place.data()).await?;
    let more = json!({ "stream": true, "max_tokens": 100_000 });
    let mut steps = Vec::new();
    for _ in 0..here.pick(20, 3) {
        let holder: Option<Stream> = match stage {
            Stage::Queue => Some(decoding(target.connect().await?.stream(&target.body("forever", more.clone())).await?).await?),
            _ => None,
        };
        let text = if stage == Stage::Prefill { format!("forever {}", "and on ".repeat(400)) } else { "forever".to_owned() };
        let (waiting, running) = (u64::from(holder.is_some()), 1);
        let link = target.connect().await?;
        // The headers come after a while or with the first word; the task holds the connection either way.
        let body = target.body(&text, more.clone());
        let request = tokio::spawn(async move {
            let mut stream = link.stream(&body).await?;
            stream.read(usize::MAX).await
        });
        let is_there = |model: &Value| match stage {
            Stage::Queue => model["waiting"] == waiting,
            Stage::Prefill => model["running"] == running,
            Stage::Decode => model["running"] == running,
        };
        let there = admin.until(MODEL, "the request is there", PATIENCE, is_there).await?;
        // Into the middle of its stage.
        let (begun, into) = (count(&there, "steps")?, if stage == Stage::Queue { 2 } else { 4 });
        admin.until(MODEL, "it goes on", PATIENCE, |model| model["steps"].as_u64() >= Some(begun + into)).await?;
        let before = admin.model(MODEL).await?;
        request.abort();
        let _ = request.await;
        let is_free = |model: &Value| if stage == Stage::Queue { model["waiting"] == 0 } else { model["running"] == 0 };
        let after = admin.until(MODEL, "its place is free", PATIENCE, is_free).await?;
        steps.push(count(&after, "steps")? - count(&before, "steps")?);
        drop(holder);
        admin.until(MODEL, "all is quiet", PATIENCE, |model| model["running"] == 0).await?;
    }
    let most = steps.iter().max().copied().unwrap_or_default();
    Ok(Found {
        figure: format!("{most} steps at most, in {} tries", steps.len()),
        verdict: Verdict::of(most <= 1),
        method: format!(
            "The scripted backend with steps of {STEP_MS} ms; steps counted by the model's gauge from the closing of the \
             connection to the place being free, looked at every millisecond."
        ),
        samples: json!(steps),
    })
}

/// A stream that has begun to write.
async fn decoding(mut stream: Stream) -> anyhow::Result<Stream> {
    anyhow::ensure!(stream.first_text(PATIENCE).await?, "the reply ended");
    Ok(stream)
}

fn count(model: &Value, name: &str) -> anyhow::Result<u64> {
    model[name].as_u64().with_context(|| format!("no {name} in {model}"))
}
