//! Models that are measured once on a machine: what is found is kept, used, ignored where it is damaged, and left alone where the
//! config says so.

use std::path::{Path, PathBuf};

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::Place;

use crate::support::tollgate;

const USED: &str = "as it was measured on this machine";
const DAMAGED: &str = "is damaged and ignored";

/// A place with the built-in model and `more` in its file.
fn place(more: &str) -> Place {
    let place = Place::new();
    place.write("models/demo.toml", &format!("backend = \"llama\"\nartifact = \"builtin:demo\"\nsequences = 4\n{more}"));
    place
}

async fn tune(place: &Place, name: &str) -> std::process::Output {
    let (config, data) = (place.config().display().to_string(), place.data().display().to_string());
    tollgate(&["model", "tune", name, "--json", "--seconds", "2", "--config", &config, "--data", &data]).await
}

/// What was measured, and the file that it is kept in.
async fn tuned(place: &Place) -> (Value, PathBuf) {
    let output = tune(place, "demo").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("measuring `demo` for 2 s") && said.contains("prompt "), "{said}");
    let value = serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let file = PathBuf::from(value["file"].as_str().unwrap());
    assert!(file.starts_with(place.data().canonicalize().unwrap().join("models/tune")), "{}", file.display());
    assert_eq!(file.file_stem().unwrap().to_str(), value["digest"].as_str());
    (value, file)
}

/// A gateway's answer, and what it logged.
async fn served(place: &Place) -> String {
    let before = place.log().len();
    let mut gateway = place.start().await;
    let answer = gateway.client.chat("demo", "Hello", json!({ "temperature": 0, "max_tokens": 8 })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    gateway.signal("TERM");
    gateway.ended().await;
    place.log().split_off(before)
}

fn kept(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_kept_and_used() {
    let place = place("");
    let log = served(&place).await;
    assert!(!log.contains(USED), "a small model is not measured unless it is asked for: {log}");
    assert!(!place.data().join("models/tune").exists());

    let (value, file) = tuned(&place).await;
    assert_eq!(value["used"], true);
    let table = value["report"]["table"].as_array().unwrap();
    assert!(!table.is_empty());
    for row in table {
        for figure in ["prompt_tps", "decode_tps", "decode4_tps"] {
            assert!(row[figure].as_f64().is_some_and(|figure| figure.is_finite() && figure > 0.0), "{row}");
        }
    }
    assert_eq!(kept(&file)["outcome"]["Ok"]["chosen"], value["report"]["chosen"]);

    let log = served(&place).await;
    assert!(log.contains(USED) && !log.contains(DAMAGED), "{log}");
    std::fs::write(&file, "{\"schema\":").unwrap();
    let log = served(&place).await;
    assert!(!log.contains(USED) && log.contains(DAMAGED), "{log}");
    tuned(&place).await;
    assert!(served(&place).await.contains(USED));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_config_says_comes_first() {
    let place = place("threads = 2\n");
    place.write("tollgate.toml", "[models]\ntune = false\n");
    let (value, file) = tuned(&place).await;
    assert_eq!(value["used"], false);
    let table = value["report"]["table"].as_array().unwrap();
    assert!(table.iter().all(|row| row["threads"] == 2), "{value}");
    assert_eq!(kept(&file)["has_threads"], false);
    let log = served(&place).await;
    assert!(!log.contains(USED), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_said() {
    let place = place("deterministic = true\n");
    let artifact = tollgate_tests::repository().join("host/demo-model/demo-f16.gguf").display().to_string();
    place.write("models/vectors.toml", &format!("backend = \"llama\"\nartifact = {artifact:?}\ntask = \"embed\"\n"));
    for (name, words) in [
        ("demo", "deterministic = true"),
        ("scripted", "only models of the backend `llama` that generate are tuned"),
        ("vectors", "only models of the backend `llama` that generate are tuned"),
        ("absent", "there are: demo, scripted, vectors"),
    ] {
        let output = tune(&place, name).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{name}: {said}");
    }
}
