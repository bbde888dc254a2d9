//! P-W5: components that are hard to compile, made at random, or spoiled, put into a running gateway's config.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use arbitrary::Unstructured;
use serde_json::{Value, json};
use tollgate_tests::{Gateway, Place, plugin_file};

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::good::{Good, Mix, Tally};
use super::super::process::Process;
use super::super::scrape::{Scrape, whole};
use super::super::wire::Wire;
use super::guest::{Guest, manifest, plugin_text};
use super::{instances_left, memory_after, place};
use crate::report::Found;
use crate::rows::Here;

/// Plugins that are new in one reload.
const BATCH: usize = 16;
/// What good traffic may wait longer than it does alone.
const STALL_MS: f64 = 10.0;

/// What was put there, and what became of it.
#[derive(Debug, Default)]
struct Seen {
    built: usize,
    /// By stage.
    refused: std::collections::BTreeMap<String, usize>,
    wrong: Vec<String>,
}

/// A running gateway into which components are put.
struct Site {
    place: Place,
    gateway: Gateway,
    wire: Wire,
    seen: Seen,
}

impl Site {
    async fn new(here: &Here) -> anyhow::Result<Self> {
        let place = place();
        // The promise's limits for a build; short ones for a short run.
        let (memory, time) = here.pick((512, 20), (512, 4));
        let build = format!("[build]\nmemory_mib = {memory}\ntime_s = {time}\n");
        place.write("tollgate.toml", &format!("[log]\nlevel = \"warn\"\n[reload]\ndebounce_ms = 0\npoll_s = 3600\n{build}"));
        Guest { name: "serves", ..Guest::default() }.install(&place, "")?;
        let gateway = place.start().await;
        let wire = Wire::new(&place, &gateway)?;
        Ok(Site { place, gateway, wire, seen: Seen::default() })
    }

    /// Puts components there, and sees that each is refused by name, or built; takes them away again.
    async fn put(&mut self, components: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        let folder = self.place.data().join("guests");
        let file = |name: &str| -> PathBuf { folder.join(format!("{name}.wasm")) };
        for (name, bytes) in components {
            std::fs::write(file(name), bytes)?;
            self.place.write(&format!("plugins/{name}.toml"), &plugin_text(&file(name), ""));
        }
        let (told_before, attempts_before) = (self.told(), self.attempts().await?);
        let status = self.gateway.reload().await;
        // The watcher may have tried before it was asked, when not all of them were there yet; who asks gets an attempt of their own.
        let attempts = self.attempts().await? - attempts_before;
        let quarantined = status["quarantined"].as_array().cloned().unwrap_or_default();
        for entry in &quarantined {
            let (file, reason) = (entry["file"].as_str().unwrap_or_default(), entry["reason"].as_str().unwrap_or_default());
            if !components.iter().any(|(name, _)| file == format!("plugins/{name}.toml")) || reason.is_empty() {
                self.seen.wrong.push(format!("{entry}"));
            }
            *self.seen.refused.entry(entry["stage"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let told = self.told() - told_before;
        let is_as_it_says = (status["state"] == "ok") == quarantined.is_empty();
        let refused = quarantined.len() as u64;
        if !is_as_it_says || !(refused..=refused * attempts).contains(&(told as u64)) || attempts > 2 {
            let (refused, state) = (quarantined.len(), &status["state"]);
            self.seen.wrong.push(format!("{refused} refused in {attempts} attempts, {told} lines in the log, state {state}"));
        }
        self.seen.built += components.len() - quarantined.len().min(components.len());
        let serves = self.wire.chat("serves", "say on", Value::Null).await?;
        ensure!(serves.status.is_success(), "the last good generation does not serve: {}", serves.text());
        for (name, _) in components {
            self.place.remove(&format!("plugins/{name}.toml"));
            std::fs::remove_file(file(name))?;
        }
        let status = self.gateway.reload().await;
        ensure!(status["state"] == "ok", "when they are gone: {status}");
        Ok(())
    }

    /// Reloads that failed.
    async fn attempts(&self) -> anyhow::Result<u64> {
        Ok(whole(Scrape::of(&self.wire).await?.sum("tollgate_reloads_total", &["\"failed\""], &[])))
    }

    /// Lines of the log that say that something is refused.
    fn told(&self) -> usize {
        self.place.log().lines().filter(|line| line.contains("config quarantined")).count()
    }
}

/// `count` times a text with its number in the place of `#`.
fn repeated(count: usize, text: &str) -> String {
    let mut all = String::new();
    for number in 0..count {
        let _ = writeln!(all, "{}", text.replace('#', &number.to_string()));
    }
    all
}

/// A component written as text, with a manifest.
fn of_text(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut component = wat::parse_str(text)?;
    manifest(&mut component, "setup filter-prompt", "");
    Ok(component)
}

/// Types of which each holds the last twice, and components that each hold the last.
fn nests(depth: usize) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut types = String::from("(component (type $t0 (tuple u8 u8))\n");
    for number in 1..depth {
        let _ = writeln!(types, "(type $t{number} (tuple $t{0} $t{0}))", number - 1);
    }
    let _ = writeln!(types, "(import \"a\" (func (param \"a\" $t{}))))", depth - 1);
    let chain = (1..depth * 40).map(|number| format!("(type $t{number} (list $t{}))\n", number - 1)).collect::<String>();
    let lists = format!("(component (type $t0 (list u8))\n{chain})");
    let instances = format!(
        "(component (core module $m (func (export \"f\"))) {})",
        repeated(depth * 30, "(core instance $i# (instantiate $m))")
    );
    let components = format!("{}{}", "(component ".repeat(depth * 3), ")".repeat(depth * 3));
    let texts = [("types", types), ("lists", lists), ("instances", instances), ("components", components)];
    texts.into_iter().map(|(name, text)| Ok((name.to_owned(), of_text(&text).context(name)?))).collect()
}

/// Class 24 and 25, and what else makes a compiler or an `init` work.
fn bombs(here: &Here) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let many = here.pick(100_000, 20_000);
    let functions = repeated(many, "(func (param i64) (result i64) (i64.add (local.get 0) (i64.const #)))");
    let one = format!(
        "(func (param i64) (result i64) {} (local.get 0))",
        repeated(many, "(local.set 0 (i64.mul (local.get 0) (i64.const #)))")
    );
    let blocks = format!("(func {}{})", "(block ".repeat(many / 100), ")".repeat(many / 100));
    let locals = format!("(func (local {}))", "i64 ".repeat(49_000));
    let cases = format!("(func (param i32) (block $b (br_table {} (local.get 0))))", "$b ".repeat(many));
    let calls = repeated(
        many / 10,
        &format!("(func (result i64) {} (i64.const 1))", "(drop (i64.div_u (i64.const 1) (i64.const #)))".repeat(40)),
    );
    let starts = "(func $start (loop $again (br $again))) (start $start)".to_owned();
    let tables = "(table 10000000 funcref)".to_owned();
    let items = [
        ("functions", functions),
        ("one", one),
        ("blocks", blocks),
        ("locals", locals),
        ("cases", cases),
        ("calls", calls),
        ("starts", starts),
        ("tables", tables),
    ];
    let mut bombs = Vec::new();
    for (name, items) in items {
        let component = Guest { name, items: items.into(), ..Guest::default() }.component()?;
        bombs.push((name.to_owned(), component));
    }
    for (name, pages) in [("memory", 65_536), ("memory-64mib", 1_025)] {
        bombs.push((name.to_owned(), Guest { name, pages, ..Guest::default() }.component()?));
    }
    bombs.extend(nests(here.pick(30, 22))?);
    Ok(bombs)
}

/// A component by chance, with a manifest so that it is not refused for want of one.
fn random(number: usize) -> Option<Vec<u8>> {
    let mut chance = Chance(number as u64);
    let bytes = (0..1_024).flat_map(|_| chance.next().to_le_bytes()).collect::<Vec<_>>();
    let component = wasm_smith::Component::new(wasm_smith::Config::default(), &mut Unstructured::new(&bytes)).ok()?;
    let mut component = component.to_bytes();
    manifest(&mut component, "setup filter-prompt", "");
    Some(component)
}

/// One of our own, with some of its bytes changed, cut away, or doubled.
fn spoiled(number: usize) -> anyhow::Result<Vec<u8>> {
    let mut chance = Chance((1 << 32) + number as u64);
    let name = *chance.pick(&["auth-keys", "filter-pii", "format-decision", "template-jinja", "probe"]);
    let mut bytes = std::fs::read(plugin_file(name))?;
    match number % 4 {
        0 => bytes.truncate(chance.below(bytes.len())),
        1 => {
            let (from, length) = (chance.below(bytes.len()), chance.below(256));
            let part = bytes.iter().skip(from).take(length).copied().collect::<Vec<_>>();
            let at = chance.below(bytes.len());
            bytes.splice(at..at, part);
        }
        _ => {
            for _ in 0..=chance.below(8) {
                let at = chance.below(bytes.len());
                bytes[at] ^= 1 << chance.below(8);
            }
        }
    }
    Ok(bytes)
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (randoms, mutants, per_s) = here.pick((1_500, 800, 200), (48, 32, 100));
    let mut site = Site::new(&here).await?;
    let process = Process(site.gateway.pid());
    let bombs = bombs(&here)?;
    let alone = Good::run_for(&site.wire, per_s, Mix::Mixed, Duration::from_secs(here.pick(60, 10))).await;
    let before = process.rss_kib()?;
    let good = Good::start(&site.wire, per_s, Mix::Mixed);
    for bomb in &bombs {
        site.put(std::slice::from_ref(bomb)).await.with_context(|| bomb.0.clone())?;
    }
    let mut batch = Vec::new();
    for number in 0..randoms + mutants {
        if number < randoms {
            batch.extend(random(number).map(|bytes| (format!("random{number}"), bytes)));
        } else {
            batch.push((format!("spoiled{number}"), spoiled(number)?));
        }
        if batch.len() == BATCH || number + 1 == randoms + mutants {
            site.put(&batch).await?;
            batch.clear();
        }
    }
    let under = good.finish().await;
    let after = memory_after(process, before).await?;
    let left = instances_left(&site.gateway, super::PATIENCE).await;
    let mut checks = Checks::default();
    let seen = &site.seen;
    let refused = seen.refused.values().sum::<usize>();
    let line = format!(
        "{} bombs, {randoms} random and {mutants} spoiled components: {refused} refused, {} built, {} refusals not as they should be",
        bombs.len(),
        seen.built,
        seen.wrong.len()
    );
    checks.check(line, seen.wrong.is_empty() && refused > 0);
    stalls(&alone, &under, &mut checks);
    checks.state(format!("memory {} MiB before, {} after", before / 1024, after / 1024));
    checks.check(format!("{left} instances left"), left == 0);
    checks.method("Builds are children of the gateway at low priority, with 512 MiB and 20 s of CPU; each component is a plugin of its own in a running gateway's config, sixteen in a reload.");
    checks.sample("stages", json!(seen.refused));
    checks.sample("wrong", json!(seen.wrong.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}

fn stalls(alone: &Tally, under: &Tally, checks: &mut Checks) {
    let [was, is] = [alone, under].map(|tally| tally.quantile_ms(0.999));
    checks.check(format!("{} failed of {} good requests", under.failed, under.count()), under.failed == 0);
    checks.check(format!("their p99.9 {is:.1} ms against {was:.1} ms alone"), is <= was + STALL_MS);
    checks.state(format!("longest {:.0} ms against {:.0} ms", under.quantile_ms(1.0), alone.quantile_ms(1.0)));
    checks.sample("alone", alone.json());
    checks.sample("under", under.json());
}
