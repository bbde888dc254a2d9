//! Adapters beside their base: every request gets exactly its own, they come and go while the base serves, and one that is for another
//! model is refused with words (P-M13, P-U4).

use std::fs;
use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Client, Gateway, Place, repository};

use crate::support::{Stream, gauge, until};

const DIGEST: &str = "x-tollgate-model-digest";

fn demo(name: &str) -> PathBuf {
    repository().join("host/demo-model").join(name)
}

/// A place with the demo model at f16 as `base`, and its adapter as `polite`.
fn place() -> Place {
    let place = Place::new();
    let file = |name: &str| demo(name).display().to_string();
    place.write("models/base.toml", &format!("backend = \"llama\"\nartifact = {:?}\nsequences = 8\n", file("demo-f16.gguf")));
    place.write("models/polite.toml", &adapter("base", "llama", &file("lora/demo-lora.gguf")));
    place
}

fn adapter(base: &str, backend: &str, artifact: &str) -> String {
    format!("base = {base:?}\nbackend = {backend:?}\nartifact = {artifact:?}\n")
}

/// A place with a scripted model and an adapter that says `word` before every word.
fn scripted(word: &str) -> Place {
    let place = Place::new();
    place.write("models/base.toml", "backend = \"scripted\"\n[scripted]\ntoken_us = 1000\n");
    place.write("word", word);
    place.write("models/echo.toml", &adapter("base", "scripted", "word"));
    place
}

async fn entry(gateway: &Gateway, model: &str) -> Value {
    let models = gateway.admin(&["models"]).await;
    models.as_array().unwrap().iter().find(|entry| entry["id"] == model).unwrap().clone()
}

/// A greedy answer, with its length in tokens.
async fn greedy(client: &Client, model: &str, message: &str, limit: &Value) -> (String, usize, String) {
    let answer = client.chat(model, message, json!({ "temperature": 0, "max_tokens": limit })).await;
    assert_eq!(answer.status, StatusCode::OK, "{model}: {}", answer.text());
    let tokens = answer.json()["usage"]["completion_tokens"].as_u64().unwrap();
    (answer.content(), usize::try_from(tokens).unwrap(), answer.header(DIGEST).to_owned())
}

/// Base and adapter, asked by many at the same time: each answer is what the same model says alone.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_exactly_their_own() {
    let place = place();
    let gateway = place.start().await;
    let table = fs::read_to_string(demo("exports.json")).unwrap();
    let table = serde_json::from_str::<Value>(&table).unwrap();
    let (rows, limit) = (table["rows"].as_array().unwrap(), &table["limit"]);
    let mut expected = Vec::new();
    let mut differ = 0;
    for row in rows {
        let message = row["message"].as_str().unwrap().to_owned();
        let (plain, plain_tokens, of_base) = greedy(&gateway.client, "base", &message, limit).await;
        let (polite, polite_tokens, of_adapter) = greedy(&gateway.client, "polite", &message, limit).await;
        assert_eq!(plain_tokens, row["plain"].as_array().unwrap().len(), "{message}");
        assert_eq!(polite_tokens, row["adapter"].as_array().unwrap().len(), "{message}");
        assert!(of_adapter.starts_with(&format!("{of_base}+")) && of_adapter.len() == 129, "{of_adapter}");
        differ += usize::from(plain != polite);
        expected.push((message, plain, polite));
    }
    assert!(differ >= rows.len() / 2, "{differ}");

    let mut clients = JoinSet::new();
    for number in 0..12_usize {
        let (client, expected, limit) = (gateway.client.clone(), expected.clone(), limit.clone());
        clients.spawn(async move {
            for at in 0..expected.len() {
                let (message, plain, polite) = &expected[(at * 5 + number) % expected.len()];
                let (model, said) = [("base", plain), ("polite", polite), ("base:polite", polite)][(at + number) % 3];
                assert_eq!(greedy(&client, model, message, &limit).await.0, *said, "{model}: {message}");
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }

    // It comes back with its base.
    until("the base is idle", || async { gauge(&gateway, "base", "leases").await == 0 }).await;
    assert_eq!(
        (&entry(&gateway, "polite").await["base"], &entry(&gateway, "polite").await["state"]),
        (&json!("base"), &json!("ready"))
    );
    gateway.admin(&["model", "unload", "base"]).await;
    until("it is unloaded", || async { entry(&gateway, "base").await["state"] == "cold" }).await;
    assert_eq!(entry(&gateway, "polite").await["state"], "cold");
    let (message, _, polite) = &expected[3];
    assert_eq!(greedy(&gateway.client, "polite", message, limit).await.0, *polite);
}

/// The words of a long reply, and what an adapter makes of them.
fn long(word: &str) -> (String, String) {
    let words = |word: &str| (0..120).map(|number| format!("{word}w{number}")).collect::<Vec<_>>().join(" ");
    (format!("say {}", words("")), words(word))
}

/// An adapter's file is replaced under streams: what runs stays with the old one to its last word, what comes gets the new one.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_replaced_under_streams() {
    let place = scripted("a0-");
    let gateway = place.start().await;
    let mut digests = Vec::new();
    for round in 0..4 {
        let (ask, said) = long(&format!("a{round}-"));
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut stream = Stream::open(&gateway.client, "base:echo", &ask, Value::Null).await;
            stream.next().await.unwrap();
            streams.push(stream);
        }
        let plain = gateway.client.chat("base", "say so", Value::Null);
        place.write("word.new", &format!("a{}-", round + 1));
        fs::rename(place.config().join("word.new"), place.config().join("word")).unwrap();
        assert_eq!(gateway.reload().await["quarantined"], json!([]));
        let answer = gateway.client.chat("echo", "say new", Value::Null).await;
        assert_eq!(answer.content(), format!("a{}-new", round + 1));
        digests.push(answer.header(DIGEST).to_owned());
        assert_eq!(plain.await.content(), "so");
        for mut stream in streams {
            let told = stream.rest().await;
            assert!(told.is_done && said.ends_with(&told.content) && said.len() < told.content.len() + 16, "{}", told.content);
        }
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 4, "{digests:?}");
}

/// An adapter leaves the config and comes back: the base serves on, and a reply that had begun is finished.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_dropped_while_its_base_serves() {
    let place = scripted("a-");
    let gateway = place.start().await;
    let (ask, said) = long("a-");
    let mut stream = Stream::open(&gateway.client, "echo", &ask, Value::Null).await;
    stream.next().await.unwrap();
    place.remove("models/echo.toml");
    assert_eq!(gateway.reload().await["quarantined"], json!([]));
    for name in ["echo", "base:echo"] {
        assert_eq!(gateway.client.chat(name, "say so", Value::Null).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(gateway.client.chat("base", "say so", Value::Null).await.content(), "so");
    let told = stream.rest().await;
    assert!(told.is_done && said.ends_with(&told.content) && said.len() < told.content.len() + 16, "{}", told.content);
    place.write("models/echo.toml", &format!("{}scale = 0.0\n", adapter("base", "scripted", "word")));
    gateway.reload().await;
    assert_eq!(
        gateway.client.chat("base:echo", "say so", Value::Null).await.content(),
        "so",
        "it counts as much as it is told to"
    );
    assert_eq!(gateway.admin(&["status"]).await["state"], "ok");
}

/// An adapter for another model is in quarantine, named with the tensor that does not fit; the base and its own adapter serve on.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_of_another_model_is_refused() {
    let place = place();
    let gateway = place.start().await;
    let mut bytes = fs::read(demo("lora/demo-lora.gguf")).unwrap();
    let places = (0..bytes.len() - 6).filter(|at| bytes[*at..].starts_with(b"blk.0.")).collect::<Vec<_>>();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 4] = b'9';
    }
    fs::write(place.config().join("strange.gguf"), bytes).unwrap();
    place.write("models/strange.toml", &adapter("base", "llama", "strange.gguf"));
    let quarantined = gateway.reload().await["quarantined"].clone();
    let reason = quarantined[0]["reason"].as_str().unwrap();
    assert_eq!((&quarantined[0]["file"], quarantined.as_array().unwrap().len()), (&json!("models/strange.toml"), 1));
    assert!(reason.contains("blk.9.") && reason.contains("not in the base"), "{reason}");
    let limit = json!(8);
    for model in ["base", "polite"] {
        greedy(&gateway.client, model, "What is Tollgate?", &limit).await;
    }
    let whole = fs::read(demo("demo-f16.gguf")).unwrap();
    fs::write(place.config().join("strange.gguf"), whole).unwrap();
    let quarantined = gateway.reload().await["quarantined"].clone();
    assert!(quarantined[0]["reason"].as_str().unwrap().contains("adapter"), "a model is no adapter: {quarantined}");
}
