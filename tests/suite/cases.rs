//! Golden cases: a plugin that fails its own does not serve, and `tollgate plugin test` says the same as the gateway.

use std::fs;

use serde_json::{Value, json};
use tollgate_tests::{Place, plugin_file};

use crate::support::tollgate;

const MODEL: &str = "scripted";

const PASSES: &str = "[[case]]\nname = \"it answers\"\nrequest.text = \"answer hi\"\nfilter-prompt.answer = \"hi\"\n";
const FAILS: &str = "[[case]]\nname = \"it whispers\"\nrequest.text = \"answer hi\"\nfilter-prompt.answer = \"psst\"\n";

/// The probe with a file of cases inside.
fn probe_with(cases: &str) -> Vec<u8> {
    let name = "tollgate:cases/probe.toml";
    let content = [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), cases.as_bytes()].concat();
    let size = [u8::try_from(content.len() & 127).unwrap() | 128, u8::try_from(content.len() >> 7).unwrap()];
    [fs::read(plugin_file("probe")).unwrap(), vec![0], size.to_vec(), content].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_its_cases_does_not_serve() {
    let place = Place::new();
    let component = place.config().join("probe.wasm");
    let config = |word: &str| {
        format!("component = {:?}\ngrants = [\"log\"]\n[config]\nword = \"{word}\"\n", component.display().to_string())
    };
    fs::write(&component, probe_with(PASSES)).unwrap();
    place.write("plugins/probe.toml", &config("one"));
    place.write("routes/chat.toml", "plugins = [\"probe\"]\n");
    let gateway = place.start().await;
    assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), "one");
    let plugins = gateway.admin(&["plugins"]).await;
    let probe = plugins.as_array().unwrap().iter().find(|plugin| plugin["id"] == "probe").unwrap();
    assert_eq!(probe["cases"], 1);

    fs::write(&component, probe_with(&format!("{PASSES}{FAILS}"))).unwrap();
    place.write("plugins/probe.toml", &config("two"));
    let status = gateway.reload().await;
    assert_eq!(status["state"], "degraded", "{status}");
    let quarantined = &status["quarantined"][0];
    assert_eq!((&quarantined["file"], &quarantined["stage"]), (&json!("plugins/probe.toml"), &json!("cases")));
    let reason = "the case `it whispers` (probe.toml:5) failed: filter-prompt.answer: expected \"psst\", got \"hi\"";
    assert_eq!(quarantined["reason"], reason);
    assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), "one");

    fs::write(&component, probe_with(PASSES)).unwrap();
    let status = gateway.reload().await;
    assert_eq!((&status["state"], &status["quarantined"]), (&json!("ok"), &json!([])));
    assert_eq!(gateway.client.chat(MODEL, "config", Value::Null).await.content(), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_test_runs_the_cases_of_a_component_or_a_folder() {
    let place = Place::new();
    let folder = place.data().join("hush");
    fs::create_dir_all(folder.join("cases")).unwrap();
    let (component, cases) = (folder.join("hush.wasm"), folder.join("cases"));
    let run = async |arguments: &[&str]| {
        let output = tollgate(&[&["plugin", "test"], arguments].concat()).await;
        (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (at_folder, at_component) = (folder.to_str().unwrap(), component.to_str().unwrap());

    let (success, said) = run(&[at_folder]).await;
    assert!(!success && said.contains("has no component (*.wasm); build it there, or name it"), "{said}");
    fs::copy(plugin_file("probe"), &component).unwrap();
    let (success, said) = run(&[at_component]).await;
    assert!(!success && said.contains("there are no cases: name their folder"), "{said}");
    fs::write(cases.join("a.toml"), PASSES).unwrap();
    let (success, said) = run(&[at_folder]).await;
    assert!(success && said == "1 of 1 cases passed, on 1 instances\n", "{said}");

    // Packed, it brings them along; packed again, it would bring them twice.
    let packed = place.data().join("packed.wasm");
    let pack = async |from: &str| {
        let cases = cases.to_str().unwrap();
        tollgate(&["plugin", "pack", from, "--cases", cases, "--out", packed.to_str().unwrap()]).await
    };
    assert!(pack(at_component).await.status.success());
    let (success, said) = run(&[packed.to_str().unwrap()]).await;
    assert!(success && said == "1 of 1 cases passed, on 1 instances\n", "{said}");
    let said = String::from_utf8(pack(packed.to_str().unwrap()).await.stderr).unwrap();
    assert!(said.contains("it has cases already"), "{said}");

    fs::write(cases.join("b.toml"), FAILS).unwrap();
    let (success, said) = run(&[at_component, "--cases", cases.to_str().unwrap()]).await;
    let told = "FAILED it whispers (b.toml:1)\n  filter-prompt.answer\n    expected \"psst\"\n    got      \"hi\"\n1 of 2 cases passed, ";
    assert!(!success && said.starts_with(told), "{said}");
    let (success, said) = run(&[at_folder, "--filter", "answers", "--json"]).await;
    let said = serde_json::from_str::<Value>(&said).unwrap();
    assert!(success && said == json!({ "cases": 1, "instances": 1, "failures": [], "unfinished": 0 }), "{said}");
    fs::write(cases.join("b.toml"), "[[case]]\nnmae = \"x\"\n").unwrap();
    let (success, said) = run(&[at_folder]).await;
    assert!(!success && said.contains("b.toml:2:1: unknown key `nmae`; did you mean `name`?"), "{said}");

    // What ships inside the binary brings its cases along.
    let (success, said) = run(&[plugin_file("auth-keys").to_str().unwrap()]).await;
    assert!(success, "{said}");
}
