//! Damaged and hostile models: what crashes a native library crashes the process that tries it, and never the gateway that serves
//! meanwhile (P-M4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tollgate_tests::Place;

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::wire::Wire;
use super::{NAME, Probed, SERVED, after, command, demo, ended, import, probe, said, tidy};
use crate::report::Found;
use crate::rows::Here;

const WORKERS: usize = 2;
/// Every so many go the whole way: `tollgate model import`, and served if they pass.
const IMPORT_EVERY: usize = 10;
/// The tensor that the header lists last.
const LAST_OF_HEADER: &str = "blk.2.ffn_down.weight";
/// Numbers that lengths, counts and offsets are set to.
const EXTREME: [u64; 10] =
    [0, 1, 7, 255, 65_536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];
/// Keys whose number says how large something is.
const KEYS: [&str; 8] = [
    "llama.context_length",
    "llama.embedding_length",
    "llama.block_count",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.rope.dimension_count",
    "tokenizer.ggml.eos_token_id",
];
const TENSORS: [&str; 6] = [
    "token_embd.weight",
    "output_norm.weight",
    "blk.0.attn_q.weight",
    "blk.1.attn_k.weight",
    "blk.1.ffn_up.weight",
    "blk.2.ffn_down.weight",
];

/// What became of the files.
#[derive(Default)]
struct Tally {
    answer: usize,
    refused: usize,
    /// Crashes of the child by signal.
    crashes: BTreeMap<String, usize>,
    odd: Vec<String>,
    imported: usize,
    served: usize,
    /// What is against the promise.
    wrong: Vec<String>,
}

/// Runs it.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(10_000, 30);
    let (place, folder) = (Place::new(), tempfile::tempdir()?);
    let intact = Arc::new(Intact::read()?);
    let path = folder.path().join("intact.gguf");
    std::fs::write(&path, &intact.bytes)?;
    import(&place, &path).await?;
    place.write("models/m.toml", SERVED);
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n[models]\nstartup = \"lazy\"\n");
    let gateway = place.start().await;
    let (pid, wire) = (gateway.pid(), Wire::new(&place, &gateway)?);
    let stop = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(watch(wire.clone(), Arc::clone(&stop)));
    let place = Arc::new(place);
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let numbers = (worker..count).step_by(WORKERS).collect::<Vec<_>>();
        let file = folder.path().join(format!("mutant-{worker}.gguf"));
        tasks.spawn(work(Arc::clone(&intact), Arc::clone(&place), wire.clone(), file, numbers));
    }
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.add(tally??);
    }
    stop.store(true, Ordering::Relaxed);
    let (asked, failed) = watch.await?;
    let panics = place.log().matches("panicked").count();
    let runs = Path::new(&format!("/proc/{pid}")).exists() && gateway.admin(&["status"]).await["state"].is_string();
    Ok(report(count, &all, (runs, panics), (asked, failed.as_slice())))
}

/// What the row found: of the files, of the gateway, and of the requests meanwhile.
fn report(count: usize, all: &Tally, (runs, panics): (bool, usize), (asked, failed): (usize, &[String])) -> Found {
    let crashes = all.crashes.values().sum::<usize>();
    let done = all.answer + all.refused + crashes + all.odd.len();
    let how = if all.crashes.is_empty() { String::new() } else { format!(" (by signal: {:?})", all.crashes) };
    let mut checks = Checks::default();
    checks.check(
        format!(
            "{done} of {count} mutated models: {} refused, {} load and answer, {crashes} crash the child{how}, {} end it otherwise",
            all.refused,
            all.answer,
            all.odd.len()
        ),
        done == count,
    );
    checks.check(
        format!(
            "{} went through `tollgate model import`, {} of them were served; {} went wrong",
            all.imported,
            all.served,
            all.wrong.len()
        ),
        all.wrong.is_empty(),
    );
    checks.check(format!("the gateway runs, without a restart: {runs}; {panics} panics"), runs && panics == 0);
    checks.check(format!("{} of {asked} requests meanwhile failed", failed.len()), failed.is_empty() && asked > 0);
    checks.method(format!(
        "The demo model with one to three changes: bits, numbers, lengths and offsets of its header, shapes and types of tensors, weights, \
         cuts and insertions, from a set seed. One in {IMPORT_EVERY} is imported, with a running gateway that is asked to take it in and \
         then asked for a reply of it; the others go straight to the process that tries models, which checks the header first, as the \
         import does."
    ));
    checks.sample("odd", json!(all.odd));
    checks.sample("wrong", json!(all.wrong));
    checks.sample("failed", json!(failed.iter().take(10).collect::<Vec<_>>()));
    checks.found()
}

/// Requests for another model, ten a second: how many, and what went wrong.
async fn watch(wire: Wire, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        match wire.chat("scripted", "say here", json!({})).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => failed.push(format!("{}: {}", answer.status, answer.text())),
            Err(error) => failed.push(format!("{error:#}")),
        }
        sleep(Duration::from_millis(100)).await;
    }
    (asked, failed)
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.answer += other.answer;
        self.refused += other.refused;
        for (signal, times) in other.crashes {
            *self.crashes.entry(signal).or_default() += times;
        }
        self.odd.extend(other.odd);
        self.imported += other.imported;
        self.served += other.served;
        self.wrong.extend(other.wrong);
    }

    fn crash(&mut self, signal: &str) {
        *self.crashes.entry(signal.to_owned()).or_default() += 1;
    }
}

async fn work(intact: Arc<Intact>, place: Arc<Place>, wire: Wire, file: PathBuf, numbers: Vec<usize>) -> anyhow::Result<Tally> {
    let (mut tally, began) = (Tally::default(), Instant::now());
    for number in numbers {
        std::fs::write(&file, intact.mutated(number))?;
        if number % IMPORT_EVERY == 0 {
            imported(&place, &wire, &file, number, &mut tally).await?;
        } else {
            match probe(&file).await? {
                Probed::Answers => tally.answer += 1,
                Probed::Refused(_) => tally.refused += 1,
                Probed::Crashed(signal) => tally.crash(&format!("signal {signal}")),
                Probed::Odd(how) => tally.odd.push(format!("{number}: {how}")),
            }
        }
        if number % 500 == 0 {
            eprintln!("   {number} mutants, {} s", began.elapsed().as_secs());
        }
    }
    Ok(tally)
}

/// The whole way, as an operator would go it.
async fn imported(place: &Place, wire: &Wire, file: &Path, number: usize, tally: &mut Tally) -> anyhow::Result<()> {
    let path = file.to_str().context("a path in UTF-8")?;
    let output = ended(command(place, &["import", path, "--name", NAME, "--unsigned"])).await?;
    tally.imported += 1;
    let words = said(&output);
    let crash = words.split_once("ended abruptly (").and_then(|(_, rest)| rest.split(')').next());
    match (output.status.code(), crash) {
        (Some(0), _) => tally.answer += 1,
        (Some(_), Some(signal)) => tally.crash(signal),
        (Some(_), None) => tally.refused += 1,
        (None, _) => {
            tally.odd.push(format!("{number}: the import itself"));
            tally.wrong.push(format!("{number}: the import itself ended: {}: {words}", output.status));
        }
    }
    // Whatever is current now: it may be refused, and the gateway has to say so.
    match wire.chat(NAME, "What is Tollgate?", json!({ "max_tokens": 4 })).await {
        Ok(answer) => tally.served += usize::from(output.status.success() && answer.status.is_success()),
        Err(error) => tally.wrong.push(format!("{number}: the gateway does not answer: {error:#}")),
    }
    tidy(place).await
}

/// The demo model, and where its parts are.
struct Intact {
    bytes: Vec<u8>,
    /// Bytes before the vocabulary, and the place of the tensors' list.
    settings: usize,
    tensors: std::ops::Range<usize>,
}

impl Intact {
    fn read() -> anyhow::Result<Self> {
        let bytes = demo()?;
        let settings = after(&bytes, "tokenizer.ggml.tokens")?;
        let (first, last) = (after(&bytes, TENSORS[0])? - TENSORS[0].len() - 8, after(&bytes, LAST_OF_HEADER)? + 32);
        for name in KEYS.iter().chain(&TENSORS) {
            after(&bytes, name)?;
        }
        ensure!(settings < first && first < last && last < bytes.len(), "the demo model is laid out in another way");
        Ok(Intact { bytes, settings, tensors: first..last })
    }

    /// One of the many files that this one can become.
    fn mutated(&self, number: usize) -> Vec<u8> {
        let (mut bytes, mut chance) = (self.bytes.clone(), Chance(0x6d75_7461_6e74 + number as u64));
        for _ in 0..=chance.below(3) {
            self.mutate(&mut bytes, &mut chance);
        }
        bytes
    }

    /// A place in the header where something can be wrong.
    fn place(&self, chance: &mut Chance) -> usize {
        match chance.below(2) {
            0 => chance.below(self.settings),
            _ => self.tensors.start + chance.below(self.tensors.len()),
        }
    }

    fn mutate(&self, bytes: &mut Vec<u8>, chance: &mut Chance) {
        let at = self.place(chance);
        match chance.below(10) {
            0 => set(bytes, at, &[self.bytes[at] ^ (1_u8 << chance.below(8))]),
            1 => set(bytes, at, &chance.next().to_le_bytes()[..1]),
            2 => set(bytes, at, &chance.pick(&EXTREME).to_le_bytes()),
            3 => self.change_key(bytes, chance),
            4 | 5 => self.change_tensor(bytes, chance),
            6 | 7 => self.change_weights(bytes, chance),
            8 => bytes.truncate(match chance.below(2) {
                0 => at,
                _ => bytes.len() - chance.below(bytes.len() / 2),
            }),
            _ => {
                let at = at.min(bytes.len());
                let more = (0..chance.below(64) + 1).map(|_| chance.next().to_le_bytes()[0]).collect::<Vec<_>>();
                bytes.splice(at..at, more);
            }
        }
    }

    /// A setting that is a number gets another one.
    fn change_key(&self, bytes: &mut [u8], chance: &mut Chance) {
        // The key is followed by the type of 4 bytes, and here by 4 of the number.
        let at = after(&self.bytes, chance.pick::<&str>(&KEYS)).unwrap_or_default() + 4;
        let number = match chance.below(3) {
            0 => *chance.pick(&EXTREME),
            1 => 1_u64 << chance.below(20),
            _ => chance.next() % 5_000,
        };
        set(bytes, at, &number.to_le_bytes()[..4]);
    }

    /// A tensor gets another shape, type or place.
    fn change_tensor(&self, bytes: &mut [u8], chance: &mut Chance) {
        // The name is followed by the number of dimensions (4 bytes), the dimensions of 8, the type (4), and the offset (8).
        let name = chance.pick(&TENSORS);
        let at = after(&self.bytes, name).unwrap_or_default();
        let dimensions = if name.contains("norm") { 1 } else { 2 };
        let kind = at + 4 + 8 * dimensions;
        match chance.below(5) {
            0 => set(bytes, at, &(chance.next() % 6).to_le_bytes()[..4]),
            1 => set(bytes, at + 4, &(32 * (chance.next() % 64 + 1)).to_le_bytes()),
            2 => {
                let turned = [&self.bytes[at + 12..at + 20], &self.bytes[at + 4..at + 12]].concat();
                set(bytes, at + 4, &turned[..8 * dimensions]);
            }
            3 => set(bytes, kind, &(chance.next() % 42).to_le_bytes()[..4]),
            _ => set(bytes, kind + 4, &(32 * (chance.next() % 100_000)).to_le_bytes()),
        }
    }

    /// Weights and their scales, infinite ones among them.
    fn change_weights(&self, bytes: &mut [u8], chance: &mut Chance) {
        let end = self.bytes.len();
        let at = self.tensors.end + chance.below(end - self.tensors.end);
        match chance.below(3) {
            0 => set(bytes, at, &chance.next().to_le_bytes()),
            1 => set(bytes, at, &f32::NAN.to_le_bytes()),
            // Scales of 16 bits, infinite, all over a part.
            _ => set(bytes, at, &[0x00, 0x7c].repeat(chance.below(4_096) + 1)),
        }
    }
}

/// Writes over what is there, as far as it goes.
fn set(bytes: &mut [u8], at: usize, new: &[u8]) {
    let end = (at + new.len()).min(bytes.len());
    if at < end {
        bytes[at..end].copy_from_slice(&new[..end - at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_are_the_same_each_time_and_differ_from_the_demo_model() {
        let intact = Intact::read().unwrap();
        let differ = (0..200).filter(|number| intact.mutated(*number) != intact.bytes).count();
        assert!(differ > 190, "{differ}");
        assert_eq!(intact.mutated(7), intact.mutated(7));
        assert_ne!(intact.mutated(7), intact.mutated(8));
    }
}
