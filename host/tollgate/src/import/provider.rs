//! `AI_PROVIDER` and its like in `.env`: a model that answers over HTTP. It becomes a model of the backend `provider`, and a line to
//! paste into `tollgate.toml`, for an import grants nothing by itself.

use std::collections::BTreeMap;

use tollgate_config::{Endpoint, HostPort};

use super::model::{Field, Setting};
use super::reading::Reading;
use super::toml_text;
use super::weights::{self, Weights};

/// Settings of a provider, without its secrets.
const SETTINGS: [&str; 5] = ["AI_PROVIDER", "AI_BASE_URL", "AI_MODEL_NAME", "AI_TEMPERATURE", "AI_TIMEOUT"];
/// Where a provider's key was.
const KEYS: [&str; 4] = ["AI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY"];
/// Providers by their names: the protocol, and where they are if nothing else is said.
const KNOWN: [(&str, &str, &str); 3] = [
    ("ollama", "ollama", "http://127.0.0.1:11434"),
    ("openai", "openai", "https://api.openai.com/v1"),
    ("gemini", "openai", "https://generativelanguage.googleapis.com/v1beta/openai"),
];
/// Seconds that a request may take.
const DEADLINE_S: std::ops::RangeInclusive<u32> = 1..=3_600;

/// A model that a provider has.
#[derive(Debug, Clone)]
pub(super) struct ProviderModel {
    /// What it is called there.
    pub(super) name: Setting,
    /// The lines of the file above `[provider]`, with what they come from.
    top: Vec<(Setting, String)>,
    /// Those below it.
    below: Vec<(Setting, String)>,
    temperature: Option<Setting>,
    endpoint: Endpoint,
    has_key: bool,
}

/// Whether a variable is of a provider.
pub(super) fn is_setting(key: &str) -> bool {
    SETTINGS.contains(&key)
}

/// Reads the settings of a provider among `variables`, or notes why they are not kept. An address may hold a password, and is only
/// shown where it does not.
pub(super) fn read(reading: &mut Reading, variables: &BTreeMap<&str, &str>) {
    let value = |key: &str| variables.get(key).copied().filter(|value| !value.is_empty());
    if !SETTINGS.iter().any(|key| value(key).is_some()) {
        return;
    }
    let provider = value("AI_PROVIDER").unwrap_or("ollama");
    let Some((_, kind, usual)) = KNOWN.iter().find(|(name, ..)| provider.eq_ignore_ascii_case(name)) else {
        return leave_out(reading, variables, "is of a provider that the import does not know");
    };
    let Some(name) = value("AI_MODEL_NAME") else {
        return leave_out(reading, variables, "is of a provider's model that the file does not name");
    };
    let Ok(endpoint) = value("AI_BASE_URL").unwrap_or(usual).parse::<Endpoint>() else {
        return leave_out(reading, variables, "is of a provider whose address is none, or holds a user or a query");
    };
    if !endpoint.is_tls() && !endpoint.is_private() {
        return leave_out(
            reading,
            variables,
            "is of a provider that prompts would go to unencrypted, through a network that is not private",
        );
    }
    let of = |key: &str, value: &str| reading.setting(if variables.contains_key(key) { key } else { "AI_MODEL_NAME" }, value);
    let below = vec![
        (of("AI_PROVIDER", provider), format!("kind = \"{kind}\"")),
        (of("AI_BASE_URL", ""), format!("endpoint = \"{endpoint}\"")),
        (of("AI_MODEL_NAME", name), format!("model = {}", toml_text::string(name))),
    ];
    let has_key = *kind != "ollama" && KEYS.iter().any(|key| value(key).is_some());
    let name = of("AI_MODEL_NAME", name);
    let mut model = ProviderModel { name, top: Vec::new(), below, temperature: None, endpoint, has_key };
    if let Some(seconds) = value("AI_TIMEOUT") {
        match seconds.trim().parse::<u32>().ok().filter(|seconds| DEADLINE_S.contains(seconds)) {
            Some(seconds) => {
                model.top.push((reading.setting("AI_TIMEOUT", seconds.to_string()), format!("deadline_s = {seconds}")));
            }
            None => reading.leave_out("AI_TIMEOUT", "is no whole number from 1 to 3600", "set `deadline_s` in the model's file"),
        }
    }
    if let Some(text) = value("AI_TEMPERATURE") {
        match Field::Temperature.checked(text) {
            Ok(number) => model.temperature = Some(reading.setting("AI_TEMPERATURE", number)),
            Err(why) => reading.leave_out("AI_TEMPERATURE", why, "set `temperature` under `[defaults]` in the model's file"),
        }
    }
    reading.provider = Some(model);
}

impl ProviderModel {
    /// The lines of its file, each with the setting that it comes from, if it is one's.
    pub(super) fn lines(&self, id: &str, alias: Option<&str>) -> Vec<(Option<&Setting>, String)> {
        let mut lines = vec![(None, "backend = \"provider\"".to_owned())];
        lines.extend(alias.map(|alias| (None, format!("aliases = [{}]", toml_text::string(alias)))));
        lines.extend(self.top.iter().map(|(setting, line)| (Some(setting), line.clone())));
        if let Some(temperature) = &self.temperature {
            lines.push((None, "\n[defaults]".to_owned()));
            lines.push((Some(temperature), format!("temperature = {}", temperature.value)));
        }
        lines.push((None, "\n[provider]".to_owned()));
        lines.extend(self.below.iter().map(|(setting, line)| (Some(setting), line.clone())));
        lines.extend(self.has_key.then(|| (None, format!("key_file = \"{id}.key\""))));
        lines
    }

    /// What has to be done before it serves.
    pub(super) fn to_do(&self, id: &str) -> Vec<String> {
        let egress =
            format!("prompts go to {} only when tollgate.toml grants it: {}", HostPort::of(&self.endpoint), self.egress());
        let key = self.has_key.then(|| format!("put the provider's key into {id}.key beside tollgate.toml, mode 0600"));
        std::iter::once(egress).chain(key).collect()
    }

    /// The line that grants it, under `[models]` in `tollgate.toml`.
    pub(super) fn egress(&self) -> String {
        format!("egress = [\"{}\"]", HostPort::of(&self.endpoint))
    }
}

/// Notes that the settings of a provider are not kept, and for what reason.
fn leave_out(reading: &mut Reading, variables: &BTreeMap<&str, &str>, why: &str) {
    let is_ollama = variables.get("AI_PROVIDER").is_some_and(|provider| provider.eq_ignore_ascii_case("ollama"));
    for key in SETTINGS {
        let Some(value) = variables.get(key) else { continue };
        let served = match weights::of(value, Some("ollama"), None) {
            Some(Weights::Ollama(tag)) if is_ollama && key == "AI_MODEL_NAME" => {
                format!("; or install it, to run in the gateway itself: tollgate model pull ollama:{tag}")
            }
            _ => String::new(),
        };
        let instead = format!("write a model of the backend `provider`, as docs/models.md says{served}");
        reading.leave_out(key, why, instead);
    }
}
