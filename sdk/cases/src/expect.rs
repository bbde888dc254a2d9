//! What has to come of a case, hook by hook. Whether it did is `run`'s.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::{Item, Table};
use crate::input::{self, LIST, NAME, Rest, TEXT};
use crate::words::{Message, Piece, Principal, RefusalKind, Request};

/// Pushes whose releases a case may list.
const RELEASES: usize = 2_048;

/// Every hook that a case calls, with what has to come of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expect {
    /// A part of the error that `setup` has to give.
    pub(crate) setup: Option<String>,
    pub(crate) authenticate: Option<Authenticated>,
    pub(crate) compose: Option<Composed>,
    pub(crate) filter_prompt: Option<Screened>,
    pub(crate) filter_reply: Option<Replied>,
    pub(crate) format: Option<Formatted>,
}

/// What an authenticator has to say.
#[derive(Debug, Clone)]
pub(crate) enum Authenticated {
    Abstain,
    Identity(Principal),
    Refuse(RefusalLike),
}

/// What `compose` has to return.
#[derive(Debug, Clone)]
pub(crate) enum Composed {
    Unchanged,
    Request(RequestLike),
    Refuse(RefusalLike),
}

/// What a prompt filter has to say.
#[derive(Debug, Clone)]
pub(crate) struct Screened {
    pub(crate) verdict: Verdict,
    pub(crate) flags: Option<Flags>,
}

/// What a prompt filter has to decide.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Pass,
    Replace(RequestLike),
    Block(RefusalLike),
    Answer(String),
}

/// What a reply filter has to let go.
#[derive(Debug, Clone)]
pub(crate) struct Replied {
    /// `None`: what came.
    pub(crate) streams: Option<Streams>,
    pub(crate) flags: Option<Flags>,
    pub(crate) cut: Option<RefusalLike>,
    /// Of each push, and of the end.
    pub(crate) releases: Option<Vec<Vec<Piece>>>,
}

/// What `format` has to give.
#[derive(Debug, Clone)]
pub(crate) struct Formatted {
    pub(crate) constraint: Option<Constraint>,
    pub(crate) content: Option<Result<String, RefusalLike>>,
}

/// What the constraint has to be.
#[derive(Debug, Clone)]
pub(crate) enum Constraint {
    /// Whether there is one.
    Is(bool),
    /// This schema.
    Like(Value),
}

/// Flags by name.
pub(crate) type Flags = BTreeMap<String, u64>;

/// A refusal. `None` may be anything.
#[derive(Debug, Clone)]
pub(crate) struct RefusalLike {
    pub(crate) kind: RefusalKind,
    pub(crate) code: String,
    pub(crate) message: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) retry_after: Option<u64>,
}

/// A request that differs from the one that came in what is written.
#[derive(Debug, Clone)]
pub(crate) struct RequestLike {
    messages: Option<Vec<Message>>,
    rest: std::sync::Arc<Rest>,
}

impl RequestLike {
    /// The whole request that is expected where `came` came.
    pub(crate) fn over(&self, came: &Request) -> Request {
        let rest = &*self.rest;
        Request {
            messages: self.messages.as_ref().unwrap_or(&came.messages).clone(),
            tools: rest.tools.as_ref().unwrap_or(&came.tools).clone(),
            parameters: rest.parameters.as_ref().unwrap_or(&came.parameters).clone(),
            format: rest.format.as_ref().or(came.format.as_ref()).cloned(),
            model: rest.model.as_ref().unwrap_or(&came.model).clone(),
            fields: rest.fields.as_ref().unwrap_or(&came.fields).clone(),
        }
    }
}

/// What left of a reply, or came: its streams, each in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Names and arguments.
    pub(crate) tool_calls: Vec<(String, String)>,
}

impl Streams {
    pub(crate) fn of<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Self {
        let mut streams = Streams::default();
        for piece in pieces {
            match piece {
                Piece::Text(text) => streams.text.push_str(text),
                Piece::Reasoning(text) => streams.reasoning.push_str(text),
                Piece::ToolName(name) => streams.tool_calls.push((name.clone(), String::new())),
                Piece::ToolArguments(text) if text.is_empty() => {}
                Piece::ToolArguments(text) => match streams.tool_calls.last_mut() {
                    Some((_, arguments)) => arguments.push_str(text),
                    None => streams.tool_calls.push((String::new(), text.clone())),
                },
            }
        }
        streams
    }
}

/// Reads what a case expects.
pub(crate) fn read(table: &mut Table<'_, '_>) -> Expect {
    Expect {
        setup: table.take("setup").and_then(|item| setup(&item)),
        authenticate: table.take("authenticate").and_then(|item| authenticate(&item)),
        compose: table.take("compose").and_then(|item| compose(&item)),
        filter_prompt: table.take("filter-prompt").and_then(|item| filter_prompt(&item)),
        filter_reply: table.take("filter-reply").and_then(|item| filter_reply(&item)),
        format: table.take("format").and_then(|item| format(&item)),
    }
}

fn setup(item: &Item<'_, '_>) -> Option<String> {
    let mut table = item.table()?;
    let error = table.need("error").and_then(|item| item.text(1..=4 << 10));
    table.finish();
    error
}

fn authenticate(item: &Item<'_, '_>) -> Option<Authenticated> {
    if item.as_text().is_some() {
        return item.choice(&[("abstain", ())]).map(|()| Authenticated::Abstain);
    }
    let mut table = item.table()?;
    let (identity, refuse) = (table.take("identity"), table.take("refuse"));
    table.finish();
    match (identity, refuse) {
        (Some(item), None) => input::principal(&item).map(Authenticated::Identity),
        (None, Some(item)) => refusal(&item).map(Authenticated::Refuse),
        _ => {
            item.report("`authenticate` has to be `\"abstain\"`, or to have `identity` or `refuse`", "write one of them");
            None
        }
    }
}

fn compose(item: &Item<'_, '_>) -> Option<Composed> {
    if item.as_text().is_some() {
        return item.choice(&[("unchanged", ())]).map(|()| Composed::Unchanged);
    }
    let mut table = item.table()?;
    let (request, refuse) = (table.take("request"), table.take("refuse"));
    table.finish();
    match (request, refuse) {
        (Some(item), None) => request_like(&item).map(Composed::Request),
        (None, Some(item)) => refusal(&item).map(Composed::Refuse),
        _ => {
            item.report("`compose` has to be `\"unchanged\"`, or to have `request` or `refuse`", "write one of them");
            None
        }
    }
}

fn filter_prompt(item: &Item<'_, '_>) -> Option<Screened> {
    if item.as_text().is_some() {
        return item.choice(&[("pass", ())]).map(|()| Screened { verdict: Verdict::Pass, flags: None });
    }
    let mut table = item.table()?;
    let verdicts = (table.take("pass"), table.take("replace"), table.take("block"), table.take("answer"));
    let flags = table.take("flags").and_then(|item| flags(&item));
    table.finish();
    let verdict = match verdicts {
        (Some(item), None, None, None) => yes(&item).map(|()| Verdict::Pass),
        (None, Some(item), None, None) => request_like(&item).map(Verdict::Replace),
        (None, None, Some(item), None) => refusal(&item).map(Verdict::Block),
        (None, None, None, Some(item)) => item.text(TEXT).map(Verdict::Answer),
        _ => {
            item.one_of(&["pass", "replace", "block", "answer"]);
            None
        }
    };
    Some(Screened { verdict: verdict?, flags })
}

fn filter_reply(item: &Item<'_, '_>) -> Option<Replied> {
    if item.as_text().is_some() {
        let unchanged = Replied { streams: None, flags: None, cut: None, releases: None };
        return item.choice(&[("unchanged", ())]).map(|()| unchanged);
    }
    let mut table = item.table()?;
    let unchanged = table.take("unchanged");
    let (text, reasoning) = (table.take("text"), table.take("reasoning"));
    let calls = table.take("tool-calls");
    if unchanged.is_some() && (text.is_some() || reasoning.is_some() || calls.is_some()) {
        item.report("`filter-reply` is `unchanged` and says what it becomes", "keep one of them");
        return None;
    }
    let streams = match unchanged {
        Some(item) => yes(&item).map(|()| None)?,
        None => Some(Streams {
            text: text.map_or(Some(String::new()), |item| item.text(TEXT))?,
            reasoning: reasoning.map_or(Some(String::new()), |item| item.text(TEXT))?,
            tool_calls: calls.map_or(Some(Vec::new()), |item| item.list(LIST)?.iter().map(tool_call).collect())?,
        }),
    };
    let flags = table.take("flags").and_then(|item| flags(&item));
    let cut = table.take("cut").and_then(|item| refusal(&item));
    let releases = table.take("releases").and_then(|item| item.list(RELEASES)?.iter().map(release).collect());
    table.finish();
    Some(Replied { streams, flags, cut, releases })
}

fn tool_call(item: &Item<'_, '_>) -> Option<(String, String)> {
    let mut table = item.table()?;
    let name = table.need("name").and_then(|item| item.text(TEXT));
    let arguments = table.need("arguments").and_then(|item| item.text(TEXT));
    table.finish();
    Some((name?, arguments?))
}

/// What one push releases: a text, or a list of pieces.
fn release(item: &Item<'_, '_>) -> Option<Vec<Piece>> {
    if item.as_text().is_some() {
        return item.text(TEXT).map(|text| vec![Piece::Text(text)]);
    }
    input::pieces(item)
}

fn format(item: &Item<'_, '_>) -> Option<Formatted> {
    let mut table = item.table()?;
    let constraint = table.take("constraint");
    let content = match (table.take("text"), table.take("refuse")) {
        (Some(item), None) => Some(Ok(item.text(TEXT)?)),
        (None, Some(item)) => Some(Err(refusal(&item)?)),
        (None, None) if constraint.is_some() => None,
        _ => {
            item.report("`format` needs one of `text` and `refuse`, or `constraint` alone", "write one of them");
            None
        }
    };
    table.finish();
    let constraint = match constraint {
        None => None,
        Some(item) => Some(match item.as_boolean() {
            Some(is) => Constraint::Is(is),
            None => Constraint::Like(input::schema(&item)?),
        }),
    };
    Some(Formatted { constraint, content })
}

fn refusal(item: &Item<'_, '_>) -> Option<RefusalLike> {
    let mut table = item.table()?;
    let kind = table.need("kind").and_then(|item| item.choice(RefusalKind::NAMED));
    let code = table.need("code").and_then(|item| item.text(NAME));
    let message = table.take("message").and_then(|item| item.text(TEXT));
    let detail = table.take("detail").and_then(|item| item.text(TEXT));
    let retry_after = table.take("retry-after").and_then(|item| item.integer(0..=86_400));
    table.finish();
    Some(RefusalLike { kind: kind?, code: code?, message, detail, retry_after })
}

fn request_like(item: &Item<'_, '_>) -> Option<RequestLike> {
    let mut table = item.table()?;
    let has_messages = table.has("text") || table.has("messages");
    let messages = input::messages(item, &mut table);
    let rest = std::sync::Arc::new(input::rest(&mut table));
    table.finish();
    (messages.is_some() || !has_messages).then_some(RequestLike { messages, rest })
}

fn flags(item: &Item<'_, '_>) -> Option<Flags> {
    let entry = |(name, item): (&str, Item<'_, '_>)| Some((name.to_owned(), item.integer(0..=u64::from(u32::MAX))?));
    item.table()?.entries().into_iter().map(entry).collect()
}

/// A key that may only be `true`.
fn yes(item: &Item<'_, '_>) -> Option<()> {
    if item.boolean()? { Some(()) } else { item.wrong("`true`, or not there") }
}
