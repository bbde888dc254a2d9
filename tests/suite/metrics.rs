//! What `/metrics` answers: the right counts, for those who may see them, under names that the documents and the dashboard know, and
//! no series that a client could make (P-E9, P-A8).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tollgate_tests::{Gateway, Place, repository};

use crate::support::{Stream, add_key, tollgate, until};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PREFIXES: [&str; 4] = ["tollgate_", "http_", "gen_ai_", "process_"];

/// What a scrape has.
struct Scraped {
    /// Every series with its value.
    series: BTreeMap<String, f64>,
    /// Every metric with its type.
    types: BTreeMap<String, String>,
}

impl Scraped {
    async fn of(gateway: &Gateway) -> Scraped {
        let answer = gateway.client.get("/metrics").await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, TEXT), "{}", answer.text());
        Scraped::read(&answer.text())
    }

    fn read(text: &str) -> Scraped {
        let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} is there twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(series.insert(name.to_owned(), value.parse().expect(line)), None, "{name} is there twice");
            }
        }
        Scraped { series, types }
    }

    /// The sum of all series of `name` whose labels hold all of `labels`, each as `name="value"`.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let is_it = |series: &str| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| rest.contains(label))
        };
        self.series.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
    }

    /// The names of all series.
    fn names(&self) -> BTreeSet<String> {
        self.series.keys().cloned().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted() {
    let place = Place::new();
    place.write("plugins/pii.toml", "component = \"builtin:filter-pii\"\n");
    place.write("routes/chat.toml", "plugins = [\"pii\"]\n");
    let gateway = place.start().await;
    let client = &gateway.client;
    for _ in 0..3 {
        assert_eq!(client.chat("scripted", "count 20", Value::Null).await.status, 200);
    }
    assert_eq!(client.chat("nowhere", "say a", Value::Null).await.status, 404);
    assert_eq!(client.with_key("").get("/v1/models").await.status, 401);
    drop(Stream::open(client, "scripted", "forever", json!({})).await);

    let chats = ["http_route=\"/v1/chat/completions\"", "http_request_method=\"POST\"", "url_scheme=\"https\""];
    let ended = ["error_type=\"cancelled\""];
    until("the one that left is counted", async || {
        let now = Scraped::of(&gateway).await;
        now.sum("gen_ai_server_request_duration_seconds_count", &ended) == 1.0
            && now.sum("http_server_request_duration_seconds_count", &chats) == 5.0
    })
    .await;
    let now = Scraped::of(&gateway).await;
    let model = "gen_ai_request_model=\"scripted\"";
    assert_eq!(now.sum("gen_ai_server_request_duration_seconds_count", &[model, "error_type=\"\""]), 3.0);
    assert_eq!(now.sum("gen_ai_server_time_to_first_token_seconds_count", &[model]), 3.0);
    assert_eq!(now.sum("gen_ai_server_time_per_output_token_seconds_count", &[model]), 3.0);
    assert_eq!(now.sum("gen_ai_client_token_usage_count", &[model, "\"output\""]), 4.0);
    assert_eq!(now.sum("tollgate_model_queue_duration_seconds_count", &["model=\"scripted\""]), 4.0);
    assert_eq!(now.sum("tollgate_refusals_total", &["kind=\"not-found\""]), 1.0);
    assert_eq!(now.sum("tollgate_refusals_total", &["kind=\"unauthenticated\""]), 1.0);
    assert_eq!(now.sum("tollgate_refusals_total", &["kind=\"blocked\""]), 0.0);
    let screened = ["plugin=\"pii\"", "hook=\"filter-prompt\"", "outcome=\"ok\""];
    assert_eq!(now.sum("tollgate_plugin_call_duration_seconds_count", &screened), 4.0);
    assert!(now.sum("gen_ai_client_token_usage_sum", &["\"output\""]) >= 60.0);
    assert!(now.sum("tollgate_model_decoded_tokens_total", &[]) >= 60.0);
    for (name, value) in [("tollgate_ready", 1.0), ("tollgate_generation", 1.0), ("tollgate_model_alive", 1.0)] {
        assert_eq!(now.sum(name, &[]), value, "{name}");
    }
    assert!(now.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(now.sum("tollgate_certificate_expiry_timestamp_seconds", &["listener=\"main\""]) > 1.7e9);
    // A histogram counts up to its count, and its last bucket is all.
    for (name, count) in now.series.iter().filter(|(name, _)| name.contains("le=\"+Inf\"")) {
        let total = name.replace("_bucket{", "_count{").replace(",le=\"+Inf\"", "").replace("{le=\"+Inf\"}", "");
        assert_eq!(now.series.get(&total), Some(count), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_kill_are_counted() {
    let place = Place::new();
    place.plugin("probe", "probe", "grants = [\"log\"]\n");
    place.write("listeners/main.toml", "address = \"127.0.0.1:0\"\nauthenticators = [\"probe\", \"auth-keys\"]\n");
    let gateway = place.start().await;
    assert_eq!(gateway.client.send("GET", "/v1/models", &[("x-probe", "trap")], b"").await.status, 503);
    place.write("routes/broken.toml", "plugins = [\"nobody\"]\n");
    gateway.reload().await;
    let now = Scraped::of(&gateway).await;
    assert_eq!(now.sum("tollgate_plugin_kills_total", &["plugin=\"probe\"", "reason=\"trap\""]), 1.0);
    assert_eq!(now.sum("tollgate_plugin_call_duration_seconds_count", &["plugin=\"probe\"", "outcome=\"killed\""]), 1.0);
    assert!(now.sum("tollgate_reloads_total", &["outcome=\"failed\""]) >= 1.0);
    assert!(now.sum("tollgate_quarantined", &[]) >= 1.0);
    place.remove("routes/broken.toml");
    place.write("routes/other.toml", "plugins = []\nmodel = \"scripted\"\n[match]\nmodel = \"other\"\n");
    gateway.reload().await;
    let now = Scraped::of(&gateway).await;
    assert_eq!(now.sum("tollgate_quarantined", &[]), 0.0);
    let reloads = now.sum("tollgate_reloads_total", &["\"ok\""]);
    assert!(reloads >= 1.0);
    assert_eq!(now.sum("tollgate_generation", &[]), 1.0 + reloads);
    // The plugin did not change, so that what was counted of it stays.
    assert_eq!(now.sum("tollgate_plugin_kills_total", &["plugin=\"probe\"", "reason=\"trap\""]), 1.0);
}

/// P-E9: whatever clients say, there are no more series than before, and nothing of theirs is in any (P-A8).
#[tokio::test(flavor = "multi_thread")]
async fn clients_make_no_series() {
    let place = Place::new();
    let gateway = place.start().await;
    let storm = async |from: usize| {
        for n in from..from + 60 {
            let mut connection = gateway.client.connect().await;
            let (path, name) = (format!("/canary{n}/x?canary={n}"), format!("canary-{n}"));
            connection.send("GET", &path, &[("user-agent", &name)], b"").await;
            connection.send("GET", &format!("/v1/models/{name}"), &[], b"").await;
            connection.send(&format!("CANARY{n}"), "/v1/models", &[], b"").await;
            connection.chat(&name, "my canary secret", json!({ "user": name })).await;
            connection.chat("scripted", "say canary", json!({ "user": name })).await;
            gateway.client.with_key(&format!("tg-canary-{n}")).get("/v1/models").await;
        }
        Scraped::of(&gateway).await
    };
    // A series is made by the first request of its kind, and a scrape is a request too.
    Scraped::of(&gateway).await;
    let before = storm(0).await.names();
    let after = storm(1_000).await.names();
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(after.len() < 1_500, "{} series", after.len());
    let canaries = after.iter().filter(|name| name.to_lowercase().contains("canary")).collect::<Vec<_>>();
    assert!(canaries.is_empty(), "{canaries:?}");
}

/// P-E9, P-A1: who has no key for it sees nothing, and on a listener that others can reach there is nothing to see.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_who_may_see_them() {
    let place = Place::new();
    let chat = add_key(&place, "chat", &[]).await;
    let scraper = add_key(&place, "scraper", &["--scope", "metrics"]).await;
    let gateway = place.start().await;
    let status_of = async |key: &str| gateway.client.with_key(key).get("/metrics").await.status.as_u16();
    assert_eq!((status_of("").await, status_of(&chat).await, status_of(&scraper).await), (401, 403, 200));
    assert_eq!(gateway.client.with_key(&scraper).chat("scripted", "say a", Value::Null).await.status, 403);
    let data = place.data();
    let output = tollgate(&["metrics", "--data", data.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    let admin = Scraped::read(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(admin.names(), Scraped::of(&gateway).await.names());

    let public = Place::new();
    public.write("listeners/main.toml", "address = \"0.0.0.0:0\"\nauthenticators = [\"auth-keys\"]\n");
    let gateway = public.start().await;
    assert_eq!(gateway.client.get("/v1/models").await.status, 200);
    let answer = gateway.client.get("/metrics").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown_url"));

    // Behind a proxy of this machine, others come by way of loopback.
    let proxied = Place::new();
    let listener = "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    proxied.write("listeners/main.toml", listener);
    assert_eq!(proxied.start().await.client.get("/metrics").await.status, 404);
}

/// The metrics and the labels that a query names.
fn names_in(query: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let mut are_labels = false;
    // What is quoted is a value.
    for part in query.split('"').step_by(2).flat_map(|bare| bare.split_inclusive(['{', '}', '(', ')'])) {
        let words = part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        if are_labels {
            labels.extend(words);
        } else {
            metrics.extend(words.filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix))));
        }
        // A quoted value divides the braces that it stands in.
        are_labels = part.ends_with('{') || part.ends_with("by (") || (are_labels && !part.ends_with(['}', ')']));
    }
    (metrics, labels)
}

#[test]
fn a_query_is_taken_apart() {
    let query = r#"sum by (le, hook) (rate(tollgate_x_bucket{instance=~"$instance", a="tollgate_y"}[5m])) / http_z"#;
    let (metrics, labels) = names_in(query);
    assert_eq!(metrics.into_iter().collect::<Vec<_>>(), ["http_z", "tollgate_x_bucket"]);
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["a", "hook", "instance", "le"]);
}

/// Every `expr` and every variable's query of a dashboard.
fn queries(dashboard: &Value, found: &mut Vec<String>) {
    match dashboard {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "definition" => found.push(text.to_owned()),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

/// What Prometheus stores of a metric.
fn stored(types: &BTreeMap<String, String>) -> BTreeSet<String> {
    let suffixes = |kind: &str| if kind == "histogram" { vec!["_bucket", "_sum", "_count"] } else { vec![""] };
    types.iter().flat_map(|(name, kind)| suffixes(kind).into_iter().map(move |suffix| format!("{name}{suffix}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_document_name_what_there_is() {
    let place = Place::new();
    let gateway = place.start().await;
    let now = Scraped::of(&gateway).await;
    let stored = stored(&now.types);

    let text = std::fs::read_to_string(repository().join("deploy/grafana/tollgate.json")).unwrap();
    let mut all = Vec::new();
    queries(&serde_json::from_str(&text).unwrap(), &mut all);
    assert!(all.len() > 40, "{}", all.len());
    let document = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    for query in &all {
        let (metrics, labels) = names_in(query);
        assert!(!metrics.is_empty(), "{query}");
        for metric in metrics {
            assert!(stored.contains(metric), "{metric} does not exist: {query}");
        }
        for label in labels.iter().filter(|label| !["le", "instance"].contains(*label)) {
            assert!(document.contains(&format!("`{label}`")), "the label {label} does not exist: {query}");
        }
    }

    // The document has a row for each metric, and none for another.
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented = rows.filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix))).collect::<BTreeSet<_>>();
    assert_eq!(documented, now.types.keys().map(String::as_str).collect::<BTreeSet<_>>());
}
