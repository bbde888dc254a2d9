//! Embeddings through the real binary, with the demo model's weights: what clients of OpenAI's API get, what is refused and how, what a
//! policy has to say in it, and what becomes of those who leave. Ranking is here as far as it can be asked without a model for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tollgate_tests::{Answer, Client, Place, repository};

use crate::support::{JSON, add_key, gauge, until};

const PATH: &str = "/v1/embeddings";
const RERANK: &str = "/v1/rerank";
const MODEL: &str = "vectors";

/// How far the numbers of two vectors of the same text may lie apart.
const NEAR: f32 = 1e-3;

/// A place with a model for embeddings beside the scripted one.
fn place() -> Place {
    let place = Place::new();
    let artifact = repository().join("host/demo-model/demo-f16.gguf").display().to_string();
    place.write("models/vectors.toml", &format!("backend = \"llama\"\nartifact = {artifact:?}\ntask = \"embed\"\n"));
    place
}

async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    client.send("POST", path, &[JSON], body.to_string().as_bytes()).await
}

async fn embed(client: &Client, input: Value, more: Value) -> Answer {
    let mut body = json!({ "model": MODEL, "input": input });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    post(client, PATH, &body).await
}

/// The vectors of an answer, however they are written.
fn vectors(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let number = |number: &Value| serde_json::from_value::<f32>(number.clone()).unwrap();
    let of = |(at, entry): (usize, &Value)| {
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(at)));
        match &entry["embedding"] {
            Value::String(text) => {
                let bytes = STANDARD.decode(text).unwrap();
                bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect::<Vec<f32>>()
            }
            list => list.as_array().unwrap().iter().map(number).collect::<Vec<f32>>(),
        }
    };
    answer.json()["data"].as_array().unwrap().iter().enumerate().map(of).collect()
}

/// Whether two vectors are the same but for rounding.
fn are_near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < NEAR)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_has_a_vector_of_length_one_alone_and_among_others() {
    let place = place();
    let gateway = place.start().await;
    let client = &gateway.client;
    let texts = ["Tollgate is a gateway.", "The sun is warm today.", "a"];
    let together = embed(client, json!(texts), Value::Null).await;
    let found = vectors(&together);
    assert_eq!(found.len(), texts.len());
    let body = together.json();
    assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!(MODEL)));
    assert_eq!(together.header("x-tollgate-model-digest").len(), 64);
    assert!(!together.header("server-timing").is_empty() && !together.header("x-request-id").is_empty());

    let mut tokens = 0;
    for (text, vector) in texts.into_iter().zip(&found) {
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < NEAR, "{text}: {length}");
        for _ in 0..2 {
            let alone = embed(client, json!(text), Value::Null).await;
            assert!(are_near(&vectors(&alone)[0], vector), "{text}");
        }
        let usage = embed(client, json!([text]), Value::Null).await.json()["usage"].clone();
        assert_eq!(usage["prompt_tokens"], usage["total_tokens"]);
        tokens += usage["prompt_tokens"].as_u64().unwrap();
    }
    assert_eq!(body["usage"]["prompt_tokens"].as_u64(), Some(tokens));
    assert!(!are_near(&found[0], &found[1]), "two texts have one vector");
}

#[tokio::test(flavor = "multi_thread")]
async fn base64_says_what_floats_say() {
    let place = place();
    let gateway = place.start().await;
    let input = || json!(["Tollgate is a gateway.", "The sun is warm today."]);
    let floats = vectors(&embed(&gateway.client, input(), json!({ "encoding_format": "float" })).await);
    let answer = embed(&gateway.client, input(), json!({ "encoding_format": "base64" })).await;
    assert!(answer.json()["data"][0]["embedding"].is_string());
    let packed = vectors(&answer);
    assert!(packed.iter().zip(&floats).all(|(packed, floats)| are_near(packed, floats)));
    // As many as there are is the one thing that can be asked for.
    let dimensions = floats[0].len();
    assert_eq!(embed(&gateway.client, input(), json!({ "dimensions": dimensions, "user": "u" })).await.status, 200);
    let fewer = embed(&gateway.client, input(), json!({ "dimensions": dimensions - 1 })).await;
    assert_eq!((fewer.status.as_u16(), fewer.code().as_str()), (400, "unsupported_parameter"));
    assert!(fewer.text().contains(&dimensions.to_string()), "{}", fewer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_has_its_error_and_hurts_nobody() {
    let place = place();
    let gateway = place.start().await;
    let long = "word ".repeat(4_000);
    for (input, code, field) in [
        (json!(""), "invalid_value", "input"),
        (json!([]), "invalid_value", "input"),
        (json!(["a", ""]), "invalid_value", "input[1]"),
        (json!(vec!["a"; 2_049]), "invalid_value", "input"),
        (json!([1, 2, 3]), "unsupported_content", "input"),
        (json!([[1, 2], [3]]), "unsupported_content", "input"),
        (json!({ "text": "a" }), "invalid_type", "input"),
        (json!(["a", "b", long]), "context_length_exceeded", "input[2]"),
    ] {
        let answer = embed(&gateway.client, input, Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, code), "{}", answer.text());
        assert_eq!(answer.json()["error"]["param"], field);
    }
    let answer = embed(&gateway.client, json!([long]), Value::Null).await;
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    let numbers = message.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    let numbers = numbers.collect::<Vec<_>>();
    let [0, tokens, over, most] = numbers.as_slice() else { panic!("{message}") };
    assert_eq!(tokens - over, *most, "{message}");
    assert_eq!(vectors(&embed(&gateway.client, json!("a"), Value::Null).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_has_one_task() {
    let place = place();
    place.write("models/demo.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\n");
    let gateway = place.start().await;
    let client = &gateway.client;
    let chat = client.chat(MODEL, "say hello", Value::Null).await;
    let stream = client.chat(MODEL, "say hello", json!({ "stream": true })).await;
    let vector = post(client, PATH, &json!({ "model": "demo", "input": "a" })).await;
    let query = json!({ "model": "scripted", "query": "a", "documents": ["b"] });
    let of_chat = post(client, RERANK, &query).await;
    let of_vectors = post(client, RERANK, &json!({ "model": MODEL, "query": "a", "documents": ["b"] })).await;
    for (answer, path) in [
        (&chat, PATH),
        (&stream, PATH),
        (&vector, "/v1/chat/completions"),
        (&of_chat, "/v1/chat/completions"),
        (&of_vectors, PATH),
    ] {
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "wrong_task"), "{}", answer.text());
        let error = &answer.json()["error"];
        assert!(error["param"] == "model" && error["message"].as_str().unwrap().contains(path), "{error}");
    }
    let nowhere = post(client, PATH, &json!({ "model": "nowhere", "input": "a" })).await;
    assert_eq!((nowhere.status.as_u16(), nowhere.code().as_str()), (404, "model_not_found"));
    assert_eq!(vectors(&embed(client, json!("a"), Value::Null).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_say_who_may() {
    let place = place();
    let (one, other) = (add_key(&place, "one", &[]).await, add_key(&place, "other", &["--model", "scripted"]).await);
    let gateway = place.start().await;
    for path in [PATH, RERANK] {
        let body = json!({ "model": MODEL });
        let stranger = post(&gateway.client.with_key(""), path, &body).await;
        assert_eq!((stranger.status.as_u16(), stranger.code().as_str()), (401, "missing_key"), "{path}");
        assert_eq!(gateway.client.get(path).await.status, 405, "{path}");
    }
    assert_eq!(embed(&gateway.client.with_key(&one), json!("a"), Value::Null).await.status, 200);
    assert_eq!(embed(&gateway.client.with_key(&other), json!("a"), Value::Null).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_sees_every_text() {
    let place = place();
    place.plugin("hush", "hush", "[config]\nword = \"secret\"\n");
    place.plugin("probe", "probe", "grants = [\"log\"]\n");
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"hush\", \"filter-pii\", \"probe\"]\n");
    let gateway = place.start().await;
    let client = &gateway.client;
    let hushed = embed(client, json!(["a", "the Secret word", "b"]), Value::Null).await;
    assert_eq!((hushed.status.as_u16(), hushed.code().as_str()), (400, "hushed"));
    let answered = embed(client, json!(["a", "answer in its place"]), Value::Null).await;
    assert_eq!((answered.status.as_u16(), answered.code().as_str()), (400, "blocked_by_policy"), "{}", answered.text());
    let failed = embed(client, json!(["a", "trap"]), Value::Null).await;
    assert_eq!((failed.status.as_u16(), failed.code().as_str()), (503, "plugin_failed"));

    // What is masked has the vector of the mask.
    let masked = embed(client, json!(["mail first.last.and.more.names77@mail.example.org", "clean"]), Value::Null).await;
    let mask = embed(client, json!(["mail [EMAIL_1]", "clean"]), Value::Null).await;
    assert_eq!(masked.json()["usage"], mask.json()["usage"]);
    let (masked, mask) = (vectors(&masked), vectors(&mask));
    assert!(masked.iter().zip(&mask).all(|(masked, mask)| are_near(masked, mask)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_not_worked_for() {
    let place = place();
    let gateway = place.start().await;
    assert_eq!(embed(&gateway.client, json!("a"), Value::Null).await.status, 200);
    let text = |number: usize| format!("Text {number}. {}", "The gateway opens when the key is right. ".repeat(9));
    let body = json!({ "model": MODEL, "input": (0..2_048).map(text).collect::<Vec<_>>() }).to_string();
    let key = std::fs::read_to_string(place.data().join("admin.key")).unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        key.trim(),
        body.len()
    );
    let mut stream = gateway.client.connect_raw().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    until("the texts are worked on", || async { gauge(&gateway, MODEL, "leases").await == 1 }).await;
    // Others have their turns meanwhile.
    assert_eq!(embed(&gateway.client, json!("a"), Value::Null).await.status, 200);
    drop(stream);
    until("nothing is left of it", || async { gauge(&gateway, MODEL, "leases").await == 0 }).await;
    until("its line says so", || async { place.log().contains("client gone") }).await;
    assert_eq!(embed(&gateway.client, json!("a"), Value::Null).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_counted_by_their_own_name() {
    let place = place();
    let gateway = place.start().await;
    for _ in 0..3 {
        assert_eq!(embed(&gateway.client, json!("a"), Value::Null).await.status, 200);
    }
    let wanted = ["gen_ai_server_request_duration_seconds_count{", "gen_ai_operation_name=\"embeddings\"", "\"vectors\""];
    until("they are counted", || async {
        let scraped = gateway.client.get("/metrics").await.text();
        let line = scraped.lines().find(|line| wanted.iter().all(|part| line.contains(part)));
        line.is_some_and(|line| line.ends_with(" 3")) && scraped.contains("http_route=\"/v1/embeddings\"")
    })
    .await;
}
