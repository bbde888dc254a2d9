//! What a case gives to the hooks: config, context, credentials, head, request, reply. What comes of it is `expect`'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use crate::document::{Item, Table};
use crate::splits;
use crate::words::{
    Attribute, Blob, Certificate, Content, Context, Head, LookupError, Message, Origin, Parameters, Part, Piece, Principal,
    Request, Role, Tool, ToolCall,
};

/// Bytes of a text.
pub(crate) const TEXT: RangeInclusive<usize> = 0..=64 << 10;
/// Bytes of an id or name.
pub(crate) const NAME: RangeInclusive<usize> = 1..=256;
/// Entries of a list.
pub(crate) const LIST: usize = 256;
/// Pieces of a reply.
const PIECES: usize = 1_000;
/// The end of the year 9999, in milliseconds since 1970.
const LAST_MS: u64 = 253_402_300_799_999;
/// 2026-01-01T00:00:00Z.
const RECEIVED_AT_MS: u64 = 1_767_225_600_000;
const MINUTE_MS: u64 = 60_000;

/// What the model says in a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// As the file has it.
    pub(crate) pieces: Vec<Piece>,
    /// How it is cut up further.
    pub(crate) splits: Splits,
    /// Which choice of the request it is, 0 to 127.
    pub(crate) choice: u32,
}

/// Where a reply is cut, besides between its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Splits {
    /// Nowhere.
    None,
    /// In every way: whole, at each character boundary, at every pair of boundaries if there are few, and at all of them.
    Every,
    /// At every character boundary at once.
    Characters,
    /// After these characters, counted over all pieces.
    At(Vec<usize>),
}

/// Keys and what a look-up of each comes to; any other is unknown.
pub(crate) type Credentials = BTreeMap<String, Result<Principal, LookupError>>;

pub(crate) fn default_head() -> Head {
    Head {
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        headers: Vec::new(),
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        listener: "main".to_owned(),
        peer_cert: None,
    }
}

pub(crate) fn default_context() -> Context {
    Context {
        request_id: "case".to_owned(),
        received_at_ms: RECEIVED_AT_MS,
        deadline_ms: RECEIVED_AT_MS + MINUTE_MS,
        listener: "main".to_owned(),
        dialect: "openai".to_owned(),
        route: "chat".to_owned(),
        principal: Principal::user("tester"),
        model: "demo".to_owned(),
        is_stream: false,
        conversation: None,
        attributes: Vec::new(),
    }
}

/// Reads a context, and whether it names a principal.
pub(crate) fn context(item: &Item<'_, '_>) -> Option<(Context, bool)> {
    let mut table = item.table()?;
    let mut context = default_context();
    let text = |table: &mut Table<'_, '_>, key, to: &mut String| {
        if let Some(text) = table.take(key).and_then(|item| item.text(NAME)) {
            *to = text;
        }
    };
    text(&mut table, "request-id", &mut context.request_id);
    text(&mut table, "listener", &mut context.listener);
    text(&mut table, "dialect", &mut context.dialect);
    text(&mut table, "route", &mut context.route);
    text(&mut table, "model", &mut context.model);
    let time = |table: &mut Table<'_, '_>, key| table.take(key).and_then(|item| item.integer(0..=LAST_MS));
    if let Some(at) = time(&mut table, "received-at-ms") {
        (context.received_at_ms, context.deadline_ms) = (at, at.saturating_add(MINUTE_MS));
    }
    if let Some(at) = time(&mut table, "deadline-ms") {
        context.deadline_ms = at;
    }
    if let Some(is_stream) = table.take("is-stream").and_then(|item| item.boolean()) {
        context.is_stream = is_stream;
    }
    context.conversation = table.take("conversation").and_then(|item| item.text(NAME));
    let given = table.take("principal").and_then(|item| principal(&item));
    let is_given = given.is_some();
    if let Some(given) = given {
        context.principal = given;
    }
    context.attributes = table.take("attributes").and_then(|item| attributes(&item)).unwrap_or_default();
    table.finish();
    Some((context, is_given))
}

pub(crate) fn principal(item: &Item<'_, '_>) -> Option<Principal> {
    let mut table = item.table()?;
    let id = table.need("id").and_then(|item| item.text(NAME));
    let found = read_principal(&mut table, id.unwrap_or_default());
    table.finish();
    Some(found)
}

fn read_principal(table: &mut Table<'_, '_>, id: String) -> Principal {
    let mut found = Principal::user(id);
    if let Some(tenant) = table.take("tenant").and_then(|item| item.text(NAME)) {
        found.tenant = tenant;
    }
    for (key, to) in [("roles", &mut found.roles), ("scopes", &mut found.scopes), ("models", &mut found.models)] {
        if let Some(list) = table.take(key).and_then(|item| item.texts(LIST, NAME)) {
            *to = list;
        }
    }
    found.default_model = table.take("default-model").and_then(|item| item.text(NAME));
    found.attributes = table.take("attributes").and_then(|item| attributes(&item)).unwrap_or_default();
    found
}

pub(crate) fn attributes(item: &Item<'_, '_>) -> Option<Vec<Attribute>> {
    let attribute = |(name, item): (&str, Item<'_, '_>)| Some(Attribute { name: name.to_owned(), value: item.json()? });
    item.table()?.entries().into_iter().map(attribute).collect()
}

pub(crate) fn credentials(item: &Item<'_, '_>) -> Option<Credentials> {
    let entry = |(secret, item): (&str, Item<'_, '_>)| Some((secret.to_owned(), lookup(&item)?));
    item.table()?.entries().into_iter().map(entry).collect()
}

fn lookup(item: &Item<'_, '_>) -> Option<Result<Principal, LookupError>> {
    if !item.is_table() {
        let refusals =
            [("unknown", LookupError::Unknown), ("revoked", LookupError::Revoked), ("unavailable", LookupError::Unavailable)];
        return item.choice(&refusals).map(Err);
    }
    let mut table = item.table()?;
    if let Some(at) = table.take("expired-at-ms") {
        table.finish();
        return at.integer(0..=LAST_MS).map(|at| Err(LookupError::Expired(at)));
    }
    principal(item).map(Ok)
}

pub(crate) fn head(item: &Item<'_, '_>) -> Option<Head> {
    let mut table = item.table()?;
    let mut head = default_head();
    for (key, to) in [("method", &mut head.method), ("path", &mut head.path), ("listener", &mut head.listener)] {
        if let Some(text) = table.take(key).and_then(|item| item.text(1..=8 << 10)) {
            *to = text;
        }
    }
    if let Some(item) = table.take("client-ip") {
        match item.text(NAME).and_then(|text| text.parse().ok()) {
            Some(ip) => head.client_ip = ip,
            None => item.report("`head.client-ip` is no IP address", "write one, such as `192.0.2.7`"),
        }
    }
    if let Some(item) = table.take("headers") {
        head.headers = item.list(LIST)?.iter().map(header).collect::<Option<_>>()?;
    }
    head.peer_cert = table.take("peer-cert").and_then(|item| certificate(&item));
    table.finish();
    Some(head)
}

fn header(item: &Item<'_, '_>) -> Option<(String, String)> {
    let pair = item.texts(2, TEXT)?;
    let Ok([name, value]) = <[String; 2]>::try_from(pair) else {
        return item.wrong("a pair of name and value");
    };
    if name.is_empty() || name.chars().any(|c| c.is_ascii_uppercase()) {
        item.report(format!("`{}` has a name that no plugin sees", item.path), "write the name in lower case");
        return None;
    }
    Some((name, value))
}

fn certificate(item: &Item<'_, '_>) -> Option<Certificate> {
    let mut table = item.table()?;
    let fingerprint = table.need("fingerprint").and_then(|item| item.text(64..=64));
    let subject = table.need("subject").and_then(|item| item.text(TEXT));
    let dns_names = table.take("dns-names").and_then(|item| item.texts(LIST, NAME)).unwrap_or_default();
    table.finish();
    Some(Certificate { fingerprint: fingerprint?, subject: subject?, dns_names })
}

/// A request, all of it; what is not written has its default.
pub(crate) fn request(item: &Item<'_, '_>) -> Option<Request> {
    let mut table = item.table()?;
    let messages = messages(item, &mut table);
    if messages.is_none() && !table.has("text") && !table.has("messages") {
        item.one_of(&["text", "messages"]);
    }
    let rest = rest(&mut table);
    table.finish();
    Some(Request {
        messages: messages?,
        tools: rest.tools.unwrap_or_default(),
        parameters: rest.parameters.unwrap_or_default(),
        format: rest.format,
        model: rest.model.unwrap_or_else(|| "demo".to_owned()),
        fields: rest.fields.unwrap_or_default(),
    })
}

/// What a request has beside its messages; `None` is not written.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) tools: Option<Vec<Tool>>,
    pub(crate) parameters: Option<Parameters>,
    pub(crate) format: Option<serde_json::Value>,
    pub(crate) model: Option<String>,
    pub(crate) fields: Option<Vec<Attribute>>,
}

pub(crate) fn rest(table: &mut Table<'_, '_>) -> Rest {
    Rest {
        tools: table.take("tools").and_then(|item| item.list(LIST)?.iter().map(tool).collect()),
        parameters: table.take("parameters").and_then(|item| parameters(&item)),
        format: table.take("format").and_then(|item| schema(&item)),
        model: table.take("model").and_then(|item| item.text(NAME)),
        fields: table.take("fields").and_then(|item| attributes(&item)),
    }
}

/// The messages of a request: `text` for one of the user's, or `messages`. `None`: neither is there, or they are wrong.
pub(crate) fn messages(item: &Item<'_, '_>, table: &mut Table<'_, '_>) -> Option<Vec<Message>> {
    match (table.take("text"), table.take("messages")) {
        (Some(text), None) => {
            let part = Part { origin: Origin::User, content: Content::Text(text.text(TEXT)?) };
            Some(vec![Message { role: Role::User, name: None, parts: vec![part], tool_calls: Vec::new(), tool_call_id: None }])
        }
        (None, Some(list)) => {
            let list = list.list(LIST)?;
            let last = list.len().saturating_sub(1);
            list.iter().enumerate().map(|(at, item)| message(item, at == last)).collect()
        }
        (Some(_), Some(_)) => {
            item.one_of(&["text", "messages"]);
            None
        }
        (None, None) => None,
    }
}

fn message(item: &Item<'_, '_>, is_last: bool) -> Option<Message> {
    let mut table = item.table()?;
    let role = table.need("role").and_then(|item| item.choice(Role::NAMED))?;
    // As the gateway marks what a client sends.
    let usual = if is_last && role == Role::User { Origin::User } else { Origin::History };
    let origin = table.take("origin").and_then(|item| item.choice(Origin::NAMED)).unwrap_or(usual);
    let parts = match (table.take("text"), table.take("parts")) {
        (Some(text), None) => vec![Part { origin, content: Content::Text(text.text(TEXT)?) }],
        (None, Some(list)) => list.list(LIST)?.iter().map(|item| part(item, origin)).collect::<Option<_>>()?,
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => {
            item.one_of(&["text", "parts"]);
            return None;
        }
    };
    let name = table.take("name").and_then(|item| item.text(TEXT));
    let calls = table.take("tool-calls").and_then(|item| item.list(LIST)?.iter().map(tool_call).collect());
    let tool_call_id = table.take("tool-call-id").and_then(|item| item.text(NAME));
    table.finish();
    Some(Message { role, name, parts, tool_calls: calls.unwrap_or_default(), tool_call_id })
}

fn part(item: &Item<'_, '_>, usual: Origin) -> Option<Part> {
    let mut table = item.table()?;
    let origin = table.take("origin").and_then(|item| item.choice(Origin::NAMED)).unwrap_or(usual);
    let content = match (table.take("text"), table.take("blob")) {
        (Some(text), None) => Content::Text(text.text(TEXT)?),
        (None, Some(item)) => Content::Blob(blob(&item)?),
        _ => {
            item.one_of(&["text", "blob"]);
            return None;
        }
    };
    table.finish();
    Some(Part { origin, content })
}

fn blob(item: &Item<'_, '_>) -> Option<Blob> {
    let mut table = item.table()?;
    let media_type = table.need("media-type").and_then(|item| item.text(NAME));
    let size = table.need("size").and_then(|item| item.integer(0..=1 << 40));
    let sha256 = table.need("sha256").and_then(|item| item.text(64..=64));
    table.finish();
    Some(Blob { media_type: media_type?, size: size?, sha256: sha256? })
}

fn tool_call(item: &Item<'_, '_>) -> Option<ToolCall> {
    let mut table = item.table()?;
    let id = table.need("id").and_then(|item| item.text(NAME));
    let name = table.need("name").and_then(|item| item.text(NAME));
    let arguments = table.need("arguments").and_then(|item| item.text(TEXT));
    table.finish();
    Some(ToolCall { id: id?, name: name?, arguments: arguments? })
}

fn tool(item: &Item<'_, '_>) -> Option<Tool> {
    let mut table = item.table()?;
    let name = table.need("name").and_then(|item| item.text(NAME));
    let description = table.take("description").and_then(|item| item.text(TEXT));
    let parameters = table.need("parameters").and_then(|item| schema(&item));
    table.finish();
    Some(Tool { name: name?, description, parameters: parameters? })
}

/// A JSON value, as a table or as JSON text.
pub(crate) fn schema(item: &Item<'_, '_>) -> Option<serde_json::Value> {
    let Some(text) = item.as_text() else {
        item.table()?;
        return item.json();
    };
    let parsed = serde_json::from_str(text).ok();
    if parsed.is_none() {
        item.report(format!("`{}` is text that is no JSON", item.path), "write a table, or JSON in quotes");
    }
    parsed
}

fn parameters(item: &Item<'_, '_>) -> Option<Parameters> {
    let mut table = item.table()?;
    let whole = |table: &mut Table<'_, '_>, key, range: RangeInclusive<u64>| {
        table.take(key).and_then(|item| item.integer(range)).and_then(|number| u32::try_from(number).ok())
    };
    let number = |table: &mut Table<'_, '_>, key, range| table.take(key).and_then(|item| item.number(range));
    let found = Parameters {
        max_tokens: whole(&mut table, "max-tokens", 1..=131_072),
        temperature: number(&mut table, "temperature", 0.0..=2.0),
        top_p: number(&mut table, "top-p", 0.0..=1.0),
        top_k: whole(&mut table, "top-k", 0..=1_000),
        min_p: number(&mut table, "min-p", 0.0..=1.0),
        frequency_penalty: number(&mut table, "frequency-penalty", -2.0..=2.0),
        presence_penalty: number(&mut table, "presence-penalty", -2.0..=2.0),
        repeat_penalty: number(&mut table, "repeat-penalty", 0.01..=2.0),
        seed: table.take("seed").and_then(|item| item.integer(0..=u64::MAX)),
        stop: table.take("stop").and_then(|item| item.texts(4, TEXT)).unwrap_or_default(),
    };
    table.finish();
    Some(found)
}

pub(crate) fn reply(item: &Item<'_, '_>) -> Option<Reply> {
    let mut table = item.table()?;
    let pieces = match (table.take("text"), table.take("pieces")) {
        (Some(text), None) => vec![Piece::Text(text.text(TEXT)?)],
        (None, Some(list)) => pieces(&list)?,
        _ => {
            item.one_of(&["text", "pieces"]);
            return None;
        }
    };
    let choice = table.take("choice").and_then(|item| item.integer(0..=127)).and_then(|choice| u32::try_from(choice).ok());
    let splits = match table.take("splits") {
        None => Splits::None,
        Some(item) => read_splits(&item, &pieces)?,
    };
    table.finish();
    Some(Reply { pieces, splits, choice: choice.unwrap_or(0) })
}

fn read_splits(item: &Item<'_, '_>, pieces: &[Piece]) -> Option<Splits> {
    if item.as_text().is_none() {
        let list = item.list(PIECES)?;
        let positions = list.iter().map(|item| usize::try_from(item.integer(1..=1 << 16)?).ok());
        let positions = positions.collect::<Option<Vec<_>>>()?;
        let inner = splits::inner(pieces);
        let is_rising = positions.is_sorted_by(|a, b| a < b);
        if !is_rising || !positions.iter().all(|at| inner.contains(at)) {
            let message = format!("`{}` has to rise, and to cut inside a piece that is no tool's name", item.path);
            item.report(message, "count the characters in front of each cut");
            return None;
        }
        return Some(Splits::At(positions));
    }
    let names = ["none", "every", "characters"];
    let at = item.choice(&[("none", 0), ("every", 1), ("characters", 2)])?;
    let boundaries = splits::inner(pieces).len();
    if at > 0 && boundaries > splits::MAX_BOUNDARIES {
        let message = format!("`{}` is `{}` for {boundaries} character boundaries", item.path, names.get(at).unwrap_or(&""));
        item.report(message, format!("shorten the reply to {} or fewer", splits::MAX_BOUNDARIES));
        return None;
    }
    Some([Splits::None, Splits::Every, Splits::Characters].into_iter().nth(at).unwrap_or(Splits::None))
}

/// A list of pieces; a plain string is one of text.
pub(crate) fn pieces(item: &Item<'_, '_>) -> Option<Vec<Piece>> {
    item.list(PIECES)?.iter().map(piece).collect()
}

fn piece(item: &Item<'_, '_>) -> Option<Piece> {
    if item.as_text().is_some() {
        return item.text(TEXT).map(Piece::Text);
    }
    let mut table = item.table()?;
    let kinds = [
        ("text", Piece::Text as fn(String) -> Piece),
        ("reasoning", Piece::Reasoning),
        ("tool-name", Piece::ToolName),
        ("tool-arguments", Piece::ToolArguments),
    ];
    let mut found = kinds.into_iter().filter_map(|(key, make)| Some((table.take(key)?, make))).collect::<Vec<_>>();
    table.finish();
    match (found.pop(), found.is_empty()) {
        (Some((text, make)), true) => text.text(TEXT).map(make),
        _ => {
            item.one_of(&["text", "reasoning", "tool-name", "tool-arguments"]);
            None
        }
    }
}
