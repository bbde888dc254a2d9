//! What measuring once is worth: the same model in two gateways, one as `tollgate model tune` found it best and one as by default,
//! asked in turn.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tollgate_tests::{Place, program};

use super::generation::{decode_once, prefill_once};
use super::pair::{self, MODEL};
use crate::load::Target;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::median;

/// Less is noise: what has to be better by as much to be chosen may be worse by as much.
const NO_SLOWER: f64 = 0.97;
/// Streams of each measurement of decoding.
const STREAMS: [usize; 2] = [1, 4];

/// Tokens per second of one gateway, by what was measured.
#[derive(Debug, Default)]
struct Rates {
    decode: [Vec<f64>; 2],
    prompt: Vec<f64>,
}

/// Measures the model, then asks both.
pub(crate) async fn tuned(here: Here) -> anyhow::Result<Found> {
    let file = pair::random_model(&here)?;
    let places = [place(&file, false), place(&file, true)];
    let report = tune(&places[1], here.pick(20, 2)).await?;
    let (mut all, mut samples) = ([Rates::default(), Rates::default()], Vec::new());
    for run in 0..here.pick(6, 1) {
        // Each is started anew every time, now the one first and now the other: two processes with the same settings that lived
        // through the whole row were seen to differ by more than a candidate has to win by.
        let mut turn: Vec<_> = ["default", "tuned"].into_iter().zip(&places).zip(&mut all).collect();
        if run % 2 == 1 {
            turn.reverse();
        }
        for ((name, place), rates) in turn {
            let gateway = place.start().await;
            let mut target = pair::target(&gateway, place, MODEL)?;
            target.name = name;
            samples.extend(once(&here, &target, rates, run).await?);
        }
    }
    let [default, tuned] = all;
    let ratio = |now: &[f64], before: &[f64]| median(now) / median(before).max(f64::MIN_POSITIVE);
    let prompt = ratio(&tuned.prompt, &default.prompt);
    let [one, four] = [0, 1].map(|at: usize| ratio(&tuned.decode[at], &default.decode[at]));
    let score = score(one, four, prompt);
    let rates = |rates: &Rates| {
        format!("{:.1} and {:.1} tok/s, prompts {:.0}", median(&rates.decode[0]), median(&rates.decode[1]), median(&rates.prompt))
    };
    Ok(Found {
        figure: format!(
            "{score:.2}x: decode {one:.2}x with one stream, {four:.2}x with four, prefill {prompt:.2}x: {} instead of {}; {}",
            rates(&tuned),
            rates(&default),
            chosen(&report["report"])
        ),
        verdict: Verdict::of(score >= NO_SLOWER),
        method: "`tollgate model tune --seconds 20`, then two gateways with the same file and nothing else in their configs but `tune`, \
                 started and asked in turn; medians of the runs. Judged as candidates are: the geometric mean of decode twice and \
                 prefill once, with decode that of one stream and four. Not slower is within the 3 % that a candidate has to win by."
            .to_owned(),
        samples: json!({ "tune": report, "runs": samples }),
    })
}

/// How many times better all together is, as `tune::choose` of the models counts it: decoding twice, where one stream and four count
/// the same, and prompts once.
fn score(one: f64, four: f64, prompt: f64) -> f64 {
    let decode = (one * four).sqrt();
    (decode.powi(2) * prompt).cbrt()
}

/// What was chosen, and what every other candidate would have made of decoding.
fn chosen(report: &Value) -> String {
    let is_default = report["table"][0].as_object().zip(report["chosen"].as_object());
    let is_default = is_default.is_some_and(|(first, chosen)| chosen.iter().all(|(name, value)| first.get(name) == Some(value)));
    let rate = |row: &Value| row["decode4_tps"].as_f64().or_else(|| row["decode_tps"].as_f64()).unwrap_or_default();
    let table = report["table"].as_array().into_iter().flatten();
    let rows = table.map(|row| {
        let order = if row["repack"] == true { "repacked" } else { "as in file" };
        let waits = if row["spin"] == true { "spin" } else { "sleep" };
        format!("{order}, {} threads, {} rows, {waits}: {:.1}", row["threads"], row["micro_batch"], rate(row))
    });
    let what = if is_default {
        "the default was chosen, and what differs is the machine's"
    } else {
        "another than the default was chosen"
    };
    format!("{what}; decode of four by candidate, tok/s: {}", rows.collect::<Vec<_>>().join("; "))
}

/// One round with one gateway.
async fn once(here: &Here, target: &Target, rates: &mut Rates, run: usize) -> anyhow::Result<Vec<Value>> {
    let rate = |sample: &Value| sample["tok_s"].as_f64().context("a rate");
    let mut samples = Vec::new();
    for (streams, rates) in STREAMS.into_iter().zip(&mut rates.decode) {
        let window = here.pick(Duration::from_secs(10), Duration::from_secs(2));
        let sample = decode_once(target, streams, here.pick(300, 64), window, run).await?;
        rates.push(rate(&sample)?);
        samples.push(sample);
    }
    let sample = prefill_once(target, 1, here.pick(384, 64), run).await?;
    rates.prompt.push(rate(&sample)?);
    samples.push(sample);
    eprintln!("   {} {}: {samples:?}", run + 1, target.name);
    Ok(samples)
}

fn place(file: &Path, is_tuned: bool) -> Place {
    let place = Place::new();
    place.write("tollgate.toml", &format!("[log]\nlevel = \"warn\"\n[models]\ntune = {is_tuned}\n"));
    let artifact = file.display().to_string();
    place.write(
        &format!("models/{MODEL}.toml"),
        &format!("backend = \"llama\"\nartifact = {artifact:?}\ncontext_tokens = 16384\n"),
    );
    place
}

/// What `tollgate model tune` answers.
async fn tune(place: &Place, seconds: u32) -> anyhow::Result<Value> {
    let output = tokio::process::Command::new(program())
        .args(["model", "tune", MODEL, "--json", "--seconds", &seconds.to_string(), "--config"])
        .arg(place.config())
        .arg("--data")
        .arg(place.data())
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
