//! Who is let in: nobody without a valid key, through no spelling of any path, and with a key what it is for (P-A1, P-A5).

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Answer, Client, Gateway, Place};

use crate::support::{JSON, add_key};

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
const LONG_AGO: &str = "2020-01-01T00:00:00Z";

/// The paths of the dump that need a key, with a model that is there.
async fn private_paths(gateway: &Gateway) -> Vec<String> {
    let dump = gateway.admin(&["routes"]).await;
    let paths = dump["paths"].as_array().unwrap();
    let public =
        paths.iter().filter(|path| path["public"] == true).map(|path| path["path"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(public, ["/health", "/ready"], "the public list is this and no longer");
    let private = paths.iter().filter(|path| path["public"] != true);
    private.map(|path| path["path"].as_str().unwrap().replace("{*id}", "scripted")).collect()
}

/// Other ways to write a path, itself first.
fn spellings(path: &str) -> Vec<String> {
    let (parent, last) = path.rsplit_once('/').unwrap();
    vec![
        path.to_owned(),
        format!("/{path}"),
        format!("{parent}//{last}"),
        format!("{parent}/%2f{last}"),
        format!("/%2f{}", path.trim_start_matches('/')),
        format!("{parent}/./{last}"),
        format!("/health/..{path}"),
        format!("/health/%2e%2e{path}"),
        format!("/health;{path}"),
        path.to_uppercase(),
        format!("{path}/"),
        format!("{path};x"),
        format!("{path}?key=x"),
        format!("{path}%20"),
        format!("{path}%00"),
        format!("{path}.json"),
    ]
}

fn overrides() -> [Vec<(&'static str, &'static str)>; 4] {
    [
        Vec::new(),
        vec![("x-http-method-override", "GET"), ("x-http-method", "POST"), ("x-method-override", "POST")],
        vec![("x-original-url", "/health"), ("x-rewrite-url", "/health"), ("x-forwarded-path", "/ready")],
        vec![("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1"), ("x-probe", "admin"), ("cookie", "admin=1")],
    ]
}

/// Every method and spelling of `path`; headers that are meant to change the request come with the path as it is.
async fn knock(client: Client, path: String, code: &'static str) -> usize {
    let mut knocks = 0;
    for (at, spelling) in spellings(&path).into_iter().enumerate() {
        for method in METHODS {
            for headers in overrides().iter().take(if at == 0 { 4 } else { 1 }) {
                let answer = client.send(method, &spelling, headers, b"").await;
                let status = answer.status.as_u16();
                assert!(
                    matches!(status, 400 | 401 | 403 | 404 | 405),
                    "{method} {spelling} {headers:?}: {status} {}",
                    answer.text()
                );
                // Who asks comes before what is there: whatever could be read at all is answered alike.
                if status != 400 {
                    assert_eq!(status, 401, "{method} {spelling} {headers:?}");
                    assert_eq!(answer.header("www-authenticate"), "Bearer");
                    assert!(method == "HEAD" || answer.code() == code, "{method} {spelling}: {}", answer.text());
                }
                knocks += 1;
            }
        }
    }
    knocks
}

#[tokio::test(flavor = "multi_thread")]
async fn no_door_is_open_without_a_key() {
    let place = Place::new();
    let expired = add_key(&place, "expired", &["--expires", LONG_AGO]).await;
    let gateway = place.start().await;
    let mut tasks = JoinSet::new();
    for path in private_paths(&gateway).await {
        for (key, code) in
            [("", "missing_key"), ("tg-not-a-key-of-this-gateway", "invalid_api_key"), (expired.as_str(), "expired_key")]
        {
            tasks.spawn(knock(gateway.client.with_key(key), path.clone(), code));
        }
    }
    let knocks = tasks.join_all().await.into_iter().sum::<usize>();
    assert_eq!(knocks, 3 * 6 * (spellings("/a").len() + 3) * METHODS.len());
    // The same with a key that is good: it is not the test that is at the wrong door.
    assert_eq!(gateway.client.get("/v1/models").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_another_model_finds_none() {
    let place = Place::new();
    let other = add_key(&place, "other", &["--model", "another"]).await;
    let gateway = place.start().await;
    let client = gateway.client.with_key(&other);
    assert_eq!(client.get("/v1/models").await.json()["data"], json!([]));
    for path in ["/v1/models/scripted", "/v1/models/%73cripted", "/v1/models/another"] {
        let answer = client.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "model_not_found"), "{path}");
    }
    // That a model is there and that it is not are the same answer, word for word but for the name.
    let there = client.chat("scripted", "say a", Value::Null).await;
    let nowhere = client.chat("nowhere1", "say a", Value::Null).await;
    assert_eq!((there.status.as_u16(), there.code().as_str()), (404, "model_not_found"));
    assert_eq!(there.status, nowhere.status);
    assert_eq!(there.text().replace("scripted", "NAME"), nowhere.text().replace("nowhere1", "NAME"));
    let body = br#"{"model":"scripted","messages":[{"role":"user","content":"say a"}]}"#;
    for path in private_paths(&gateway).await {
        for spelling in spellings(&path).into_iter().filter(|spelling| !spelling.starts_with("/v1/models?")) {
            for method in METHODS {
                let answer = client.send(method, &spelling, &[JSON], body).await;
                let is_list = spelling == "/v1/models" && matches!(method, "GET" | "HEAD");
                assert!(is_list || answer.status.is_client_error(), "{method} {spelling}: {}", answer.status);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_apply_at_once() {
    let place = Place::new();
    let gateway = place.start().await;
    let status_of = async |secret: &str| {
        gateway.reload().await;
        let answer = gateway.client.with_key(secret).chat("scripted", "say a", Value::Null).await;
        (answer.status.as_u16(), if answer.status == StatusCode::OK { String::new() } else { answer.code() })
    };
    let good = (200, String::new());
    let secret = add_key(&place, "x", &[]).await;
    assert_eq!(status_of(&secret).await, good);
    let held = std::fs::read_to_string(place.config().join("keys/x.toml")).unwrap();
    assert!(!held.contains(&secret), "the secret is in the config");

    place.write("keys/x.toml", &format!("{held}expires = {LONG_AGO:?}\n"));
    assert_eq!(status_of(&secret).await, (401, "expired_key".to_owned()));
    place.write("keys/x.toml", &format!("{held}disabled = true\n"));
    assert_eq!(status_of(&secret).await, (401, "revoked_key".to_owned()));
    place.write("keys/x.toml", &held);
    assert_eq!(status_of(&secret).await, good);
    // A key file that is cut short leaves its key as it was, and the other keys too.
    place.write("keys/x.toml", &held[..held.len() / 2]);
    assert_eq!(status_of(&secret).await, good);
    assert_eq!(gateway.client.get("/v1/models").await.status, StatusCode::OK);
    place.remove("keys/x.toml");
    assert_eq!(status_of(&secret).await, (401, "invalid_api_key".to_owned()));
    // Keys are no part of a generation.
    assert_eq!(gateway.admin(&["status"]).await["generation"], 1);
}

async fn ask(client: &Client, headers: &[(&str, &str)]) -> Answer {
    client.send("GET", "/v1/models", headers, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authenticator_that_fails_lets_nobody_in() {
    let place = Place::new();
    place.plugin("probe", "probe", "grants = [\"log\"]\n");
    // The second one would know the key; the first one's failure comes before.
    place.write("listeners/main.toml", "address = \"127.0.0.1:0\"\nauthenticators = [\"probe\", \"auth-keys\"]\n");
    let gateway = place.start().await;
    for command in ["trap", "loop", "grow"] {
        for client in [&gateway.client, &gateway.client.with_key("")] {
            let answer = ask(client, &[("x-probe", command)]).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "plugin_failed"), "{command}");
        }
        assert_eq!(ask(&gateway.client, &[]).await.status, StatusCode::OK, "after {command}");
    }
    assert_eq!(ask(&gateway.client, &[("x-probe", "refuse")]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&gateway.client.with_key(""), &[]).await.code(), "missing_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_authenticator_a_listener_stays_as_it_was() {
    let place = Place::new();
    let gateway = place.start().await;
    let nobody = gateway.client.with_key("");
    let is_shut = async || {
        let status = gateway.reload().await;
        assert_eq!(status["state"], "degraded", "{status}");
        assert_eq!(status["generation"], 1);
        assert_eq!(nobody.get("/v1/models").await.code(), "missing_key");
        assert_eq!(gateway.client.get("/v1/models").await.status, StatusCode::OK);
        status["quarantined"].clone()
    };
    // Its plugin is gone.
    let spec = std::fs::read_to_string(place.config().join("plugins/auth-keys.toml")).unwrap();
    place.remove("plugins/auth-keys.toml");
    assert_eq!(is_shut().await[0]["file"], "listeners/main.toml");
    // Its component is.
    place.write("plugins/auth-keys.toml", "component = \"not-there.wasm\"\ngrants = [\"credentials\", \"log\"]\n");
    assert_eq!(is_shut().await[0]["file"], "plugins/auth-keys.toml");
    // Its plugin authenticates nobody.
    place.write("plugins/auth-keys.toml", "component = \"builtin:filter-pii\"\n");
    assert_eq!(is_shut().await[0]["file"], "listeners/main.toml");
    place.write("plugins/auth-keys.toml", &spec);
    assert_eq!(gateway.reload().await["state"], "ok");

    // From the beginning there is no gateway at all.
    let bare = Place::new();
    bare.remove("plugins/auth-keys.toml");
    let log = bare.start_fails().await;
    assert!(log.contains("there is no plugin `auth-keys`"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_authenticators_is_no_listener() {
    let place = Place::new();
    place.write("listeners/main.toml", "address = \"127.0.0.1:0\"\nauthenticators = []\n");
    let log = place.start_fails().await;
    assert!(log.contains("listeners/main.toml:2:") && log.contains("authenticators"), "{log}");
}
