//! The demo model's weights in every format: the same greedy tokens through every backend (B3), as `host/demo-model/exports.json` has
//! them from a reference of its own.

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::{Gateway, Place, repository};

/// A gateway with the same weights, f16, behind each backend.
async fn start(place: &Place) -> Gateway {
    let demo = repository().join("host/demo-model");
    let runtime = repository().join("target/onnxruntime/libonnxruntime.so");
    place.write("tollgate.toml", &format!("[models]\nonnxruntime = {:?}\n", runtime.display().to_string()));
    for (backend, artifact) in [("llama", "demo-f16.gguf"), ("candle", "hf"), ("onnx", "onnx")] {
        let artifact = demo.join(artifact).display().to_string();
        place.write(
            &format!("models/{backend}.toml"),
            &format!("backend = {backend:?}\nartifact = {artifact:?}\nsequences = 4\n"),
        );
    }
    place.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_greedy_tokens_through_every_backend() {
    let place = Place::new();
    let gateway = start(&place).await;
    let table = std::fs::read_to_string(repository().join("host/demo-model/exports.json")).unwrap();
    let table = serde_json::from_str::<Value>(&table).unwrap();
    let rows = table["rows"].as_array().unwrap();
    assert!(rows.len() >= 20);
    for row in rows {
        let message = row["message"].as_str().unwrap();
        let mut texts = Vec::new();
        for backend in ["llama", "candle", "onnx"] {
            let more = json!({ "temperature": 0, "max_tokens": table["limit"] });
            let answer = gateway.client.chat(backend, message, more).await;
            assert_eq!(answer.status, StatusCode::OK, "{backend}: {}", answer.text());
            let usage = &answer.json()["usage"];
            assert_eq!(usage["prompt_tokens"], row["prompt"].as_array().unwrap().len(), "{backend}: {message}");
            assert_eq!(usage["completion_tokens"], row["plain"].as_array().unwrap().len(), "{backend}: {message}");
            texts.push(answer.content());
        }
        assert!(!texts[0].is_empty() && texts.iter().all(|text| *text == texts[0]), "{message}: {texts:?}");
    }
}
