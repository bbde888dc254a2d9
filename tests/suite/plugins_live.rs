//! Plugins on a route of a running gateway: what they let pass, what they refuse, and what becomes of a request when one is ended.

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::Place;

use crate::support::Stream;

const MODEL: &str = "scripted";

/// The probe on the route, with more lines for its file.
fn place(rest: &str) -> Place {
    let place = Place::new();
    place.plugin("probe", "probe", &format!("grants = [\"log\"]\n{rest}"));
    place.write("routes/chat.toml", "plugins = [\"probe\"]\n");
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_passes_answers_and_refuses() {
    let place = place("[config]\nword = \"pear\"\n");
    let gateway = place.start().await;
    let client = &gateway.client;
    assert_eq!(client.chat(MODEL, "say hello", Value::Null).await.content(), "hello");
    assert_eq!(client.chat(MODEL, "config", Value::Null).await.content(), "pear");
    assert_eq!(Stream::open(client, MODEL, "answer in its place", Value::Null).await.rest().await.content, "in its place");

    let refused = client.chat(MODEL, "refuse", Value::Null).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "probe_refused"));
    assert_eq!(refused.json()["error"]["message"], "The probe was told to refuse.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_plugin_refuses_its_request_alone() {
    let place = place("");
    let gateway = place.start().await;
    for command in ["trap", "loop", "grow"] {
        let failed = gateway.client.chat(MODEL, command, Value::Null).await;
        assert_eq!((failed.status, failed.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "plugin_failed"), "{command}");
        assert!(!failed.header("retry-after").is_empty(), "{command}");
        // P-E11: a client does not hear which policy, nor how.
        assert!(!failed.text().contains("probe") && !failed.text().contains("wasm"), "{}", failed.text());
        let next = gateway.client.chat(MODEL, "say on", Value::Null).await;
        assert_eq!(next.status, StatusCode::OK, "after {command}: {}", next.text());
        assert_eq!(next.content(), "on");
    }
    // The operator hears it all, once per failure.
    let log = place.log();
    assert_eq!(log.lines().filter(|line| line.contains("plugin failed")).count(), 3, "{log}");
    let slots = gateway.admin(&["status"]).await["plugin_slots"].clone();
    assert_eq!(slots["free"], slots["total"], "an instance is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_may_be_skipped_is_skipped() {
    let place = place("on_failure = \"skip\"\n");
    let gateway = place.start().await;
    for command in ["trap", "loop", "grow"] {
        let answer = gateway.client.chat(MODEL, command, Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.content(), format!("You said: {command}"));
    }
    // A refusal is a decision and no failure.
    assert_eq!(gateway.client.chat(MODEL, "refuse", Value::Null).await.code(), "probe_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hooks_of_a_request_share_their_memory_and_two_requests_do_not() {
    let place = Place::new();
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n[config]\nrestore = true\n");
    place.write("routes/chat.toml", "plugins = [\"filter-pii\"]\n");
    let gateway = place.start().await;
    // What the prompt's hook took out, the reply's hook puts back: only it knows what the mask stood for.
    let text = "say write to nama.saya77@example.com soon";
    let told = Stream::open(&gateway.client, MODEL, text, Value::Null).await.rest().await;
    assert_eq!(told.content, "write to nama.saya77@example.com soon");
    let told = Stream::open(&gateway.client, MODEL, "say write to [EMAIL_1] soon", Value::Null).await.rest().await;
    assert_eq!(told.content, "write to [EMAIL_1] soon");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_init_serves_many_requests_and_no_two_see_the_same_entropy() {
    let place = place("");
    let gateway = place.start().await;
    let mut connection = gateway.client.connect().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        assert_eq!(connection.chat(MODEL, "inits", Value::Null).await.content(), "1");
        assert!(seen.insert(connection.chat(MODEL, "entropy", Value::Null).await.content()), "drawn twice");
    }
    assert_eq!(seen.len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_that_is_not_granted_is_named_with_the_line_to_add() {
    let place = Place::new();
    let gateway = place.start().await;
    place.plugin("probe", "probe", "");
    let status = gateway.reload().await;
    assert_eq!(status["state"], "degraded");
    let quarantined = &status["quarantined"][0];
    assert_eq!(quarantined["file"], "plugins/probe.toml");
    assert_eq!(quarantined["stage"], "check");
    let reason = quarantined["reason"].as_str().unwrap();
    assert!(reason.contains("grants = [\"log\"]") && reason.contains("plugins/probe.toml"), "{reason}");
    assert_eq!(gateway.client.chat(MODEL, "say on", Value::Null).await.content(), "on");

    // The line that it names mends it.
    place.plugin("probe", "probe", "grants = [\"log\"]\n");
    let status = gateway.reload().await;
    assert_eq!(status["state"], "ok");
    assert_eq!(status["quarantined"], json!([]));
}
