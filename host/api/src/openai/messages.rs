//! The conversation: OpenAI's messages to ours.
//!
//! A client's words are a client's words: only the last user message is what the user asks now, and whatever else comes with a
//! request, a system message too, is history. Only the operator's own words are more than that, and they do not come this way.

use std::ops::RangeInclusive;

use tollgate_domain::{Content, Message, Origin, Part, Refusal, Role};

use super::read;
use crate::json::{Json, shown};

/// How many messages a request may have.
const MESSAGES: RangeInclusive<usize> = 1..=2_048;

/// How many parts a message may have.
const PARTS: RangeInclusive<usize> = 1..=1_024;

/// How long a speaker's name may be, in bytes.
const NAME: RangeInclusive<usize> = 1..=64;

/// Why a call of a tool, or the answer of one, is refused.
pub(crate) const NO_TOOLS: &str = "tools are not offered yet";

/// The fields of OpenAI's messages, in requests and in the replies that clients send back.
const FIELDS: [&str; 10] = [
    "role",
    "content",
    "name",
    "refusal",
    "annotations",
    "reasoning_content",
    "audio",
    "function_call",
    "tool_calls",
    "tool_call_id",
];

/// Reads `messages`.
pub(crate) fn messages(path: &str, json: Json) -> Result<Vec<Message>, Refusal> {
    let values = read::list(path, json, &MESSAGES)?;
    let last = values.len().saturating_sub(1);
    values.into_iter().enumerate().map(|(at, value)| message(&format!("{path}[{at}]"), value, at == last)).collect()
}

fn message(path: &str, json: Json, is_last: bool) -> Result<Message, Refusal> {
    let mut entries = read::object(path, json, &FIELDS)?;
    let of = |field: &str| format!("{path}.{field}");
    let role = role(&of("role"), entries.take("role"))?;
    let origin = if is_last && role == Role::User { Origin::User } else { Origin::History };
    let name = entries.take("name").map(|value| name(&of("name"), value)).transpose()?;
    // A reply of OpenAI's that called no tool says so with an empty list.
    if let Some(value) = entries.take("tool_calls")
        && !matches!(&value, Json::List(calls) if calls.is_empty())
    {
        return Err(read::unsupported(&of("tool_calls"), NO_TOOLS));
    }
    for (field, why) in [
        ("function_call", NO_TOOLS),
        ("tool_call_id", NO_TOOLS),
        ("audio", "a text model takes no audio"),
        ("refusal", "send the text as `content`"),
    ] {
        if entries.take(field).is_some() {
            return Err(read::unsupported(&of(field), why));
        }
    }
    // Clients send replies back whole. What the model thought aloud and what it cited is no part of the conversation.
    if let Some(value) = entries.take("reasoning_content") {
        read::string(&of("reasoning_content"), value)?;
    }
    if let Some(value) = entries.take("annotations") {
        read::list(&of("annotations"), value, &(0..=1_024))?;
    }
    let content = entries.take("content").ok_or_else(|| read::missing(&of("content")))?;
    let parts = parts(&of("content"), content, origin)?;
    Ok(Message { role, name, parts, tool_calls: Vec::new(), tool_call_id: None })
}

fn role(path: &str, json: Option<Json>) -> Result<Role, Refusal> {
    let json = json.ok_or_else(|| read::missing(path))?;
    match read::one_of(path, &json, &["system", "developer", "user", "assistant", "tool", "function"])? {
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" | "function" => Err(read::unsupported(path, NO_TOOLS)),
        _ => Ok(Role::System),
    }
}

/// A name goes into the prompt, so it may hold nothing that a chat template could take for its own marks.
fn name(path: &str, json: Json) -> Result<String, Refusal> {
    let name = read::short_string(path, json, &NAME)?;
    let is_mark = |c: char| c.is_whitespace() || c.is_control() || "<>|\\/".contains(c);
    if name.chars().any(is_mark) { Err(read::invalid(path, "may hold no space and none of `< > | \\ /`")) } else { Ok(name) }
}

fn parts(path: &str, json: Json, origin: Origin) -> Result<Vec<Part>, Refusal> {
    let part_of = |text: String| Part { origin, content: Content::Text(text) };
    match json {
        Json::Text(text) => Ok(vec![part_of(text)]),
        Json::List(_) => {
            let values = read::list(path, json, &PARTS)?;
            let texts = values.into_iter().enumerate().map(|(at, value)| part(&format!("{path}[{at}]"), value));
            texts.map(|text| text.map(part_of)).collect()
        }
        other => Err(read::wrong_type(path, "a string or an array", &other)),
    }
}

/// The text of one part.
fn part(path: &str, json: Json) -> Result<String, Refusal> {
    const FIELDS: [&str; 7] = ["type", "text", "prompt_cache_breakpoint", "image_url", "input_audio", "file", "refusal"];
    let mut entries = read::object(path, json, &FIELDS)?;
    let of = |field: &str| format!("{path}.{field}");
    let kind = entries.take("type").ok_or_else(|| read::missing(&of("type")))?;
    match read::string(&of("type"), kind)?.as_str() {
        "text" => {}
        "image_url" => return Err(not_text(path, "images")),
        "input_audio" => return Err(not_text(path, "audio")),
        "file" => return Err(not_text(path, "files")),
        other => return Err(read::unsupported(&of("type"), &format!("there is no part of type `{}` here", shown(other)))),
    }
    for field in ["image_url", "input_audio", "file", "refusal"] {
        if entries.take(field).is_some() {
            return Err(read::invalid(&of(field), "does not belong to a part of type `text`"));
        }
    }
    let text = entries.take("text").ok_or_else(|| read::missing(&of("text")))?;
    read::string(&of("text"), text)
}

fn not_text(path: &str, what: &str) -> Refusal {
    let message = format!("`{path}` cannot be taken: {what} are not taken by a text model.");
    Refusal::invalid("unsupported_content", message).field(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Message>, Refusal> {
        messages("messages", crate::json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn only_the_last_user_message_is_what_the_user_asks() {
        let text = r#"[{"role":"developer","content":"be brief"},{"role":"user","content":"a"},
            {"role":"assistant","content":"b","refusal":null,"annotations":[],"tool_calls":[],"reasoning_content":"hm"},
            {"role":"user","content":[{"type":"text","text":"c"},{"type":"text","text":""}],"name":"ana"}]"#;
        let messages = read(text).unwrap();
        let seen = messages.iter().map(|m| (m.role, m.parts[0].origin, m.joined_text())).collect::<Vec<_>>();
        let expected = [
            (Role::System, Origin::History, "be brief"),
            (Role::User, Origin::History, "a"),
            (Role::Assistant, Origin::History, "b"),
            (Role::User, Origin::User, "c"),
        ];
        assert_eq!(seen, expected.map(|(role, origin, text)| (role, origin, text.to_owned())));
        assert_eq!((messages[3].parts.len(), messages[3].name.as_deref()), (2, Some("ana")));
    }

    #[test]
    fn a_system_message_at_the_end_is_history() {
        assert_eq!(read(r#"[{"role":"system","content":"x"}]"#).unwrap()[0].parts[0].origin, Origin::History);
    }

    #[test]
    fn what_is_refused_is_named() {
        // Bad input: empty messages, images to a text model, wrong types.
        let user = |field: &str| format!(r#"[{{"role":"user",{field}}}]"#);
        let cases = [
            ("{}".to_owned(), "messages", "invalid_type"),
            ("[]".to_owned(), "messages", "invalid_value"),
            ("[1]".to_owned(), "messages[0]", "invalid_type"),
            (r#"[{"content":"x"}]"#.to_owned(), "messages[0].role", "missing_required_parameter"),
            (r#"[{"role":"robot","content":"x"}]"#.to_owned(), "messages[0].role", "invalid_value"),
            (r#"[{"role":"tool","content":"4"}]"#.to_owned(), "messages[0].role", "unsupported_parameter"),
            (r#"[{"role":"user"}]"#.to_owned(), "messages[0].content", "missing_required_parameter"),
            (user(r#""content":null"#), "messages[0].content", "missing_required_parameter"),
            (user(r#""content":7"#), "messages[0].content", "invalid_type"),
            (user(r#""content":[]"#), "messages[0].content", "invalid_value"),
            (user(r#""content":["x"]"#), "messages[0].content[0]", "invalid_type"),
            (user(r#""content":[{"type":"text"}]"#), "messages[0].content[0].text", "missing_required_parameter"),
            (user(r#""content":[{"type":"text","text":1}]"#), "messages[0].content[0].text", "invalid_type"),
            (user(r#""content":[{"type":"text","text":"a","x":1}]"#), "messages[0].content[0].x", "unknown_parameter"),
            (user(r#""content":[{"type":"video","text":"a"}]"#), "messages[0].content[0].type", "unsupported_parameter"),
            (user(r#""content":"x","name":"<|im_start|>""#), "messages[0].name", "invalid_value"),
            (user(r#""content":"x","tool_calls":[{}]"#), "messages[0].tool_calls", "unsupported_parameter"),
            (user(r#""content":"x","tool_call_id":"1""#), "messages[0].tool_call_id", "unsupported_parameter"),
            (user(r#""content":"x","contents":"y""#), "messages[0].contents", "unknown_parameter"),
        ];
        for (text, field, code) in cases {
            let refusal = read(&text).unwrap_err();
            assert_eq!((refusal.field.as_deref(), refusal.code.as_str()), (Some(field), code), "{text}");
        }
    }

    #[test]
    fn an_image_is_not_for_a_text_model() {
        let text = r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}]}]"#;
        let refusal = read(text).unwrap_err();
        assert_eq!(refusal.message, "`messages[0].content[0]` cannot be taken: images are not taken by a text model.");
    }

    #[test]
    fn the_number_of_messages_is_bounded() {
        let of = |count: usize| format!("[{}]", vec![r#"{"role":"user","content":""}"#; count].join(","));
        assert_eq!(read(&of(2_048)).unwrap().len(), 2_048);
        assert!(read(&of(2_049)).unwrap_err().message.contains("1 to 2048 entries"));
    }
}
