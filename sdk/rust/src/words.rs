//! Small conveniences on the contract's types.

use crate::{
    Attribute, ChatRequest, Content, Context, Flag, Message, Origin, Outcome, Part, PartContent, Piece, Principal, Refusal,
    RefusalKind, RequestHead, Role, Step, Verdict,
};

impl RequestHead {
    /// The first header of this name. `name` is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Principal {
    /// A user of the default tenant with the scope `chat` on every model.
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

impl Refusal {
    /// A refusal with nothing more to say in the log.
    #[must_use]
    pub fn new(kind: RefusalKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        Refusal { kind, code: code.into(), message: message.into(), detail: String::new(), retry_after: None }
    }

    /// Adds what the log should know and the client should not.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

impl Message {
    /// A message of one text part.
    #[must_use]
    pub fn text(role: Role, origin: Origin, text: impl Into<String>) -> Self {
        let part = Part { origin, content: PartContent::Text(text.into()) };
        Message { role, name: None, parts: vec![part], tool_calls: Vec::new(), tool_call_id: None }
    }
}

impl ChatRequest {
    /// What the client sent besides, by name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        value_of(&self.fields, name)
    }

    /// Every text of the request that may be read or changed, in order.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = (Role, Origin, &mut String)> {
        self.messages.iter_mut().flat_map(|message| {
            let role = message.role;
            message.parts.iter_mut().filter_map(move |part| match &mut part.content {
                PartContent::Text(text) => Some((role, part.origin, text)),
                PartContent::Blob(_) => None,
            })
        })
    }
}

impl Context {
    /// What the route says, by name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        value_of(&self.attributes, name)
    }
}

fn value_of<'a>(list: &'a [Attribute], name: &str) -> Option<&'a str> {
    list.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.value.as_str())
}

impl Outcome {
    /// The request goes on as it is.
    #[must_use]
    pub fn pass() -> Self {
        Outcome { verdict: Verdict::Pass, flags: Vec::new() }
    }

    /// This request goes on in its place.
    #[must_use]
    pub fn replace(request: ChatRequest, flags: Vec<Flag>) -> Self {
        Outcome { verdict: Verdict::Replace(request), flags }
    }

    /// The request ends here.
    #[must_use]
    pub fn block(refusal: Refusal) -> Self {
        Outcome { verdict: Verdict::Block(refusal), flags: Vec::new() }
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated from the contract")]
impl Default for Step {
    fn default() -> Self {
        Step { release: Vec::new(), flags: Vec::new(), cut: None }
    }
}

impl Step {
    /// These pieces may leave.
    #[must_use]
    pub fn release(pieces: Vec<Piece>) -> Self {
        Step { release: pieces, ..Step::default() }
    }

    /// The reply ends here.
    #[must_use]
    pub fn cut(refusal: Refusal) -> Self {
        Step { cut: Some(refusal), ..Step::default() }
    }
}

impl Content {
    /// Text and nothing more.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Content { text: text.into(), attributes: Vec::new() }
    }
}
