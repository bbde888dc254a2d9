//! Requests for embeddings as they are read, and answers as they are written.

use serde_json::{Value, json};

use super::*;
use crate::json;

fn decoded(text: &str) -> Result<Decoded, Refusal> {
    decode(json::parse(text.as_bytes()).unwrap())
}

fn texts_of(text: &str) -> Vec<String> {
    match decoded(text).unwrap().request.input {
        EmbedInput::Texts(texts) => texts,
        other @ EmbedInput::Rank { .. } => panic!("{other:?}"),
    }
}

#[test]
fn one_text_or_several() {
    assert_eq!(texts_of(r#"{"model":"m","input":"a"}"#), ["a"]);
    assert_eq!(texts_of(r#"{"model":"m","input":["a","b"]}"#), ["a", "b"]);
    let most = format!(r#"{{"input":[{}"a"]}}"#, r#""a","#.repeat(MAX_TEXTS - 1));
    assert_eq!(texts_of(&most).len(), MAX_TEXTS);
}

#[test]
fn what_a_request_says_is_kept() {
    let text = r#"{"model":"m","input":"a","encoding_format":"base64","dimensions":64,"user":"u"}"#;
    let Decoded { request, is_base64 } = decoded(text).unwrap();
    assert!(is_base64);
    assert_eq!((request.model.as_str(), request.dimensions), ("m", Some(64)));
    let Decoded { request, is_base64 } = decoded(r#"{"input":"a","encoding_format":"float","dimensions":null}"#).unwrap();
    assert!(!is_base64 && request.model.is_empty() && request.dimensions.is_none());
}

#[test]
fn what_is_wrong_is_named() {
    let most = format!(r#"{{"input":[{}"a"]}}"#, r#""a","#.repeat(MAX_TEXTS));
    for (text, code, field) in [
        ("[]", "invalid_type", None),
        ("{}", "missing_required_parameter", Some("input")),
        (r#"{"input":null}"#, "missing_required_parameter", Some("input")),
        (r#"{"input":""}"#, "invalid_value", Some("input")),
        (r#"{"input":[]}"#, "invalid_value", Some("input")),
        (r#"{"input":["a",""]}"#, "invalid_value", Some("input[1]")),
        (r#"{"input":["a",1]}"#, "invalid_type", Some("input[1]")),
        (r#"{"input":7}"#, "invalid_type", Some("input")),
        (r#"{"input":[7,8]}"#, "unsupported_content", Some("input")),
        (r#"{"input":[[7],[8]]}"#, "unsupported_content", Some("input")),
        (most.as_str(), "invalid_value", Some("input")),
        (r#"{"input":"a","encoding_format":"hex"}"#, "invalid_value", Some("encoding_format")),
        (r#"{"input":"a","dimensions":0}"#, "out_of_range", Some("dimensions")),
        (r#"{"input":"a","model":""}"#, "invalid_value", Some("model")),
        (r#"{"input":"a","user":1}"#, "invalid_type", Some("user")),
        (r#"{"input":"a","stream":true}"#, "unknown_parameter", Some("stream")),
    ] {
        let refusal = decoded(text).unwrap_err();
        let shown = text.chars().take(60).collect::<String>();
        assert_eq!((refusal.code.as_str(), refusal.field.as_deref()), (code, field), "{shown}");
    }
}

#[test]
fn an_answer_is_openais() {
    let usage = Usage { prompt: 5, ..Usage::default() };
    let vectors = [vec![0.5_f32, -0.25], vec![1.0, 0.0]];
    let written = serde_json::from_str::<Value>(&text_of(&vectors, false, "m", usage)).unwrap();
    let entry = |index: usize, embedding: Value| json!({"object": "embedding", "index": index, "embedding": embedding});
    let expected = json!({
        "object": "list",
        "data": [entry(0, json!([0.5, -0.25])), entry(1, json!([1.0, 0.0]))],
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    });
    assert_eq!(written, expected);
    let written = serde_json::from_str::<Value>(&text_of(&vectors, true, "m", usage)).unwrap();
    // 0x3f000000 and 0xbe800000, the low byte first.
    assert_eq!(written["data"][0]["embedding"], "AAAAPwAAgL4=");
}

#[test]
fn the_docs_have_every_field() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openai-embeddings.md");
    let docs = std::fs::read_to_string(path).expect("docs/openai-embeddings.md is there");
    for field in FIELDS {
        assert!(docs.contains(&format!("| `{field}` |")), "{field}");
    }
}
