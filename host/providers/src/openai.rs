//! OpenAI's chat completions, streamed: the body that is sent, and the chunks that come back.
//!
//! What servers of this protocol add is taken where it is harmless: vLLM's and Tollgate's `reasoning_content`, an absent `[DONE]`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_domain::{ChatRequest, FinishReason, Usage};

use crate::ProviderError;
use crate::error::word;
use crate::parsed::{Parsed, Sampling, WireMessage, count, messages, schema, written};

/// The data of the last event.
const DONE: &[u8] = b"[DONE]";

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// The body of a request for `model`.
///
/// # Errors
/// The request has what cannot be asked of a provider.
pub(crate) fn body(model: &str, request: &ChatRequest) -> Result<Vec<u8>, ProviderError> {
    let parameters = &request.parameters;
    let body = Body {
        model,
        messages: messages(request)?,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        max_tokens: parameters.max_tokens,
        sampling: Sampling::of(parameters),
        seed: parameters.seed,
        stop: &parameters.stop,
        response_format: schema(request)?.as_ref().map(response_format),
    };
    written(&body)
}

fn response_format(schema: &Value) -> Value {
    if *schema == json!({ "type": "object" }) {
        return json!({ "type": "json_object" });
    }
    json!({ "type": "json_schema", "json_schema": { "name": "reply", "schema": schema } })
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// What an error is called, where that is a word. Some servers fill `code`, some `type`, and some send a text alone.
fn name_of(error: &Value) -> Option<String> {
    ["code", "type"].into_iter().find_map(|key| error.get(key)?.as_str().and_then(word))
}

/// The data of one event.
///
/// # Errors
/// It is not what such servers send, or it is an error.
pub(crate) fn event(data: &[u8]) -> Result<Parsed, ProviderError> {
    if data == DONE {
        return Ok(Parsed { is_end: true, ..Parsed::default() });
    }
    let chunk: Chunk =
        serde_json::from_slice(data).map_err(|_| ProviderError::Malformed("an event is no chunk of a chat completion"))?;
    if let Some(error) = chunk.error {
        return Err(ProviderError::Reported { code: name_of(&error) });
    }
    // Only one reply is asked for.
    let choice = chunk.choices.into_iter().flatten().next();
    let (delta, reason) = choice.map_or((None, None), |choice| (choice.delta, choice.finish_reason));
    let delta = delta.map(|delta| Parsed::of(delta.reasoning_content, delta.content));
    let usage = chunk.usage.map(|counts| Usage {
        prompt: count(counts.prompt_tokens),
        cached: count(counts.prompt_tokens_details.and_then(|details| details.cached_tokens)),
        completion: count(counts.completion_tokens),
    });
    Ok(Parsed { finish: reason.as_deref().map(reason_of), usage, ..delta.unwrap_or_default() })
}

fn reason_of(name: &str) -> FinishReason {
    match name {
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        _ => FinishReason::Stop,
    }
}

/// What an answer that is no success calls its error, where that is a word.
pub(crate) fn code_of(answer: &[u8]) -> Option<String> {
    name_of(serde_json::from_slice::<Value>(answer).ok()?.get("error")?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_domain::{Message, Origin, Parameters, Piece, Role};

    use super::*;

    fn request(parameters: Parameters, format: Option<&str>) -> ChatRequest {
        ChatRequest {
            messages: vec![
                Message::text(Role::System, Origin::Template, "Be brief."),
                Message::text(Role::User, Origin::User, "Hi"),
            ],
            tools: Vec::new(),
            parameters,
            format: format.map(str::to_owned),
            model: "local-name".to_owned(),
            fields: Vec::new(),
        }
    }

    #[test]
    fn a_body_says_what_was_asked_and_no_more() {
        let sent = |request: &ChatRequest| serde_json::from_slice::<Value>(&body("big", request).unwrap()).unwrap();
        let messages = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }]);
        let bare = json!({ "model": "big", "messages": messages, "stream": true, "stream_options": { "include_usage": true } });
        assert_eq!(sent(&request(Parameters::default(), None)), bare);
        let parameters =
            Parameters { temperature: Some(0.7), max_tokens: Some(5), stop: vec!["x".to_owned()], ..Parameters::default() };
        let text = String::from_utf8(body("big", &request(parameters, Some(r#"{"type":"object"}"#))).unwrap()).unwrap();
        assert!(text.contains(r#""temperature":0.7,"#) && text.contains(r#""stop":["x"]"#), "{text}");
        assert!(text.contains(r#""response_format":{"type":"json_object"}"#), "{text}");
        let with_schema = sent(&request(Parameters::default(), Some(r#"{"type":"integer"}"#)));
        assert_eq!(with_schema["response_format"]["json_schema"]["schema"], json!({ "type": "integer" }));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let of_tokens = Parameters { logit_bias: vec![(1, 2.0)], ..Parameters::default() };
        let unsupported = |field| Err(ProviderError::Unsupported { field });
        assert_eq!(body("big", &request(of_tokens, None)), unsupported("logit_bias"));
        let told = Parameters { logprobs: Some(0), ..Parameters::default() };
        assert_eq!(body("big", &request(told, None)), unsupported("logprobs"));
    }

    #[test]
    fn chunks_are_read_as_several_servers_write_them() {
        let text = event(br#"{"id":"x","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#).unwrap();
        assert_eq!(text, Parsed { pieces: vec![Piece::Text("a".to_owned())], ..Parsed::default() });
        let begin = event(br#"{"choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#).unwrap();
        assert_eq!(begin, Parsed::default());
        let thought = event(br#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}"#).unwrap();
        assert_eq!(thought.pieces, [Piece::Reasoning("hm".to_owned())]);
        let end = event(br#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#).unwrap();
        assert_eq!(end.finish, Some(FinishReason::Length));
        let counted =
            br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}"#;
        assert_eq!(event(counted).unwrap().usage, Some(Usage { prompt: 3, cached: 1, completion: 2 }));
        assert!(event(b"[DONE]").unwrap().is_end);
    }

    #[test]
    fn errors_are_known_and_not_repeated() {
        let reported = |code: Option<&str>| Err(ProviderError::Reported { code: code.map(str::to_owned) });
        assert_eq!(event(br#"{"error":{"message":"sk-1","type":"server_error","code":null}}"#), reported(Some("server_error")));
        assert_eq!(event(br#"{"error":"out of \"memory\""}"#), reported(None));
        assert_eq!(code_of(br#"{"error":{"code":"context_length_exceeded"}}"#).as_deref(), Some("context_length_exceeded"));
        assert_eq!(code_of(br#"{"error":{"message":"m","code":400}}"#), None);
        assert_eq!(code_of(b"<html>"), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..200), at in 0..60_usize, byte in any::<u8>()) {
            let _ = event(&data);
            let mut near = br#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#.to_vec();
            near[at] = byte;
            let _ = event(&near);
        }

        #[test]
        fn text_comes_through_as_it_was(text in any::<String>()) {
            let data = json!({ "choices": [{ "delta": { "content": text } }] }).to_string();
            let said = event(data.as_bytes()).unwrap().pieces;
            prop_assert_eq!(said.iter().map(Piece::as_str).collect::<String>(), text);
        }
    }
}
