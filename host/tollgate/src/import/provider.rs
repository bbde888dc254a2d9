//! `AI_PROVIDER` and its like in `.env`: a model that answers over HTTP. None of the files that are written here describes such a
//! model, so its settings are only named; this is the one place to change for them to become one.

use std::collections::BTreeMap;

use super::reading::Reading;
use super::weights::{self, Weights};

/// Settings of a provider, without its secrets.
const SETTINGS: [&str; 5] = ["AI_PROVIDER", "AI_BASE_URL", "AI_MODEL_NAME", "AI_TEMPERATURE", "AI_TIMEOUT"];

/// Whether a variable is of a provider.
pub(super) fn is_setting(key: &str) -> bool {
    SETTINGS.contains(&key)
}

/// Notes the settings of a provider among `variables`. An address may hold a password, and is not shown.
pub(super) fn leave_out(reading: &mut Reading, variables: &BTreeMap<&str, &str>) {
    let is_ollama = variables.get("AI_PROVIDER").is_some_and(|provider| provider.eq_ignore_ascii_case("ollama"));
    for key in SETTINGS {
        let Some(value) = variables.get(key) else { continue };
        let served = match weights::of(value, Some("ollama"), None) {
            Some(Weights::Ollama(tag)) if is_ollama && key == "AI_MODEL_NAME" => {
                format!("; or install it, to run in the gateway itself: tollgate model pull ollama:{tag}")
            }
            _ => String::new(),
        };
        let instead = format!("keep it for the provider{served}");
        reading.leave_out(key, "is of a model behind HTTP: providers come from `[provider]`", instead);
    }
}
