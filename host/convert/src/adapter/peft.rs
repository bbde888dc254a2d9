//! `adapter_config.json` of PEFT: the rank and scale of an adapter, and everything that llama.cpp would not apply.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{ConvertError, quoted};
use crate::files;

const FILE: &str = "adapter_config.json";
const FILE_BYTES: u64 = 1 << 20;
/// Ways to begin a training that change the model itself: its adapter is for the changed one.
const CHANGED_BASES: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

#[derive(Debug, Deserialize)]
struct Raw {
    peft_type: Option<String>,
    r: Option<u64>,
    lora_alpha: Option<f64>,
    use_rslora: Option<bool>,
    use_dora: Option<bool>,
    fan_in_fan_out: Option<bool>,
    lora_bias: Option<bool>,
    bias: Option<String>,
    modules_to_save: Option<Value>,
    rank_pattern: Option<Value>,
    alpha_pattern: Option<Value>,
    layer_replication: Option<Value>,
    trainable_token_indices: Option<Value>,
    target_parameters: Option<Value>,
    alora_invocation_tokens: Option<Value>,
    use_qalora: Option<bool>,
    init_lora_weights: Option<Value>,
}

/// What the tensors alone do not say.
#[derive(Debug)]
pub(super) struct Settings {
    /// llama.cpp scales by this over the rank; above 0.
    pub(super) alpha: f64,
    /// The rank of every pair, where it is one for all.
    pub(super) rank: Option<u64>,
}

impl Settings {
    /// Reads and checks the file.
    pub(super) fn read(folder: &Path) -> Result<Self, ConvertError> {
        let raw: Raw = files::needed_json(folder, FILE, FILE_BYTES)?;
        match raw.peft_type.as_deref() {
            None | Some("LORA") => {}
            Some(other) => return Err(unsupported(format!("is of the type `{}`; LORA is converted", quoted(other)))),
        }
        let begins = raw.init_lora_weights.as_ref().and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        let flags = [
            ("use_dora", raw.use_dora == Some(true)),
            ("fan_in_fan_out", raw.fan_in_fan_out == Some(true)),
            ("lora_bias", raw.lora_bias == Some(true)),
            ("bias", raw.bias.as_deref().is_some_and(|bias| bias != "none")),
            ("modules_to_save", is_set(raw.modules_to_save.as_ref())),
            ("alpha_pattern", is_set(raw.alpha_pattern.as_ref())),
            ("layer_replication", is_set(raw.layer_replication.as_ref())),
            ("trainable_token_indices", is_set(raw.trainable_token_indices.as_ref())),
            ("target_parameters", is_set(raw.target_parameters.as_ref())),
            ("alora_invocation_tokens", is_set(raw.alora_invocation_tokens.as_ref())),
            ("use_qalora", raw.use_qalora == Some(true)),
            ("init_lora_weights", CHANGED_BASES.iter().any(|name| begins.starts_with(name))),
        ];
        if let Some((name, _)) = flags.iter().find(|(_, set)| *set) {
            return Err(unsupported(format!("uses {name}")));
        }
        let alpha = raw.lora_alpha.filter(|alpha| *alpha > 0.0 && *alpha < 1e6);
        let (Some(rank), Some(alpha)) = (raw.r.and_then(|rank| u32::try_from(rank).ok()).filter(|rank| *rank > 0), alpha) else {
            let shown = (raw.r.unwrap_or(0), raw.lora_alpha.unwrap_or(0.0));
            return Err(ConvertError::file(FILE, format!("has r {} and lora_alpha {}; both are above 0", shown.0, shown.1)));
        };
        let one_rank = !is_set(raw.rank_pattern.as_ref());
        let alpha = match raw.use_rslora {
            // Scaled by the root of the rank there, by the rank in llama.cpp.
            Some(true) if one_rank => alpha * f64::from(rank).sqrt(),
            Some(true) => return Err(unsupported("uses use_rslora together with rank_pattern")),
            _ => alpha,
        };
        Ok(Self { alpha, rank: one_rank.then_some(rank.into()) })
    }
}

fn unsupported(what: impl std::fmt::Display) -> ConvertError {
    ConvertError::file(FILE, format!("says that the adapter {what}, which llama.cpp does not apply"))
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
