//! Ollama's `/api/chat`, streamed: the body that is sent, and the JSON lines that come back.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tollgate_domain::{ChatRequest, FinishReason, Usage};

use crate::ProviderError;
use crate::parsed::{Parsed, Sampling, WireMessage, count, messages, schema, written};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage>,
    stream: bool,
    options: Options<'a>,
    /// A JSON Schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Value>,
}

#[derive(Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    num_predict: Option<u32>,
    #[serde(flatten)]
    sampling: Sampling,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}

/// The body of a request for `model`.
///
/// # Errors
/// The request has what cannot be asked of a provider.
pub(crate) fn body(model: &str, request: &ChatRequest) -> Result<Vec<u8>, ProviderError> {
    let parameters = &request.parameters;
    // Ollama reads a signed number; which one it is does not matter as long as it is the same.
    let seed = parameters.seed.map(|seed| i64::try_from(seed & 0x7fff_ffff).unwrap_or(0));
    let options =
        Options { num_predict: parameters.max_tokens, sampling: Sampling::of(parameters), seed, stop: &parameters.stop };
    let body = Body { model, messages: messages(request)?, stream: true, options, format: schema(request)? };
    written(&body)
}

#[derive(Deserialize)]
struct Line {
    message: Option<Said>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
    thinking: Option<String>,
}

/// One line of a reply.
///
/// # Errors
/// It is not what Ollama sends, or it is an error.
pub(crate) fn line(line: &[u8]) -> Result<Parsed, ProviderError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(Parsed::default());
    }
    let line: Line = serde_json::from_slice(line).map_err(|_| ProviderError::Malformed("a line is no part of a chat's reply"))?;
    if line.error.is_some() {
        return Err(ProviderError::Reported { code: None });
    }
    if line.message.is_none() && !line.done {
        return Err(ProviderError::Malformed("a line has neither a message nor the end"));
    }
    let said = line.message.map(|said| Parsed::of(said.thinking, said.content)).unwrap_or_default();
    if !line.done {
        return Ok(said);
    }
    let finish = match line.done_reason.as_deref() {
        Some("length") => FinishReason::Length,
        _ => FinishReason::Stop,
    };
    let usage = Usage { prompt: count(line.prompt_eval_count), cached: 0, completion: count(line.eval_count) };
    Ok(Parsed { finish: Some(finish), usage: Some(usage), is_end: true, ..said })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tollgate_domain::{Message, Origin, Parameters, Piece, Role};

    use super::*;

    #[test]
    fn a_body_is_ollamas() {
        let parameters =
            Parameters { max_tokens: Some(7), temperature: Some(0.5), seed: Some(u64::MAX), ..Parameters::default() };
        let request = ChatRequest {
            messages: vec![Message::text(Role::User, Origin::User, "Hi")],
            tools: Vec::new(),
            parameters,
            format: Some(r#"{"type":"object"}"#.to_owned()),
            model: String::new(),
            fields: Vec::new(),
        };
        let sent = serde_json::from_slice::<Value>(&body("llama3.2", &request).unwrap()).unwrap();
        let options = json!({ "num_predict": 7, "temperature": 0.5, "seed": 2_147_483_647 });
        let messages = json!([{ "role": "user", "content": "Hi" }]);
        let expected = json!({ "model": "llama3.2", "messages": messages, "stream": true, "options": options, "format": { "type": "object" } });
        assert_eq!(sent, expected);
    }

    #[test]
    fn lines_are_read_as_ollama_writes_them() {
        let first = br#"{"model":"llama3.2","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"The"},"done":false}"#;
        assert_eq!(line(first).unwrap(), Parsed { pieces: vec![Piece::Text("The".to_owned())], ..Parsed::default() });
        let thought = line(br#"{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#).unwrap();
        assert_eq!(thought.pieces, [Piece::Reasoning("hm".to_owned())]);
        let last = br#"{"model":"llama3.2","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":26,"prompt_eval_duration":342546000,"eval_count":282,"eval_duration":4535599000}"#;
        let last = line(last).unwrap();
        let usage = Usage { prompt: 26, cached: 0, completion: 282 };
        assert_eq!(last, Parsed { finish: Some(FinishReason::Stop), usage: Some(usage), is_end: true, pieces: Vec::new() });
        assert_eq!(line(b" "), Ok(Parsed::default()));
        assert_eq!(line(br#"{"error":"model \"x\" not found"}"#), Err(ProviderError::Reported { code: None }));
        assert!(matches!(line(b"{}"), Err(ProviderError::Malformed(_))));
        assert!(matches!(line(b"<html>"), Err(ProviderError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..200), at in 0..50_usize, byte in any::<u8>()) {
            let _ = line(&data);
            let mut near = br#"{"message":{"role":"assistant","content":"a"},"done":true,"eval_count":1}"#.to_vec();
            near[at] = byte;
            let _ = line(&near);
        }

        #[test]
        fn text_comes_through_as_it_was(text in any::<String>()) {
            let data = json!({ "message": { "role": "assistant", "content": text }, "done": false }).to_string();
            let said = line(data.as_bytes()).unwrap().pieces;
            prop_assert_eq!(said.iter().map(Piece::as_str).collect::<String>(), text);
        }
    }
}
