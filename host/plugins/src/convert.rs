//! Between the words of `domain` and those of the contract. What a plugin returns is checked here: its values become headers,
//! statuses and log lines elsewhere.

use tollgate_domain as domain;

use crate::bindings::types as wit;

/// Longest message of a refusal, in bytes; more is cut.
const MAX_MESSAGE: usize = 2_048;
/// Longest identifier (principal, tenant, role, scope, model), in bytes.
const MAX_NAME: usize = 256;
/// Longest list in a principal.
const MAX_LIST: usize = 256;
/// A day: nobody is told to come back later than that.
const MAX_RETRY_AFTER_S: u32 = 86_400;

impl From<domain::Attribute> for wit::Attribute {
    fn from(from: domain::Attribute) -> Self {
        wit::Attribute { name: from.name, value: from.value }
    }
}

impl From<wit::Attribute> for domain::Attribute {
    fn from(from: wit::Attribute) -> Self {
        domain::Attribute { name: from.name, value: from.value }
    }
}

fn map<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(B::from).collect()
}

impl From<domain::Principal> for wit::Principal {
    fn from(from: domain::Principal) -> Self {
        let domain::Principal { id, tenant, roles, scopes, models, default_model, attributes } = from;
        wit::Principal { id, tenant, roles, scopes, models, default_model, attributes: map(attributes) }
    }
}

/// Takes a principal from a plugin.
pub(crate) fn principal(from: wit::Principal) -> Result<domain::Principal, &'static str> {
    let wit::Principal { id, tenant, roles, scopes, models, default_model, attributes } = from;
    let lists = [&roles, &scopes, &models];
    if lists.iter().any(|list| list.len() > MAX_LIST) || attributes.len() > MAX_LIST {
        return Err("a principal's list is too long");
    }
    if !lists.into_iter().flatten().chain([&id, &tenant]).chain(&default_model).all(|name| is_name(name)) {
        return Err("a principal's name is empty, too long or has control characters");
    }
    Ok(domain::Principal { id, tenant, roles, scopes, models, default_model, attributes: map(attributes) })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}

/// Takes a refusal from a plugin. A code that is none becomes `plugin_refused`; control characters become spaces.
pub(crate) fn refusal(from: wit::Refusal) -> domain::Refusal {
    let kind = match from.kind {
        wit::RefusalKind::Unauthenticated => domain::RefusalKind::Unauthenticated,
        wit::RefusalKind::Forbidden => domain::RefusalKind::Forbidden,
        wit::RefusalKind::Invalid => domain::RefusalKind::Invalid,
        wit::RefusalKind::Blocked => domain::RefusalKind::Blocked,
        wit::RefusalKind::TooLarge => domain::RefusalKind::TooLarge,
        wit::RefusalKind::RateLimited => domain::RefusalKind::RateLimited,
        wit::RefusalKind::Unavailable => domain::RefusalKind::Unavailable,
    };
    let code = if is_code(&from.code) { from.code } else { "plugin_refused".to_owned() };
    domain::Refusal {
        kind,
        code,
        message: one_line(&from.message),
        detail: one_line(&from.detail),
        field: None,
        retry_after: from.retry_after.map(|seconds| seconds.min(MAX_RETRY_AFTER_S)),
    }
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_MESSAGE));
    for c in text.chars() {
        if line.len() + c.len_utf8() > MAX_MESSAGE {
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

impl From<domain::RequestHead> for wit::RequestHead {
    fn from(from: domain::RequestHead) -> Self {
        let domain::RequestHead { method, path, headers, client_ip, listener, peer_cert } = from;
        let peer_cert = peer_cert.map(|cert| wit::Certificate {
            fingerprint: cert.fingerprint,
            subject: cert.subject,
            dns_names: cert.dns_names,
        });
        wit::RequestHead { method, path, headers, client_ip: client_ip.to_string(), listener, peer_cert }
    }
}

impl From<domain::Context> for wit::Context {
    fn from(from: domain::Context) -> Self {
        wit::Context {
            request_id: from.request_id,
            received_at_ms: from.received_at_ms,
            deadline_ms: from.deadline_ms,
            listener: from.listener,
            dialect: from.dialect,
            route: from.route,
            principal: from.principal.into(),
            model: from.model,
            is_stream: from.is_stream,
            conversation: from.conversation,
            attributes: map(from.attributes),
        }
    }
}

impl From<domain::Role> for wit::Role {
    fn from(from: domain::Role) -> Self {
        match from {
            domain::Role::System => wit::Role::System,
            domain::Role::User => wit::Role::User,
            domain::Role::Assistant => wit::Role::Assistant,
            domain::Role::Tool => wit::Role::Tool,
        }
    }
}

impl From<wit::Role> for domain::Role {
    fn from(from: wit::Role) -> Self {
        match from {
            wit::Role::System => domain::Role::System,
            wit::Role::User => domain::Role::User,
            wit::Role::Assistant => domain::Role::Assistant,
            wit::Role::Tool => domain::Role::Tool,
        }
    }
}

impl From<domain::Part> for wit::Part {
    fn from(from: domain::Part) -> Self {
        let origin = match from.origin {
            domain::Origin::User => wit::Origin::User,
            domain::Origin::History => wit::Origin::History,
            domain::Origin::Retrieved => wit::Origin::Retrieved,
            domain::Origin::Template => wit::Origin::Template,
        };
        let content = match from.content {
            domain::Content::Text(text) => wit::PartContent::Text(text),
            domain::Content::Blob(domain::BlobRef { media_type, size, sha256 }) => {
                wit::PartContent::Blob(wit::BlobRef { media_type, size, sha256 })
            }
        };
        wit::Part { origin, content }
    }
}

impl From<wit::Part> for domain::Part {
    fn from(from: wit::Part) -> Self {
        let origin = match from.origin {
            wit::Origin::User => domain::Origin::User,
            wit::Origin::History => domain::Origin::History,
            wit::Origin::Retrieved => domain::Origin::Retrieved,
            wit::Origin::Template => domain::Origin::Template,
        };
        let content = match from.content {
            wit::PartContent::Text(text) => domain::Content::Text(text),
            wit::PartContent::Blob(wit::BlobRef { media_type, size, sha256 }) => {
                domain::Content::Blob(domain::BlobRef { media_type, size, sha256 })
            }
        };
        domain::Part { origin, content }
    }
}

impl From<domain::ToolCall> for wit::ToolCall {
    fn from(domain::ToolCall { id, name, arguments }: domain::ToolCall) -> Self {
        wit::ToolCall { id, name, arguments }
    }
}

impl From<wit::ToolCall> for domain::ToolCall {
    fn from(wit::ToolCall { id, name, arguments }: wit::ToolCall) -> Self {
        domain::ToolCall { id, name, arguments }
    }
}

impl From<domain::ToolSpec> for wit::ToolSpec {
    fn from(domain::ToolSpec { name, description, parameters }: domain::ToolSpec) -> Self {
        wit::ToolSpec { name, description, parameters }
    }
}

impl From<wit::ToolSpec> for domain::ToolSpec {
    fn from(wit::ToolSpec { name, description, parameters }: wit::ToolSpec) -> Self {
        domain::ToolSpec { name, description, parameters }
    }
}

impl From<domain::Message> for wit::Message {
    fn from(from: domain::Message) -> Self {
        let domain::Message { role, name, parts, tool_calls, tool_call_id } = from;
        wit::Message { role: role.into(), name, parts: map(parts), tool_calls: map(tool_calls), tool_call_id }
    }
}

impl From<wit::Message> for domain::Message {
    fn from(from: wit::Message) -> Self {
        let wit::Message { role, name, parts, tool_calls, tool_call_id } = from;
        domain::Message { role: role.into(), name, parts: map(parts), tool_calls: map(tool_calls), tool_call_id }
    }
}

impl From<domain::Parameters> for wit::Parameters {
    fn from(from: domain::Parameters) -> Self {
        let domain::Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from;
        let domain::Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from;
        wit::Parameters {
            max_tokens,
            temperature,
            top_p,
            top_k,
            min_p,
            frequency_penalty,
            presence_penalty,
            repeat_penalty,
            seed,
            stop,
        }
    }
}

impl From<wit::Parameters> for domain::Parameters {
    fn from(from: wit::Parameters) -> Self {
        let wit::Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from;
        let wit::Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from;
        domain::Parameters {
            max_tokens,
            temperature,
            top_p,
            top_k,
            min_p,
            frequency_penalty,
            presence_penalty,
            repeat_penalty,
            seed,
            stop,
            // What the contract has no word for stays with the host.
            ..domain::Parameters::default()
        }
    }
}

impl From<domain::ChatRequest> for wit::ChatRequest {
    fn from(from: domain::ChatRequest) -> Self {
        let domain::ChatRequest { messages, tools, parameters, format, model, fields } = from;
        wit::ChatRequest {
            messages: map(messages),
            tools: map(tools),
            parameters: parameters.into(),
            format,
            model,
            fields: map(fields),
        }
    }
}

impl From<wit::ChatRequest> for domain::ChatRequest {
    fn from(from: wit::ChatRequest) -> Self {
        let wit::ChatRequest { messages, tools, parameters, format, model, fields } = from;
        domain::ChatRequest {
            messages: map(messages),
            tools: map(tools),
            parameters: parameters.into(),
            format,
            model,
            fields: map(fields),
        }
    }
}

impl From<domain::Piece> for wit::Piece {
    fn from(from: domain::Piece) -> Self {
        match from {
            domain::Piece::Text(text) => wit::Piece::Text(text),
            domain::Piece::Reasoning(text) => wit::Piece::Reasoning(text),
            domain::Piece::ToolName(text) => wit::Piece::ToolName(text),
            domain::Piece::ToolArguments(text) => wit::Piece::ToolArguments(text),
        }
    }
}

impl From<wit::Piece> for domain::Piece {
    fn from(from: wit::Piece) -> Self {
        match from {
            wit::Piece::Text(text) => domain::Piece::Text(text),
            wit::Piece::Reasoning(text) => domain::Piece::Reasoning(text),
            wit::Piece::ToolName(text) => domain::Piece::ToolName(text),
            wit::Piece::ToolArguments(text) => domain::Piece::ToolArguments(text),
        }
    }
}

/// Takes flags from a plugin, 64 at most. A flag is for counting: what is no short name becomes `other`, so that no text of a
/// prompt gets into a log this way (P-A8).
pub(crate) fn flags(from: Vec<wit::Flag>) -> Vec<domain::Flag> {
    let name = |name: String| if is_code(&name) { name } else { "other".to_owned() };
    from.into_iter().take(64).map(|flag| domain::Flag { name: name(flag.name), count: flag.count }).collect()
}

/// Whether a text is a short machine-readable name.
fn is_code(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wit_refusal(code: &str, message: &str) -> wit::Refusal {
        wit::Refusal {
            kind: wit::RefusalKind::Blocked,
            code: code.to_owned(),
            message: message.to_owned(),
            detail: String::new(),
            retry_after: Some(u32::MAX),
        }
    }

    /// P-W8: what a plugin says cannot become a header line or a status of its own.
    #[test]
    fn a_refusal_is_made_harmless() {
        let taken = refusal(wit_refusal("bad\r\ncode", "one\r\ntwo\u{1b}[31m"));
        assert_eq!(taken.code, "plugin_refused");
        assert_eq!(taken.message, "one  two [31m");
        assert_eq!(taken.retry_after, Some(86_400));
        assert!(refusal(wit_refusal("ok", &"é".repeat(5_000))).message.len() <= MAX_MESSAGE);
    }

    #[test]
    fn a_principal_without_a_name_is_none() {
        let named = |id: &str, role: &str| wit::Principal {
            id: id.to_owned(),
            tenant: "default".to_owned(),
            roles: vec![role.to_owned()],
            scopes: Vec::new(),
            models: Vec::new(),
            default_model: None,
            attributes: Vec::new(),
        };
        assert!(principal(named("a", "user")).is_ok());
        assert!(principal(named("", "user")).is_err());
        assert!(principal(named("a", "us\ner")).is_err());
        assert!(principal(named(&"a".repeat(257), "user")).is_err());
    }
}
