//! Changes of the config while requests run: none of them fails, and what is wrong leaves the last good state serving (P-U1, P-U3).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate_tests::{Client, Gateway, Place, plugin_file, write_as};

use crate::support::{tollgate, until};

const MODEL: &str = "scripted";
const RELOADS: usize = 50;
const CONNECTIONS: usize = 8;

/// Which words the answers of each generation held.
type Seen = BTreeMap<u64, BTreeSet<String>>;

/// The probe's file with a word, which is a build of its own.
fn probe(word: &str) -> String {
    probe_of(&plugin_file("probe"), &format!("word = {word:?}"))
}

fn probe_of(component: &Path, config: &str) -> String {
    format!("component = {:?}\ngrants = [\"log\"]\n[config]\n{config}\n", component.display().to_string())
}

fn route(max_tokens: usize) -> String {
    format!("plugins = [\"probe\"]\n[limits]\nmax_tokens = {max_tokens}\n")
}

/// A gateway whose answers to `config` are its probe's word.
async fn start(place: &Place, word: &str) -> Gateway {
    place.write("plugins/probe.toml", &probe(word));
    place.write("routes/chat.toml", &route(1_000));
    place.start().await
}

/// Asks without end, on one connection, until it is told to stop.
async fn load(client: Client, stop: Arc<AtomicBool>) -> (usize, Seen) {
    let mut connection = client.connect().await;
    let (mut answers, mut seen) = (0, Seen::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.chat(MODEL, "config", Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "after {answers} answers: {}", answer.text());
        let generation = answer.header("x-tollgate-generation").parse().unwrap();
        seen.entry(generation).or_default().insert(answer.content());
        answers += 1;
        // A pace, so that builds get their share of a small machine.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (answers, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_under_load_fail_no_request() {
    let place = Place::new();
    let gateway = start(&place, "w0").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        tasks.spawn(load(gateway.client.clone(), Arc::clone(&stop)));
    }

    let mut words = BTreeMap::from([(1, "w0".to_owned())]);
    let (mut word, mut builds) = ("w0".to_owned(), 0);
    for number in 1..=RELOADS {
        // Two in five are builds; the writer's style changes each time, so that every style meets both.
        if number % 5 < 2 {
            word = format!("w{number}");
            builds += 1;
            write_as(number, &place, "plugins/probe.toml", &probe(&word), number);
        } else {
            write_as(number, &place, "routes/chat.toml", &route(1_000 + number), number);
        }
        let status = gateway.reload().await;
        assert_eq!(status["state"], "ok", "{number}: {status}");
        words.insert(status["generation"].as_u64().unwrap(), word.clone());
        // What the operator is told is what serves.
        let routes = gateway.admin(&["routes"]).await;
        let expected = (1..=number).rev().find(|number| number % 5 >= 2).map_or(1_000, |number| 1_000 + number);
        assert_eq!(routes["routes"][0]["max_tokens"], expected, "{number}");
        assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), word, "{number}");
    }
    assert_eq!((builds, words.len()), (20, RELOADS + 1));

    stop.store(true, Ordering::Relaxed);
    let (mut answers, mut seen) = (0, Seen::new());
    while let Some(load) = tasks.join_next().await {
        let (count, part) = load.unwrap();
        answers += count;
        for (generation, words) in part {
            seen.entry(generation).or_default().extend(words);
        }
    }
    assert!(answers >= RELOADS * CONNECTIONS, "{answers} answers are no load");
    for (generation, held) in &seen {
        assert_eq!(held.len(), 1, "generation {generation} said {held:?}");
        // A generation between two that were asked for holds the change of the later one.
        if let Some(word) = words.get(generation) {
            assert!(held.contains(word), "generation {generation} has {word} and said {held:?}");
        }
    }
    assert!(seen.len() > RELOADS / 2, "only {} generations were seen", seen.len());
    until("old generations are gone", || async { gateway.reload().await["live_generations"] == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_noticed_without_being_told() {
    // P-U2.
    let place = Place::new();
    let gateway = start(&place, "one").await;
    for (number, style) in (0..6).enumerate() {
        let word = format!("style{style}");
        write_as(style, &place, "plugins/probe.toml", &probe(&word), number);
        until("the change serves", || async { gateway.client.chat(MODEL, "config", Value::Null).await.content() == word }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_goes_into_quarantine_and_the_last_good_one_serves() {
    let place = Place::new();
    place.write("tollgate.toml", "[reload]\npoll_s = 1\ndebounce_ms = 20\n[build]\ntime_s = 4\n");
    let gateway = start(&place, "good").await;
    let whole = fs::read(plugin_file("probe")).unwrap();
    let cut = place.data().join("cut.wasm");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let text = place.data().join("text.wasm");
    fs::write(&text, "not a component").unwrap();
    let good = probe("good");

    let cases = [
        (probe_of(&plugin_file("probe"), "fail = \"no luck today\""), "init", "no luck today"),
        (probe_of(&plugin_file("probe"), "wrod = \"x\""), "init", "wrod"),
        (probe_of(&plugin_file("probe"), "init = \"trap\""), "init", "trapped"),
        (probe_of(&plugin_file("probe"), "init = \"loop\""), "init", "time"),
        (probe_of(&plugin_file("probe"), "init = \"grow\""), "init", "memory"),
        (probe_of(&plugin_file("probe-of-another-world"), ""), "check", "another world"),
        (probe_of(&cut, ""), "check", ""),
        (probe_of(&text, ""), "check", ""),
        (probe_of(&place.data().join("missing.wasm"), ""), "check", "missing.wasm"),
        (good[..good.len() - 4].to_owned(), "config", "plugins/probe.toml:4:"),
        (String::new(), "config", ""),
    ];
    for (number, (file, stage, reason)) in cases.into_iter().enumerate() {
        write_as(1, &place, "plugins/probe.toml", &file, number);
        let status = gateway.reload().await;
        assert_eq!(status["state"], "degraded", "{file}: {status}");
        let quarantined = &status["quarantined"][0];
        assert_eq!(quarantined["file"], "plugins/probe.toml", "{status}");
        assert_eq!(quarantined["stage"], stage, "{status}");
        assert!(quarantined["reason"].as_str().is_some_and(|text| !text.is_empty() && text.contains(reason)), "{status}");
        if stage != "config" {
            assert_eq!(quarantined["last_good"].as_str().map(str::len), Some(64), "{status}");
        }
        let health = gateway.client.with_key("").get("/health").await;
        assert_eq!((health.status, health.json()), (StatusCode::OK, json!({ "status": "degraded" })));
        assert_eq!(gateway.client.get("/ready").await.status, StatusCode::OK);
        assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), "good");

        write_as(1, &place, "plugins/probe.toml", &good, number);
        let status = gateway.reload().await;
        assert_eq!((status["state"].as_str(), &status["quarantined"]), (Some("ok"), &json!([])), "after {file}");
        assert_eq!(gateway.client.get("/health").await.json(), json!({ "status": "ok" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_that_a_build_goes_on() {
    let place = Place::new();
    place.write("tollgate.toml", "[build]\ntime_s = 4\n");
    let gateway = start(&place, "good").await;
    assert_eq!(gateway.admin(&["status"]).await["building_ms"], Value::Null);
    // It takes the time that a build may take.
    place.write("plugins/probe.toml", &probe_of(&plugin_file("probe"), "init = \"loop\""));
    let (status, ()) = tokio::join!(
        gateway.reload(),
        until("a build is told", || async { gateway.admin(&["status"]).await["building_ms"].is_u64() })
    );
    assert_eq!((&status["state"], &status["building_ms"]), (&json!("degraded"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_written_anew_is_built_anew() {
    let place = Place::new();
    let component = place.config().join("probe.wasm");
    let whole = fs::read(plugin_file("probe")).unwrap();
    fs::write(&component, &whole).unwrap();
    place.write("plugins/probe.toml", &probe_of(&component, "word = \"here\""));
    place.write("routes/chat.toml", &route(1_000));
    let gateway = place.start().await;

    // Half a component while it is being copied is no reason to stop.
    fs::write(&component, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(gateway.reload().await["state"], "degraded");
    assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), "here");
    fs::write(&component, &whole).unwrap();
    assert_eq!(gateway.reload().await["state"], "ok");
    assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), "here");
}

/// P-U2: what a plugin's author builds lies elsewhere, and is noticed as well. The poll, which would find it, is an hour away.
#[tokio::test(flavor = "multi_thread")]
async fn a_component_outside_of_the_config_is_noticed() {
    let (place, folder) = (Place::new(), tempfile::tempdir().unwrap());
    let component = folder.path().join("probe.wasm");
    let mut bytes = fs::read(plugin_file("probe")).unwrap();
    fs::write(&component, &bytes).unwrap();
    place.write("tollgate.toml", "[reload]\npoll_s = 3600\n");
    place.write("plugins/probe.toml", &probe_of(&component, "word = \"here\""));
    place.write("routes/chat.toml", &route(1_000));
    let gateway = place.start().await;
    let generation =
        || async { gateway.client.chat(MODEL, "config", Value::Null).await.header("x-tollgate-generation").to_owned() };
    assert_eq!(generation().await, "1");

    // The first look after the start may find the first change; the second is for the watcher alone.
    for number in ["2", "3"] {
        // An empty custom section makes it another component. It is renamed into place, as linkers do.
        bytes.extend([0, 2, 1, b'x']);
        fs::write(folder.path().join("new"), &bytes).unwrap();
        fs::rename(folder.path().join("new"), &component).unwrap();
        until("the component is built", || async { generation().await == number }).await;
    }
}

/// P-U2: where links lead is noticed, though nothing in the config directory itself changes. The poll is an hour away.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_elsewhere_is_noticed() {
    let place = Place::new();
    place.write("tollgate.toml", "[reload]\npoll_s = 3600\n");
    write_as(5, &place, "plugins/probe.toml", &probe("w0"), 0);
    place.write("routes/chat.toml", &route(1_000));
    let (config, first, second) = (place.config(), place.data().join("first"), place.data().join("second"));
    fs::rename(&config, &first).unwrap();
    symlink(&first, &config).unwrap();
    let gateway = place.start().await;
    let says = |word: String| {
        let client = &gateway.client;
        async move { client.chat(MODEL, "config", Value::Null).await.content() == word }
    };
    // As Kubernetes does it, but for the volume, which is outside of the config directory.
    for number in 1..=3 {
        let word = format!("w{number}");
        write_as(5, &place, "plugins/probe.toml", &probe(&word), number);
        until("the new target is served", || says(word.clone())).await;
    }
    // The config directory is another one, with a file of its own in the link's place, and what changes in that is noticed.
    assert!(Command::new("cp").arg("-a").args([&first, &second]).status().unwrap().success());
    let own = second.join("plugins/probe.toml");
    fs::remove_file(&own).unwrap();
    fs::write(&own, probe("w4")).unwrap();
    let next = place.data().join("next");
    symlink(&second, &next).unwrap();
    fs::rename(next, &config).unwrap();
    until("the other directory is served", || says("w4".to_owned())).await;
    fs::write(&own, probe("w5")).unwrap();
    until("what changes there is served", || says("w5".to_owned())).await;

    // The folder of plugins is a link from now on, and what is in it is another link.
    let (policies, versions) = (place.data().join("policies"), place.data().join("versions"));
    fs::rename(second.join("plugins"), &policies).unwrap();
    fs::create_dir(&versions).unwrap();
    for word in ["w6", "w7"] {
        fs::write(versions.join(word), probe(word)).unwrap();
    }
    fs::remove_file(policies.join("probe.toml")).unwrap();
    symlink("../versions/current", policies.join("probe.toml")).unwrap();
    symlink("w6", versions.join("current")).unwrap();
    symlink(&policies, second.join("plugins")).unwrap();
    until("the linked folder is served", || says("w6".to_owned())).await;
    symlink("w7", versions.join("next")).unwrap();
    fs::rename(versions.join("next"), versions.join("current")).unwrap();
    until("the second link is followed", || says("w7".to_owned())).await;
}

#[tokio::test]
async fn check_finds_files_that_are_not_there() {
    let place = Place::new();
    place.write("plugins/gone.toml", &probe_of(&place.data().join("gone.wasm"), ""));
    let output = tollgate(&["check", "--config", place.config().to_str().unwrap()]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    let told = format!("error: plugins/gone.toml: component: {}: No such file", place.data().join("gone.wasm").display());
    assert!(!output.status.success() && said.contains(&told), "{said}");
}

/// A backend with a bug: its requests get an answer, the gateway says that it is not well, and the model comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_died_is_loaded_again() {
    let place = Place::new();
    place.write("tollgate.toml", "[reload]\npoll_s = 1\n");
    let gateway = place.start().await;
    for state in ["ok", "degraded"] {
        let mut connection = gateway.client.connect().await;
        let answer = connection.chat(MODEL, "panic", Value::Null).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        let client = &gateway.client;
        until("the model answers again", || async move {
            client.connect().await.chat(MODEL, "say back", Value::Null).await.status == StatusCode::OK
        })
        .await;
        assert_eq!(gateway.admin(&["status"]).await["state"], state);
        // The second time something else is in quarantine, which stands in nobody's way.
        place.write("plugins/probe.toml", &probe_of(&place.data().join("missing.wasm"), ""));
        assert_eq!(gateway.reload().await["state"], "degraded");
    }
}
