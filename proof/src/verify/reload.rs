//! Changes of the config under load: nothing fails, no answer mixes two configs, what is wrong takes no effect (P-U1, P-U2, P-U3).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::{Gateway, Place, plugin_file, write_as};

use super::checks::Checks;
use super::good::{Good, Mix, Tally};
use super::wire::Wire;
use crate::report::Found;
use crate::rows::Here;

const PLUGIN: &str = "plugins/probe.toml";
const ROUTE: &str = "routes/chat.toml";
/// What a change that is noticed by itself may take: the poll's 10 s, and a little (P-U2).
const NOTICED: Duration = Duration::from_secs(12);

fn of_component(component: &Path, word: &str) -> String {
    format!("component = {:?}\ngrants = [\"log\"]\n[config]\nword = {word:?}\n", component.display().to_string())
}

/// The probe's file with a word. A word that was not there before is a build.
fn probe(word: &str) -> String {
    of_component(&plugin_file("probe"), word)
}

fn route(max_tokens: usize) -> String {
    format!("plugins = [\"probe\"]\n[limits]\nmax_tokens = {max_tokens}\n")
}

async fn start(settings: &str) -> anyhow::Result<(Place, Gateway, Wire)> {
    let place = Place::new();
    place.write("tollgate.toml", &format!("[log]\nlevel = \"warn\"\n{settings}"));
    place.write(PLUGIN, &probe("w0"));
    place.write(ROUTE, &route(1_000));
    place.write("models/paced.toml", "backend = \"scripted\"\nsequences = 64\n[scripted]\ntoken_us = 10000\n");
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    Ok((place, gateway, wire))
}

/// A file that is wrong, in the ways that files are.
fn spoiled(number: usize) -> Option<String> {
    let whole = probe("never");
    match number / 10 % 5 {
        0 => Some(whole[..whole.len() - 4].to_owned()),
        1 => Some(whole.replace("grants", "grnats")),
        2 => Some(String::new()),
        3 => Some(format!("{whole}# {}\n", "x".repeat(2 << 20))),
        _ => None,
    }
}

/// What was asked of the gateway, and which generation came of it.
struct Edits {
    words: BTreeMap<u64, String>,
    word: String,
    tokens: usize,
    builds: usize,
    refused: usize,
}

impl Edits {
    async fn make(&mut self, number: usize, place: &Place, gateway: &Gateway) -> anyhow::Result<()> {
        match number % 10 {
            0 | 5 => {
                self.word = format!("w{number}");
                self.builds += 1;
                write_as(number / 5, place, PLUGIN, &probe(&self.word), number);
            }
            3 => self.spoil(number, place, gateway).await?,
            _ => {
                self.tokens = 1_000 + number;
                write_as(number, place, ROUTE, &route(self.tokens), number);
            }
        }
        let status = gateway.reload().await;
        ensure!(status["state"] == "ok", "after edit {number}: {status}");
        self.words.insert(status["generation"].as_u64().context("a generation")?, self.word.clone());
        let routes = gateway.admin(&["routes"]).await;
        ensure!(routes["routes"][0]["max_tokens"] == self.tokens, "edit {number} is not what serves: {routes}");
        Ok(())
    }

    /// Something wrong, and the good file again.
    async fn spoil(&mut self, number: usize, place: &Place, gateway: &Gateway) -> anyhow::Result<()> {
        match spoiled(number) {
            Some(text) => write_as(number, place, PLUGIN, &text, number),
            None => place.remove(PLUGIN),
        }
        let status = gateway.reload().await;
        ensure!(status["state"] == "degraded", "a wrong file went unnoticed: {status}");
        self.refused += 1;
        write_as(1, place, PLUGIN, &probe(&self.word), number);
        Ok(())
    }
}

/// Generations whose answers had more than one word, or another than was asked for.
fn mixed(tally: &Tally, asked: &BTreeMap<u64, String>) -> usize {
    let wrong = tally
        .words
        .iter()
        .filter(|(generation, words)| words.len() != 1 || asked.get(generation).is_some_and(|word| !words.contains(word)));
    wrong.count()
}

/// P-U1: edits in six writers' styles, one in five a build, one in ten wrong.
pub(crate) async fn edits(here: Here) -> anyhow::Result<Found> {
    let (count, per_s) = here.pick((1_000, 500), (30, 100));
    let (place, gateway, wire) = start("[reload]\npoll_s = 1\ndebounce_ms = 20\n").await?;
    let good = Good::start(&wire, per_s, Mix::Word);
    let mut edits =
        Edits { words: BTreeMap::from([(1, "w0".to_owned())]), word: "w0".to_owned(), tokens: 1_000, builds: 0, refused: 0 };
    let began = Instant::now();
    for number in 1..=count {
        edits.make(number, &place, &gateway).await?;
        if number % 50 == 0 {
            eprintln!("   {number} of {count} edits, {} s", began.elapsed().as_secs());
        }
    }
    let seconds = began.elapsed().as_secs().max(1);
    let tally = good.finish().await;
    let mut checks = Checks::default();
    let rate = tally.count() / seconds;
    checks.state(format!("{count} edits, {} of them builds, {} wrong ones", edits.builds, edits.refused));
    checks.check(format!("{} failed of {} requests ({rate}/s)", tally.failed, tally.count()), tally.failed == 0);
    let mixed = mixed(&tally, &edits.words);
    checks.check(format!("{mixed} mixed of {} generations seen", tally.words.len()), mixed == 0);
    checks.state(tally.shape());
    checks.method("Edits by six writers' styles (redirection, rename, vim, rsync, cp, Kubernetes links), each followed by `tollgate reload`; every answer is the word in its plugin's config, held against the generation that the answer names.");
    checks.sample("good", tally.json());
    Ok(checks.found())
}

/// Asks until the plugin says `word`; how long that took.
async fn serves(wire: &Wire, word: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        if wire.chat("scripted", "config", Value::Null).await?.content() == word {
            return Ok(began.elapsed());
        }
        if began.elapsed() > NOTICED * 3 {
            bail!("{word} does not serve after {:?}", began.elapsed());
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// P-U2: changes that nobody announces, after links were swapped, a folder made anew, and a storm of events.
pub(crate) async fn unannounced(here: Here) -> anyhow::Result<Found> {
    let (swaps, files) = here.pick((500, 100_000), (12, 5_000));
    let (place, _gateway, wire) = start("").await?;
    let mut times = Vec::new();
    for number in 0..swaps {
        let word = ["one", "two", "three"][number % 3];
        write_as(5, &place, PLUGIN, &probe(word), number);
        times.push(serves(&wire, word).await?);
    }
    let swapped = times.iter().max().copied().unwrap_or_default();

    // The folder is another one from now on.
    let (folder, aside) = (place.config().join("plugins"), place.config().join(".aside"));
    fs::rename(&folder, &aside)?;
    fs::create_dir(&folder)?;
    for entry in fs::read_dir(&aside)? {
        let path = entry?.path();
        fs::write(folder.join(path.file_name().context("a name")?), fs::read(&path)?)?;
    }
    place.write(PLUGIN, &probe("four"));
    let recreated = serves(&wire, "four").await?;

    // More events than the kernel keeps, and the change among them.
    for number in 0..files {
        let path = folder.join(format!(".storm{number}"));
        fs::write(&path, "x")?;
        if number == files / 2 {
            place.write(PLUGIN, &probe("five"));
        }
        fs::remove_file(&path)?;
    }
    let stormed = serves(&wire, "five").await?;
    let mut checks = Checks::default();
    let figure = |what: &str, time: Duration| format!("{what} {:.2} s", time.as_secs_f64());
    checks.check(figure(&format!("{swaps} link swaps: longest"), swapped), swapped <= NOTICED);
    checks.check(figure("folder recreated:", recreated), recreated <= NOTICED);
    checks.check(figure(&format!("after {} file events:", files * 3), stormed), stormed <= NOTICED);
    checks.sample("swap_ms", json!(times.iter().map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>()));
    Ok(checks.found())
}

/// Replies that run while plugins are swapped: (whole, ended with a typed error, anything else).
async fn replies(wire: Wire, stop: Arc<AtomicBool>) -> (u64, u64, Vec<String>) {
    let (mut whole, mut ended, mut wrong) = (0, 0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match reply(&wire).await {
            Ok(text) if text.ends_with("data: [DONE]\n\n") => whole += 1,
            Ok(text) if text.contains("\"error\":") => ended += 1,
            Ok(text) => wrong.push(text.chars().rev().take(200).collect::<Vec<_>>().into_iter().rev().collect()),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    (whole, ended, wrong)
}

async fn reply(wire: &Wire) -> anyhow::Result<String> {
    let body = wire.http().await?.stream("paced", "forever", json!({ "max_tokens": 200 })).await?;
    let bytes = timeout(Duration::from_secs(60), body.collect()).await.context("it does not end")??.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// P-U3: swaps between two plugins that are built already, replies under way, now and then one of another world.
pub(crate) async fn swaps(here: Here) -> anyhow::Result<Found> {
    let (count, per_s) = here.pick((1_000, 500), (40, 100));
    let (place, gateway, wire) = start("[reload]\npoll_s = 1\ndebounce_ms = 0\ndrain_s = 5\ngenerations = 64\n").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let streams = (0..4).map(|_| tokio::spawn(replies(wire.clone(), Arc::clone(&stop)))).collect::<Vec<_>>();
    let good = Good::start(&wire, per_s, Mix::Word);
    let (mut asked, mut refused) = (BTreeMap::from([(1, "w0".to_owned())]), 0);
    for number in 1..=count {
        let word = format!("w{}", number % 2);
        if number % 20 == 0 {
            place.write(PLUGIN, &of_component(&plugin_file("probe-of-another-world"), &word));
            let status = gateway.reload().await;
            ensure!(status["quarantined"][0]["stage"] == "check", "another world's plugin: {status}");
            refused += 1;
        }
        place.write(PLUGIN, &probe(&word));
        let status = gateway.reload().await;
        ensure!(status["state"] == "ok", "swap {number}: {status}");
        asked.insert(status["generation"].as_u64().context("a generation")?, word);
    }
    stop.store(true, Ordering::Relaxed);
    let swapped = Instant::now();
    let tally = good.finish().await;
    let (mut whole, mut ended, mut wrong) = (0, 0, Vec::new());
    for stream in streams {
        let (a, b, c) = stream.await?;
        (whole, ended) = (whole + a, ended + b);
        wrong.extend(c);
    }
    while gateway.admin(&["status"]).await["live_generations"] != 1 && swapped.elapsed() < Duration::from_secs(30) {
        sleep(Duration::from_millis(100)).await;
    }
    let gone = swapped.elapsed();
    let mut checks = Checks::default();
    checks.check(format!("{count} swaps: {} failed of {} requests", tally.failed, tally.count()), tally.failed == 0);
    let mixed = mixed(&tally, &asked);
    checks.check(format!("{mixed} mixed of {} generations seen", tally.words.len()), mixed == 0);
    checks.check(format!("{whole} streams whole, {ended} ended with a typed error, {} broken", wrong.len()), wrong.is_empty());
    checks.state(format!("{refused} components of another world refused"));
    checks.check(format!("old generations gone after {:.1} s of 5 s", gone.as_secs_f64()), gone < Duration::from_secs(7));
    checks.sample("good", tally.json());
    checks.sample("broken", json!(wrong));
    Ok(checks.found())
}
