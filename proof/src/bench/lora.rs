//! What it costs that replies with different adapters follow each other on one base, or run at once.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Place, repository};

use super::pair;
use crate::generated;
use crate::load::{Target, Told};
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::median;

/// The base, and two adapters of it.
const MODELS: [&str; 3] = ["base", "one", "two"];
/// Tokens of a reply at most.
const TOKENS: usize = 48;

/// What some replies took.
#[derive(Debug, Default)]
struct Sum {
    first_ms: Vec<f64>,
    tokens: u64,
    seconds: f64,
}

impl Sum {
    fn rate(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(f64::EPSILON)
    }

    fn json(&self) -> Value {
        json!({ "tok_s": self.rate(), "first_ms": median(&self.first_ms), "tokens": self.tokens })
    }
}

/// By turns against one after the other, and at once against alike.
pub(crate) async fn switch(here: Here) -> anyhow::Result<Found> {
    let demo = repository().join("host/demo-model");
    let lora = demo.join("lora/demo-lora.gguf");
    let (model, [one, two]) = generated::with_adapters(&here)?;
    let (small, small_samples) = measure(&here, &demo.join("demo-f16.gguf"), [&lora, &lora]).await?;
    let (large, large_samples) = measure(&here, &model.path, [&one, &two]).await?;
    Ok(Found {
        figure: format!("the demo model: {small}; a generated one of {:.0} MB: {large}", model.bytes as f64 / 1e6),
        verdict: Verdict::Stated,
        method: format!(
            "The base and two adapters over all matrices (rank 8). By turns: a reply of each after the other, against as many of the \
             same replies sorted by model; at once: three replies, one of each, against three of one model. Replies of up to {TOKENS} \
             greedy tokens, no two prompts alike; decode from the first text to the last, prompts in the time to first token. Ratios of \
             the sums of all rounds, in turn, after one that is not counted."
        ),
        samples: json!({ "demo": small_samples, "generated": large_samples }),
    })
}

/// The figure of one base, and its samples.
async fn measure(here: &Here, base: &Path, adapters: [&Path; 2]) -> anyhow::Result<(String, Value)> {
    let place = place(base, adapters);
    let gateway = place.start().await;
    let targets = MODELS.map(|model| pair::target(&gateway, &place, model));
    let targets = targets.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let each = here.pick(12, 2);
    let sorted = (0..targets.len() * each).map(|at| at / each).collect::<Vec<_>>();
    let by_turns = (0..targets.len() * each).map(|at| at % targets.len()).collect::<Vec<_>>();
    let alike = (0..targets.len()).map(|model| [model; 3]).collect::<Vec<_>>();
    let mixed = vec![[0, 1, 2]; alike.len()];
    let mut sums: [Sum; 4] = Default::default();
    let mut asked = 0;
    for round in 0..=here.pick(4, 1) {
        let mut found: [Sum; 4] = Default::default();
        for (order, sum) in [&sorted, &by_turns].into_iter().zip(&mut found[..2]) {
            for model in order {
                asked += 1;
                add(sum, &reply(&targets[*model], asked).await?)?;
            }
        }
        for (groups, sum) in [&alike, &mixed].into_iter().zip(&mut found[2..]) {
            for group in groups.iter().cycle().take(groups.len() * each.div_ceil(3)) {
                together(group.map(|model| targets[model].clone()), &mut asked, sum).await?;
            }
        }
        eprintln!("   {round}: {}", json!(found.each_ref().map(Sum::json)));
        if round > 0 {
            for (sum, found) in sums.iter_mut().zip(found) {
                sum.first_ms.extend(found.first_ms);
                sum.tokens += found.tokens;
                sum.seconds += found.seconds;
            }
        }
    }
    let [sorted, by_turns, alike, mixed] = &sums;
    let first = |sum: &Sum| median(&sum.first_ms);
    let figure = format!(
        "by turns {:.1} tok/s, {:.2}x of {:.1}, first token {:.1} ms, {:.2}x of {:.1}; at once {:.1} tok/s, {:.2}x of {:.1}",
        by_turns.rate(),
        by_turns.rate() / sorted.rate(),
        sorted.rate(),
        first(by_turns),
        first(by_turns) / first(sorted),
        first(sorted),
        mixed.rate(),
        mixed.rate() / alike.rate(),
        alike.rate(),
    );
    let names = ["sorted", "by_turns", "alike_at_once", "mixed_at_once"];
    let samples = names.into_iter().zip(&sums).map(|(name, sum)| (name.to_owned(), sum.json())).collect();
    Ok((figure, Value::Object(samples)))
}

/// A place that serves `base` and the adapters under [`MODELS`].
fn place(base: &Path, adapters: [&Path; 2]) -> Place {
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n[reload]\npoll_s = 60\ndebounce_ms = 20\n");
    let [name, one, two] = MODELS;
    let file = |path: &Path| path.display().to_string();
    place.write(&format!("models/{name}.toml"), &format!("backend = \"llama\"\nartifact = {:?}\nsequences = 4\n", file(base)));
    for (id, path) in [one, two].into_iter().zip(adapters) {
        let text = format!("base = {name:?}\nbackend = \"llama\"\nartifact = {:?}\n", file(path));
        place.write(&format!("models/{id}.toml"), &text);
    }
    place
}

/// A greedy reply to a question that nobody asked before.
async fn reply(target: &Target, number: usize) -> anyhow::Result<Told> {
    let text = format!("{number} times I was asked: what is a gateway, and what is it good for?");
    let more = json!({ "temperature": 0, "max_tokens": TOKENS, "stream": true, "stream_options": { "include_usage": true } });
    let body: Bytes = target.body(&text, more);
    target.connect().await?.stream(&body).await?.rest().await
}

/// Adds what one reply took by itself.
fn add(sum: &mut Sum, told: &Told) -> anyhow::Result<()> {
    let (first, tokens) = first_and_tokens(told)?;
    sum.first_ms.push(told.first_ms().context("a reply without text")?);
    sum.tokens += tokens.saturating_sub(1);
    sum.seconds += told.ended.duration_since(first).as_secs_f64();
    Ok(())
}

/// Three replies at once, from the first text of any to the end of the last.
async fn together(targets: [Target; 3], asked: &mut usize, sum: &mut Sum) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for target in targets {
        *asked += 1;
        let number = *asked;
        tasks.spawn(async move { reply(&target, number).await });
    }
    let (mut first, mut ended) = (None::<Instant>, None::<Instant>);
    while let Some(told) = tasks.join_next().await {
        let told = told??;
        let (began, tokens) = first_and_tokens(&told)?;
        sum.first_ms.push(told.first_ms().context("a reply without text")?);
        sum.tokens += tokens.saturating_sub(1);
        first = Some(first.map_or(began, |first| first.min(began)));
        ended = ended.max(Some(told.ended));
    }
    let (first, ended) = first.zip(ended).context("no reply")?;
    sum.seconds += ended.duration_since(first).as_secs_f64();
    Ok(())
}

fn first_and_tokens(told: &Told) -> anyhow::Result<(Instant, u64)> {
    ensure!(told.is_done, "a reply was cut off");
    let tokens = told.count("completion_tokens").context("a reply without usage")?;
    Ok((told.first().context("a reply without text")?, tokens))
}
