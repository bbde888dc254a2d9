//! The corpus of personal data in its large form, through streamed replies of a running gateway (P-W9).

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_plugin_filter_pii::corpus::{Sample, samples};
use tollgate_tests::Place;

use super::checks::Checks;
use super::wire::{Http, Wire};
use crate::report::Found;
use crate::rows::Here;

const SEED: u64 = 20_261_121;
const CONNECTIONS: usize = 8;

/// A command that has the model say `text`, and in which a prompt filter finds nothing.
fn say(text: &str) -> String {
    format!("say-hex {}", text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join("z"))
}

/// What a streamed reply says.
async fn told(http: &mut Http, text: &str) -> anyhow::Result<String> {
    let bytes = http.stream("scripted", &say(text), json!({})).await?.collect().await?.to_bytes();
    let events = std::str::from_utf8(&bytes).context("a reply is UTF-8")?;
    ensure!(events.ends_with("data: [DONE]\n\n"), "a stream without its end");
    let chunks = events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let mut content = String::new();
    for chunk in chunks {
        let chunk = serde_json::from_str::<Value>(chunk)?;
        content.push_str(chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default());
    }
    Ok(content)
}

/// Leaks and texts that are not as they should be.
async fn check(wire: Wire, samples: Vec<Sample>) -> anyhow::Result<(usize, Vec<String>)> {
    let (mut http, mut planted, mut wrong) = (wire.http().await?, 0, Vec::new());
    for sample in samples {
        planted += sample.planted.len();
        let content = told(&mut http, &sample.text).await?;
        if content != sample.masked && wrong.len() < 20 {
            wrong.push(format!("{:?} became {content:?}", sample.text));
        }
    }
    Ok((planted, wrong))
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(100_000, 2_000);
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n");
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"filter-pii\"]\n");
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let samples = samples(count, SEED);
    let clean = samples.iter().filter(|sample| sample.planted.is_empty()).count();
    let mut tasks = JoinSet::new();
    for part in samples.chunks(count.div_ceil(CONNECTIONS)) {
        tasks.spawn(check(wire.clone(), part.to_vec()));
    }
    let (mut planted, mut wrong) = (0, Vec::new());
    while let Some(part) = tasks.join_next().await {
        let (count, part) = part??;
        planted += count;
        wrong.extend(part);
    }
    let mut checks = Checks::default();
    let line = format!(
        "{planted} values in {count} texts, {clean} of them clean: {} replies not exactly as they should be",
        wrong.len()
    );
    checks.check(line, wrong.is_empty());
    checks.sample("wrong", json!(wrong));
    Ok(checks.found())
}
