//! Embeddings: a real model, all-MiniLM-L6-v2 (`scripts/minilm`), through each backend; how fast, and how alike the vectors are.

use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_tests::Place;

use super::pair;
use crate::load::Target;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::median;
use crate::verify::chance::Chance;
use crate::verify::models;

const PATH: &str = "/v1/embeddings";
const BACKENDS: [&str; 3] = ["llama", "candle", "onnx"];
/// Texts of one request.
const BATCHES: [usize; 2] = [1, 32];
/// Two vectors of one text have at least this cosine.
const LEAST: f64 = 0.99;
const SEED: u64 = 0x656d_6265_6464;
/// Words of a text.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=64;
const WORDS: &str = "the a of and to in is that it was for on are with as his they at be this from have or by one had not but what all \
were when we there can an your which their said if do will each about how up out them then she many some so these would other into has \
more her two like him see time could no make than first been its who now people my made over did down only way find use may water long \
little very after words called just where most know gateway plugin certificate memory latency request answer server model token stream \
network policy cache thread weather market music river mountain doctor engine history language garden children science evening";

/// A backend, and what came of it.
struct Served {
    target: Target,
    /// Texts a second, for each of [`BATCHES`].
    rates: [Vec<f64>; 2],
    /// The vectors of all texts, of the last round.
    vectors: [Vec<Vec<f64>>; 2],
}

/// Embeddings a second for each backend, and the lowest cosine between two of them.
pub(crate) async fn rate(here: Here) -> anyhow::Result<Found> {
    for script in ["scripts/minilm", "scripts/onnxruntime"] {
        fetch(&here.root, script).await?;
    }
    let place = place(&here.root).await?;
    let gateway = place.start().await;
    let texts = texts(here.pick(256, 32));
    let mut all = Vec::new();
    for model in BACKENDS {
        let target = pair::target(&gateway, &place, model)?;
        all.push(Served { target, rates: [Vec::new(), Vec::new()], vectors: [Vec::new(), Vec::new()] });
    }
    // The first round warms them up.
    for round in 0..=here.pick(3, 1) {
        for Served { target, rates, vectors } in &mut all {
            for (at, batch) in BATCHES.into_iter().enumerate() {
                let (rate, found) = embed(target, &texts, batch).await.with_context(|| target.model.clone())?;
                eprintln!("   {round}: {} by {batch}: {rate:.1} texts/s", target.model);
                if round > 0 {
                    rates[at].push(rate);
                }
                vectors[at] = found;
            }
        }
    }
    let lowest = lowest_cosine(&all);
    let shown = |one: &Served| {
        let [alone, together] = one.rates.each_ref().map(|rates| median(rates));
        format!("{} {alone:.0}/s one by one, {together:.0}/s by 32", one.target.model)
    };
    let figure = all.iter().map(shown).collect::<Vec<_>>().join("; ");
    let samples = all.iter().map(|one| json!({ "backend": one.target.model, "texts_s": one.rates })).collect::<Vec<_>>();
    Ok(Found {
        figure: format!("{figure}; lowest cosine {lowest:.5}"),
        verdict: Verdict::of(lowest > LEAST),
        method: format!(
            "{} texts of 8 to 64 common words, in requests of one text and of 32 over one connection, one request at a time; medians of \
             three rounds, the backends in turn, each with its default threads in one gateway. llama has the safetensors as `model \
             import --convert f16` made a GGUF file of them, candle has them as they are (f32), onnx has the graph of \
             `scripts/bert_onnx.py` (f32). The cosine is the lowest of any text between any two backends or requests.",
            texts.len()
        ),
        samples: json!({ "rounds": samples, "lowest_cosine": lowest }),
    })
}

/// Runs a script that fetches something, once.
async fn fetch(root: &Path, script: &str) -> anyhow::Result<()> {
    let status = Command::new(root.join(script)).kill_on_drop(true).status().await.with_context(|| script.to_owned())?;
    ensure!(
        status.success(),
        "`{script}` failed ({status}); it needs python3 with venv, and PyPI (or a mirror that pip is set to use)"
    );
    Ok(())
}

/// A place with the model in each backend's format, under the backend's name.
async fn place(root: &Path) -> anyhow::Result<Place> {
    let place = Place::new();
    let path = |path: &str| root.join(path).display().to_string();
    let runtime = path("target/onnxruntime/libonnxruntime.so");
    place.write("tollgate.toml", &format!("[log]\nlevel = \"warn\"\n[models]\nonnxruntime = {runtime:?}\n"));
    let (hf, onnx) = (path("target/bench/minilm/hf"), path("target/bench/minilm/onnx"));
    models::good(&place, &["import", &hf, "--name", "minilm", "--unsigned", "--convert", "f16"]).await?;
    for (backend, artifact) in BACKENDS.into_iter().zip(["installed:minilm", hf.as_str(), onnx.as_str()]) {
        let text = format!("backend = {backend:?}\nartifact = {artifact:?}\ntask = \"embed\"\n");
        place.write(&format!("models/{backend}.toml"), &text);
    }
    Ok(place)
}

/// Texts that are the same in every run.
fn texts(count: usize) -> Vec<String> {
    let words = WORDS.split_whitespace().collect::<Vec<_>>();
    let mut chance = Chance(SEED);
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let length = LENGTHS.start() + chance.below(LENGTHS.end() - LENGTHS.start() + 1);
        all.push((0..length).map(|_| *chance.pick(&words)).collect::<Vec<_>>().join(" "));
    }
    all
}

/// Texts a second, `batch` in a request, and their vectors.
async fn embed(target: &Target, texts: &[String], batch: usize) -> anyhow::Result<(f64, Vec<Vec<f64>>)> {
    let mut link = target.connect().await?;
    let (mut seconds, mut vectors) = (0.0, Vec::new());
    for part in texts.chunks(batch) {
        let body = Bytes::from(json!({ "model": target.model, "input": part }).to_string());
        let answer = link.post_to(PATH, &body).await?.succeeded()?;
        seconds += answer.took.as_secs_f64();
        let answer = answer.json()?;
        let data = answer["data"].as_array().context("an answer without data")?;
        ensure!(data.len() == part.len(), "{} vectors for {} texts", data.len(), part.len());
        for (at, entry) in data.iter().enumerate() {
            ensure!(entry["index"] == json!(at), "vector {at} has the index {}", entry["index"]);
            vectors.push(vector(&entry["embedding"])?);
        }
    }
    Ok((texts.len() as f64 / seconds, vectors))
}

fn vector(value: &Value) -> anyhow::Result<Vec<f64>> {
    let numbers = value.as_array().context("an embedding that is no list")?;
    numbers.iter().map(|number| number.as_f64().context("an embedding that is not of numbers")).collect()
}

/// The lowest of any text, between any two backends or sizes of request.
fn lowest_cosine(all: &[Served]) -> f64 {
    let sets = all.iter().flat_map(|one| &one.vectors).collect::<Vec<_>>();
    let pairs = sets.iter().enumerate().flat_map(|(at, one)| sets.iter().skip(at + 1).map(move |other| (one, other)));
    let cosines = pairs.flat_map(|(one, other)| one.iter().zip(other.iter()).map(|(one, other)| cosine(one, other)));
    cosines.fold(1.0, f64::min)
}

/// Of vectors that are not alike in length: 0.
fn cosine(one: &[f64], other: &[f64]) -> f64 {
    let dot = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(one, other)| one * other).sum::<f64>();
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    if one.len() == other.len() && lengths > 0.0 { dot(one, other) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_every_time_and_of_many_lengths() {
        let (one, other) = (texts(64), texts(64));
        assert_eq!(one, other);
        let lengths = one.iter().map(|text| text.split(' ').count()).collect::<std::collections::BTreeSet<_>>();
        assert!(lengths.iter().all(|length| LENGTHS.contains(length)) && lengths.len() > 20, "{lengths:?}");
    }

    #[test]
    fn cosines_are_of_directions() {
        assert!((cosine(&[1.0, 1.0], &[3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!(cosine(&[1.0, 0.0], &[0.0, 2.0]).abs() < 1e-12);
        assert!(cosine(&[1.0], &[1.0, 0.0]) == 0.0 && cosine(&[0.0], &[0.0]) == 0.0);
    }
}
