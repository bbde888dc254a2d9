//! `.env`: settings of a whole system, of which those of its one model become a model's. Of the others it is said where in the
//! gateway their like is.

use std::collections::BTreeMap;

use tollgate_config::Name;

use super::dotenv::{self, Variable};
use super::model::{Draft, Field, Format};
use super::plan::Surroundings;
use super::provider;
use super::reading::{Input, Reading};

/// What has a like elsewhere in the gateway, or none: names, why they are not kept, and what to do instead.
const ELSEWHERE: &[(&[&str], &str, &str)] = &[
    (
        &["API_HOST", "API_PORT", "PORT", "HOST"],
        "is not a model's: listeners say where clients connect",
        "set `address` in listeners/main.toml",
    ),
    (
        &["API_WORKERS"],
        "has no like: one process serves all requests",
        "nothing; `sequences` of a model says how many it decodes at once",
    ),
    (
        &["DEBUG"],
        "is not a model's: the log has a level",
        "set `level = \"debug\"` under `[log]` in tollgate.toml where it was on",
    ),
    (
        &["LOG_FORMAT", "LOG_FILE"],
        "has no like: the log goes to standard error, a JSON object a line",
        "nothing; the service manager keeps it",
    ),
    (&["REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB"], "has no like: there is no Redis", "nothing"),
    (&["MODEL_CONFIG_PATH"], "names a file with models, which is not followed", "name that file too: `tollgate import FILE...`"),
    (
        &["MODEL_CACHE_DIR"],
        "is not a model's: the gateway has one directory for what it keeps",
        "name it with `tollgate serve --data DIR`",
    ),
    (
        &["API_KEY_HEADER"],
        "is not a model's: authenticators say how a key comes",
        "nothing for X-API-Key and Authorization; see plugins/auth-keys.toml",
    ),
    (
        &["RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_PER_HOUR"],
        "is not a model's: limits are those of routes and keys",
        "see `limits` of routes in docs/config.md",
    ),
    (
        &["MAX_PROMPT_LENGTH"],
        "does not say whether it counts bytes or tokens",
        "set `body_mib` of a listener for bytes, `context_tokens` of the model for tokens",
    ),
    (&["APP_NAME", "APP_ENV"], "has no like", "nothing"),
    (
        &["JWT_EXPIRATION_HOURS"],
        "is not a model's: a key says when it ends",
        "name it when you make a key: `tollgate keys add ID --expires TIME`",
    ),
    (&["BCRYPT_ROUNDS"], "has no like: keys are random and long, and kept as SHA-256", "nothing"),
    (
        &["EMBEDDINGS_MODEL", "VECTOR_STORE_PATH", "CHUNK_SIZE", "CHUNK_OVERLAP"],
        "is of retrieval, which is not the model's",
        "keep it for retrieval",
    ),
    (
        &["CACHE_ENABLED", "CACHE_MAX_SIZE", "CACHE_TTL_SECONDS"],
        "is of whole replies",
        "nothing; `prefix_cache` of a model keeps the computed beginnings of prompts and is on",
    ),
    (
        &["PROMETHEUS_ENABLED", "PROMETHEUS_PORT"],
        "is not a model's: metrics are always there",
        "see docs/metrics.md for a listener and a key for Prometheus",
    ),
];

/// Reads the variables of the file.
pub(super) fn read(input: &Input, around: &Surroundings<'_>) -> Reading {
    let mut reading = Reading::of(input);
    let parsed = dotenv::parse(&input.text);
    for line in &parsed.malformed {
        let why = "is not `KEY=VALUE`, or has a quote that does not close";
        reading.leave_out(&format!("line {line}"), why, "mend it, if it was of a model");
    }
    for (line, by) in &parsed.replaced {
        reading.leave_out(&format!("line {line}"), format!("is set again on line {by}"), "nothing: the later line counts");
    }
    let mut draft = Draft::new(Format::DotEnv);
    let mut path = None;
    for (key, variable) in &parsed.variables {
        let name = named(key, variable);
        if reading.is_secret(&name, key) || provider::is_setting(key) {
            continue;
        }
        let field = match key.as_str() {
            "MODEL_CONTEXT_LENGTH" => Some(Field::ContextTokens),
            "MODEL_THREADS" => Some(Field::Threads),
            "MODEL_TEMPERATURE" => Some(Field::Temperature),
            "MODEL_TOP_P" => Some(Field::TopP),
            _ => None,
        };
        match field {
            _ if field.is_none() && key != "MODEL_PATH" => elsewhere(&mut reading, &name, key, &variable.value),
            _ if variable.has_references => {
                reading.leave_out(&name, "refers to another variable, which is not followed", "write its value out");
            }
            _ if variable.value.is_empty() => {}
            Some(field) => reading.number(&mut draft, field, &name, &variable.value),
            None => path = Some(reading.setting(&name, variable.value.as_str())),
        }
    }
    provider::read(&mut reading, &values(&parsed.variables));
    reading.weights(&mut draft, path, input, around);
    if draft.settings().next().is_some() {
        reading.models.push(draft);
    }
    reading
}

/// What a variable is called in the output: its name, where it looks like one. A secret that is broken over lines looks like
/// variables too, and is not to be shown.
fn named(key: &str, variable: &Variable) -> String {
    let looks = key.len() <= 64 && key.chars().all(|char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_');
    if looks { key.to_owned() } else { format!("line {}", variable.line) }
}

fn values(variables: &BTreeMap<String, Variable>) -> BTreeMap<&str, &str> {
    variables.iter().map(|(key, variable)| (key.as_str(), variable.value.as_str())).collect()
}

fn elsewhere(reading: &mut Reading, name: &str, key: &str, value: &str) {
    match key {
        "LOG_LEVEL" => {
            let level = value.to_ascii_lowercase();
            let level = match level.as_str() {
                "trace" | "debug" | "info" | "error" => level.as_str(),
                "warn" | "warning" => "warn",
                "critical" | "fatal" => "error",
                _ => "LEVEL",
            };
            let instead = format!("set `level = \"{level}\"` under `[log]` in tollgate.toml");
            reading.leave_out(name, "is not a model's", instead);
        }
        "DEFAULT_MODEL" => {
            let model = value.parse::<Name>().map_or_else(|_| "NAME".to_owned(), |name| name.to_string());
            let instead = format!("name it when you make a key: `tollgate keys add ID --default-model {model}`");
            reading.leave_out(name, "is not a model's: each key has its default model", instead);
        }
        _ => match ELSEWHERE.iter().find(|(keys, ..)| keys.contains(&key)) {
            Some((_, why, instead)) => reading.leave_out(name, *why, *instead),
            None => reading.unknown(name),
        },
    }
}
