//! What a template can read of a request. It is a view of the request and changes nothing.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;
use tollgate_sdk::{ChatRequest, Context, PartContent, Role};

/// The names that [`Variables`] gives to a template.
pub(crate) const NAMES: [&str; 5] = ["message", "messages", "fields", "principal", "model"];

/// The variables of one request.
#[derive(Debug, Serialize)]
pub(crate) struct Variables<'a> {
    message: String,
    messages: Vec<Turn<'a>>,
    fields: BTreeMap<&'a str, serde_json::Value>,
    principal: Who<'a>,
    model: &'a str,
}

#[derive(Debug, Serialize)]
struct Turn<'a> {
    role: &'static str,
    name: Option<&'a str>,
    content: String,
}

/// What a template may know of who asks: no scopes, no attributes.
#[derive(Debug, Serialize)]
struct Who<'a> {
    id: &'a str,
    tenant: &'a str,
    roles: &'a [String],
}

impl<'a> Variables<'a> {
    /// The variables as `ctx` and `request` have them. A field that is no JSON is `none`.
    pub(crate) fn of(ctx: &'a Context, request: &'a ChatRequest) -> Self {
        let messages: Vec<Turn<'a>> = request
            .messages
            .iter()
            .map(|message| Turn { role: role_name(message.role), name: message.name.as_deref(), content: text_of(message) })
            .collect();
        let message = messages.iter().rev().find(|turn| turn.role == "user").map(|turn| turn.content.clone()).unwrap_or_default();
        let fields = request
            .fields
            .iter()
            .map(|field| (field.name.as_str(), serde_json::from_str(&field.value).unwrap_or(serde_json::Value::Null)))
            .collect();
        let who = &ctx.principal;
        let principal = Who { id: &who.id, tenant: &who.tenant, roles: &who.roles };
        Variables { message, messages, fields, principal, model: &ctx.model }
    }

    /// For the template machine.
    pub(crate) fn to_value(&self) -> Value {
        Value::from(Serde(self))
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

/// The text parts, one per line.
fn text_of(message: &tollgate_sdk::Message) -> String {
    let texts: Vec<&str> = message
        .parts
        .iter()
        .filter_map(|part| match &part.content {
            PartContent::Text(text) => Some(text.as_str()),
            PartContent::Blob(_) => None,
        })
        .collect();
    texts.join("\n")
}
