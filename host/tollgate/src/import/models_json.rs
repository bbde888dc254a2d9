//! `models.json`: models by name, each with the path of its weights and how they were to be loaded.

use anyhow::{anyhow, bail};
use serde_json::{Map, Value};

use super::model::{Draft, Field, Format};
use super::plan::Surroundings;
use super::reading::{Input, Reading, scalar};

/// Reads the models of the file.
///
/// # Errors
/// The file is not JSON, or has no table `models`.
pub(super) fn read(input: &Input, around: &Surroundings<'_>) -> anyhow::Result<Reading> {
    // The parser's own message is left out: nothing of the text may be repeated, whatever it says.
    let root: Value = serde_json::from_str(&input.text)
        .map_err(|error| anyhow!("line {}, column {}: this is not JSON", error.line(), error.column()))?;
    let Some(models) = root.get("models").and_then(Value::as_object) else {
        bail!("there is no table `models`, which a models.json consists of");
    };
    let mut reading = Reading::of(input);
    for (name, model) in models {
        match model.as_object() {
            Some(settings) => self::model(&mut reading, name, settings, input, around),
            None => reading.leave_out(&format!("models.{name}"), "is not a table", "write the model's settings as one"),
        }
    }
    for (key, _) in root.as_object().into_iter().flatten().filter(|(key, _)| *key != "models") {
        if !reading.is_secret(key, key) {
            reading.unknown(key);
        }
    }
    Ok(reading)
}

fn model(reading: &mut Reading, name: &str, settings: &Map<String, Value>, input: &Input, around: &Surroundings<'_>) {
    let mut draft = Draft::new(Format::ModelsJson);
    draft.name = Some(reading.setting(&format!("models.{name}"), name));
    let mut path = None;
    for (key, value) in settings {
        let at = format!("models.{name}.{key}");
        if value.is_null() || reading.is_secret(&at, key) {
            continue;
        }
        let Some(text) = scalar(value) else {
            reading.unknown(&at);
            continue;
        };
        match key.as_str() {
            "path" => path = Some(reading.setting(&at, text)),
            "type" => draft.kind = Some(reading.setting(&at, text)),
            "quantization" => draft.quantization = Some(reading.setting(&at, text)),
            "context_length" => reading.number(&mut draft, Field::ContextTokens, &at, &text),
            "threads" => reading.number(&mut draft, Field::Threads, &at, &text),
            "format" => reading.leave_out(&at, "is seen from the files themselves", "nothing"),
            "device" => {
                let why = "is the CPU here, which is all that the gateway computes on";
                reading.leave_out(&at, why, "nothing; `threads` says how many of its cores a model uses");
            }
            "max_memory" => max_memory(reading, &at, &text),
            _ => match Field::sampler(key) {
                Some(field) => reading.number(&mut draft, field, &at, &text),
                None => reading.unknown(&at),
            },
        }
    }
    reading.weights(&mut draft, path, input, around);
    reading.models.push(draft);
}

fn max_memory(reading: &mut Reading, at: &str, text: &str) {
    let why = "is of one model, and the budget is one for all models together";
    let instead = match mebibytes(text) {
        Some(mib) => format!("set `memory_mib` under `[models]` in tollgate.toml; of this model alone it would be {mib}"),
        None => "set `memory_mib` under `[models]` in tollgate.toml".to_owned(),
    };
    reading.leave_out(at, why, instead);
}

/// A size such as `8GB` or `512 MiB` in MiB, up to 1 PiB; without a unit it is bytes.
fn mebibytes(text: &str) -> Option<String> {
    let text = text.trim();
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let bytes_per = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1_024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "t" | "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let mib = number.parse::<f64>().ok()? * bytes_per / 1_048_576.0;
    (1.0..=1_073_741_824.0).contains(&mib).then(|| format!("{mib:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_the_units_that_they_have() {
        let cases =
            [("8GB", "7629"), ("8GiB", "8192"), ("8g", "8192"), (" 512 MiB ", "512"), ("1.5GiB", "1536"), ("1048576", "1")];
        for (text, mib) in cases {
            assert_eq!(mebibytes(text).as_deref(), Some(mib), "{text}");
        }
        for text in ["", "GB", "8 apples", "-1GB", "1e9GB", "99999999999TB", "0", "1.2.3GB"] {
            assert_eq!(mebibytes(text), None, "{text}");
        }
    }
}
