//! `models/ID.toml`: an artifact plus its settings. Nothing is loaded here.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::provider::Provider;
use crate::source::Source;
use crate::text::{Id, Name};

/// A model that the gateway can load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The code that runs it.
    pub backend: Backend,
    /// What it is asked for: `generate` replies, `embed` texts as vectors, or `rerank` documents by how near they are to a query.
    /// Default `generate`. The others are for `llama`, `candle` and `onnx`; `rerank` is for `llama` only.
    #[serde(default)]
    pub task: Task,
    /// The weights: `builtin:demo`, `installed:NAME`, a GGUF file for `llama`, or a folder for `candle` and `onnx`. Refused for
    /// `scripted` and `provider`.
    #[serde(default)]
    pub artifact: Option<Source>,
    /// The id of the model that this is an adapter (LoRA) of. The artifact is then a GGUF file with the adapter for
    /// `llama`, or a folder as PEFT writes it for `candle` and `onnx`; memory, queue and all that goes with them are the base's. It
    /// answers as `BASE:ID` too. Refused for `provider`.
    #[serde(default)]
    pub base: Option<Id>,
    /// How strongly an adapter counts, 0 (not at all) to 4. Default 1, as it was trained. Refused without `base`.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 4.0))]
    pub scale: Option<f32>,
    /// Further names that clients may use for it; unique among all ids and aliases.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub aliases: Vec<Name>,
    /// The KV pool in tokens, shared by all sequences, 128 to 1048576. Without it, what the artifact was trained for.
    #[serde(default)]
    #[schemars(range(min = 128, max = 1_048_576))]
    pub context_tokens: Option<u32>,
    /// Sequences decoded at once, 1 to 256; texts, where it does not generate. Default 16.
    #[serde(default = "default_sequences")]
    #[schemars(range(min = 1, max = 256))]
    pub sequences: u16,
    /// Threads for decoding, 1 to 512. Without it, what was measured on this machine, else as many as there are cores for the gateway;
    /// one for a model below 32 MiB.
    #[serde(default)]
    #[schemars(range(min = 1, max = 512))]
    pub threads: Option<u16>,
    /// Tokens of one decode step, prefill included, 16 to 8192; of a model of `llama` that does not generate, what its longest text
    /// may have. Default 512.
    #[serde(default = "default_step_tokens")]
    #[schemars(range(min = 16, max = 8_192))]
    pub step_tokens: u32,
    /// Requests that may wait for a sequence, 1 to 65536; one more is refused at once (503). Where it does not generate, those that are
    /// computed count as well. Default 256.
    #[serde(default = "default_queue")]
    #[schemars(range(min = 1, max = 65_536))]
    pub queue: u32,
    /// Seconds for one request from admission to its last token, 1 to 3600. Default 300.
    #[serde(default = "default_deadline_s")]
    #[schemars(range(min = 1, max = 3_600))]
    pub deadline_s: u32,
    /// Reuse the computed beginning of a prompt within a tenant. Default true.
    #[serde(default = "default_prefix_cache")]
    pub prefix_cache: bool,
    /// How the key-value pool is stored: `f16`; `q8_0`, with 34 bytes for 32 values instead of 64; or `q4_0`, with 18. The model's
    /// heads have to be a multiple of 32 wide for the last two. Default `f16`. `llama` only.
    #[serde(default)]
    pub kv_cache: KvCache,
    /// What safetensors become when they are installed under the artifact's name and the command does not say; without it, what
    /// `models.quantization` says. Refused but for `llama` with `installed:NAME`, which has no use for `none`.
    #[serde(default)]
    pub quantization: Option<Quantization>,
    /// Whether the same request has the same reply to the last bit, however busy the model is. Every sequence is then decoded by
    /// itself, which is slower with many at once, and `context_tokens` is divided equally among the sequences. Default false.
    #[serde(default)]
    pub deterministic: bool,
    /// Whether it stays in memory once it is loaded, whatever else needs the room. Default false.
    #[serde(default)]
    pub pin: bool,
    /// Seconds that it stays in memory without a request, 0 to 31536000. Without it, until another model needs the room.
    #[serde(default)]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub keep_alive_s: Option<u32>,
    /// Models that answer where this one cannot, tried in this order before its first token and never after, up to 8. Those of a
    /// fallback come after it. Default none.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub fallback: Vec<Name>,
    /// How to sample where a request does not say.
    #[serde(default)]
    pub defaults: Sampling,
    /// The cadence of the `scripted` backend; refused for any other.
    #[serde(default)]
    pub scripted: Option<Scripted>,
    /// The server that answers, of the `provider` backend; refused for any other.
    #[serde(default)]
    pub provider: Option<Provider>,
}

/// What runs a model: code built into the gateway, or somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// llama.cpp, for GGUF files.
    Llama,
    /// candle, for folders of safetensors.
    Candle,
    /// ONNX Runtime, for folders of ONNX graphs.
    Onnx,
    /// Another server, over HTTP.
    Provider,
    /// Deterministic tokens at a set cadence and faults on command, for tests of what stands around a model.
    Scripted,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Candle => "candle",
            Self::Onnx => "onnx",
            Self::Provider => "provider",
            Self::Scripted => "scripted",
        })
    }
}

/// What a model is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Replies to chats and prompts.
    #[default]
    Generate,
    /// Texts as vectors.
    Embed,
    /// Documents by how near they are to a query.
    Rerank,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
        })
    }
}

/// What safetensors become when they are installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Quantization {
    /// GGUF in what fits: 16 bits below 100 million values, else `q8_0` or `q4_k_m` by the memory for models.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// GGUF with about 4.8 bits a value.
    #[serde(rename = "q4_k_m")]
    Q4KM,
    /// GGUF with 8.5 bits a value.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// GGUF with 16 bits a value.
    #[serde(rename = "f16")]
    F16,
    /// They stay as they are.
    #[serde(rename = "none")]
    Off,
}

/// How the numbers of a key-value pool are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KvCache {
    /// Half precision.
    #[default]
    F16,
    /// About 8.5 bits a number.
    Q8_0,
    /// About 4.5 bits a number.
    Q4_0,
}

impl fmt::Display for KvCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        })
    }
}

/// How to sample where a request does not say. What is absent here falls to the gateway's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// 0 (always the likeliest token) to 2.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f32>,
    /// The likeliest tokens that add up to this probability, 0.001 to 1 (off).
    #[schemars(range(min = 0.001, max = 1.0))]
    pub top_p: Option<f32>,
    /// The likeliest tokens by count, 0 (off) to 1000.
    #[schemars(range(min = 0, max = 1_000))]
    pub top_k: Option<u32>,
    /// Tokens at least this likely, relative to the likeliest, 0 (off) to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f32>,
    /// Divides the score of tokens that occurred, 0.01 to 2; 1 is off.
    #[schemars(range(min = 0.01, max = 2.0))]
    pub repeat_penalty: Option<f32>,
    /// Taken from a token's score for each time that it occurred, -2 to 2; 0 is off.
    #[schemars(range(min = -2.0, max = 2.0))]
    pub frequency_penalty: Option<f32>,
    /// Taken from a token's score if it occurred, -2 to 2; 0 is off.
    #[schemars(range(min = -2.0, max = 2.0))]
    pub presence_penalty: Option<f32>,
    /// Tokens of a reply, 1 to 131072.
    #[schemars(range(min = 1, max = 131_072))]
    pub max_tokens: Option<u32>,
}

/// The cadence of the scripted backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scripted {
    /// Microseconds for each decode step, 0 to 10000000. Default 0.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub token_us: u32,
    /// Microseconds for each token of a prompt, 0 to 10000000. Default 0.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub prefill_us_per_token: u32,
    /// Milliseconds that loading takes, 0 to 600000. Default 0.
    #[schemars(range(min = 0, max = 600_000))]
    pub load_ms: u32,
    /// MiB that it says it takes, 0 to 1048576. Default 0.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub memory_mib: u32,
}

fn default_sequences() -> u16 {
    16
}

fn default_step_tokens() -> u32 {
    512
}

fn default_queue() -> u32 {
    256
}

fn default_deadline_s() -> u32 {
    300
}

fn default_prefix_cache() -> bool {
    true
}
