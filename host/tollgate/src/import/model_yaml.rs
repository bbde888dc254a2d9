//! `model.yaml`: one model, how it samples, and the prompts that went with it.

use std::path::Path;

use anyhow::{anyhow, bail};
use serde_json::{Map, Value};

use super::model::{Draft, Field, Format, Setting};
use super::plan::Surroundings;
use super::prompts;
use super::reading::{Input, Reading, scalar};

/// What a file of 1 MiB may unfold to with aliases, as nodes and as bytes of text.
const MAX_NODES: usize = 100_000;
const MAX_TEXT_BYTES: usize = 4 * 1024 * 1024;
const MAX_DEPTH: usize = 32;

/// Reads the model of the file.
///
/// # Errors
/// The file is not YAML, or describes no model.
pub(super) fn read(input: &Input, around: &Surroundings<'_>) -> anyhow::Result<Reading> {
    let root = parse(&input.text)?;
    let sections = ["model", "inference", "prompts"];
    let Some(root) = root.as_object().filter(|root| sections.iter().any(|section| root.contains_key(*section))) else {
        bail!("there is none of `model`, `inference` and `prompts`, which a model.yaml consists of");
    };
    let mut reading = Reading::of(input);
    let mut draft = Draft::new(Format::ModelYaml);
    let mut path = None;
    for (section, value) in root {
        if value.is_null() || reading.is_secret(section, section) {
            continue;
        }
        match value.as_object().filter(|_| sections.contains(&section.as_str())) {
            Some(table) => self::section(&mut reading, &mut draft, &mut path, section, table),
            None => reading.unknown(section),
        }
    }
    if draft.name.is_none() {
        // Systems that ran one model often gave it no name.
        let path = path.as_ref().map(|path| path.value.as_str()).unwrap_or_default();
        let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or("model");
        draft.name = Some(reading.setting("model", stem));
    }
    let has_model = path.is_some() || !draft.fields.is_empty() || root.contains_key("model");
    reading.weights(&mut draft, path, input, around);
    if has_model {
        reading.models.push(draft);
    }
    Ok(reading)
}

fn parse(text: &str) -> anyhow::Result<Value> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_total_scalar_bytes: MAX_TEXT_BYTES,
            max_depth: MAX_DEPTH,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    // The parser's own message is left out: it may repeat the text, and that a secret.
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.location() {
        Some(location) => anyhow!("line {}, column {}: this cannot be read as YAML", location.line(), location.column()),
        None => anyhow!("this cannot be read as YAML"),
    })
}

fn section(reading: &mut Reading, draft: &mut Draft, path: &mut Option<Setting>, section: &str, table: &Map<String, Value>) {
    for (key, value) in table {
        let at = format!("{section}.{key}");
        if value.is_null() || reading.is_secret(&at, key) {
            continue;
        }
        let Some(text) = scalar(value) else {
            reading.unknown(&at);
            continue;
        };
        let field = match key.as_str() {
            "n_ctx" | "context_length" => Some(Field::ContextTokens),
            "n_batch" => Some(Field::StepTokens),
            "n_threads" | "threads" => Some(Field::Threads),
            _ => Field::sampler(key),
        };
        match (section, key.as_str(), field) {
            ("model", "name", _) => draft.name = Some(reading.setting(&at, text)),
            ("model", "path", _) => *path = Some(reading.setting(&at, text)),
            ("model", "type", _) => draft.kind = Some(reading.setting(&at, text)),
            ("prompts", "system", _) => prompts::system(reading, &at, &text),
            ("prompts", "decision_template", _) => prompts::decision(reading, &at, &text),
            ("model" | "inference", _, Some(field)) => reading.number(draft, field, &at, &text),
            _ => reading.unknown(&at),
        }
    }
}
