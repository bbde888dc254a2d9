//! How long a change of a file takes to serve, with the default settings and requests running; none of them may fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tollgate_tests::Place;

use super::admin::Admin;
use super::pair;
use crate::load::Target;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::median;

/// Connections that ask meanwhile.
const CONNECTIONS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The component itself: all of it is compiled.
    Component,
    /// The plugin's config: init, snapshot, and what of the code is new.
    Config,
    /// The plugin's config, to one that was built before.
    Cached,
}

impl Change {
    fn aim_ms(self) -> f64 {
        match self {
            Change::Component => 2_000.0,
            Change::Config => 500.0,
            Change::Cached => 50.0,
        }
    }
}

/// The rows.
pub(crate) async fn reload(here: Here, change: Change) -> anyhow::Result<Found> {
    let place = Place::new();
    place.remove("tollgate.toml");
    let folder = tempfile::tempdir()?;
    let component = folder.path().join("template.wasm");
    replace(&component, &version(0)?)?;
    write_plugin(&place, &component, 0)?;
    place.write("routes/chat.toml", "plugins = [\"template\"]\n");
    let gateway = place.start().await;
    let mut admin = Admin::connect(&place.data()).await?;
    let traffic = Traffic::start(&pair::target(&gateway, &place, "scripted")?);
    if change == Change::Cached {
        // Both that it goes between are built.
        for number in [1, 0] {
            write_plugin(&place, &component, number)?;
            next_generation(&mut admin).await?;
        }
    }
    let mut samples = Vec::new();
    for number in 1..=here.pick(10, 2) {
        // A change begins in quiet, so that it is not folded into the one before.
        sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        match change {
            Change::Component => replace(&component, &version(number)?)?,
            Change::Config => write_plugin(&place, &component, number)?,
            Change::Cached => write_plugin(&place, &component, number % 2)?,
        }
        let status = next_generation(&mut admin).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        eprintln!("   {number}: {took:.0} ms, {} ms of them the build", status["last_build_ms"]);
        samples.push(json!({ "active_ms": took, "build_ms": status["last_build_ms"] }));
    }
    let (answers, failures) = traffic.stop().await?;
    let times = |name: &str| samples.iter().filter_map(|sample| sample[name].as_f64()).collect::<Vec<_>>();
    let (active, build) = (times("active_ms"), times("build_ms"));
    let worst = active.iter().copied().fold(0.0, f64::max);
    Ok(Found {
        figure: format!(
            "{:.0} ms (worst {worst:.0}), {:.0} of them the build; {failures} of {answers} requests failed",
            median(&active),
            median(&build)
        ),
        verdict: Verdict::of(worst <= change.aim_ms() && failures == 0),
        method: format!(
            "template-jinja, 0.9 MB; from the rename of the file to the new generation in `tollgate status`, asked every 2 ms; \
             median of {}; default settings, so 20 ms of every change are the quiet that is waited for; {CONNECTIONS} connections \
             ask all the while.",
            active.len()
        ),
        samples: json!(samples),
    })
}

/// The component with a custom section that makes it another one.
fn version(number: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = std::fs::read(tollgate_tests::plugin_file("template-jinja"))?;
    let content = format!("bench{number:08}");
    // Id 0, size of the rest, length of the name, the name, the content.
    bytes.extend([0, u8::try_from(content.len() + 1)?, 5]);
    bytes.extend(content.as_bytes());
    Ok(bytes)
}

/// Puts a file in place as careful programs do.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    Ok(std::fs::rename(beside, path)?)
}

fn write_plugin(place: &Place, component: &Path, number: usize) -> anyhow::Result<()> {
    let text = format!("component = {:?}\n[config]\nsystem = \"Answer in {number} words.\"\n", component.display().to_string());
    let path: PathBuf = place.config().join("plugins/template.toml");
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    let beside = place.config().join("plugins/.template.toml.new");
    std::fs::write(&beside, text)?;
    Ok(std::fs::rename(beside, path)?)
}

/// Waits until another generation serves; returns the status then.
async fn next_generation(admin: &mut Admin) -> anyhow::Result<Value> {
    let (first, end) = (admin.get("status").await?, Instant::now() + PATIENCE);
    loop {
        let status = admin.get("status").await?;
        if status["generation"] != first["generation"] {
            ensure!(status["state"] == "ok", "{status}");
            return Ok(status);
        }
        if Instant::now() > end {
            bail!("the change does not serve: {status}");
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Requests that run all the while.
struct Traffic {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
}

impl Traffic {
    fn start(target: &Target) -> Self {
        let (stop, answers, failures) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (target, stop, answers, failures) =
                (target.clone(), Arc::clone(&stop), Arc::clone(&answers), Arc::clone(&failures));
            tasks.spawn(async move {
                let body = target.body("say done", json!({}));
                let mut link = None;
                while !stop.load(Ordering::Relaxed) {
                    let is_ok = match &mut link {
                        None => target.connect().await.map(|new| link = Some(new)).is_ok(),
                        Some(open) => {
                            answers.fetch_add(1, Ordering::Relaxed);
                            open.post(&body).await.and_then(crate::load::Answer::succeeded).is_ok()
                        }
                    };
                    if !is_ok {
                        failures.fetch_add(1, Ordering::Relaxed);
                        link = None;
                    }
                    // A pace, so that builds get their share of a small machine.
                    sleep(Duration::from_millis(10)).await;
                }
            });
        }
        Traffic { tasks, stop, answers, failures }
    }

    /// Ends it; how many were asked, and how many failed.
    async fn stop(mut self) -> anyhow::Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok((self.answers.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed)))
    }
}
