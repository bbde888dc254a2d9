//! kill -9 at random moments of every command that changes what is installed: `current` is a whole model after each, a gateway
//! starts with it, and the next command puts in order what was left (P-M10).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::Place;

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::wire::Wire;
use super::server::Server;
use super::{NAME, PATIENCE, Probed, SERVED, command, current_file, good, import, installed, named, probe, tidy, whole};
use crate::report::Found;
use crate::rows::Here;

const VERBS: [&str; 5] = ["import", "pull", "verify", "activate", "rollback"];
/// What a rollback may take; loading the demo model takes nothing beside it.
const ROLLBACK: Duration = Duration::from_secs(5);

/// A data directory under attack.
struct Target {
    place: Place,
    server: Server,
    folder: TempDir,
    /// How long each verb takes when it is left alone.
    times: BTreeMap<&'static str, Duration>,
    number: usize,
}

/// Runs it.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (count, starts) = here.pick((300, 20), (12, 6));
    let mut target = Target::prepared().await?;
    let (mut killed, mut broken, mut unbootable) = (BTreeMap::<&str, usize>::new(), Vec::new(), Vec::new());
    let (mut chance, mut tries, mut booted) = (Chance(10), 0, 0);
    while killed.values().sum::<usize>() < count && tries < count * 4 {
        let verb = VERBS[tries % VERBS.len()];
        tries += 1;
        let Some(after) = target.kill(verb, &mut chance).await? else { continue };
        *killed.entry(verb).or_default() += 1;
        let what = format!("{verb} killed after {:.1} ms", after.as_secs_f64() * 1e3);
        if let Err(error) = target.look().await {
            broken.push(format!("{what}: {error:#}"));
        }
        let kills = killed.values().sum::<usize>();
        if kills % starts == 0 {
            booted += 1;
            if let Err(error) = target.boot().await {
                unbootable.push(format!("{what}: {error:#}"));
            }
            eprintln!("   {kills} of {count} kills, {tries} commands");
        }
        tidy(&target.place).await.with_context(|| format!("after {what}"))?;
    }
    let kills = killed.values().sum::<usize>();
    let mended = target.mends().await.map_err(|error| format!("{error:#}"));
    let rollbacks = target.rollbacks(here.pick(20, 3)).await?;
    let longest = rollbacks.iter().max().copied().unwrap_or_default();
    let mut checks = Checks::default();
    let of_each = killed.iter().map(|(verb, times)| format!("{times} of {verb}")).collect::<Vec<_>>().join(", ");
    checks.check(format!("{kills} of {count} kills ({of_each}) in {tries} commands"), kills == count);
    checks.check(format!("{} times `current` was not a whole model that answers", broken.len()), broken.is_empty());
    checks
        .check(format!("{} of {booted} gateways did not start and answer after a kill", unbootable.len()), unbootable.is_empty());
    checks.check(format!("the next install puts all in order: {}", mended.is_ok()), mended.is_ok());
    let line =
        format!("rollback under a running gateway, until the other version answers: {:.2} s at most", longest.as_secs_f64());
    checks.check(line, longest <= ROLLBACK);
    checks.method(format!(
        "Each command is killed at a random moment of the time that it takes when it is left alone; then `tollgate model list` and \
         `verify`, a probe of what is current in a process of its own, and after every {starts}th a gateway. Rollbacks: {} times.",
        rollbacks.len()
    ));
    checks.sample("broken", json!(broken));
    checks.sample("unbootable", json!(unbootable));
    checks.sample("mended", json!(mended.err()));
    checks.sample("rollback_s", json!(rollbacks.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()));
    Ok(checks.found())
}

impl Target {
    /// Two versions, one of them current; and each verb once, left alone.
    async fn prepared() -> anyhow::Result<Self> {
        let (place, server, folder) = (Place::new(), Server::start().await?, tempfile::tempdir()?);
        place.write("models/m.toml", SERVED);
        let mut target = Target { place, server, folder, times: BTreeMap::new(), number: 0 };
        for _ in 0..2 {
            let path = target.fresh()?;
            import(&target.place, Path::new(&path)).await?;
        }
        for verb in VERBS {
            let arguments = target.arguments(verb).await?;
            let began = Instant::now();
            good(&target.place, &words(&arguments)).await?;
            target.times.insert(verb, began.elapsed());
            tidy(&target.place).await?;
        }
        Ok(target)
    }

    /// A model that was never installed, as a file.
    fn fresh(&mut self) -> anyhow::Result<String> {
        self.number += 1;
        let path = self.folder.path().join("model.gguf");
        std::fs::write(&path, named(self.number)?)?;
        Ok(path.to_str().context("a path in UTF-8")?.to_owned())
    }

    /// The command of a verb that has something to do.
    async fn arguments(&mut self, verb: &str) -> anyhow::Result<Vec<String>> {
        let mut arguments = match verb {
            "import" => vec![self.fresh()?, "--unsigned".to_owned(), "--name".to_owned(), NAME.to_owned()],
            "pull" => {
                self.number += 1;
                self.server.remove(&format!("/model-{}.gguf", self.number - 1));
                let path = format!("/model-{}.gguf", self.number);
                self.server.put(&path, named(self.number)?);
                vec![self.server.url(&path), "--unsigned".to_owned(), "--name".to_owned(), NAME.to_owned()]
            }
            "activate" => {
                let (current, others) = installed(&self.place).await?;
                let digest = others.into_iter().next().or(current).context("no version is installed")?;
                vec![NAME.to_owned(), digest]
            }
            _ => vec![NAME.to_owned()],
        };
        arguments.insert(0, verb.to_owned());
        Ok(arguments)
    }

    /// Starts a command and kills it at a random moment; after how long, or nothing if it had ended by then.
    async fn kill(&mut self, verb: &str, chance: &mut Chance) -> anyhow::Result<Option<Duration>> {
        let arguments = self.arguments(verb).await?;
        let micros = self.times.get(verb).map_or(0, Duration::as_micros);
        let wait = Duration::from_micros(chance.below(usize::try_from(micros)?) as u64);
        let mut command = command(&self.place, &words(&arguments));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("tollgate does not start")?;
        // The runtime's own timer is as coarse as a millisecond.
        tokio::task::spawn_blocking(move || std::thread::sleep(wait)).await?;
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        child.kill().await?;
        Ok(Some(wait))
    }

    /// Whether what is current is whole, and answers.
    async fn look(&self) -> anyhow::Result<()> {
        whole(&self.place).await?;
        let probed = probe(&current_file(&self.place)?).await?;
        ensure!(probed == Probed::Answers, "{probed:?}");
        Ok(())
    }

    /// Whether a gateway starts and answers with what is current.
    async fn boot(&self) -> anyhow::Result<()> {
        let current = whole(&self.place).await?;
        let gateway = self.place.start().await;
        let answers = digest(&Wire::new(&self.place, &gateway)?).await?;
        ensure!(answers == current, "{answers} answers, {current} is current");
        Ok(())
    }

    /// Whether an install that is left alone goes well, and leaves nothing half-made.
    async fn mends(&mut self) -> anyhow::Result<()> {
        let path = self.fresh()?;
        let digest = import(&self.place, Path::new(&path)).await?;
        ensure!(whole(&self.place).await? == digest, "it is not current");
        tidy(&self.place).await?;
        let cache = self.place.data().join("models/cache");
        let count = |folder: &str| anyhow::Ok(std::fs::read_dir(cache.join(folder))?.count());
        let (staging, versions, blobs) = (count("staging")?, count("versions")?, count("blobs")?);
        ensure!(staging == 0 && versions == blobs, "{staging} in staging, {versions} versions, {blobs} blobs");
        Ok(())
    }

    /// How long rollbacks take, from the command to the first answer of the other version.
    async fn rollbacks(&self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let gateway = self.place.start().await;
        let wire = Wire::new(&self.place, &gateway)?;
        let mut times = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let to = good(&self.place, &["rollback", NAME]).await?["digest"].as_str().context("a digest")?.to_owned();
            let answers = async {
                while digest(&wire).await? != to {
                    sleep(Duration::from_millis(5)).await;
                }
                anyhow::Ok(())
            };
            timeout(PATIENCE, answers).await.context("the version before does not answer")??;
            times.push(began.elapsed());
        }
        Ok(times)
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Which version answers.
async fn digest(wire: &Wire) -> anyhow::Result<String> {
    let answer = wire.chat(NAME, "What is Tollgate?", json!({ "max_tokens": 4 })).await?;
    ensure!(answer.status.is_success() && !answer.content().is_empty(), "{}: {}", answer.status, answer.text());
    Ok(answer.header("x-tollgate-model-digest").to_owned())
}
