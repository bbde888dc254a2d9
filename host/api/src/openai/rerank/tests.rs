//! Requests to rank as they are read, and answers as they are written.

use serde_json::{Value, json};

use super::*;
use crate::json;

fn decoded(text: &str) -> Result<Decoded, Refusal> {
    decode(json::parse(text.as_bytes()).unwrap())
}

fn written(scores: &[f32], top_n: usize, texts: Option<&[String]>) -> Value {
    let usage = Usage { prompt: 9, ..Usage::default() };
    serde_json::from_str(&text_of(scores, top_n, texts, "m", usage)).unwrap()
}

#[test]
fn documents_are_strings_or_objects_with_a_text() {
    let text = r#"{"model":"m","query":"q","documents":["a",{"text":"b"}],"return_documents":true}"#;
    let Decoded { request, top_n, texts } = decoded(text).unwrap();
    let documents = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!((top_n, texts), (2, Some(documents.clone())));
    assert_eq!(request.input, EmbedInput::Rank { query: "q".to_owned(), documents });
    let Decoded { top_n, texts, .. } = decoded(r#"{"query":"q","documents":["a","b"],"top_n":1}"#).unwrap();
    assert_eq!((top_n, texts), (1, None));
}

#[test]
fn what_is_wrong_is_named() {
    let most = format!(r#"{{"query":"q","documents":[{}"a"]}}"#, r#""a","#.repeat(MAX_DOCUMENTS as usize));
    for (text, code, field) in [
        ("{}", "missing_required_parameter", Some("query")),
        (r#"{"query":"q"}"#, "missing_required_parameter", Some("documents")),
        (r#"{"query":"","documents":["a"]}"#, "invalid_value", Some("query")),
        (r#"{"query":"q","documents":[]}"#, "invalid_value", Some("documents")),
        (r#"{"query":"q","documents":"a"}"#, "invalid_type", Some("documents")),
        (r#"{"query":"q","documents":["a",{}]}"#, "missing_required_parameter", Some("documents[1].text")),
        (r#"{"query":"q","documents":[{"title":"a"}]}"#, "unknown_parameter", Some("documents[0].title")),
        (r#"{"query":"q","documents":["a",2]}"#, "invalid_type", Some("documents[1]")),
        (r#"{"query":"q","documents":["a"],"top_n":0}"#, "out_of_range", Some("top_n")),
        (r#"{"query":"q","documents":["a"],"rank_fields":[]}"#, "unknown_parameter", Some("rank_fields")),
        (most.as_str(), "invalid_value", Some("documents")),
    ] {
        let refusal = decoded(text).unwrap_err();
        let shown = text.chars().take(60).collect::<String>();
        assert_eq!((refusal.code.as_str(), refusal.field.as_deref()), (code, field), "{shown}");
    }
}

#[test]
fn the_nearest_is_first_and_equal_ones_keep_their_order() {
    let expected = json!({
        "object": "list",
        "model": "m",
        "results": [
            {"index": 1, "relevance_score": 2.5},
            {"index": 0, "relevance_score": -0.5},
            {"index": 2, "relevance_score": -0.5},
        ],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    });
    assert_eq!(written(&[-0.5, 2.5, -0.5], 3, None), expected);
    let texts = ["a", "b", "c"].map(str::to_owned);
    let results = &written(&[-0.5, 2.5, 0.5], 2, Some(&texts))["results"];
    let of = |index: usize, score: f64, text: &str| json!({"index": index, "relevance_score": score, "document": {"text": text}});
    assert_eq!(*results, json!([of(1, 2.5, "b"), of(2, 0.5, "c")]));
}

#[test]
fn the_docs_have_every_field() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openai-embeddings.md");
    let docs = std::fs::read_to_string(path).expect("docs/openai-embeddings.md is there");
    for field in FIELDS {
        assert!(docs.contains(&format!("| `{field}` |")), "{field}");
    }
}
