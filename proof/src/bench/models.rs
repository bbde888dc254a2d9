//! Models that are loaded and exchanged: how long loading takes beside `llama-server`, and what a model takes in memory against what
//! was predicted.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;

use super::pair::cores;
use super::peers::{LlamaServer, Setting};
use crate::generated;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::{median, percentile};
use crate::weigh;

/// From the decision to load the largest generated model until it can answer, here and there in turn.
pub(crate) async fn load(here: Here) -> anyhow::Result<Found> {
    let server = LlamaServer::ensure(&here.root).await?;
    let model = generated::six(&here)?.pop().context("six models")?;
    // As the gateway has it where its config says nothing.
    let setting = Setting { threads: cores(), sequences: 16, context_tokens: 1_024 };
    let place = generated::place(std::slice::from_ref(&model), "");
    let gateway = place.start().await;
    let folder = tempfile::tempdir()?;
    let (mut ours, mut theirs, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    // The first round of each fills the page cache.
    for round in 0..=here.pick(10, 1) {
        let began = Instant::now();
        let warmed = gateway.admin(&["model", "warm", model.id]).await;
        let from_outside = began.elapsed().as_secs_f64() * 1e3;
        ensure!(warmed["state"] == "ready", "{warmed}");
        let own = warmed["load_ms"].as_u64().context("load_ms")? as f64;
        gateway.admin(&["model", "unload", model.id]).await;
        let began = Instant::now();
        let started = server.start(&model.path, setting, folder.path()).await?;
        let ready = began.elapsed().as_secs_f64() * 1e3;
        drop(started);
        eprintln!("   {round}: {own:.0} ms, {from_outside:.0} with the command; llama-server {ready:.0}");
        if round > 0 {
            ours.push(own);
            asked.push(from_outside);
            theirs.push(ready);
        }
    }
    let (own, other) = (median(&ours), median(&theirs));
    Ok(Found {
        figure: format!(
            "{own:.0} ms (worst {:.0}), {:.0} with the command that asks for it; llama-server ready after {other:.0} ms; {:.0} MB",
            percentile(&ours, 1.0),
            median(&asked),
            model.bytes as f64 / 1e6
        ),
        verdict: Verdict::of(median(&asked) <= other),
        method: format!(
            "{}; `llama-server {}`, else at its defaults. Ours is `tollgate_model_load_duration_seconds`, which holds reading, hashing and \
             preparing the file; theirs is from the start of its process to a good `/health`, asked every 100 ms. The file is in the \
             page cache; medians of {} rounds, in turn.",
            server.versions,
            server.arguments(setting).join(" "),
            ours.len()
        ),
        samples: json!({ "ours_ms": ours, "ours_with_command_ms": asked, "llama_server_ms": theirs, "file_bytes": model.bytes }),
    })
}

/// What six models take, against what was predicted.
pub(crate) async fn memory(here: Here) -> anyhow::Result<Found> {
    let weights = weigh::all(&generated::six(&here)?).await?;
    let is_met = weights.iter().all(|weight| weight.off().abs() <= weigh::MOST);
    Ok(Found {
        figure: weights.iter().map(weigh::Weight::figure).collect::<Vec<_>>().join("; "),
        // The small models of a short run are smaller than what a process needs to serve anything.
        verdict: here.pick(Verdict::of(is_met), Verdict::Stated),
        method: weigh::METHOD.to_owned(),
        samples: weights.iter().map(weigh::Weight::json).collect(),
    })
}
