//! Chats with the scripted model: what is answered, what is refused and how, and what becomes of those who leave.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tollgate_tests::{Gateway, Place};

use crate::support::{CHAT, JSON, LONG, Stream, gauge, until};

const MODEL: &str = "scripted";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_what_a_whole_answer_says() {
    let place = Place::new();
    let gateway = place.start().await;
    for text in ["say Hello, the world", "utf8 200", "count 300", "say é 你 😀 \"quoted\" \\ \t<b>", "hello there"] {
        let whole = gateway.client.chat(MODEL, text, Value::Null).await;
        assert_eq!(whole.status, StatusCode::OK, "{}", whole.text());
        let more = json!({ "stream_options": { "include_usage": true } });
        let told = Stream::open(&gateway.client, MODEL, text, more).await.rest().await;
        assert!(told.is_done, "{text}");
        assert_eq!(told.content, whole.content(), "{text}");

        let counted = told.chunks.last().unwrap();
        assert_eq!(counted["choices"], json!([]));
        let usage = &whole.json()["usage"];
        for name in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(counted["usage"][name], usage[name], "{text}: {name}");
        }
        let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"].as_u64(), Some(sum));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_ends_where_it_is_told_to() {
    let place = Place::new();
    let gateway = place.start().await;
    let stopped = gateway.client.chat(MODEL, "say one two END three", json!({ "stop": ["END", "never"] })).await;
    assert_eq!(stopped.content(), "one two ");
    assert_eq!(stopped.json()["choices"][0]["finish_reason"], "stop");

    let cut = gateway.client.chat(MODEL, "forever", json!({ "max_tokens": 7 })).await.json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["usage"]["completion_tokens"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_decides_what_is_sampled() {
    let place = Place::new();
    let gateway = place.start().await;
    let mut texts = Vec::new();
    for seed in [7, 7, 8] {
        texts.push(gateway.client.chat(MODEL, "random 40", json!({ "temperature": 1, "seed": seed })).await.content());
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_met() {
    let place = Place::new();
    let gateway = place.start().await;
    let schema = json!({
        "type": "object",
        "properties": {
            "ok": { "type": "boolean" },
            "size": { "enum": ["small", "large"] },
            "inner": {
                "type": "object",
                "properties": { "name": { "type": "string" }, "list": { "type": "array", "items": { "type": "integer" } } },
                "required": ["name", "list"],
                "additionalProperties": false,
            },
        },
        "required": ["ok", "size", "inner"],
        "additionalProperties": false,
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": schema } });
    let answer =
        gateway.client.chat(MODEL, "json", json!({ "response_format": format, "max_tokens": 400, "temperature": 0 })).await;
    let value = serde_json::from_str::<Value>(&answer.content()).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 3, "{value}");
    assert!(value["ok"].is_boolean(), "{value}");
    assert!(value["size"] == "small" || value["size"] == "large", "{value}");
    assert_eq!(value["inner"].as_object().unwrap().len(), 2, "{value}");
    assert!(value["inner"]["name"].is_string(), "{value}");
    assert!(value["inner"]["list"].as_array().unwrap().iter().all(Value::is_i64), "{value}");

    let more = json!({ "response_format": { "type": "json_object" }, "max_tokens": 400, "temperature": 0 });
    let answer = gateway.client.chat(MODEL, "json", more).await;
    assert!(serde_json::from_str::<Value>(&answer.content()).unwrap().is_object());
}

/// A body, and the status, the code and the field that it has to be answered with.
type Bad = (&'static [u8], u16, &'static str, Option<&'static str>);

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_has_its_error_and_hurts_nobody() {
    let cases: [Bad; 13] = [
        (b"", 400, "invalid_json", None),
        (b"{", 400, "invalid_json", None),
        (b"[]", 400, "invalid_type", None),
        (br#"{"model":"\ud800"}"#, 400, "invalid_json", None),
        (b"{\"model\":\"\xff\"}", 400, "invalid_utf8", None),
        (br#"{"model":"scripted","model":"demo"}"#, 400, "duplicate_field", None),
        (br#"{"model":"scripted"}"#, 400, "missing_required_parameter", Some("messages")),
        (br#"{"model":"scripted","messages":[]}"#, 400, "invalid_value", Some("messages")),
        (br#"{"model":"scripted","messages":7}"#, 400, "invalid_type", Some("messages")),
        (br#"{"temperature":"hot"}"#, 400, "invalid_type", Some("temperature")),
        (br#"{"temprature":1}"#, 400, "unknown_parameter", Some("temprature")),
        (
            br#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#,
            400,
            "unsupported_content",
            Some("messages[0].content[0]"),
        ),
        (br#"{"model":"no-such-model","messages":[{"role":"user","content":"a"}]}"#, 404, "model_not_found", Some("model")),
    ];
    let place = Place::new();
    let gateway = place.start().await;
    for (body, status, code, field) in cases {
        let shown = String::from_utf8_lossy(body);
        let answer = gateway.client.send("POST", CHAT, &[JSON], body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{shown}: {}", answer.text());
        let error = &answer.json()["error"];
        if let Some(field) = field {
            assert_eq!(error["param"], field, "{shown}");
        }
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}");
    }
    let untyped = gateway.client.send("POST", CHAT, &[], b"{}").await;
    assert_eq!((untyped.status.as_u16(), untyped.code().as_str()), (415, "unsupported_media_type"));
    still_answers(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_body_is_refused_by_its_length() {
    let place = Place::new();
    let gateway = place.start().await;
    let key = std::fs::read_to_string(place.data().join("admin.key")).unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        key.trim(),
        20 << 20
    );
    let mut stream = gateway.client.connect_raw().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The gateway closes the connection, since the body that was announced will never be read; how it closes does not matter.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains(r#""code":"body_too_large""#), "{answer}");
    still_answers(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_is_told_by_how_much() {
    let place = Place::new();
    place.write("models/small.toml", "backend = \"scripted\"\ncontext_tokens = 256\n");
    let gateway = place.start().await;
    let answer = gateway.client.chat("small", &"a".repeat(1_000), Value::Null).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "context_length_exceeded"), "{}", answer.text());
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    let numbers =
        message.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok()).collect::<Vec<_>>();
    let [tokens, over, limit] = numbers.as_slice() else { panic!("{message}") };
    assert!(*tokens > 1_000 && *limit <= 256, "{message}");
    assert_eq!(tokens - over, *limit, "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let place = Place::new();
    place.write("models/narrow.toml", "backend = \"scripted\"\nsequences = 1\nqueue = 1\n[scripted]\ntoken_us = 1000\n");
    let gateway = place.start().await;
    let mut first = Stream::open(&gateway.client, "narrow", "forever", json!({ "max_tokens": LONG })).await;
    first.next().await.unwrap();
    until("the first runs", || async { gauge(&gateway, "narrow", "running").await == 1 }).await;

    let mut waiting = JoinSet::new();
    let client = gateway.client.clone();
    waiting.spawn(async move { Stream::open(&client, "narrow", "forever", json!({ "max_tokens": LONG })).await });
    until("the second waits", || async { gauge(&gateway, "narrow", "waiting").await == 1 }).await;

    let refused = gateway.client.chat("narrow", "say a", Value::Null).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "queue_full"), "{}", refused.text());
    let seconds = refused.header("retry-after").parse::<u32>().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    // It was refused while the two others were there, and not after one of them had left.
    assert_eq!(gauge(&gateway, "narrow", "running").await, 1);
    assert_eq!(gauge(&gateway, "narrow", "waiting").await, 1);

    waiting.shutdown().await;
    drop(first);
    until("both are gone", || async {
        gauge(&gateway, "narrow", "running").await + gauge(&gateway, "narrow", "waiting").await == 0
    })
    .await;
    assert_eq!(gateway.client.chat("narrow", "say a", Value::Null).await.content(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_frees_the_row() {
    // P-L3, its short form.
    let place = Place::new();
    place.write("models/paced.toml", "backend = \"scripted\"\nsequences = 2\n[scripted]\ntoken_us = 1000\n");
    let gateway = place.start().await;
    for _ in 0..50 {
        let mut stream = Stream::open(&gateway.client, "paced", "forever", json!({ "max_tokens": LONG })).await;
        stream.next().await.unwrap();
        drop(stream);
        until("the row is free", || async { gauge(&gateway, "paced", "running").await == 0 }).await;
    }
    assert_eq!(gauge(&gateway, "paced", "parked").await, 0);
    assert_eq!(gateway.client.chat("paced", "say a", Value::Null).await.content(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_are_all_answered() {
    let place = Place::new();
    let gateway = place.start().await;
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let client = gateway.client.clone();
        tasks.spawn(async move {
            let answer = client.chat(MODEL, &format!("say I am number {number}"), Value::Null).await;
            assert_eq!(answer.content(), format!("I am number {number}"));
        });
    }
    tasks.join_all().await;
}

async fn still_answers(gateway: &Gateway) {
    assert_eq!(gateway.client.chat(MODEL, "say on", Value::Null).await.content(), "on");
}
