//! What the gateway costs by standing there: start-up time, memory, and a hundred clients on the machine's cores.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tollgate_tests::Place;

use super::admin::Admin;
use super::limited::Limited;
use super::pair::{self, MODEL, random_model};
use super::peers::Setting;
use crate::load::{Target, Told};
use crate::process::{memory_kib, peak_kib};
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::{median, percentile};

/// What resident memory with six plugins may be, in bytes.
const AIM_RESIDENT: u64 = 120_000_000;
/// What the limited gateway may have, in bytes.
const LIMIT: u64 = 2_000_000_000;
const AIM_START_MS: f64 = 500.0;

/// The repository's default config, on a free port.
fn default_place(root: &Path) -> anyhow::Result<Place> {
    let place = Place::new();
    std::fs::remove_dir_all(place.config())?;
    for kind in ["models", "plugins", "routes"] {
        for entry in std::fs::read_dir(root.join("config").join(kind))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
            place.write(&format!("{kind}/{name}"), &std::fs::read_to_string(&path)?);
        }
    }
    place.write("listeners/main.toml", "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\n");
    Ok(place)
}

/// From the start of the process to its ready line, with the default config and the demo model.
pub(crate) async fn start(here: Here, is_cold: bool) -> anyhow::Result<Found> {
    let mut times = Vec::new();
    let mut place = default_place(&here.root)?;
    if !is_cold {
        place.start().await.ended_by("TERM").await?;
    }
    for _ in 0..here.pick(10, 2) {
        if is_cold {
            place = default_place(&here.root)?;
        }
        let began = Instant::now();
        let gateway = place.start().await;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        gateway.ended_by("TERM").await?;
    }
    let (middle, worst) = (median(&times), percentile(&times, 1.0));
    Ok(Found {
        figure: format!("{middle:.0} ms (worst {worst:.0})"),
        verdict: if is_cold { Verdict::Stated } else { Verdict::of(worst <= AIM_START_MS) },
        method: format!(
            "The default config and its demo model, {}; from the start of the process to its ready line, {} starts.",
            if is_cold {
                "an empty data directory: certificates are made and four plugins built"
            } else {
                "plugins built before"
            },
            times.len()
        ),
        samples: json!(times),
    })
}

/// Ends a gateway and waits for it.
trait EndedBy {
    async fn ended_by(self, signal: &str) -> anyhow::Result<()>;
}

impl EndedBy for tollgate_tests::Gateway {
    async fn ended_by(mut self, signal: &str) -> anyhow::Result<()> {
        self.signal(signal);
        let status = self.ended().await;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// Resident memory after traffic, with the authenticator alone or with six plugins; no model file.
pub(crate) async fn memory(here: Here, plugins: usize) -> anyhow::Result<Found> {
    let place = Place::new();
    place.remove("tollgate.toml");
    let mut chain = Vec::new();
    if plugins > 1 {
        for (id, config) in [("template-jinja", "[config]\nsystem = \"Answer briefly.\"\n"), ("filter-pii", "")] {
            place.write(&format!("plugins/{id}.toml"), &format!("component = \"builtin:{id}\"\n{config}"));
            chain.push(id);
        }
        for id in ["probe-1", "probe-2"] {
            place.plugin(id, "probe", "grants = [\"log\"]\n");
            chain.push(id);
        }
        place.write("plugins/format-decision.toml", "component = \"builtin:format-decision\"\n");
        place.write(
            "routes/decision.toml",
            "plugins = [\"format-decision\"]\nmodel = \"scripted\"\n[match]\nmodel = \"decision\"\n",
        );
    }
    place.write("routes/chat.toml", &format!("plugins = {chain:?}\n"));
    let gateway = place.start().await;
    let kib = |name: &str| memory_kib(gateway.pid(), name);
    let fresh = kib("Rss")?;
    let target = pair::target(&gateway, &place, "scripted")?;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (target, count) = (target.clone(), here.pick(500, 20));
        tasks.spawn(async move {
            let (body, mut link) = (target.body("count 20", json!({})), target.connect().await?);
            for _ in 0..count {
                link.post(&body).await?.succeeded()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (resident, anonymous, peak) = (kib("Rss")?, kib("Anonymous")?, peak_kib(gateway.pid())?);
    let mb = |kib: u64| kib as f64 * 1.024 / 1e3;
    let verdict = if plugins > 1 { Verdict::of(resident * 1024 <= AIM_RESIDENT) } else { Verdict::Stated };
    Ok(Found {
        figure: format!(
            "{:.0} MB after traffic ({:.0} of it not from files), {:.0} at the start, {:.0} at most",
            mb(resident),
            mb(anonymous),
            mb(fresh),
            mb(peak)
        ),
        verdict,
        method: "Resident memory of the process (smaps_rollup), scripted backend, after 4,000 chats over 8 connections."
            .to_owned(),
        samples: json!({ "fresh_kib": fresh, "resident_kib": resident, "anonymous_kib": anonymous, "peak_kib": peak }),
    })
}

/// The large model at four streams, with plugins, inside a limit of 2 GB.
pub(crate) async fn limited(here: Here) -> anyhow::Result<Found> {
    let file = random_model(&here)?;
    forget(&file)?;
    let place = pair::place(&file, Setting { threads: pair::cores(), sequences: 4, context_tokens: 8_192 });
    place
        .write("plugins/template-jinja.toml", "component = \"builtin:template-jinja\"\n[config]\nsystem = \"Answer briefly.\"\n");
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"template-jinja\", \"filter-pii\"]\n");
    let limit = Limited::to(LIMIT);
    let wrapper = limit.wrapper.iter().map(String::as_str).collect::<Vec<_>>();
    let gateway = place.start_under(&wrapper).await;
    let target = pair::target(&gateway, &place, MODEL)?;
    let mut admin = Admin::connect(&place.data()).await?;
    let told =
        crowd(&target, 4, here.pick(3, 1), &"lorem ipsum dolor sit amet ".repeat(here.pick(40, 4)), here.pick(64, 8)).await;
    let told =
        told.with_context(|| format!("under {}: the gateway may have been ended for its memory:\n{}", limit.by, place.log()))?;
    let predicted = admin.model(MODEL).await?["memory_bytes"].as_u64().unwrap_or_default();
    let (resident, anonymous) = (memory_kib(gateway.pid(), "Rss")?, memory_kib(gateway.pid(), "Anonymous")?);
    let most = limit.read("memory.max_usage_in_bytes", "memory.peak");
    let failures = limit.read("memory.failcnt", "memory.failcnt");
    let gaps = told.iter().flat_map(Told::gaps_ms).collect::<Vec<_>>();
    drop(gateway);
    Ok(Found {
        figure: format!(
            "all {} replies; {:.0} MB resident, {:.0} of it not from files; {:.0} ms between tokens at the median",
            told.len(),
            resident as f64 * 1.024 / 1e3,
            anonymous as f64 * 1.024 / 1e3,
            median(&gaps)
        ),
        verdict: Verdict::Met,
        method: format!(
            "Limited to 2,000,000,000 bytes by {}; the file's pages were dropped from the page cache before, so that they count. Four \
             streams, three times each, prompts of some 700 tokens, template-jinja and filter-pii on the route.",
            limit.by
        ),
        samples: json!({ "resident_kib": resident, "anonymous_kib": anonymous, "predicted_bytes": predicted,
            "group_most_bytes": most, "group_reclaims": failures, "gaps_ms": gaps }),
    })
}

/// Drops a file's pages from the page cache, as far as nobody has them mapped.
fn forget(file: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::open(file)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// A hundred clients at once, with the default config and the demo model.
pub(crate) async fn hundred(here: Here) -> anyhow::Result<Found> {
    const CLIENTS: usize = 100;
    let place = default_place(&here.root)?;
    let gateway = place.start().await;
    let target = pair::target(&gateway, &place, "demo")?;
    let began = Instant::now();
    let told = crowd(&target, CLIENTS, here.pick(10, 1), "How do I add a key?", 32).await?;
    let seconds = began.elapsed().as_secs_f64();
    let firsts = told.iter().filter_map(Told::first_ms).collect::<Vec<_>>();
    let wholes = told.iter().map(|told| told.ended.duration_since(told.began).as_secs_f64() * 1e3).collect::<Vec<_>>();
    let is_whole = told.iter().all(|told| told.is_done && told.is_whole);
    let tokens = told.iter().filter_map(|told| told.count("completion_tokens")).sum::<u64>();
    Ok(Found {
        figure: format!(
            "{} of {} answered; {:.0} tok/s; first word p50 {:.0} ms, p99 {:.0}; whole p50 {:.0} ms, p99 {:.0}",
            told.iter().filter(|told| told.is_done).count(),
            CLIENTS * here.pick(10, 1),
            tokens as f64 / seconds,
            median(&firsts),
            percentile(&firsts, 0.99),
            median(&wholes),
            percentile(&wholes, 0.99)
        ),
        verdict: Verdict::of(is_whole),
        method: format!(
            "The default config (16 sequences, a queue of 256) on {} cores with the clients beside it: streamed replies of 32 tokens, \
             each client ten times in a row; a refusal fails the row.",
            pair::cores()
        ),
        samples: json!({ "first_ms": super::plugin::quantiles(&firsts), "whole_ms": super::plugin::quantiles(&wholes),
            "tokens": tokens, "seconds": seconds }),
    })
}

/// Clients that each ask several times in a row, streamed; all that they were told.
async fn crowd(target: &Target, clients: usize, times: usize, text: &str, max_tokens: usize) -> anyhow::Result<Vec<Told>> {
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let (target, text) = (target.clone(), format!("{number} {text}"));
        tasks.spawn(async move {
            let more = json!({ "stream": true, "stream_options": { "include_usage": true }, "max_tokens": max_tokens });
            let (body, mut all) = (target.body(&text, more), Vec::new());
            for _ in 0..times {
                all.push(target.connect().await?.stream(&body).await?.rest().await?);
            }
            anyhow::Ok(all)
        });
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(900);
    let mut all = Vec::new();
    while let Some(told) = tokio::time::timeout_at(deadline, tasks.join_next()).await.context("not all were answered in time")? {
        all.extend(told??);
    }
    Ok(all)
}
