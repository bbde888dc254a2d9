//! `adapter_config.json` of PEFT: what the tensors alone do not say, and everything that is not computed here.

use std::path::Path;

use serde_json::Value;
use tollgate_backend::BackendError;

use super::MAX_RANK;
use crate::config::Config;

const FILE: &str = "adapter_config.json";
/// Larger than any that makes sense.
const MAX_ALPHA: f64 = 1e6;
/// Ways to begin a training that change the model itself: its adapter is for the changed one.
const CHANGED_BASES: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

#[derive(Debug)]
pub(super) struct Settings {
    /// Above 0, at most a million.
    alpha: f64,
    /// Whether alpha counts over the root of the rank.
    is_stabilized: bool,
    /// The rank of every pair, where it is one for all.
    pub(super) rank: Option<usize>,
}

impl Settings {
    /// Reads and checks the file.
    pub(super) fn read(folder: &Path) -> Result<Self, BackendError> {
        let path = folder.join(FILE);
        let wrong = |what: String| BackendError::Load(format!("{}: {what}", path.display()));
        let config = Config::read(&path)?.ok_or_else(|| wrong("is not there: it is no PEFT adapter".to_owned()))?;
        if let Some(other) = config.text("peft_type")?.filter(|kind| *kind != "LORA") {
            return Err(wrong(format!("the adapter is of the type `{}`, and LORA is supported", other.escape_debug())));
        }
        if let Some(name) = unsupported(&config)? {
            return Err(wrong(format!("the adapter uses `{name}`, which is not supported")));
        }
        let rank = config.need_count("r", 1..=MAX_RANK)?;
        let alpha = config.float("lora_alpha", 0.0..=MAX_ALPHA)?.filter(|alpha| *alpha > 0.0);
        let alpha = alpha.ok_or_else(|| wrong("`lora_alpha` has to be a number above 0".to_owned()))?;
        let rank = if is_set(config.get("rank_pattern")) { None } else { Some(rank) };
        Ok(Settings { alpha, is_stabilized: config.flag("use_rslora")?.unwrap_or(false), rank })
    }

    /// How much a pair of this rank, at least 1, counts.
    #[allow(clippy::cast_possible_truncation, reason = "it is at most a million, and a factor of f32 numbers")]
    pub(super) fn factor(&self, rank: usize) -> f32 {
        let rank = f64::from(u32::try_from(rank).unwrap_or(u32::MAX)).max(1.0);
        (self.alpha / if self.is_stabilized { rank.sqrt() } else { rank }) as f32
    }
}

/// What the adapter does that is not computed here.
fn unsupported(config: &Config) -> Result<Option<&'static str>, BackendError> {
    for name in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"] {
        if config.flag(name)? == Some(true) {
            return Ok(Some(name));
        }
    }
    if config.text("bias")?.is_some_and(|bias| bias != "none") {
        return Ok(Some("bias"));
    }
    let begins = config.get("init_lora_weights").and_then(Value::as_str).map(str::to_ascii_lowercase);
    if begins.is_some_and(|begins| CHANGED_BASES.iter().any(|name| begins.starts_with(name))) {
        return Ok(Some("init_lora_weights"));
    }
    let others = [
        "modules_to_save",
        "alpha_pattern",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
    ];
    Ok(others.into_iter().find(|name| is_set(config.get(name))))
}

/// Whether a list, a map or a value is there and not empty.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(all)) => !all.is_empty(),
        Some(Value::Object(all)) => !all.is_empty(),
        Some(_) => true,
    }
}
