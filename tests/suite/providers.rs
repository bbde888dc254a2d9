//! Models that other servers answer for, and models that answer in the place of others (C2 to C5, C18, D8, X11): a gateway in front
//! of another one, and in front of servers that say what a test wants.

mod server;

use std::os::unix::fs::PermissionsExt;

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::{Client, Gateway, Place};

use crate::support::{LONG, Stream, add_key, port, tollgate, until};
use server::Server;

/// A model file of the backend `provider`.
fn model(kind: &str, endpoint: &str, name: &str, more: &str, of_provider: &str) -> String {
    format!(
        "backend = \"provider\"\n{more}\n[provider]\nkind = \"{kind}\"\nendpoint = \"{endpoint}\"\nmodel = \"{name}\"\n{of_provider}\n"
    )
}

/// The operator's yes.
fn egress(place: &Place, to: &str) {
    place.write("tollgate.toml", &format!("[reload]\npoll_s = 1\ndebounce_ms = 20\n[models]\negress = [\"{to}\"]\n"));
}

/// A gateway with a key, and one in front of it whose model `far` is the first one's model `scripted`.
struct Pair {
    front: Gateway,
    front_place: Place,
    back: Gateway,
    key: String,
    _back_place: Place,
}

async fn pair(more: &str) -> Pair {
    let back_place = Place::new();
    back_place.write("models/scripted.toml", "backend = \"scripted\"\n[scripted]\ntoken_us = 2000\n");
    let key = add_key(&back_place, "front", &[]).await;
    let back = back_place.start().await;
    let front_place = Place::new();
    std::fs::create_dir_all(front_place.config()).unwrap();
    let path = front_place.config().join("far.key");
    std::fs::write(&path, format!("{key}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let to = format!("localhost:{}", port(&back));
    egress(&front_place, &to);
    let ca = back_place.data().join("tls/ca.pem").display().to_string();
    let of_provider = format!("key_file = \"far.key\"\nca = {ca:?}\ntries = 1\n");
    front_place.write("models/far.toml", &model("openai", &format!("https://{to}/v1"), "scripted", more, &of_provider));
    let front = front_place.start().await;
    Pair { front, front_place, back, key, _back_place: back_place }
}

async fn listed(gateway: &Gateway, model: &str) -> Value {
    let models = gateway.admin(&["models"]).await;
    models.as_array().unwrap().iter().find(|entry| entry["id"] == model).unwrap().clone()
}

async fn fallbacks(place: &Place, labels: &str) -> u64 {
    let output = tollgate(&["metrics", "--data", place.data().to_str().unwrap()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("tollgate_model_fallbacks_total{{{labels}}} ")));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn says(client: &Client, model: &str, text: &str) {
    let answer = client.chat(model, &format!("say {text}"), Value::Null).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.content(), text);
}

/// C2, D8: what the other gateway says is what clients hear, whole and streamed, with its count of tokens; its key is nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_answers_for_a_model() {
    let pair = pair("").await;
    let client = &pair.front.client;
    let answer = client.chat("far", "say hello from afar", json!({ "max_tokens": 100, "temperature": 0.5 })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!((answer.content().as_str(), answer.json()["model"].as_str()), ("hello from afar", Some("far")));
    assert_eq!(answer.header("x-tollgate-model-digest"), "remote:scripted");
    assert_eq!(answer.header("x-tollgate-fallback"), "");
    let direct = pair.back.client.chat("scripted", "say hello from afar", Value::Null).await;
    for count in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(answer.json()["usage"][count], direct.json()["usage"][count], "{count}");
    }
    let cut = client.chat("far", "count 20", json!({ "max_tokens": 3 })).await;
    assert_eq!(cut.json()["choices"][0]["finish_reason"], "length");

    let mut stream = Stream::open(client, "far", "count 30", json!({ "stream_options": { "include_usage": true } })).await;
    let told = stream.rest().await;
    assert!(told.is_done);
    assert_eq!(told.content, (1..=30).map(|number| number.to_string()).collect::<Vec<_>>().join(" "));
    assert!(told.chunks.last().unwrap()["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    let of_json = json!({ "response_format": { "type": "json_object" }, "max_tokens": 400, "temperature": 0 });
    let with_format = client.chat("far", "json", of_json).await;
    assert_eq!(with_format.status, StatusCode::OK, "{}", with_format.text());
    assert!(serde_json::from_str::<Value>(&with_format.content()).is_ok(), "{}", with_format.content());

    for (field, more) in [("logprobs", json!({ "logprobs": true })), ("logit_bias", json!({ "logit_bias": { "5": 1 } }))] {
        let refused = client.chat("far", "say a", more).await;
        assert_eq!((refused.status, refused.code().as_str()), (StatusCode::BAD_REQUEST, "unsupported_parameter"));
        assert_eq!(refused.json()["error"]["param"], field);
    }
    assert_eq!(listed(&pair.front, "far").await["state"], "ready");
    let log = pair.front_place.log();
    assert!(!log.contains(&pair.key) && !answer.text().contains(&pair.key), "{log}");
    assert!(!log.contains("others may read"), "{log}");
}

/// C18: the other gateway dies under a stream. That stream ends with one error event; whoever comes next is answered by the fallback, and
/// is told so; after a while nobody is sent there any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_dies_is_replaced() {
    let pair = pair("fallback = [\"scripted\"]").await;
    let client = &pair.front.client;
    says(client, "far", "first").await;
    let mut stream = Stream::open(client, "far", "forever", json!({ "max_tokens": LONG })).await;
    stream.next().await.unwrap();
    stream.next().await.unwrap();
    pair.back.signal("KILL");
    let told = stream.rest().await;
    assert!(!told.is_done, "a reply that was cut is not taken for whole");
    assert_eq!(told.chunks.last().unwrap()["error"]["code"], "provider_failed", "{told:?}");

    for _ in 0..6 {
        let answer = client.chat("far", "say here", Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!((answer.content().as_str(), answer.header("x-tollgate-fallback")), ("here", "scripted"));
        assert_eq!(answer.json()["model"], "scripted");
        assert_eq!(answer.header("x-tollgate-model-digest"), "scripted");
    }
    let body = json!({ "model": "far", "stream": true, "messages": [{ "role": "user", "content": "say streamed" }] }).to_string();
    let streamed = client.send("POST", crate::support::CHAT, &[crate::support::JSON], body.as_bytes()).await;
    assert_eq!((streamed.status, streamed.header("x-tollgate-fallback")), (StatusCode::OK, "scripted"));

    let state = listed(&pair.front, "far").await["state"].clone();
    assert!(state == "open" || state == "half-open", "{state}");
    assert_eq!(pair.front.admin(&["status"]).await["state"], "degraded");
    let place = &pair.front_place;
    assert!(fallbacks(place, "model=\"far\",to=\"scripted\",reason=\"unreachable\"").await >= 5);
    // It may just have been tried again, which takes its time.
    until("it is not even tried", || async {
        says(client, "far", "again").await;
        fallbacks(place, "model=\"far\",to=\"scripted\",reason=\"breaker_open\"").await >= 1
    })
    .await;
    let log = place.log();
    assert!(log.contains("another model answers in its place") && log.contains("its breaker opens"), "{log}");
    assert!(!log.contains(&pair.key), "{log}");
}

/// X11: without the operator's yes nothing is sent, and the refusal says which line gives it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_where_nobody_granted_it() {
    let server = Server::start(&["HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]);
    let place = Place::new();
    let gateway = place.start().await;
    let to = format!("127.0.0.1:{}", server.port);
    place.write("models/far.toml", &model("ollama", &format!("http://{to}"), "llama3.2", "", "tries = 1"));
    let status = gateway.reload().await;
    let quarantined = status["quarantined"].to_string();
    assert!(quarantined.contains("models/far.toml") && quarantined.contains("egress = ["), "{quarantined}");
    assert!(quarantined.contains(&to), "{quarantined}");
    assert_eq!(gateway.client.chat("far", "hello", Value::Null).await.status, StatusCode::NOT_FOUND);
    assert!(server.seen().is_empty());
    egress(&place, &to);
    assert_eq!(gateway.reload().await["quarantined"], json!([]));
    assert_eq!(gateway.client.chat("far", "hello", Value::Null).await.code(), "provider_failed");
    assert_eq!(server.seen().len(), 1);
}

const NDJSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n";

fn line(text: &str) -> String {
    let created = "2026-11-22T12:00:00.000000Z";
    format!(
        "{}\n",
        json!({ "model": "gemma3:4b", "created_at": created, "message": { "role": "assistant", "content": text }, "done": false })
    )
}

fn last_line() -> String {
    let message = json!({ "role": "assistant", "content": "" });
    let last = json!({
        "model": "gemma3:4b", "created_at": "2026-11-22T12:00:01.000000Z", "message": message, "done_reason": "stop", "done": true,
        "total_duration": 4_883_583_458_u64, "load_duration": 1_334_875, "prompt_eval_count": 26,
        "prompt_eval_duration": 342_546_000, "eval_count": 5, "eval_duration": 4_535_599_000_u64,
    });
    format!("{last}\n")
}

async fn behind(server: &Server, more: &str, of_provider: &str) -> (Place, Gateway) {
    let place = Place::new();
    let to = format!("127.0.0.1:{}", server.port);
    egress(&place, &to);
    place.write("models/far.toml", &model("ollama", &format!("http://{to}"), "gemma3:4b", more, of_provider));
    let gateway = place.start().await;
    (place, gateway)
}

/// C2, C3, C5: Ollama's own protocol.
#[tokio::test(flavor = "multi_thread")]
async fn ollama_answers_for_a_model() {
    let whole = format!("{NDJSON}{}{}{}", line("The sky"), line(" is blue."), last_line());
    let server = Server::start(&[&whole]);
    let (_place, gateway) = behind(&server, "defaults = { temperature = 0.7 }", "").await;
    let answer = gateway.client.chat("far", "Why?", json!({ "max_tokens": 9, "seed": 3 })).await;
    assert_eq!(answer.content(), "The sky is blue.");
    let usage = &answer.json()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(26), &json!(5)));
    let mut stream = Stream::open(&gateway.client, "far", "Why?", Value::Null).await;
    let told = stream.rest().await;
    assert!(told.is_done);
    assert_eq!(told.content, "The sky is blue.");
    let seen = server.seen();
    let body = serde_json::from_str::<Value>(seen[0].split_once("\r\n\r\n").unwrap().1).unwrap();
    assert!(seen[0].starts_with("POST /api/chat HTTP/1.1\r\n"), "{}", seen[0]);
    assert_eq!(body["model"], "gemma3:4b");
    assert_eq!(body["options"], json!({ "num_predict": 9, "temperature": 0.7, "seed": 3 }));
    assert!(!seen[0].to_lowercase().contains("authorization"), "a client's key goes nowhere: {}", seen[0]);
}

/// C18: each way in which a provider can fail before its first token leads to the fallback, and after it to one error.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_may_do_wrong() {
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>log in</html>".to_owned();
    let error = format!("{NDJSON}{}\n", json!({ "error": "model 'secret-name' not found" }));
    let status = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let wrong = [
        (html, "malformed"),
        (error, "server_error"),
        (NDJSON.to_owned(), "unreachable"),
        (format!("{NDJSON}{{\"message\":"), "malformed"),
        (status("429 Too Many Requests"), "rate_limited"),
        (status("503 Service Unavailable"), "server_error"),
        (status("404 Not Found"), "refused"),
    ];
    let good = format!("{NDJSON}{}{}", line("from afar"), last_line());
    let mut answers = wrong.iter().flat_map(|(answer, _)| [answer.as_str(), good.as_str()]).collect::<Vec<_>>();
    let (cut, refusal) = (format!("{NDJSON}{}", line("half a")), status("400 Bad Request"));
    answers.extend([cut.as_str(), refusal.as_str()]);
    let server = Server::start(&answers);
    let (place, gateway) = behind(&server, "fallback = [\"scripted\"]", "tries = 1").await;
    for (_, reason) in &wrong {
        let labels = format!("model=\"far\",to=\"scripted\",reason=\"{reason}\"");
        let before = fallbacks(&place, &labels).await;
        let reply = gateway.client.chat("far", "say here", Value::Null).await;
        assert_eq!(reply.status, StatusCode::OK, "{reason}: {}", reply.text());
        assert_eq!((reply.content().as_str(), reply.header("x-tollgate-fallback")), ("here", "scripted"), "{reason}");
        assert_eq!(fallbacks(&place, &labels).await, before + 1, "{reason}");
        // One that is whole again is taken at once.
        let reply = gateway.client.chat("far", "say here", Value::Null).await;
        assert_eq!((reply.content().as_str(), reply.header("x-tollgate-fallback")), ("from afar", ""), "{reason}");
    }
    // What was said cannot be taken back.
    let told = Stream::open(&gateway.client, "far", "say here", Value::Null).await.rest().await;
    assert_eq!((told.content.as_str(), told.is_done), ("half a", false));
    assert_eq!(told.chunks.last().unwrap()["error"]["code"], "provider_failed");
    // A request that is wrong is wrong for everybody.
    let refused = gateway.client.chat("far", "say here", Value::Null).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::BAD_REQUEST, "provider_refused"));
    assert_eq!(server.seen().len(), answers.len());
    assert!(!place.log().contains("secret-name"), "{}", place.log());
}

/// C18: a local model has fallbacks as well: where it fails before its first token, another one answers.
#[tokio::test(flavor = "multi_thread")]
async fn local_first_and_the_next_where_that_fails() {
    let whole = format!("{NDJSON}{}{}", line("from afar"), last_line());
    let server = Server::start(&[&whole]);
    let (place, gateway) = behind(&server, "", "").await;
    place.write("models/near.toml", "backend = \"scripted\"\nfallback = [\"missing\"]\n");
    place.write("models/missing.toml", "backend = \"llama\"\nartifact = \"gone.gguf\"\nfallback = [\"far\"]\n");
    let to = format!("127.0.0.1:{}", server.port);
    place.write("tollgate.toml", &format!("[reload]\npoll_s = 1\n[models]\nstartup = \"lazy\"\negress = [\"{to}\"]\n"));
    assert_eq!(gateway.reload().await["quarantined"], json!([]));
    says(&gateway.client, "near", "nearby").await;
    assert!(server.seen().is_empty(), "what the local model can say stays here");
    let answer = gateway.client.chat("near", "fail 1", Value::Null).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!((answer.content().as_str(), answer.header("x-tollgate-fallback")), ("from afar", "far"));
    assert_eq!(fallbacks(&place, "model=\"near\",to=\"missing\",reason=\"failed\"").await, 1);
    assert_eq!(fallbacks(&place, "model=\"missing\",to=\"far\",reason=\"load_failed\"").await, 1);
    // Tokens have numbers of their own in each model.
    let of_tokens = gateway.client.chat("near", "fail 1", json!({ "logit_bias": { "5": 1 } })).await;
    assert_eq!((of_tokens.status, of_tokens.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "model_failed"));
    until("nobody is there any more", async || listed(&gateway, "far").await["leases"] == 0).await;
}
