//! Every field of OpenAI's chat completion request and what becomes of it: the one table that reads requests, that the docs
//! repeat (`docs/openai-chat.md`) and that the tests walk, row by row.
//!
//! The names are those of OpenAI's API reference and its Python SDK 3.52. A field that is not here is refused by its name.

use tollgate_domain::Refusal;

use super::keep_alive::keep_alive;
use super::messages::{NO_TOOLS, messages};
use super::read;
use super::request::{Draft, logit_bias, response_format, stops, stream_options};
use crate::json::Json;

/// A field and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in the request.
    pub name: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
    /// Values that are taken, as JSON.
    pub taken: &'static [&'static str],
    /// Values that are refused, as JSON.
    pub refused: &'static [&'static str],
    /// For the docs: its range or its meaning.
    pub note: &'static str,
    pub(crate) read: Read,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It does what OpenAI says.
    Honoured,
    /// It is Tollgate's own, and honoured.
    Extension,
    /// It is checked and has no effect.
    Accepted,
    /// It is refused by its name, unless its value asks for nothing.
    Refused,
}

/// Reads a value, which is not `null`, at a path.
type Read = fn(&mut Draft, &str, Json) -> Result<(), Refusal>;

use Treatment::{Accepted, Extension, Honoured, Refused};

/// The fields: first what is honoured, then what is accepted, then what is refused.
pub static FIELDS: &[Field] = &[
    // Honoured.
    Field {
        name: "model",
        treatment: Honoured,
        taken: &[r#""demo""#],
        refused: &["1", r#""""#],
        note: "An id or alias of `GET /v1/models`, or a route's own name. Without it the key's default model answers.",
        read: |draft, path, json| set(&mut draft.model, read::short_string(path, json, &(1..=256))),
    },
    Field {
        name: "messages",
        treatment: Honoured,
        taken: &[
            r#"[{"role":"user","content":"hi"}]"#,
            r#"[{"role":"developer","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"hi"}]}]"#,
        ],
        refused: &[
            "[]",
            r#"[{"role":"tool","tool_call_id":"a","content":"4"}]"#,
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}]}]"#,
        ],
        note: "1 to 2,048; roles `developer`, `system`, `user`, `assistant`; text only.",
        read: |draft, path, json| set(&mut draft.messages, messages(path, json)),
    },
    Field {
        name: "frequency_penalty",
        treatment: Honoured,
        taken: &["-2", "0.5", "2"],
        refused: &["2.1", r#""1""#],
        note: "-2 to 2.",
        read: |draft, path, json| set(&mut draft.parameters.frequency_penalty, read::number(path, &json, &(-2.0..=2.0))),
    },
    Field {
        name: "logit_bias",
        treatment: Honoured,
        taken: &["{}", r#"{"50":-100,"7":2.5}"#],
        refused: &[r#"{"50":100.5}"#, r#"{"a":1}"#, r#"{"-1":1}"#, r#"{"07":1}"#, r#"{"50":"1"}"#, "[50]"],
        note: "Up to 300 tokens of the model by their numbers, each with -100 to 100 to be added to its logit, before penalties and \
               temperature. A response format has the last word.",
        read: |draft, path, json| {
            draft.parameters.logit_bias = logit_bias(path, json)?;
            Ok(())
        },
    },
    Field {
        name: "logprobs",
        treatment: Honoured,
        taken: &["true", "false"],
        refused: &["1", r#""true""#],
        note: "See [below](#log-probabilities). Not on routes with plugins that filter or format replies.",
        read: |draft, path, json| {
            draft.logprobs = read::flag(path, &json)?;
            Ok(())
        },
    },
    Field {
        name: "max_completion_tokens",
        treatment: Honoured,
        taken: &["1", "131072"],
        refused: &["0", "131073", "1.5"],
        note: "1 to 131,072; the route's and the model's limits hold besides.",
        read: |draft, path, json| set(&mut draft.max_completion_tokens, read::count(path, &json, &MAX_TOKENS)),
    },
    Field {
        name: "max_tokens",
        treatment: Honoured,
        taken: &["1", "131072"],
        refused: &["0", "131073", "-1"],
        note: "The older name of `max_completion_tokens`; not both.",
        read: |draft, path, json| set(&mut draft.max_tokens, read::count(path, &json, &MAX_TOKENS)),
    },
    Field {
        name: "presence_penalty",
        treatment: Honoured,
        taken: &["-2", "0.5", "2"],
        refused: &["-2.1", "true"],
        note: "-2 to 2.",
        read: |draft, path, json| set(&mut draft.parameters.presence_penalty, read::number(path, &json, &(-2.0..=2.0))),
    },
    Field {
        name: "response_format",
        treatment: Honoured,
        taken: &[
            r#"{"type":"text"}"#,
            r#"{"type":"json_object"}"#,
            r#"{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}"#,
        ],
        refused: &[r#"{"type":"grammar"}"#, r#"{"type":"json_schema"}"#, r#""json""#],
        note: "The reply always matches, with or without `strict`. A schema has 64 KiB at most. Not with a route's own format.",
        read: |draft, path, json| {
            draft.format = response_format(path, json)?;
            Ok(())
        },
    },
    Field {
        name: "seed",
        treatment: Honoured,
        taken: &["0", "-7", "18446744073709551615"],
        refused: &["1.5", r#""7""#],
        note: "A whole number of 64 bits. The same seed, model and request sample alike.",
        read: |draft, path, json| set(&mut draft.parameters.seed, read::seed(path, &json)),
    },
    Field {
        name: "stop",
        treatment: Honoured,
        taken: &[r#""END""#, r#"["a","b","c","d"]"#, "[]"],
        refused: &[r#""""#, r#"["a","b","c","d","e"]"#, "[1]"],
        note: "A string or up to 4, each of 1 to 1,024 bytes. The reply ends before it.",
        read: |draft, path, json| {
            draft.parameters.stop = stops(path, json)?;
            Ok(())
        },
    },
    Field {
        name: "stream",
        treatment: Honoured,
        taken: &["true", "false"],
        refused: &["1", r#""true""#],
        note: "Server-sent events, ended by `data: [DONE]`.",
        read: |draft, path, json| {
            draft.is_stream = read::flag(path, &json)?;
            Ok(())
        },
    },
    Field {
        name: "stream_options",
        treatment: Honoured,
        taken: &[r#"{"include_usage":true}"#, r#"{"include_obfuscation":false}"#, "{}"],
        refused: &[r#"{"include_usage":1}"#, r#"{"usage":true}"#, "true"],
        note: "`include_usage`: a last chunk counts the tokens. `include_obfuscation` has no effect. Needs `stream`.",
        read: |draft, path, json| set(&mut draft.stream_options, stream_options(path, json)),
    },
    Field {
        name: "temperature",
        treatment: Honoured,
        taken: &["0", "0.7", "2"],
        refused: &["-0.1", "2.1", r#""hot""#],
        note: "0 (greedy) to 2.",
        read: |draft, path, json| set(&mut draft.parameters.temperature, read::number(path, &json, &(0.0..=2.0))),
    },
    Field {
        name: "top_logprobs",
        treatment: Honoured,
        taken: &["0", "20"],
        refused: &["21", "-1", "true"],
        note: "0 to 20: how many of the likeliest tokens are told at each place. Needs `logprobs`.",
        read: |draft, path, json| set(&mut draft.top_logprobs, read::count(path, &json, &(0..=20))),
    },
    Field {
        name: "top_p",
        treatment: Honoured,
        taken: &["0", "0.9", "1"],
        refused: &["-0.1", "1.1"],
        note: "0 (the likeliest token alone) to 1 (off).",
        // Nothing is left of a nucleus of 0; the smallest there is keeps one token.
        read: |draft, path, json| {
            let top_p = read::number(path, &json, &(0.0..=1.0))?;
            draft.parameters.top_p = Some(top_p.max(f32::EPSILON));
            Ok(())
        },
    },
    // Tollgate's own.
    Field {
        name: "context",
        treatment: Extension,
        taken: &[r#""Budget: 10""#, r#"{"budget":10}"#],
        // A plugin says what it takes; here only what is no JSON at all could be wrong.
        refused: NOTHING,
        note: "Any JSON. Templates and plugins see it as `fields.context`.",
        read: |draft, path, json| {
            draft.pass_on(path, &json);
            Ok(())
        },
    },
    Field {
        name: "keep_alive",
        treatment: Extension,
        taken: &["0", "300", "-1", r#""1h30m""#],
        refused: &["31536001", "1.5", r#""soon""#],
        note: "Seconds, or a duration such as `1h30m`, that the model stays in memory without a request; negative: until its room is \
               needed. See [below](#keep_alive).",
        read: |draft, path, json| set(&mut draft.keep_alive, keep_alive(path, &json)),
    },
    Field {
        name: "min_p",
        treatment: Extension,
        taken: &["0", "0.05", "1"],
        refused: &["-0.1", "1.1"],
        note: "0 (off) to 1: tokens less likely than this share of the likeliest are left out.",
        read: |draft, path, json| set(&mut draft.parameters.min_p, read::number(path, &json, &(0.0..=1.0))),
    },
    Field {
        name: "repeat_penalty",
        treatment: Extension,
        taken: &["0.5", "1", "2"],
        refused: &["0", "2.1"],
        note: "0.01 to 2; 1 is off.",
        read: |draft, path, json| set(&mut draft.parameters.repeat_penalty, read::positive(path, &json, 2.0)),
    },
    Field {
        name: "template",
        treatment: Extension,
        taken: &[r#""decision""#],
        refused: &["1", r#""""#],
        note: "The name of a prompt template, for routes with a plugin that has some.",
        read: |draft, path, json| {
            let name = read::short_string(path, json, &(1..=256))?;
            draft.pass_on(path, &Json::Text(name));
            Ok(())
        },
    },
    Field {
        name: "top_k",
        treatment: Extension,
        taken: &["0", "40", "1000"],
        refused: &["-1", "1001"],
        note: "0 (off) to 1,000: only so many of the likeliest tokens.",
        read: |draft, path, json| set(&mut draft.parameters.top_k, read::count(path, &json, &(0..=1_000))),
    },
    // Accepted without effect.
    Field {
        name: "metadata",
        treatment: Accepted,
        taken: &["{}", r#"{"project":"a"}"#],
        refused: &[r#"{"project":1}"#, "[]"],
        note: "Up to 16 strings of up to 512 bytes, under names of up to 64. It is not kept.",
        read: |_, path, json| metadata(path, json),
    },
    Field {
        name: "parallel_tool_calls",
        treatment: Accepted,
        taken: &["true", "false"],
        refused: &["1"],
        note: "There are no tools to call.",
        read: |_, path, json| read::flag(path, &json).map(drop),
    },
    Field {
        name: "prompt_cache_key",
        treatment: Accepted,
        taken: &[r#""a""#],
        refused: &["1"],
        note: "What a prompt has in common with an earlier one of the tenant is found without it.",
        read: |_, path, json| read::string(path, json).map(drop),
    },
    Field {
        name: "prompt_cache_options",
        treatment: Accepted,
        taken: &[r#"{"mode":"implicit","ttl":"30m"}"#],
        refused: &[r#""implicit""#, r#"{"x":1}"#],
        note: "As `prompt_cache_key`.",
        read: |_, path, json| read::object(path, json, &["mode", "ttl"]).map(drop),
    },
    Field {
        name: "prompt_cache_retention",
        treatment: Accepted,
        taken: &[r#""in_memory""#, r#""24h""#],
        refused: &[r#""for ever""#, "24"],
        note: "As `prompt_cache_key`.",
        read: |_, path, json| read::one_of(path, &json, &["in_memory", "in-memory", "24h"]).map(drop),
    },
    Field {
        name: "reasoning_effort",
        treatment: Accepted,
        taken: &[r#""low""#, r#""none""#],
        refused: &[r#""hard""#, "1"],
        note: "The model thinks as it was trained to.",
        read: |_, path, json| {
            let efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];
            read::one_of(path, &json, &efforts).map(drop)
        },
    },
    Field {
        name: "safety_identifier",
        treatment: Accepted,
        taken: &[r#""a""#],
        refused: &["1"],
        note: "Who asks is known by the key.",
        read: |_, path, json| read::string(path, json).map(drop),
    },
    Field {
        name: "service_tier",
        treatment: Accepted,
        taken: &[r#""auto""#, r#""default""#],
        refused: &[r#""flex""#, r#""priority""#],
        note: "There is one tier.",
        read: |_, path, json| read::one_of(path, &json, &["auto", "default"]).map(drop),
    },
    Field {
        name: "user",
        treatment: Accepted,
        taken: &[r#""a""#],
        refused: &["1"],
        note: "Who asks is known by the key.",
        read: |_, path, json| read::string(path, json).map(drop),
    },
    Field {
        name: "verbosity",
        treatment: Accepted,
        taken: &[r#""low""#, r#""medium""#, r#""high""#],
        refused: &[r#""loud""#],
        note: "The model is as verbose as it was trained to be.",
        read: |_, path, json| read::one_of(path, &json, &["low", "medium", "high"]).map(drop),
    },
    // Refused by name, but for the values that ask for nothing.
    Field {
        name: "audio",
        treatment: Refused,
        taken: &["null"],
        refused: &[r#"{"voice":"alloy","format":"mp3"}"#],
        note: "Text only.",
        read: |_, path, _| Err(read::unsupported(path, NO_AUDIO)),
    },
    Field {
        name: "function_call",
        treatment: Refused,
        taken: &[r#""none""#],
        refused: &[r#""auto""#, r#"{"name":"f"}"#],
        note: "As `tools`.",
        read: |_, path, json| only(is_text(&json, "none"), path, NO_TOOLS),
    },
    Field {
        name: "functions",
        treatment: Refused,
        taken: &["[]"],
        refused: &[r#"[{"name":"f"}]"#],
        note: "As `tools`.",
        read: |_, path, json| only(is_empty(&json), path, NO_TOOLS),
    },
    Field {
        name: "modalities",
        treatment: Refused,
        taken: &[r#"["text"]"#],
        refused: &[r#"["text","audio"]"#, "[]"],
        note: "Text only.",
        read: |_, path, json| {
            let is_text = matches!(&json, Json::List(values) if matches!(values.as_slice(), [value] if is_text(value, "text")));
            only(is_text, path, NO_AUDIO)
        },
    },
    Field {
        name: "moderation",
        treatment: Refused,
        taken: &["null"],
        refused: &[r#"{"model":"omni-moderation-latest"}"#],
        note: "The operator's filters screen every request and reply.",
        read: |_, path, _| Err(read::unsupported(path, "what is screened is the operator's choice")),
    },
    Field {
        name: "n",
        treatment: Refused,
        taken: &["1"],
        refused: &["2", "0", r#""1""#],
        note: "One choice per request.",
        read: |_, path, json| only(read::count(path, &json, &(1..=128))? == 1, path, "a request has one choice"),
    },
    Field {
        name: "prediction",
        treatment: Refused,
        taken: &["null"],
        refused: &[r#"{"type":"content","content":"a"}"#],
        note: "Not yet.",
        read: |_, path, _| Err(read::unsupported(path, "predicted output is not used yet")),
    },
    Field {
        name: "store",
        treatment: Refused,
        taken: &["false"],
        refused: &["true", "1"],
        note: "Replies are not kept.",
        read: |_, path, json| only(!read::flag(path, &json)?, path, "replies are not kept"),
    },
    Field {
        name: "tool_choice",
        treatment: Refused,
        taken: &[r#""none""#],
        refused: &[r#""auto""#, r#""required""#],
        note: "As `tools`.",
        read: |_, path, json| only(is_text(&json, "none"), path, NO_TOOLS),
    },
    Field {
        name: "tools",
        treatment: Refused,
        taken: &["[]"],
        refused: &[r#"[{"type":"function","function":{"name":"f"}}]"#],
        note: "Not yet.",
        read: |_, path, json| only(is_empty(&json), path, NO_TOOLS),
    },
    Field {
        name: "web_search_options",
        treatment: Refused,
        taken: &["null"],
        refused: &["{}"],
        note: "The gateway searches nothing for a client.",
        read: |_, path, _| Err(read::unsupported(path, "nothing is searched")),
    },
];

/// For a field of which every value is taken.
const NOTHING: &[&str] = &[];

const MAX_TOKENS: std::ops::RangeInclusive<u32> = 1..=131_072;
const NO_AUDIO: &str = "replies are text only";

/// The row of `name`.
pub(crate) fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

impl Treatment {
    /// For the docs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Honoured => "honoured",
            Extension => "honoured, Tollgate's own",
            Accepted => "accepted without effect",
            Refused => "refused by name",
        }
    }
}

fn set<T>(slot: &mut Option<T>, value: Result<T, Refusal>) -> Result<(), Refusal> {
    *slot = Some(value?);
    Ok(())
}

fn only(is_nothing: bool, path: &str, why: &str) -> Result<(), Refusal> {
    if is_nothing { Ok(()) } else { Err(read::unsupported(path, why)) }
}

fn is_text(json: &Json, wanted: &str) -> bool {
    matches!(json, Json::Text(text) if text == wanted)
}

fn is_empty(json: &Json) -> bool {
    match json {
        Json::List(values) => values.is_empty(),
        Json::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

fn metadata(path: &str, json: Json) -> Result<(), Refusal> {
    let entries = match json {
        Json::Object(entries) if entries.len() <= 16 => entries,
        Json::Object(_) => return Err(read::invalid(path, "may have 16 entries")),
        other => return Err(read::wrong_type(path, "an object", &other)),
    };
    for (name, value) in entries {
        if name.len() > 64 {
            return Err(read::invalid(path, "has a name of more than 64 bytes"));
        }
        read::short_string(&format!("{path}.{name}"), value, &(0..=512))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
