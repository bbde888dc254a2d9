//! Messages and their parts.

/// Who speaks. OpenAI's `developer` is [`Role::System`] here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The answer of a tool.
    Tool,
}

impl Role {
    /// The name that chat templates use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// Where a part of the prompt comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The last turn, as the client sent it.
    User,
    /// Earlier turns.
    History,
    /// Passages found for this request.
    Retrieved,
    /// Written by the operator.
    Template,
}

/// A binary part, by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRef {
    /// RFC 6838, e.g. `image/png`.
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
    Blob(BlobRef),
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

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSpec {
    /// What the model calls it by.
    pub name: String,
    /// What it is good for.
    pub description: Option<String>,
    /// A JSON Schema of its arguments.
    pub parameters: String,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The speaker's name, where a client gives one.
    pub name: Option<String>,
    /// What is said, in order.
    pub parts: Vec<Part>,
    /// On an assistant's message only.
    pub tool_calls: Vec<ToolCall>,
    /// On a tool's message only: the call it answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of one text part.
    #[must_use]
    pub fn text(role: Role, origin: Origin, text: impl Into<String>) -> Self {
        Message {
            role,
            name: None,
            parts: vec![Part { origin, content: Content::Text(text.into()) }],
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// The text of all parts, joined; blobs are passed over.
    #[must_use]
    pub fn joined_text(&self) -> String {
        self.parts
            .iter()
            .filter_map(|part| match &part.content {
                Content::Text(text) => Some(text.as_str()),
                Content::Blob(_) => None,
            })
            .collect()
    }
}
