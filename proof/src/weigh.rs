//! What a model takes in memory, seen from outside the process, against what the gateway had predicted.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::Gateway;

use crate::bench::pair;
use crate::generated::{self, Generated};
use crate::load::Target;
use crate::process::memory_kib;

/// How far a prediction may be from what was measured.
pub(crate) const MOST: f64 = 0.1;
/// Replies at once: the default number of sequences.
const AT_ONCE: usize = 16;

/// What one model takes, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    /// Of which model.
    pub(crate) id: &'static str,
    /// Its file.
    pub(crate) file: u64,
    /// Predicted from its header.
    pub(crate) predicted: u64,
    /// What the gateway says of it once it is loaded.
    pub(crate) reported: u64,
    /// What resident memory grew by while it was loaded.
    pub(crate) loaded: u64,
    /// The same after a full step of a prompt and replies in all its sequences.
    pub(crate) used: u64,
    /// How long loading took, in milliseconds.
    pub(crate) load_ms: u64,
}

impl Weight {
    /// How far what is used is above what was predicted, as a share of it.
    pub(crate) fn off(&self) -> f64 {
        self.used as f64 / self.predicted.max(1) as f64 - 1.0
    }

    /// For people.
    pub(crate) fn figure(&self) -> String {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let [file, predicted, loaded, used] = [self.file, self.predicted, self.loaded, self.used].map(mb);
        let off = self.off() * 100.0;
        format!(
            "{file:.0} MB file, loaded in {} ms: {predicted:.1} MB predicted, {used:.1} measured ({off:+.1} %; {loaded:.1} before its \
             first use)",
            self.load_ms
        )
    }

    /// For a row's samples.
    pub(crate) fn json(&self) -> Value {
        json!({ "id": self.id, "file_bytes": self.file, "predicted_bytes": self.predicted, "reported_bytes": self.reported,
            "loaded_bytes": self.loaded, "used_bytes": self.used, "load_ms": self.load_ms })
    }
}

/// How it is measured, for the report.
pub(crate) const METHOD: &str = "A fresh gateway for each model, loaded with its first request. Resident memory (smaps_rollup) before \
    `tollgate model warm`, after the same requests to the built-in model, so that what the gateway and llama.cpp need once is \
    there; after loading; and after a prompt of some 600 tokens and 16 replies at once, which is what is held against the prediction.";

/// Weighs each model in a gateway of its own.
pub(crate) async fn all(models: &[Generated]) -> anyhow::Result<Vec<Weight>> {
    let mut weights = Vec::new();
    for model in models {
        let weight = one(model).await.with_context(|| model.id)?;
        eprintln!("   {}: {}", weight.id, weight.figure());
        weights.push(weight);
    }
    Ok(weights)
}

async fn one(model: &Generated) -> anyhow::Result<Weight> {
    let place = generated::place(std::slice::from_ref(model), "");
    place.write("models/first.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\n");
    let gateway = place.start().await;
    let resident = || memory_kib(gateway.pid(), "Rss").map(|kib| kib * 1_024);
    // Bodies as large as those below: what the gateway needs for them is not the model's.
    let text = "What does a gateway do with a long prompt? ".repeat(60);
    let first = pair::target(&gateway, &place, "first")?;
    ask(&first, 1, &text).await?;
    ask(&first, AT_ONCE, "What is a gateway?").await?;
    let before = resident()?;
    let target = pair::target(&gateway, &place, model.id)?;
    let warmed = gateway.admin(&["model", "warm", model.id]).await;
    ensure!(warmed["state"] == "ready", "{warmed}");
    let loaded = resident()?;
    ask(&target, 1, &text).await?;
    ask(&target, AT_ONCE, "What is a gateway?").await?;
    let used = resident()?;
    let told = told(&gateway, model.id).await?;
    let number = |name: &str| told[name].as_u64().with_context(|| format!("{name}: {told}"));
    Ok(Weight {
        id: model.id,
        file: model.bytes,
        predicted: number("predicted_bytes")?,
        reported: number("memory_bytes")?,
        loaded: loaded.saturating_sub(before),
        used: used.saturating_sub(before),
        load_ms: number("load_ms")?,
    })
}

/// What the gateway says of a model.
pub(crate) async fn told(gateway: &Gateway, id: &str) -> anyhow::Result<Value> {
    let models = gateway.admin(&["models"]).await;
    let found = models.as_array().into_iter().flatten().find(|model| model["id"] == id);
    found.cloned().with_context(|| format!("no model {id}"))
}

/// So many replies of a few tokens at once.
async fn ask(target: &Target, count: usize, text: &str) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let (target, body) = (target.clone(), target.body(text, json!({ "max_tokens": 8 })));
        tasks.spawn(async move {
            let mut link = target.connect().await?;
            link.post(&body).await?.succeeded()
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
