//! The body of a chat completion request to a [`ChatRequest`].
//!
//! Which field is read how is the table's (`fields.rs`); here is what comes of them together.

use tollgate_domain::{Attribute, ChatRequest, KeepAlive, Message, Parameters, Refusal};

use super::{fields, read};
use crate::json::{Json, shown};

/// The largest schema that a reply may be held to, in bytes.
const SCHEMA_BYTES: usize = 64 * 1024;
/// Tokens that `logit_bias` may name.
const BIASED_TOKENS: usize = 300;

/// A request, and how its reply is to come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    /// What is asked. Its model is empty where the client names none.
    pub(crate) chat: ChatRequest,
    /// As server-sent events, and not as one JSON text.
    pub(crate) is_stream: bool,
    /// With a last chunk that counts the tokens.
    pub(crate) include_usage: bool,
    /// How long the model is to stay in memory.
    pub(crate) keep_alive: Option<KeepAlive>,
}

/// A request while its fields are read, one after the other in the client's order.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) messages: Option<Vec<Message>>,
    pub(crate) model: Option<String>,
    pub(crate) parameters: Parameters,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) max_completion_tokens: Option<u32>,
    pub(crate) logprobs: bool,
    pub(crate) top_logprobs: Option<u32>,
    pub(crate) format: Option<String>,
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) is_stream: bool,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) passed_on: Vec<Attribute>,
}

/// What a streamed reply is to have besides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: bool,
}

/// Reads a request.
///
/// # Errors
/// Always of the kind `Invalid`, naming the first field that is wrong.
pub(crate) fn decode(json: Json) -> Result<Decoded, Refusal> {
    let entries = match json {
        Json::Object(entries) => entries,
        other => {
            let message = format!("The body has to be an object; it is {}.", other.kind());
            return Err(Refusal::invalid("invalid_type", message));
        }
    };
    let mut draft = Draft::default();
    for (name, value) in entries {
        let field = fields::find(&name).ok_or_else(|| read::unknown(&shown(&name)))?;
        if !value.is_null() {
            (field.read)(&mut draft, field.name, value)?;
        }
    }
    draft.finish()
}

impl Draft {
    fn finish(self) -> Result<Decoded, Refusal> {
        let messages = self.messages.ok_or_else(|| read::missing("messages"))?;
        if self.max_tokens.is_some() && self.max_completion_tokens.is_some() {
            return Err(read::invalid("max_tokens", "cannot be given together with `max_completion_tokens`"));
        }
        if self.stream_options.is_some() && !self.is_stream {
            return Err(read::invalid("stream_options", "needs `stream` to be true"));
        }
        let likeliest = self.top_logprobs.unwrap_or(0);
        if likeliest > 0 && !self.logprobs {
            return Err(read::invalid("top_logprobs", "needs `logprobs` to be true"));
        }
        let parameters = Parameters {
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            logprobs: self.logprobs.then(|| u8::try_from(likeliest).unwrap_or(u8::MAX)),
            ..self.parameters
        };
        let chat = ChatRequest {
            messages,
            tools: Vec::new(),
            parameters,
            format: self.format,
            model: self.model.unwrap_or_default(),
            fields: self.passed_on,
        };
        let include_usage = self.stream_options.is_some_and(|options| options.include_usage);
        Ok(Decoded { chat, is_stream: self.is_stream, include_usage, keep_alive: self.keep_alive })
    }

    /// Keeps a value that templates and plugins see as it is.
    pub(crate) fn pass_on(&mut self, name: &str, json: &Json) {
        self.passed_on.push(Attribute { name: name.to_owned(), value: json.to_text() });
    }
}

/// Reads `stop`: a string or up to four.
pub(crate) fn stops(path: &str, json: Json) -> Result<Vec<String>, Refusal> {
    let one = |path: &str, value| read::short_string(path, value, &(1..=1_024));
    match json {
        Json::Text(_) => Ok(vec![one(path, json)?]),
        Json::List(_) => {
            let values = read::list(path, json, &(0..=4))?;
            values.into_iter().enumerate().map(|(at, value)| one(&format!("{path}[{at}]"), value)).collect()
        }
        other => Err(read::wrong_type(path, "a string or an array of strings", &other)),
    }
}

/// Reads `logit_bias`: numbers of tokens, each with what is added to its logit. That the model has them is the model's to say.
pub(crate) fn logit_bias(path: &str, json: Json) -> Result<Vec<(u32, f32)>, Refusal> {
    let entries = match json {
        Json::Object(entries) if entries.len() <= BIASED_TOKENS => entries,
        Json::Object(entries) => {
            return Err(read::invalid(path, &format!("may have {BIASED_TOKENS} entries; it has {}", entries.len())));
        }
        other => return Err(read::wrong_type(path, "an object", &other)),
    };
    let entry = |(name, value): (String, Json)| {
        let of = format!("{path}.{}", shown(&name));
        // Written as numbers are, so that no token is named twice.
        let token = name.parse::<u32>().ok().filter(|token| token.to_string() == name);
        let token = token.ok_or_else(|| read::invalid(&of, "is no number of a token"))?;
        Ok((token, read::number(&of, &value, &(-100.0..=100.0))?))
    };
    entries.into_iter().filter(|(_, value)| !value.is_null()).map(entry).collect()
}

/// Reads `stream_options`.
pub(crate) fn stream_options(path: &str, json: Json) -> Result<StreamOptions, Refusal> {
    let mut entries = read::object(path, json, &["include_usage", "include_obfuscation"])?;
    let mut flag = |name: &str| entries.take(name).map(|value| read::flag(&format!("{path}.{name}"), &value)).transpose();
    // Obfuscation hides token lengths from who watches the line; a proxy's padding is not the gateway's to fake.
    flag("include_obfuscation")?;
    Ok(StreamOptions { include_usage: flag("include_usage")?.unwrap_or(false) })
}

/// Reads `response_format` to the schema that the reply has to match, if any.
pub(crate) fn response_format(path: &str, json: Json) -> Result<Option<String>, Refusal> {
    let mut entries = read::object(path, json, &["type", "json_schema"])?;
    let kind = entries.take("type").ok_or_else(|| read::missing(&format!("{path}.type")))?;
    let schema = entries.take("json_schema");
    let kind = read::one_of(&format!("{path}.type"), &kind, &["text", "json_object", "json_schema"])?;
    let path = format!("{path}.json_schema");
    match (kind, schema) {
        ("json_schema", Some(schema)) => json_schema(&path, schema).map(Some),
        ("json_schema", None) => Err(read::missing(&path)),
        (_, Some(_)) => Err(read::invalid(&path, "needs the type `json_schema`")),
        ("json_object", None) => Ok(Some(r#"{"type":"object"}"#.to_owned())),
        (_, None) => Ok(None),
    }
}

fn json_schema(path: &str, json: Json) -> Result<String, Refusal> {
    let mut entries = read::object(path, json, &["name", "description", "schema", "strict"])?;
    let of = |field: &str| format!("{path}.{field}");
    let name = entries.take("name").ok_or_else(|| read::missing(&of("name")))?;
    let name = read::short_string(&of("name"), name, &(1..=64))?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(read::invalid(&of("name"), "may hold letters, digits, `_` and `-` only"));
    }
    if let Some(description) = entries.take("description") {
        read::string(&of("description"), description)?;
    }
    // The reply always matches, so there is nothing that `strict` could change.
    if let Some(strict) = entries.take("strict") {
        read::flag(&of("strict"), &strict)?;
    }
    let schema = entries.take("schema").ok_or_else(|| read::missing(&of("schema")))?;
    if !matches!(schema, Json::Object(_)) {
        return Err(read::wrong_type(&of("schema"), "an object", &schema));
    }
    let text = schema.to_text();
    if text.len() > SCHEMA_BYTES {
        let message = format!("may have {SCHEMA_BYTES} bytes; it has {}", text.len());
        return Err(read::invalid(&of("schema"), &message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
