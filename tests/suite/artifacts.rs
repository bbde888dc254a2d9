//! Models that come and go through `tollgate model`: nothing unverified is used, nothing that crashes a library reaches the
//! gateway, and a gateway serves what is current (P-M4, P-M8, P-M9, P-M11, P-U4).

mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_tests::{Gateway, Place, program, repository};

use self::server::Server;
use crate::support::until;

/// Length of a part that a download keeps.
const PART: usize = 8 << 20;

/// How a command ended.
struct Ran {
    is_good: bool,
    out: Value,
    said: String,
}

fn command(arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program());
    // The server of a test is on this machine.
    command.args(arguments).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Ran {
    let output = command(arguments).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let out = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    Ran { is_good: output.status.success(), out, said }
}

/// `tollgate model` in a place, as JSON.
async fn model(place: &Place, arguments: &[&str]) -> Ran {
    let (data, config) = (place.data(), place.config());
    let mut all = vec!["model"];
    all.extend(arguments);
    all.extend(["--json", "--data", data.to_str().unwrap()]);
    if matches!(arguments[0], "import" | "pull") {
        all.extend(["--config", config.to_str().unwrap()]);
    }
    run(&all).await
}

/// The same where it has to go well; answers what it printed.
async fn good(place: &Place, arguments: &[&str]) -> Value {
    let ran = model(place, arguments).await;
    assert!(ran.is_good, "{arguments:?}: {}", ran.said);
    ran.out
}

/// The same where it has to fail; answers what it complained of.
async fn bad(place: &Place, arguments: &[&str]) -> String {
    let ran = model(place, arguments).await;
    assert!(!ran.is_good, "{arguments:?}: {}", ran.out);
    ran.said
}

fn demo() -> Vec<u8> {
    fs::read(repository().join("host/demo-model/demo.gguf")).unwrap()
}

/// Where `text` ends in a header.
fn after(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() + text.len()
}

/// The demo model with another name in its header.
fn named(letter: u8) -> Vec<u8> {
    let mut bytes = demo();
    // The key is followed by a type of 4 bytes and a length of 8, then the text.
    let at = after(&bytes, "general.name") + 12;
    bytes[at] = letter;
    bytes
}

/// The demo model with the two dimensions of a tensor exchanged: its header is in order, and llama.cpp cannot use it.
fn turned() -> Vec<u8> {
    let mut bytes = demo();
    // The name is followed by the number of dimensions, 4 bytes, and the dimensions of 8.
    let at = after(&bytes, "blk.0.attn_k.weight") + 4;
    let (first, second) = bytes[at..at + 16].split_at_mut(8);
    first.swap_with_slice(second);
    bytes
}

/// The demo model with a weight that is not a number.
fn not_numbers() -> Vec<u8> {
    // With q8_0 what is computed is rounded to bytes on its way, which are always numbers.
    let mut bytes = fs::read(repository().join("host/demo-model/demo-f16.gguf")).unwrap();
    let number = |at: usize| usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    // One dimension, the type, then the offset; the data begins after the last tensor's, which has two dimensions.
    let offset = number(after(&bytes, "output_norm.weight") + 4 + 8 + 4);
    let data = (after(&bytes, "blk.2.ffn_down.weight") + 4 + 16 + 4 + 8).next_multiple_of(32);
    bytes[data + offset..data + offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    bytes
}

/// The demo model with 12 MiB in its header that nobody needs.
fn bulky() -> Vec<u8> {
    let mut bytes = demo();
    let key = "general.ballast";
    let ballast = (12 << 20) - (8 + key.len() + 4 + 4 + 8);
    let mut entry = (key.len() as u64).to_le_bytes().to_vec();
    entry.extend(key.as_bytes());
    // An array of bytes.
    entry.extend(9u32.to_le_bytes());
    entry.extend(0u32.to_le_bytes());
    entry.extend((ballast as u64).to_le_bytes());
    entry.resize(12 << 20, 7);
    let keys = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + 1;
    bytes[16..24].copy_from_slice(&keys.to_le_bytes());
    bytes.splice(24..24, entry);
    bytes
}

/// A folder with one file in it; answers its path, too.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn import(place: &Place, bytes: &[u8], more: &[&str]) -> Value {
    let (_folder, path) = file("model.gguf", bytes);
    let mut arguments = vec!["import", text(&path), "--unsigned", "--name", "demo2"];
    arguments.extend(more);
    good(place, &arguments).await
}

/// Makes a key; answers its public half and its id.
async fn key(path: &Path) -> (String, String) {
    let made = run(&["model", "key", text(path), "--json"]).await.out;
    (made["public_key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

fn trust(place: &Place, key: &str) {
    place.write("tollgate.toml", &format!("[models]\ntrusted_keys = [{key:?}]\n"));
}

/// P-M11: a flipped byte is found, and the same import mends it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_is_listed_shown_and_verified() {
    let place = Place::new();
    assert_eq!(good(&place, &["list"]).await, json!([]));
    let demo = repository().join("host/demo-model/demo.gguf");
    let said = bad(&place, &["import", text(&demo), "--name", "demo2"]).await;
    assert!(said.contains("[models] unsigned = true in tollgate.toml") && said.contains("--unsigned"), "{said}");
    assert_eq!(good(&place, &["list"]).await, json!([]));

    let installed = good(&place, &["import", text(&demo), "--name", "demo2", "--unsigned"]).await;
    let digest = installed["digest"].as_str().unwrap().to_owned();
    assert_eq!((&installed["current"], &installed["architecture"]), (&json!(true), &json!("llama")));
    assert_eq!((&installed["signed_by"], &installed["gateway"]), (&Value::Null, &Value::Null));
    assert!(installed["probe"]["tokens"].as_u64().unwrap() > 1, "{installed}");
    assert_eq!(installed["config"], "backend = \"llama\"\nartifact = \"installed:demo2\"\n");
    let list = good(&place, &["list"]).await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((&list[0]["name"], &list[0]["digest"], &list[0]["current"]), (&json!("demo2"), &json!(digest), &json!(true)));
    for which in ["demo2", digest.as_str()] {
        let shown = good(&place, &["show", which]).await;
        assert_eq!(shown["manifest"]["files"][0]["sha256"], json!(digest));
        assert_eq!(shown["names"], json!([{ "name": "demo2", "state": "current" }]));
    }
    assert_eq!(good(&place, &["verify"]).await["good"], json!(true));

    let blob = place.data().join("models/cache/blobs").join(&digest);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[2_000_000] ^= 1;
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, bytes).unwrap();
    for arguments in [&["verify"][..], &["verify", "demo2"]] {
        let verified = model(&place, arguments).await;
        assert!(!verified.is_good);
        let damaged = &verified.out["versions"][0]["damaged"][0];
        assert!(damaged["path"] == "demo.gguf" && damaged["why"].as_str().unwrap().contains(&digest), "{}", verified.out);
    }
    good(&place, &["import", text(&demo), "--name", "demo2", "--unsigned"]).await;
    assert_eq!(good(&place, &["verify", "demo2"]).await["good"], json!(true));
    let said = bad(&place, &["show", "nobody"]).await;
    assert!(said.contains("tollgate model list"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_switched_and_removed() {
    let place = Place::new();
    let first = import(&place, &named(b'A'), &[]).await["digest"].clone();
    let second = import(&place, &named(b'B'), &["--no-activate"]).await;
    assert_eq!((&second["version"], &second["current"]), (&json!(2), &json!(false)));
    let second = second["digest"].clone();
    assert_eq!(good(&place, &["show", "demo2"]).await["digest"], first);
    let switched = good(&place, &["activate", "demo2"]).await;
    assert_eq!((&switched["digest"], &switched["previous"]), (&second, &first));
    assert_eq!(good(&place, &["rollback", "demo2"]).await["digest"], first);
    assert_eq!(good(&place, &["rollback", "demo2"]).await["digest"], second);
    let back = good(&place, &["activate", "demo2", first.as_str().unwrap(), "--no-probe"]).await;
    assert_eq!((&back["digest"], &back["previous"]), (&first, &second));

    let said = bad(&place, &["remove", "demo2"]).await;
    assert!(said.contains("is current") && said.contains("--force"), "{said}");
    let removed = good(&place, &["remove", second.as_str().unwrap()]).await;
    assert_eq!(removed["removed"], json!([second]));
    assert!(removed["freed_bytes"].as_u64().unwrap() > 1 << 20);
    let said = bad(&place, &["rollback", "demo2"]).await;
    assert!(said.contains("no version to go back to"), "{said}");
    good(&place, &["remove", "demo2", "--force"]).await;
    assert_eq!(good(&place, &["list"]).await, json!([]));
    let said = bad(&place, &["activate", "demo2"]).await;
    assert!(said.contains("no model `demo2` is installed"), "{said}");
}

/// P-M8: what a trusted key has signed is taken, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn signed_models_are_taken_from_those_who_are_trusted() {
    let place = Place::new();
    let (folder, path) = file("model.gguf", &named(b'S'));
    let (own, other) = (folder.path().join("own.pem"), folder.path().join("other.pem"));
    let ((public, id), (stranger, _)) = (key(&own).await, key(&other).await);
    assert_eq!(key(&own).await.0, public, "a key that is there is shown");
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    let zip = folder.path().join("model.zip");
    let mut pack =
        vec!["model", "pack", text(&path), "--name", "signed", "--version", "7", "--json", "--check-prompt", "Who are you?"];
    pack.extend(["--key", text(&own), "--expires-days", "30", "--out", text(&zip)]);
    let packed = run(&pack).await;
    assert!(packed.is_good && packed.out["signed"] == true, "{}", packed.said);
    let reply = packed.out["check"]["reply"].as_str().unwrap().to_owned();
    assert!(!reply.is_empty());

    let said = bad(&place, &["import", text(&zip)]).await;
    assert!(said.contains("[models] trusted_keys"), "{said}");
    trust(&place, &stranger);
    let said = bad(&place, &["import", text(&zip), "--unsigned"]).await;
    assert!(said.contains("none of the trusted keys"), "{said}");
    trust(&place, &public);
    let installed = good(&place, &["import", text(&zip)]).await;
    assert_eq!((&installed["name"], &installed["version"]), (&json!("signed"), &json!(7)));
    assert_eq!((&installed["signed_by"], &installed["digest"]), (&json!(id), &packed.out["digest"]));
    assert_eq!(installed["probe"]["reply"], json!(reply));

    // The next version says in its manifest what it does not say.
    let mut pack = vec!["model", "pack", text(&path), "--name", "signed", "--version", "8", "--json", "--in-place"];
    pack.extend(["--check-prompt", "Who are you?"]);
    assert!(run(&pack).await.is_good);
    let manifest = folder.path().join("manifest.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    changed["check"]["reply"] = json!("I am somebody else entirely.");
    fs::write(&manifest, changed.to_string()).unwrap();
    let said = bad(&place, &["import", text(folder.path())]).await;
    assert!(said.contains("not signed"), "{said}");
    let said = bad(&place, &["import", text(folder.path()), "--unsigned"]).await;
    assert!(said.contains("somebody else") && said.contains("known answer"), "{said}");
}

/// P-M4: what llama.cpp cannot use, or computes nonsense with, is found in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_model_reaches_neither_current_nor_the_gateway() {
    let place = Place::new();
    let mut gateway = place.start().await;
    let pid = gateway.pid();
    for (bytes, words) in [(turned(), "attn_k"), (not_numbers(), "not a number")] {
        let (_folder, path) = file("model.gguf", &bytes);
        let said = bad(&place, &["import", text(&path), "--unsigned", "--name", "hostile"]).await;
        assert!(said.contains("failed when it was tried") && said.contains(words), "{said}");
        let said = bad(&place, &["activate", "hostile"]).await;
        assert!(said.contains(words), "{said}");
        assert_eq!(gateway.client.chat("scripted", "say here", Value::Null).await.content(), "here");
    }
    let list = good(&place, &["list"]).await;
    assert!(list.as_array().unwrap().iter().all(|entry| entry["current"] == false), "{list}");
    assert_eq!((gateway.pid(), gateway.admin(&["status"]).await["state"].clone()), (pid, json!("ok")));
    gateway.signal("TERM");
    assert!(gateway.ended().await.success());
}

async fn digest_of_reply(gateway: &Gateway) -> String {
    let answer = gateway.client.chat("demo2", "What is Tollgate?", json!({ "temperature": 0, "max_tokens": 8 })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.header("x-tollgate-model-digest").to_owned()
}

/// P-U4: what is current serves, from the moment that it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_serves_what_is_current() {
    let place = Place::new();
    let first = import(&place, &named(b'A'), &[]).await["digest"].clone();
    place.write("models/demo2.toml", "backend = \"llama\"\nartifact = \"installed:demo2\"\n");
    let gateway = place.start().await;
    assert_eq!(json!(digest_of_reply(&gateway).await), first);
    let second = import(&place, &named(b'B'), &["--no-activate"]).await["digest"].clone();
    assert_eq!(json!(digest_of_reply(&gateway).await), first);
    let switched = good(&place, &["activate", "demo2", second.as_str().unwrap()]).await;
    assert_eq!(switched["gateway"]["quarantined"], json!([]), "{switched}");
    assert_eq!(json!(digest_of_reply(&gateway).await), second);
    good(&place, &["rollback", "demo2"]).await;
    assert_eq!(json!(digest_of_reply(&gateway).await), first);
    let third = import(&place, &named(b'C'), &[]).await;
    assert!(third["gateway"]["generation"].as_u64().unwrap() > 1, "{third}");
    assert_eq!(json!(digest_of_reply(&gateway).await), third["digest"]);
}

/// A folder with a manifest, and a repository in the hub's layout.
#[tokio::test(flavor = "multi_thread")]
async fn models_are_pulled_from_folders_and_hubs() {
    let (place, server) = (Place::new(), Server::start());
    let (folder, path) = file("model.gguf", &named(b'P'));
    let own = folder.path().join("own.pem");
    let (public, id) = key(&own).await;
    trust(&place, &public);
    let pack = ["model", "pack", text(&path), "--name", "pulled", "--key", text(&own), "--in-place", "--json"];
    let packed = run(&pack).await.out;
    for name in ["manifest.json", "manifest.json.sig", "model.gguf"] {
        server.put(&format!("/m/{name}"), fs::read(folder.path().join(name)).unwrap());
    }
    let pulled = good(&place, &["pull", &server.url("/m/")]).await;
    assert_eq!((&pulled["name"], &pulled["signed_by"]), (&json!("pulled"), &json!(id)));
    assert_eq!((&pulled["digest"], &pulled["current"]), (&packed["digest"], &json!(true)));

    let hub = server.url("");
    let list = |digest: &Value| {
        let lfs = json!({ "oid": digest, "size": named(b'P').len() });
        json!([{ "type": "file", "path": "tiny.gguf", "size": named(b'P').len(), "lfs": lfs }]).to_string().into_bytes()
    };
    server.put("/o/n/resolve/main/tiny.gguf", named(b'P'));
    server.put("/api/models/o/n/tree/main", list(&json!("0".repeat(64))));
    let said = bad(&place, &["pull", "o/n", "--hub", &hub]).await;
    assert!(said.contains("[models] unsigned = true") && server.sent("/o/n/resolve/main/tiny.gguf") == 0, "{said}");
    let said = bad(&place, &["pull", "o/n", "--hub", &hub, "--unsigned"]).await;
    assert!(said.contains("is announced"), "{said}");
    server.put("/api/models/o/n/tree/main", list(&packed["digest"]));
    let pulled = good(&place, &["pull", "o/n", "--hub", &hub, "--unsigned"]).await;
    assert_eq!((&pulled["name"], &pulled["digest"]), (&json!("tiny"), &packed["digest"]));
    let said = bad(&place, &["pull", "o/missing", "--hub", &hub, "--unsigned"]).await;
    assert!(said.contains("does not exist"), "{said}");
}

/// P-M9: a pull that was killed goes on at the last whole part of 8 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_goes_on_where_it_ended() {
    let (place, server) = (Place::new(), Server::start());
    let model = bulky();
    server.put("/big.gguf", model.clone());
    server.hold_after(Some(10 << 20));
    let (url, data, config) = (server.url("/big.gguf"), place.data(), place.config());
    let arguments = ["model", "pull", &url, "--unsigned", "--json", "--data", text(&data), "--config", text(&config)];
    let mut child = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let partial = data.join("models/cache/partial");
    let has_a_part = || {
        let folders = fs::read_dir(&partial).into_iter().flatten().flatten();
        let mut journals = folders.filter_map(|folder| fs::read_to_string(folder.path().join("work/big.gguf.journal")).ok());
        journals.any(|journal| journal.matches('\n').count() == 2)
    };
    until("a part is whole", || async { has_a_part() }).await;
    child.kill().await.unwrap();
    assert_eq!(server.sent("/big.gguf"), 10 << 20);
    assert_eq!(good(&place, &["list"]).await, json!([]));

    server.hold_after(None);
    let pulled = good(&place, &["pull", &url, "--unsigned"]).await;
    assert_eq!(server.sent("/big.gguf"), model.len() - PART);
    assert_eq!((&pulled["name"], &pulled["bytes"]), (&json!("big"), &json!(model.len())));
    assert_eq!(good(&place, &["verify", "big"]).await["good"], json!(true));
    assert_eq!(fs::read_dir(&partial).unwrap().count(), 0, "the download is cleared away");
}
