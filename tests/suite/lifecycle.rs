//! Models that come and go within their budget: nobody is cut short, nobody starves, and what cannot be is said (B10, B22, X10, X16).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Client, Gateway, Place, repository};

use crate::support::{Stream, gauge, tollgate, until};

const WORDS: &str = "say one two three four five six seven";

/// A model that says it takes so many MiB, and takes a while to load.
fn scripted(memory_mib: u32, more: &str) -> String {
    format!("backend = \"scripted\"\n{more}\n[scripted]\nmemory_mib = {memory_mib}\nload_ms = 20\ntoken_us = 2000\n")
}

fn budget(mib: u32) -> String {
    format!("[models]\nmemory_mib = {mib}\n")
}

/// A place with models `m0`, `m1`, ... of 40 MiB each and with room for `fit` of them.
fn crowded(models: usize, fit: u32) -> Place {
    let place = Place::new();
    // The place's own model and the demo model need a little as well.
    place.write("tollgate.toml", &budget(fit * 42 + 12));
    for at in 0..models {
        place.write(&format!("models/m{at}.toml"), &scripted(40, ""));
    }
    place
}

async fn state(gateway: &Gateway, model: &str) -> String {
    let models = gateway.admin(&["models"]).await;
    let found = models.as_array().unwrap().iter().find(|entry| entry["id"] == model).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

/// A counter or gauge without labels.
async fn metric(place: &Place, name: &str) -> u64 {
    let output = tollgate(&["metrics", "--data", place.data().to_str().unwrap()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

async fn asks(client: Client, first: usize, models: usize, requests: usize) {
    let mut connection = client.connect().await;
    for at in 0..requests {
        let model = format!("m{}", (first + at * 7) % models);
        let answer = connection.chat(&model, WORDS, Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{model}: {}", answer.text());
        assert_eq!(answer.content(), "one two three four five six seven");
    }
}

/// P-M12, B22: five models and room for two. Every request is served whole, and the budget holds throughout.
#[tokio::test(flavor = "multi_thread")]
async fn models_take_turns_within_their_budget() {
    let place = crowded(5, 2);
    let gateway = place.start().await;
    let mut clients = JoinSet::new();
    for first in 0..6 {
        clients.spawn(asks(gateway.client.clone(), first, 5, 20));
    }
    let limit = metric(&place, "tollgate_models_budget_bytes").await;
    while !clients.is_empty() {
        let held = metric(&place, "tollgate_models_held_bytes").await;
        assert!(held <= limit, "{held} of {limit}");
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(20), clients.join_next()).await {
            ended.unwrap().unwrap();
        }
    }
    assert!(metric(&place, "tollgate_models_unloads_total").await >= 3);
    assert_eq!(metric(&place, "tollgate_models_requests_waiting").await, 0);
}

/// A stream holds its model: the other one waits for its end, and is loaded then. Who gives up waiting is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_use_is_not_unloaded() {
    let place = crowded(2, 1);
    let gateway = place.start().await;
    let text = format!("say {}", "word ".repeat(600).trim_end());
    let mut stream = Stream::open(&gateway.client, "m0", &text, Value::Null).await;
    stream.next().await.unwrap();
    let mut others = JoinSet::new();
    let mut ask = || {
        let client = gateway.client.clone();
        others.spawn(async move { client.chat("m1", WORDS, Value::Null).await.status })
    };
    let given_up = ask();
    ask();
    until("both wait", || async { metric(&place, "tollgate_models_requests_waiting").await == 2 }).await;
    given_up.abort();
    until("one waits", || async { metric(&place, "tollgate_models_requests_waiting").await == 1 }).await;
    let told = stream.rest().await;
    assert!(told.is_done);
    let mut served = 0;
    while let Some(ended) = others.join_next().await {
        // The one that was given up has no answer.
        if let Ok(status) = ended {
            assert_eq!(status, StatusCode::OK);
            served += 1;
        }
    }
    assert_eq!(served, 1);
    assert_eq!(state(&gateway, "m0").await, "cold");
}

/// X10: a model that can never fit is refused at start, with the figures and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_beyond_the_budget_stops_a_strict_start() {
    let place = Place::new();
    place.write("tollgate.toml", &budget(100));
    place.write("models/big.toml", &scripted(500, ""));
    let said = place.start_fails().await;
    assert!(said.contains("models/big.toml") && said.contains("500 MiB") && said.contains("100 MiB"), "{said}");
    assert!(said.contains("memory_mib"), "{said}");
}

/// X10: with `lazy` the gateway serves without it, says what is wrong, and takes the model as soon as it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_start_does_without_a_model_that_is_missing() {
    let place = Place::new();
    place.write("tollgate.toml", "[models]\nstartup = \"lazy\"\n");
    place.write("models/late.toml", "backend = \"llama\"\nartifact = \"late.gguf\"\n");
    let gateway = place.start().await;
    assert_eq!(gateway.client.chat("scripted", "say here", Value::Null).await.content(), "here");
    let answer = gateway.client.chat("late", "hello", Value::Null).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "model_failed"), "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    let models = gateway.admin(&["models"]).await;
    let late = models.as_array().unwrap().iter().find(|entry| entry["id"] == "late").unwrap().clone();
    assert!(late["error"].as_str().unwrap().contains("late.gguf"), "{late}");
    assert_eq!(gateway.admin(&["status"]).await["state"], "degraded");
    fs::copy(demo(), place.config().join("late.gguf")).unwrap();
    let client = &gateway.client;
    until("the model answers", || async move { client.chat("late", "hello", Value::Null).await.status == StatusCode::OK }).await;
    assert_eq!(gateway.admin(&["status"]).await["state"], "ok");
}

/// C10: what nobody asks for goes after its time, and comes back when somebody does; what is pinned stays.
#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_and_pins() {
    let place = Place::new();
    place.write("models/brief.toml", &scripted(1, "keep_alive_s = 0"));
    place.write("models/kept.toml", &scripted(1, "keep_alive_s = 0\npin = true"));
    let gateway = place.start().await;
    until("it has gone", || async { state(&gateway, "brief").await == "cold" }).await;
    assert_eq!(state(&gateway, "kept").await, "ready");
    assert_eq!(gateway.client.chat("brief", "say back", Value::Null).await.content(), "back");
    until("it has gone again", || async { state(&gateway, "brief").await == "cold" }).await;
    gateway.admin(&["model", "pin", "brief"]).await;
    assert_eq!(gateway.admin(&["model", "warm", "brief"]).await["state"], "ready");
    gateway.admin(&["model", "unpin", "kept"]).await;
    until("the other has gone", || async { state(&gateway, "kept").await == "cold" }).await;
    assert_eq!(state(&gateway, "brief").await, "ready");
    // Unloaded by hand, unless somebody uses it.
    let mut stream = Stream::open(&gateway.client, "brief", &format!("say {}", "word ".repeat(400)), Value::Null).await;
    stream.next().await.unwrap();
    let data = place.data();
    let output = tollgate(&["model", "unload", "brief", "--data", data.to_str().unwrap()]).await;
    assert!(String::from_utf8(output.stderr).unwrap().contains("1 requests use `brief`"));
    stream.rest().await;
    until("it is idle", || async { gauge(&gateway, "brief", "leases").await == 0 }).await;
    gateway.admin(&["model", "unload", "brief"]).await;
    until("it is unloaded", || async { state(&gateway, "brief").await == "cold" }).await;
}

/// A request says how long its model stays; never longer than the config does, and what is pinned stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_how_long_its_model_stays() {
    let place = Place::new();
    place.write("models/open.toml", &scripted(1, ""));
    place.write("models/brief.toml", &scripted(1, "keep_alive_s = 0"));
    place.write("models/kept.toml", &scripted(1, "pin = true"));
    let gateway = place.start().await;
    let ask = async |model: &str, keep_alive: Value| {
        let answer = gateway.client.chat(model, "say here", json!({ "keep_alive": keep_alive })).await;
        assert_eq!((answer.status, answer.content()), (StatusCode::OK, "here".to_owned()), "{model}: {}", answer.text());
    };
    ask("open", json!("1h")).await;
    assert_eq!(state(&gateway, "open").await, "ready");
    ask("open", json!(0)).await;
    until("it has gone after its answer", || async { state(&gateway, "open").await == "cold" }).await;
    ask("open", json!(-1)).await;
    assert_eq!(state(&gateway, "open").await, "ready");
    ask("brief", json!("1h")).await;
    until("the operator's word holds", || async { state(&gateway, "brief").await == "cold" }).await;
    ask("kept", json!(0)).await;
    until("nobody uses it", || async { gauge(&gateway, "kept", "leases").await == 0 }).await;
    assert_eq!(state(&gateway, "kept").await, "ready");
    let answer = gateway.client.chat("open", "say here", json!({ "keep_alive": "soon" })).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
}

/// P-U4: another file under the same name. What runs finishes on the old one, and no answer is of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_swapped_under_streams() {
    let place = Place::new();
    let file = place.config().join("swapped.gguf");
    fs::copy(demo(), &file).unwrap();
    place.write("models/swapped.toml", "backend = \"llama\"\nartifact = \"swapped.gguf\"\ndefaults = { max_tokens = 24 }\n");
    let gateway = place.start().await;
    let mut seen = BTreeSet::new();
    for round in 0..4 {
        let mut tasks = JoinSet::new();
        for _ in 0..6 {
            let client = gateway.client.clone();
            tasks.spawn(async move {
                let answer = client.chat("swapped", "What is Tollgate?", json!({ "temperature": 0 })).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                answer.header("x-tollgate-model-digest").to_owned()
            });
        }
        replace(&file, round);
        let reloaded = gateway.reload().await;
        assert_eq!(reloaded["quarantined"], json!([]));
        let before = seen.len();
        while let Some(digest) = tasks.join_next().await {
            seen.insert(digest.unwrap());
        }
        let answer = gateway.client.chat("swapped", "What is Tollgate?", json!({ "temperature": 0 })).await;
        seen.insert(answer.header("x-tollgate-model-digest").to_owned());
        assert!(seen.len() > before, "the new one answers");
    }
    assert_eq!(seen.len(), 5);
}

fn demo() -> std::path::PathBuf {
    repository().join("host/demo-model/demo.gguf")
}

/// Writes the model with another name in its header beside the file, and moves it into its place.
fn replace(file: &Path, round: u8) {
    let mut bytes = fs::read(demo()).unwrap();
    let key = b"general.name";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    // The key is followed by a type of 4 bytes and a length of 8, then the text.
    bytes[at + key.len() + 12] = b'A' + round;
    let beside = file.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, file).unwrap();
}
