//! The demo model's weights in every format: the same greedy tokens through every backend (B3), without and with an adapter, as
//! `host/demo-model/exports.json` has them from a reference of its own.

use std::fs;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Client, Gateway, Place, repository};

const BACKENDS: [(&str, &str, &str); 3] =
    [("llama", "demo-f16.gguf", "lora/demo-lora.gguf"), ("candle", "hf", "lora"), ("onnx", "onnx", "lora")];

/// A gateway with the same weights, f16, behind each backend, and the same adapter beside each.
async fn start(place: &Place) -> Gateway {
    let demo = repository().join("host/demo-model");
    let runtime = repository().join("target/onnxruntime/libonnxruntime.so");
    place.write("tollgate.toml", &format!("[models]\nonnxruntime = {:?}\n", runtime.display().to_string()));
    for (backend, artifact, adapter) in BACKENDS {
        let [artifact, adapter] = [artifact, adapter].map(|name| demo.join(name).display().to_string());
        place.write(
            &format!("models/{backend}.toml"),
            &format!("backend = {backend:?}\nartifact = {artifact:?}\nsequences = 4\n"),
        );
        place.write(
            &format!("models/{backend}-polite.toml"),
            &format!("base = {backend:?}\nbackend = {backend:?}\nartifact = {adapter:?}\n"),
        );
    }
    place.start().await
}

fn table() -> Value {
    serde_json::from_str(&fs::read_to_string(repository().join("host/demo-model/exports.json")).unwrap()).unwrap()
}

/// A model's greedy answer, which has to be as long as the reference's.
async fn answer(client: &Client, model: &str, row: &Value, column: &str, limit: &Value) -> String {
    let message = row["message"].as_str().unwrap();
    let answer = client.chat(model, message, json!({ "temperature": 0, "max_tokens": limit })).await;
    assert_eq!(answer.status, StatusCode::OK, "{model}: {}", answer.text());
    let usage = &answer.json()["usage"];
    assert_eq!(usage["prompt_tokens"], row["prompt"].as_array().unwrap().len(), "{model}: {message}");
    assert_eq!(usage["completion_tokens"], row[column].as_array().unwrap().len(), "{model}: {message}");
    answer.content()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_greedy_tokens_through_every_backend() {
    let place = Place::new();
    let gateway = start(&place).await;
    let table = table();
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.len() >= 20);
    for row in rows {
        let mut said = Vec::new();
        for (column, suffix) in [("plain", ""), ("adapter", "-polite")] {
            let mut texts = Vec::new();
            for (backend, ..) in BACKENDS {
                let model = format!("{backend}{suffix}");
                texts.push(answer(&gateway.client, &model, row, column, &table["limit"]).await);
            }
            assert!(!texts[0].is_empty() && texts.iter().all(|text| *text == texts[0]), "{}: {texts:?}", row["message"]);
            said.push(texts.swap_remove(0));
        }
        assert_eq!(said[0] == said[1], row["plain"] == row["adapter"], "{}: {said:?}", row["message"]);
    }
}

/// P-M13: whoever asks a base or its adapter while others ask the other gets what it says alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_backend_gives_everybody_exactly_their_own() {
    let place = Place::new();
    let gateway = start(&place).await;
    let table = table();
    let rows = table["rows"].as_array().unwrap().iter().filter(|row| row["plain"] != row["adapter"]).take(6);
    let rows = rows.cloned().collect::<Vec<_>>();
    let mut clients = JoinSet::new();
    for (backend, ..) in BACKENDS {
        let mut expected = Vec::new();
        for row in &rows {
            let plain = answer(&gateway.client, backend, row, "plain", &table["limit"]).await;
            let polite = answer(&gateway.client, &format!("{backend}:{backend}-polite"), row, "adapter", &table["limit"]).await;
            assert_ne!(plain, polite);
            expected.push((row.clone(), plain, polite));
        }
        for number in 0..4_usize {
            let (client, expected, limit) = (gateway.client.clone(), expected.clone(), table["limit"].clone());
            clients.spawn(async move {
                for at in 0..expected.len() {
                    let (row, plain, polite) = &expected[(at + number) % expected.len()];
                    let polite_model = format!("{backend}-polite");
                    let (model, column, said) = match (at + number) % 2 {
                        0 => (backend, "plain", plain),
                        _ => (polite_model.as_str(), "adapter", polite),
                    };
                    assert_eq!(answer(&client, model, row, column, &limit).await, *said, "{model}: {}", row["message"]);
                }
            });
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// An adapter of another model is refused in words by whoever would run it, and the others serve on.
#[tokio::test(flavor = "multi_thread")]
async fn a_peft_adapter_of_another_model_is_refused() {
    let place = Place::new();
    let gateway = start(&place).await;
    let lora = repository().join("host/demo-model/lora");
    let mut bytes = fs::read(lora.join("adapter_model.safetensors")).unwrap();
    let places = (0..bytes.len() - 9).filter(|at| bytes[*at..].starts_with(b"layers.0.")).collect::<Vec<_>>();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 7] = b'9';
    }
    let strange = place.config().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("adapter_model.safetensors"), bytes).unwrap();
    fs::copy(lora.join("adapter_config.json"), strange.join("adapter_config.json")).unwrap();
    // What candle runs is held to its base's safetensors before it is loaded.
    place.write("models/strange.toml", "base = \"candle\"\nbackend = \"candle\"\nartifact = \"strange\"\n");
    let quarantined = gateway.reload().await["quarantined"].clone();
    let reason = quarantined[0]["reason"].as_str().unwrap();
    assert_eq!((&quarantined[0]["file"], quarantined.as_array().unwrap().len()), (&json!("models/strange.toml"), 1));
    assert!(reason.contains("layers.9.") && reason.contains("not in the base"), "{reason}");
    // What ONNX Runtime runs is held to the graph as it is loaded.
    place.write("models/strange.toml", "base = \"onnx\"\nbackend = \"onnx\"\nartifact = \"strange\"\n");
    let reason = gateway.reload().await["quarantined"][0]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("layers.9.") && reason.contains("the graph has no product"), "{reason}");
    // llama.cpp takes no folder.
    place.write("models/strange.toml", "base = \"llama\"\nbackend = \"llama\"\nartifact = \"strange\"\n");
    let reason = gateway.reload().await["quarantined"][0]["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("is one file")), "{reason}");
    let table = table();
    for (backend, ..) in BACKENDS {
        answer(&gateway.client, &format!("{backend}-polite"), &table["rows"][1], "adapter", &table["limit"]).await;
    }
}
