//! The first start, from nothing: what is written, what serves, what a second start finds, and what does not start at all.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::{Place, repository};

/// The files below `dir`, by their path in it.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)));
        } else {
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// The default config, but on a free port: tests run side by side.
fn default_place() -> Place {
    let place = Place::new();
    std::fs::remove_dir_all(place.config()).unwrap();
    for (name, text) in files(&repository().join("config")) {
        place.write(&name, &text.replace(r#"["127.0.0.1:8443", "[::1]:8443"]"#, r#""127.0.0.1:0""#));
    }
    place
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_config_is_written() {
    let place = Place::new();
    std::fs::remove_dir_all(place.config()).unwrap();
    // Nothing can be kept here, so that it does not go on to the ports of the default config, which may be taken.
    std::fs::write(place.data(), "").unwrap();
    let log = place.start_fails().await;
    assert!(log.contains(place.data().to_str().unwrap()), "{log}");
    assert_eq!(files(&place.config()), files(&repository().join("config")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_config_serves_the_demo_model() {
    let place = default_place();
    let gateway = place.start().await;

    // ggml's threads are the gateway's own (`host/backends/llama/src/openmp.rs`).
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", gateway.pid())).unwrap();
    assert!(maps.contains("libc.so") && !maps.contains("libgomp"), "{maps}");

    let nobody = gateway.client.with_key("");
    for (path, body) in [("/health", json!({ "status": "ok" })), ("/ready", json!({ "status": "ready" }))] {
        let answer = nobody.get(path).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, body));
    }
    assert_eq!(nobody.get("/v1/models").await.status, StatusCode::UNAUTHORIZED);

    let mut cached = Vec::new();
    for _ in 0..2 {
        let answer = gateway.client.chat("demo", "What is Tollgate?", json!({ "max_tokens": 60, "temperature": 0 })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert!(!answer.content().trim().is_empty(), "{}", answer.text());
        assert_eq!(answer.header("x-tollgate-model-digest").len(), 64);
        let usage = answer.json()["usage"].clone();
        let count = |name: &str| usage[name].as_u64().unwrap();
        assert!(count("prompt_tokens") > 0 && (1..=60).contains(&count("completion_tokens")), "{usage}");
        assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"), "{usage}");
        let reused = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(reused < count("prompt_tokens"), "{usage}");
        cached.push(reused);
    }
    assert_eq!(cached[0], 0);
    assert!(cached[1] > 0, "the second prompt finds the first one's beginning");

    decides(&gateway.client.chat("decision", "Should I rent or buy a small office?", json!({ "max_tokens": 4_000 })).await);
}

/// E2's object, or a clear word that the model did not get there.
fn decides(answer: &tollgate_tests::Answer) {
    if answer.status != StatusCode::OK {
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "incomplete"), "{}", answer.text());
        return;
    }
    let decision = serde_json::from_str::<Value>(&answer.content()).unwrap();
    let analysis = &decision["analysis"];
    assert!(analysis["situation"].is_array(), "{decision}");
    for option in analysis["options"].as_array().unwrap() {
        for name in ["option", "pros", "cons", "timeline"] {
            assert!(option.get(name).is_some(), "{decision}");
        }
    }
    let recommendation = &analysis["recommendation"];
    for name in ["primary", "reasoning"] {
        assert!(recommendation.get(name).is_some(), "{decision}");
    }
    assert!(recommendation["next_steps"].is_array(), "{decision}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_what_the_first_one_made() {
    let place = Place::new();
    let mut gateway = place.start().await;
    let (key, ca) = (place.data().join("admin.key"), place.data().join("tls/ca.pem"));
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(&place.data()), 0o700);
    let made = [&key, &ca].map(|path| std::fs::read(path).unwrap());

    // Beside a running gateway there is no second one with its data.
    let log = place.start_fails().await;
    assert!(log.contains("a gateway with this data directory is running"), "{log}");
    assert_eq!(gateway.client.get("/health").await.status, StatusCode::OK);

    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
    let again = place.start().await;
    assert_eq!([&key, &ca].map(|path| std::fs::read(path).unwrap()), made);
    // A client that knew the first one needs nothing new but the port.
    assert_eq!(again.client.get("/v1/models").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_config_does_not_start_and_says_how_to_mend_it() {
    let place = Place::new();
    place.write("listeners/main.toml", "authenticators = [\"auth-keys\"]\nadress = \"127.0.0.1:0\"\n");
    place.write("routes/chat.toml", "plugins = [\"filter-pi\"]\n");
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    let log = place.start_fails().await;
    assert!(log.contains("listeners/main.toml:2:1: "), "{log}");
    assert!(log.contains("did you mean `address`?"), "{log}");
    assert!(log.contains("routes/chat.toml:1:"), "{log}");
    assert!(log.contains("did you mean `filter-pii`?"), "{log}");
}
