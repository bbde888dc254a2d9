//! Between the words of cases and those of `domain`.

use tollgate_cases as cases;
use tollgate_domain::{
    Attribute, BlobRef, Certificate, ChatRequest, Content, Context, Flag, Message, Origin, Parameters, Part, Piece, Principal,
    Refusal, RefusalKind, RequestHead, Role, ToolCall, ToolSpec,
};

use crate::imports::LookupError;
use crate::instance::{Decision, Outcome, Step, Verdict};

pub(super) fn head(from: &cases::Head) -> RequestHead {
    let peer_cert = from.peer_cert.as_ref().map(|cert| Certificate {
        fingerprint: cert.fingerprint.clone(),
        subject: cert.subject.clone(),
        dns_names: cert.dns_names.clone(),
    });
    RequestHead {
        method: from.method.clone(),
        path: from.path.clone(),
        headers: from.headers.clone(),
        client_ip: from.client_ip,
        listener: from.listener.clone(),
        peer_cert,
    }
}

pub(super) fn context(from: &cases::Context) -> Context {
    Context {
        request_id: from.request_id.clone(),
        received_at_ms: from.received_at_ms,
        deadline_ms: from.deadline_ms,
        listener: from.listener.clone(),
        dialect: from.dialect.clone(),
        route: from.route.clone(),
        principal: principal(from.principal.clone()),
        model: from.model.clone(),
        is_stream: from.is_stream,
        conversation: from.conversation.clone(),
        attributes: attributes(from.attributes.clone()),
    }
}

pub(super) fn lookup(from: Result<cases::Principal, cases::LookupError>) -> Result<Principal, LookupError> {
    from.map(principal).map_err(|error| match error {
        cases::LookupError::Unknown => LookupError::Unknown,
        cases::LookupError::Expired(at_ms) => LookupError::Expired(at_ms),
        cases::LookupError::Revoked => LookupError::Revoked,
        cases::LookupError::Unavailable => LookupError::Unavailable,
    })
}

fn principal(from: cases::Principal) -> Principal {
    let cases::Principal { id, tenant, roles, scopes, models, default_model, attributes: list } = from;
    Principal { id, tenant, roles, scopes, models, default_model, attributes: attributes(list) }
}

fn principal_back(from: Principal) -> cases::Principal {
    let Principal { id, tenant, roles, scopes, models, default_model, attributes } = from;
    cases::Principal { id, tenant, roles, scopes, models, default_model, attributes: attributes_back(attributes) }
}

fn attributes(list: Vec<cases::Attribute>) -> Vec<Attribute> {
    list.into_iter().map(|from| Attribute { name: from.name, value: from.value.to_string() }).collect()
}

fn attributes_back(list: Vec<Attribute>) -> Vec<cases::Attribute> {
    list.into_iter().map(|from| cases::Attribute::from_text(from.name, &from.value)).collect()
}

pub(super) fn request(from: &cases::Request) -> ChatRequest {
    let tools = from.tools.iter().map(|tool| ToolSpec {
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters: tool.parameters.to_string(),
    });
    let cases::Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from.parameters.clone();
    let cases::Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from.parameters;
    ChatRequest {
        messages: from.messages.iter().map(message).collect(),
        tools: tools.collect(),
        parameters: Parameters {
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
            // What is said of single tokens stays with the host.
            ..Parameters::default()
        },
        format: from.format.as_ref().map(ToString::to_string),
        model: from.model.clone(),
        fields: attributes(from.fields.clone()),
    }
}

pub(super) fn request_back(from: ChatRequest) -> cases::Request {
    let tools = from.tools.into_iter().map(|tool| cases::Tool {
        parameters: cases::Attribute::from_text(String::new(), &tool.parameters).value,
        name: tool.name,
        description: tool.description,
    });
    let Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from.parameters;
    let Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from.parameters;
    cases::Request {
        messages: from.messages.into_iter().map(message_back).collect(),
        tools: tools.collect(),
        parameters: cases::Parameters {
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
        },
        format: from.format.map(|text| cases::Attribute::from_text(String::new(), &text).value),
        model: from.model,
        fields: attributes_back(from.fields),
    }
}

fn message(from: &cases::Message) -> Message {
    let role = match from.role {
        cases::Role::System => Role::System,
        cases::Role::User => Role::User,
        cases::Role::Assistant => Role::Assistant,
        cases::Role::Tool => Role::Tool,
    };
    let call =
        |call: &cases::ToolCall| ToolCall { id: call.id.clone(), name: call.name.clone(), arguments: call.arguments.clone() };
    Message {
        role,
        name: from.name.clone(),
        parts: from.parts.iter().map(part).collect(),
        tool_calls: from.tool_calls.iter().map(call).collect(),
        tool_call_id: from.tool_call_id.clone(),
    }
}

fn part(from: &cases::Part) -> Part {
    let origin = match from.origin {
        cases::Origin::User => Origin::User,
        cases::Origin::History => Origin::History,
        cases::Origin::Retrieved => Origin::Retrieved,
        cases::Origin::Template => Origin::Template,
    };
    let content = match &from.content {
        cases::Content::Text(text) => Content::Text(text.clone()),
        cases::Content::Blob(blob) => {
            Content::Blob(BlobRef { media_type: blob.media_type.clone(), size: blob.size, sha256: blob.sha256.clone() })
        }
    };
    Part { origin, content }
}

fn message_back(from: Message) -> cases::Message {
    let role = match from.role {
        Role::System => cases::Role::System,
        Role::User => cases::Role::User,
        Role::Assistant => cases::Role::Assistant,
        Role::Tool => cases::Role::Tool,
    };
    let call = |ToolCall { id, name, arguments }: ToolCall| cases::ToolCall { id, name, arguments };
    cases::Message {
        role,
        name: from.name,
        parts: from.parts.into_iter().map(part_back).collect(),
        tool_calls: from.tool_calls.into_iter().map(call).collect(),
        tool_call_id: from.tool_call_id,
    }
}

fn part_back(from: Part) -> cases::Part {
    let origin = match from.origin {
        Origin::User => cases::Origin::User,
        Origin::History => cases::Origin::History,
        Origin::Retrieved => cases::Origin::Retrieved,
        Origin::Template => cases::Origin::Template,
    };
    let content = match from.content {
        Content::Text(text) => cases::Content::Text(text),
        Content::Blob(BlobRef { media_type, size, sha256 }) => cases::Content::Blob(cases::Blob { media_type, size, sha256 }),
    };
    cases::Part { origin, content }
}

pub(super) fn decision(from: Decision) -> cases::Decision {
    match from {
        Decision::Identity(who) => cases::Decision::Identity(principal_back(who)),
        Decision::Refuse(said) => cases::Decision::Refuse(refusal(said)),
        Decision::Abstain => cases::Decision::Abstain,
    }
}

pub(super) fn outcome(from: Outcome) -> cases::Outcome {
    let verdict = match from.verdict {
        Verdict::Pass => cases::PromptVerdict::Pass,
        Verdict::Replace(request) => cases::PromptVerdict::Replace(Box::new(request_back(*request))),
        Verdict::Block(said) => cases::PromptVerdict::Block(refusal(said)),
        Verdict::Answer(text) => cases::PromptVerdict::Answer(text),
    };
    cases::Outcome { verdict, flags: flags(from.flags) }
}

pub(super) fn refusal(from: Refusal) -> cases::Refusal {
    let kind = match from.kind {
        RefusalKind::Unauthenticated => cases::RefusalKind::Unauthenticated,
        RefusalKind::Forbidden => cases::RefusalKind::Forbidden,
        // The contract has no kind for what does not exist, so no plugin says it.
        RefusalKind::Invalid | RefusalKind::NotFound => cases::RefusalKind::Invalid,
        RefusalKind::Blocked => cases::RefusalKind::Blocked,
        RefusalKind::TooLarge => cases::RefusalKind::TooLarge,
        RefusalKind::RateLimited => cases::RefusalKind::RateLimited,
        RefusalKind::Unavailable => cases::RefusalKind::Unavailable,
    };
    cases::Refusal { kind, code: from.code, message: from.message, detail: from.detail, retry_after: from.retry_after }
}

pub(super) fn piece(from: &cases::Piece) -> Piece {
    match from.clone() {
        cases::Piece::Text(text) => Piece::Text(text),
        cases::Piece::Reasoning(text) => Piece::Reasoning(text),
        cases::Piece::ToolName(text) => Piece::ToolName(text),
        cases::Piece::ToolArguments(text) => Piece::ToolArguments(text),
    }
}

pub(super) fn step(from: Step) -> cases::Step {
    let piece_back = |piece: Piece| match piece {
        Piece::Text(text) => cases::Piece::Text(text),
        Piece::Reasoning(text) => cases::Piece::Reasoning(text),
        Piece::ToolName(text) => cases::Piece::ToolName(text),
        Piece::ToolArguments(text) => cases::Piece::ToolArguments(text),
    };
    cases::Step {
        release: from.release.into_iter().map(piece_back).collect(),
        flags: flags(from.flags),
        cut: from.cut.map(refusal),
    }
}

fn flags(list: Vec<Flag>) -> Vec<cases::Flag> {
    list.into_iter().map(|flag| cases::Flag { name: flag.name, count: flag.count }).collect()
}
