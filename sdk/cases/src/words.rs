//! The words of the contract as a case speaks them. They mirror `wit/`; those who have a plugin convert to and from their own.

use serde_json::Value;

/// An enumeration whose values have names.
macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $type {
            /// Every value with its name.
            pub(crate) const NAMED: &'static [(&'static str, $type)] = &[$(($name, $type::$variant)),+];

            /// The name that files and reports use.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }
        }
    };
}

named!(
    /// Who speaks.
    Role {
        /// The operator's instructions.
        System = "system",
        /// Who asks.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// The answer of a tool.
        Tool = "tool",
    }
);

named!(
    /// Where a part of the prompt comes from.
    Origin {
        /// The last turn.
        User = "user",
        /// Earlier turns.
        History = "history",
        /// Passages found for this request.
        Retrieved = "retrieved",
        /// Written by the operator.
        Template = "template",
    }
);

named!(
    /// What kind of "no".
    RefusalKind {
        /// No valid key.
        Unauthenticated = "unauthenticated",
        /// A valid key that may not do this.
        Forbidden = "forbidden",
        /// The request is wrong.
        Invalid = "invalid",
        /// A policy stopped it.
        Blocked = "blocked",
        /// Bigger than what is taken.
        TooLarge = "too-large",
        /// Too many; later is fine.
        RateLimited = "rate-limited",
        /// Not now.
        Unavailable = "unavailable",
    }
);

/// A named JSON value.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value. Travels as JSON text.
    pub value: Value,
}

impl Attribute {
    /// From the contract's form. Text that is no JSON, which the contract does not allow, is kept to be seen in a report.
    #[must_use]
    pub fn from_text(name: String, text: &str) -> Self {
        let value = serde_json::from_str(text).unwrap_or_else(|_| serde_json::json!({ "not JSON": text }));
        Attribute { name, value }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// Unique within the tenant.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// Roles.
    pub roles: Vec<String>,
    /// What may be done.
    pub scopes: Vec<String>,
    /// Models by name; `*` is all of them.
    pub models: Vec<String>,
    /// Taken where a request names no model.
    pub default_model: Option<String>,
    /// What an authenticator adds.
    pub attributes: Vec<Attribute>,
}

impl Principal {
    /// A user of the tenant `default` with the scope `chat` on every model: what a case means where it says no more than an id.
    #[must_use]
    pub fn user(id: impl Into<String>) -> Self {
        Principal {
            id: id.into(),
            tenant: "default".to_owned(),
            roles: vec!["user".to_owned()],
            scopes: vec!["chat".to_owned()],
            models: vec!["*".to_owned()],
            default_model: None,
            attributes: Vec::new(),
        }
    }
}

/// Why a look-up of a key gave no one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// No such key.
    Unknown,
    /// It was valid until then, in milliseconds since 1970-01-01T00:00:00Z.
    Expired(u64),
    /// It was revoked.
    Revoked,
    /// The store did not answer.
    Unavailable,
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the DER, 64 lower-case hex digits.
    pub fingerprint: String,
    /// The subject's distinguished name.
    pub subject: String,
    /// DNS names among the alternative names.
    pub dns_names: Vec<String>,
}

/// A request before its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Upper case.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// Where it comes from.
    pub client_ip: std::net::IpAddr,
    /// The listener's id.
    pub listener: String,
    /// The client's certificate.
    pub peer_cert: Option<Certificate>,
}

/// What is known of the request around a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// The request's id.
    pub request_id: String,
    /// Milliseconds since 1970-01-01T00:00:00Z; also the clock that a fresh instance is given.
    pub received_at_ms: u64,
    /// The same clock.
    pub deadline_ms: u64,
    /// The listener's id.
    pub listener: String,
    /// E.g. `openai`.
    pub dialect: String,
    /// The route's id.
    pub route: String,
    /// Who asks.
    pub principal: Principal,
    /// The model that will answer.
    pub model: String,
    /// Whether the client asked for a stream.
    pub is_stream: bool,
    /// The conversation.
    pub conversation: Option<String>,
    /// What the route says.
    pub attributes: Vec<Attribute>,
}

/// A binary part, by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// RFC 6838.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

/// What a part holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Bytes that stay with the host.
    Blob(Blob),
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Who wrote it.
    pub origin: Origin,
    /// What it says.
    pub content: Content,
}

/// A call that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Unique in the conversation.
    pub id: String,
    /// The tool.
    pub name: String,
    /// One JSON text.
    pub arguments: String,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The speaker's name.
    pub name: Option<String>,
    /// What is said.
    pub parts: Vec<Part>,
    /// On an assistant's message only.
    pub tool_calls: Vec<ToolCall>,
    /// On a tool's message only.
    pub tool_call_id: Option<String>,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is good for.
    pub description: Option<String>,
    /// A JSON Schema of its arguments. Travels as JSON text.
    pub parameters: Value,
}

/// How to decode.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters {
    /// 1 to 131,072 tokens.
    pub max_tokens: Option<u32>,
    /// 0 to 2.
    pub temperature: Option<f32>,
    /// 0 to 1.
    pub top_p: Option<f32>,
    /// 0 to 1,000.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// 0.01 to 2.
    pub repeat_penalty: Option<f32>,
    /// The seed.
    pub seed: Option<u64>,
    /// At most 4.
    pub stop: Vec<String>,
}

/// A chat request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// How to decode.
    pub parameters: Parameters,
    /// A JSON Schema that the reply has to match. Travels as JSON text.
    pub format: Option<Value>,
    /// The model's name as the client gave it.
    pub model: String,
    /// What else the client sent.
    pub fields: Vec<Attribute>,
}

/// Why a request ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of "no".
    pub kind: RefusalKind,
    /// Stable and machine-readable.
    pub code: String,
    /// For the client.
    pub message: String,
    /// For the log.
    pub detail: String,
    /// In seconds.
    pub retry_after: Option<u32>,
}

/// Something worth counting that a filter saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// What was seen.
    pub name: String,
    /// How often.
    pub count: u32,
}

/// What streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The reply's text.
    Text(String),
    /// What the model thinks aloud.
    Reasoning(String),
    /// A tool's call begins.
    ToolName(String),
    /// More of its arguments.
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

    /// A piece of the same kind with another text.
    pub(crate) fn with(&self, text: &str) -> Piece {
        let text = text.to_owned();
        match self {
            Piece::Text(_) => Piece::Text(text),
            Piece::Reasoning(_) => Piece::Reasoning(text),
            Piece::ToolName(_) => Piece::ToolName(text),
            Piece::ToolArguments(_) => Piece::ToolArguments(text),
        }
    }
}

/// What an authenticator says.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// This is who asks.
    Identity(Principal),
    /// No.
    Refuse(Refusal),
    /// Ask the next.
    Abstain,
}

/// What a prompt filter decides.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptVerdict {
    /// Go on.
    Pass,
    /// Go on with this.
    Replace(Box<Request>),
    /// No.
    Block(Refusal),
    /// Answer this.
    Answer(String),
}

/// What a prompt filter says.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What to do.
    pub verdict: PromptVerdict,
    /// What was seen.
    pub flags: Vec<Flag>,
}

/// What a reply filter lets go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What may leave now.
    pub release: Vec<Piece>,
    /// What was seen.
    pub flags: Vec<Flag>,
    /// The reply ends here.
    pub cut: Option<Refusal>,
}
