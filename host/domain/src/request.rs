//! What is asked of a model, and what comes back.

use crate::{Message, ToolSpec};

/// A named JSON value, for what the fixed words do not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Lower case, dots for namespaces.
    pub name: String,
    /// One JSON text.
    pub value: String,
}

/// How to decode. What is `None` falls to the route, then to the model, then to the gateway's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// 1 to 131,072 tokens.
    pub max_tokens: Option<u32>,
    /// 0 (greedy) to 2.
    pub temperature: Option<f32>,
    /// Above 0, up to 1.
    pub top_p: Option<f32>,
    /// 0 (off) to 1,000.
    pub top_k: Option<u32>,
    /// 0 (off) to 1.
    pub min_p: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// 0.01 to 2; 1 is off.
    pub repeat_penalty: Option<f32>,
    /// The same seed, model and prompt sample alike.
    pub seed: Option<u64>,
    /// At most 4; the reply ends before the first that would appear.
    pub stop: Vec<String>,
    /// Added to the logits of these tokens, by their number in the vocabulary: at most 300, each by -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// How many of the likeliest tokens are told beside the log-probability of each token of the reply, 0 to 20; `None` tells
    /// nothing.
    pub logprobs: Option<u8>,
}

impl Parameters {
    /// What `self` leaves open, taken from `other`.
    #[must_use]
    pub fn or(self, other: &Parameters) -> Parameters {
        Parameters {
            max_tokens: self.max_tokens.or(other.max_tokens),
            temperature: self.temperature.or(other.temperature),
            top_p: self.top_p.or(other.top_p),
            top_k: self.top_k.or(other.top_k),
            min_p: self.min_p.or(other.min_p),
            frequency_penalty: self.frequency_penalty.or(other.frequency_penalty),
            presence_penalty: self.presence_penalty.or(other.presence_penalty),
            repeat_penalty: self.repeat_penalty.or(other.repeat_penalty),
            seed: self.seed.or(other.seed),
            stop: if self.stop.is_empty() { other.stop.clone() } else { self.stop },
            logit_bias: if self.logit_bias.is_empty() { other.logit_bias.clone() } else { self.logit_bias },
            logprobs: self.logprobs.or(other.logprobs),
        }
    }
}

/// A chat request in any dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<ToolSpec>,
    /// How to decode.
    pub parameters: Parameters,
    /// A JSON Schema that the reply has to match.
    pub format: Option<String>,
    /// The model's name as the client gave it.
    pub model: String,
    /// What else the client sent that is passed on.
    pub fields: Vec<Attribute>,
}

/// How long a model is to stay in memory without a request, as one asks for it. What the config says is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// So many seconds, 0 to 31,536,000; 0 is until the last request has its reply.
    Seconds(u32),
    /// Until its room is needed.
    Unlimited,
}

/// What streams. A tool's call is its name followed by its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The reply's text.
    Text(String),
    /// What the model thinks aloud.
    Reasoning(String),
    /// A tool's call begins.
    ToolName(String),
    /// More of its arguments, as JSON text.
    ToolArguments(String),
}

impl Piece {
    /// The text within, of any kind.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Piece::Text(text) | Piece::Reasoning(text) | Piece::ToolName(text) | Piece::ToolArguments(text) => text,
        }
    }
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done, or a stop string came.
    Stop,
    /// The token limit or the context was full.
    Length,
    /// A filter cut it.
    ContentFilter,
    /// It ends in calls of tools.
    ToolCalls,
}

/// Tokens counted, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Of these, found in the cache.
    pub cached: u32,
    /// Tokens decoded.
    pub completion: u32,
}

impl Usage {
    /// All tokens.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.prompt.saturating_add(self.completion)
    }
}
