//! The words as JSON, in the names of the files: what is compared and what reports show.

use serde_json::{Map, Value, json};

use crate::expect::{RefusalLike, Streams};
use crate::words::{Attribute, Content, Flag, Message, Parameters, Part, Piece, Principal, Refusal, Request};

pub(crate) fn principal(from: &Principal) -> Value {
    json!({
        "id": from.id,
        "tenant": from.tenant,
        "roles": from.roles,
        "scopes": from.scopes,
        "models": from.models,
        "default-model": from.default_model,
        "attributes": attributes(&from.attributes),
    })
}

/// By name; the order of attributes means nothing.
fn attributes(list: &[Attribute]) -> Value {
    list.iter().map(|attribute| (attribute.name.clone(), attribute.value.clone())).collect::<Map<_, _>>().into()
}

pub(crate) fn request(from: &Request) -> Value {
    let tools = from
        .tools
        .iter()
        .map(|tool| json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters }));
    json!({
        "messages": from.messages.iter().map(message).collect::<Vec<_>>(),
        "tools": tools.collect::<Vec<_>>(),
        "parameters": parameters(&from.parameters),
        "format": from.format,
        "model": from.model,
        "fields": attributes(&from.fields),
    })
}

fn message(from: &Message) -> Value {
    let mut out = Map::from_iter([("role".to_owned(), from.role.as_str().into())]);
    match from.parts.as_slice() {
        [Part { origin, content: Content::Text(text) }] => {
            out.insert("origin".to_owned(), origin.as_str().into());
            out.insert("text".to_owned(), text.as_str().into());
        }
        parts => {
            out.insert("parts".to_owned(), parts.iter().map(part).collect());
        }
    }
    if let Some(name) = &from.name {
        out.insert("name".to_owned(), name.as_str().into());
    }
    if !from.tool_calls.is_empty() {
        let call = from.tool_calls.iter().map(|call| json!({ "id": call.id, "name": call.name, "arguments": call.arguments }));
        out.insert("tool-calls".to_owned(), call.collect());
    }
    if let Some(id) = &from.tool_call_id {
        out.insert("tool-call-id".to_owned(), id.as_str().into());
    }
    Value::Object(out)
}

fn part(from: &Part) -> Value {
    let origin = from.origin.as_str();
    match &from.content {
        Content::Text(text) => json!({ "origin": origin, "text": text }),
        Content::Blob(blob) => json!({
            "origin": origin,
            "blob": { "media-type": blob.media_type, "size": blob.size, "sha256": blob.sha256 },
        }),
    }
}

fn parameters(from: &Parameters) -> Value {
    json!({
        "max-tokens": from.max_tokens,
        "temperature": number(from.temperature),
        "top-p": number(from.top_p),
        "top-k": from.top_k,
        "min-p": number(from.min_p),
        "frequency-penalty": number(from.frequency_penalty),
        "presence-penalty": number(from.presence_penalty),
        "repeat-penalty": number(from.repeat_penalty),
        "seed": from.seed,
        "stop": from.stop,
    })
}

/// As it was written: 0.7 as a 64-bit number would be 0.699999988079071.
fn number(from: Option<f32>) -> Value {
    from.and_then(|number| number.to_string().parse::<f64>().ok()).map_or(Value::Null, Value::from)
}

pub(crate) fn refusal(from: &Refusal) -> Value {
    json!({
        "kind": from.kind.as_str(),
        "code": from.code,
        "message": from.message,
        "detail": from.detail,
        "retry-after": from.retry_after,
    })
}

/// What is expected of a refusal; what may be anything is as it came.
pub(crate) fn refusal_like(expected: &RefusalLike, came: &Refusal) -> Value {
    json!({
        "kind": expected.kind.as_str(),
        "code": expected.code,
        "message": expected.message.as_ref().unwrap_or(&came.message),
        "detail": expected.detail.as_ref().unwrap_or(&came.detail),
        "retry-after": expected.retry_after.or(came.retry_after.map(u64::from)),
    })
}

/// What is expected of a refusal, where none came.
pub(crate) fn refusal_alone(expected: &RefusalLike) -> Value {
    json!({ "kind": expected.kind.as_str(), "code": expected.code })
}

pub(crate) fn streams(from: &Streams) -> Value {
    let calls = from.tool_calls.iter().map(|(name, arguments)| json!({ "name": name, "arguments": arguments }));
    json!({ "text": from.text, "reasoning": from.reasoning, "tool-calls": calls.collect::<Vec<_>>() })
}

/// What one push released: a text, or the pieces, neighbours of one kind in one.
pub(crate) fn release(pieces: &[Piece]) -> Value {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.as_str().is_empty()) {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text))
            | (Some(Piece::Reasoning(before)), Piece::Reasoning(text))
            | (Some(Piece::ToolArguments(before)), Piece::ToolArguments(text)) => before.push_str(text),
            _ => joined.push(piece.clone()),
        }
    }
    match joined.as_slice() {
        [] => "".into(),
        [Piece::Text(text)] => text.as_str().into(),
        pieces => pieces.iter().map(piece).collect(),
    }
}

pub(crate) fn piece(from: &Piece) -> Value {
    match from {
        Piece::Text(text) => json!({ "text": text }),
        Piece::Reasoning(text) => json!({ "reasoning": text }),
        Piece::ToolName(text) => json!({ "tool-name": text }),
        Piece::ToolArguments(text) => json!({ "tool-arguments": text }),
    }
}

/// Counts by name.
pub(crate) fn flags<'a>(from: impl IntoIterator<Item = &'a Flag>) -> Value {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for flag in from {
        let count = counts.entry(&flag.name).or_default();
        *count = count.saturating_add(u64::from(flag.count));
    }
    json!(counts)
}
