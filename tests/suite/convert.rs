//! Safetensors that become GGUF when they are installed (B10): the same model under the same name, served by llama.cpp.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use http::StatusCode;
use serde_json::{Value, json};
use tollgate_tests::{Place, program, repository};

fn demo(name: &str) -> PathBuf {
    repository().join("host/demo-model").join(name)
}

async fn run(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap()
}

/// `tollgate model` in a place, as JSON.
async fn model(place: &Place, arguments: &[&str]) -> Output {
    let (data, config) = (place.data(), place.config());
    let mut all = vec!["model"];
    all.extend(arguments);
    all.extend(["--json", "--data", data.to_str().unwrap()]);
    if arguments[0] == "import" {
        all.extend(["--unsigned", "--config", config.to_str().unwrap()]);
    }
    run(&all).await
}

async fn good(place: &Place, arguments: &[&str]) -> Value {
    let output = model(place, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn bad(place: &Place, arguments: &[&str]) -> String {
    let output = model(place, arguments).await;
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The bytes of each character that byte-level vocabularies spell bytes with.
fn byte_of(character: char) -> u8 {
    let printed = |byte: &u8| matches!(*byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => byte,
        Err(_) => (0..=u8::MAX).filter(|byte| !printed(byte)).nth(usize::try_from(code - 256).unwrap()).unwrap(),
    }
}

/// What token ids say, by the demo model's own tokenizer.
fn words(vocabulary: &BTreeMap<u64, String>, ids: &Value) -> String {
    let ids = ids.as_array().unwrap().iter().map(|id| &vocabulary[&id.as_u64().unwrap()]);
    String::from_utf8(ids.flat_map(|word| word.chars().map(byte_of)).collect()).unwrap()
}

/// A copy of the demo model's folder.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(demo("hf")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn safetensors_are_served_as_gguf_with_the_same_greedy_tokens() {
    let place = Place::new();
    let hf = demo("hf");
    for how in ["f16", "q8_0", "q4_k_m"] {
        let name = how.replace('_', "-");
        let installed = good(&place, &["import", text(&hf), "--name", &name, "--convert", how]).await;
        assert_eq!((&installed["format"], &installed["architecture"]), (&json!("gguf"), &json!("llama")), "{installed}");
        assert_eq!((&installed["current"], &installed["converted"]["report"]["quantization"]), (&json!(true), &json!(how)));
        assert!(installed["probe"]["tokens"].as_u64().unwrap() > 1, "{installed}");
        assert_eq!(installed["config"], format!("backend = \"llama\"\nartifact = \"installed:{name}\"\n"));
        let shown = good(&place, &["show", &name]).await;
        let from = installed["converted"]["from"].as_str().unwrap();
        assert_eq!(shown["manifest"]["source"], format!("converted from {from} to {how}"));
        assert_eq!((&shown["manifest"]["name"], &shown["signed_by"]), (&json!(name), &Value::Null));
        place.write(&format!("models/{name}.toml"), installed["config"].as_str().unwrap());
    }
    let list = good(&place, &["list"]).await;
    assert!(list.as_array().unwrap().iter().all(|entry| entry["format"] == "gguf" && entry["current"] == true), "{list}");
    assert_eq!(list.as_array().unwrap().len(), 3, "what they were made of is gone: {list}");
    assert_eq!(good(&place, &["verify"]).await["good"], json!(true));

    let gateway = place.start().await;
    let tokenizer = json_of(&hf.join("tokenizer.json"));
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let vocabulary = vocabulary.iter().map(|(word, id)| (id.as_u64().unwrap(), word.clone())).collect::<BTreeMap<_, _>>();
    let table = json_of(&demo("exports.json"));
    for row in table["rows"].as_array().unwrap() {
        let message = row["message"].as_str().unwrap();
        let answer = gateway.client.chat("f16", message, json!({ "temperature": 0, "max_tokens": table["limit"] })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.content(), words(&vocabulary, &row["plain"]), "{message}");
        assert_eq!(answer.json()["usage"]["completion_tokens"], row["plain"].as_array().unwrap().len(), "{message}");
    }
    for name in ["q8-0", "q4-k-m"] {
        let answer = gateway.client.chat(name, "What is Tollgate?", json!({ "temperature": 0, "max_tokens": 16 })).await;
        assert!(answer.status == StatusCode::OK && !answer.content().is_empty(), "{name}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_safetensors_is_the_operators_choice() {
    let place = Place::new();
    let hf = demo("hf");
    let kept = good(&place, &["import", text(&hf), "--name", "kept", "--convert", "none"]).await;
    assert_eq!((&kept["format"], &kept["converted"]), (&json!("safetensors"), &Value::Null));
    assert_eq!(kept["config"], "backend = \"candle\"\nartifact = \"installed:kept\"\n");
    place.write("models/kept.toml", kept["config"].as_str().unwrap());
    let again = good(&place, &["import", text(&hf), "--name", "kept"]).await;
    assert_eq!(again["format"], json!("safetensors"), "the config serves it as it is: {again}");

    // Nothing was said, so it is what fits; and what is current already is not taken away.
    place.remove("models/kept.toml");
    let auto = good(&place, &["import", text(&hf), "--name", "kept"]).await;
    assert_eq!((&auto["format"], &auto["previous"]), (&json!("gguf"), &kept["digest"]), "{auto}");
    let notes = auto["converted"]["report"]["notes"].to_string();
    assert!(notes.contains("100 million"), "{notes}");
    assert_eq!(good(&place, &["rollback", "kept"]).await["digest"], kept["digest"]);
}

/// B10: what safetensors become without a word on the command line is in the config, for one model and for all.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_safetensors_is_in_the_config() {
    let place = Place::new();
    let hf = demo("hf");
    place.write("tollgate.toml", "[models]\nstartup = \"lazy\"\nquantization = \"none\"\n");
    place.write("models/small.toml", "backend = \"llama\"\nartifact = \"installed:small\"\nquantization = \"q8_0\"\n");
    let small = good(&place, &["import", text(&hf), "--name", "small"]).await;
    assert_eq!((&small["format"], &small["converted"]["report"]["quantization"]), (&json!("gguf"), &json!("q8_0")), "{small}");
    let asked = good(&place, &["import", text(&hf), "--name", "asked", "--convert", "f16"]).await;
    assert_eq!(asked["converted"]["report"]["quantization"], json!("f16"), "the command has the last word: {asked}");
    let kept = good(&place, &["import", text(&hf), "--name", "kept"]).await;
    assert_eq!((&kept["format"], &kept["converted"]), (&json!("safetensors"), &Value::Null), "{kept}");

    // Whoever then has llama.cpp serve them hears of the command that converts them.
    place.write("models/kept.toml", "backend = \"llama\"\nartifact = \"installed:kept\"\nquantization = \"q8_0\"\n");
    let gateway = place.start().await;
    let models = gateway.admin(&["models"]).await;
    let error = models.as_array().unwrap().iter().find(|entry| entry["id"] == "kept").unwrap()["error"].to_string();
    assert!(error.contains("installed as safetensors") && error.contains("--convert auto"), "{error}");
    let answer = gateway.client.chat("small", "What is Tollgate?", json!({ "temperature": 0, "max_tokens": 16 })).await;
    assert!(answer.status == StatusCode::OK && !answer.content().is_empty(), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_whole_is_refused_by_name() {
    let place = Place::new();
    let folder = copy();
    let weights = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // Under the name of one that nobody needs a tensor is missing under its own.
    let (name, unneeded) = (b"model.layers.1.mlp.up_proj.weight", b"model.layer.1.rotary_emb.inv_freq");
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(unneeded);
    fs::write(&weights, bytes).unwrap();
    let said = bad(&place, &["import", text(folder.path()), "--name", "broken", "--convert", "q8_0"]).await;
    assert!(said.contains("could not be converted") && said.contains("`model.layers.1.mlp.up_proj.weight` is missing"), "{said}");
    assert!(said.contains("get the model again") && said.contains("tollgate model remove"), "{said}");
    let list = good(&place, &["list"]).await;
    assert!(list.as_array().unwrap().iter().all(|entry| entry["current"] == false), "{list}");

    // An architecture that llama.cpp has not: refused where a conversion was asked for, else kept as it is.
    let folder = copy();
    let config = folder.path().join("config.json");
    let mut changed = json_of(&config);
    changed["model_type"] = json!("mystery");
    fs::write(&config, changed.to_string()).unwrap();
    let said = bad(&place, &["import", text(folder.path()), "--name", "mystery", "--convert", "auto"]).await;
    assert!(said.contains("mystery") && said.contains("--convert none"), "{said}");
    let kept = good(&place, &["import", text(folder.path()), "--name", "mystery", "--no-probe"]).await;
    assert_eq!(kept["format"], json!("safetensors"));
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_become_gguf_for_their_base() {
    let place = Place::new();
    good(&place, &["import", text(&demo("demo-f16.gguf")), "--name", "base"]).await;
    let folder = demo("lora");
    let path = text(&folder);
    let adapter = good(&place, &["import", path, "--name", "polite", "--base", "base"]).await;
    assert_eq!((&adapter["format"], &adapter["converted"]["report"]["quantization"]), (&json!("lora-gguf"), &json!("unchanged")));
    assert_eq!(adapter["config"], "backend = \"llama\"\nartifact = \"installed:polite\"\nbase = \"base\"\n");
    assert_eq!(good(&place, &["show", "polite"]).await["manifest"]["base"], json!("base"));

    let kept = good(&place, &["import", path, "--name", "raw"]).await;
    assert_eq!((&kept["format"], &kept["config"]), (&json!("lora-peft"), &Value::Null));
    let said = bad(&place, &["import", path, "--name", "lost", "--convert", "auto"]).await;
    assert!(said.contains("--base"), "{said}");
    let said = bad(&place, &["import", path, "--name", "lost", "--base", "nobody", "--convert", "auto"]).await;
    assert!(said.contains("nobody"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_converted_without_being_installed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.gguf");
    let (hf, lora) = (demo("hf"), demo("lora"));
    let arguments = ["model", "convert", text(&hf), text(&out), "--quantization", "q4_k_m", "--json"];
    let output = run(&arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["report"]["bytes"], fs::metadata(&out).unwrap().len());
    let output = run(&arguments).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists already"), "{output:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary is left");

    let adapter = folder.path().join("lora.gguf");
    let base = ["model", "convert", text(&lora), text(&adapter), "--json"];
    let output = run(&base).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("--base"), "{output:?}");
    let output = run(&[&base[..], &["--base", text(&hf)]].concat()).await;
    assert!(output.status.success() && adapter.exists(), "{}", String::from_utf8_lossy(&output.stderr));
}
