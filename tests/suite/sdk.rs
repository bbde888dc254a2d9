//! The official openai SDKs, unmodified, against a gateway with the demo model, a scripted one and one for embeddings. What they do is in `tests/sdk`.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use tollgate_tests::{Gateway, Place, repository};

/// Twenty calls; the scripts have deadlines of their own for each.
const DEADLINE: Duration = Duration::from_secs(240);

fn place() -> Place {
    let place = Place::new();
    place.write("models/demo.toml", "backend = \"llama\"\nartifact = \"builtin:demo\"\n");
    let artifact = repository().join("host/demo-model/demo-f16.gguf").display().to_string();
    place.write("models/vectors.toml", &format!("backend = \"llama\"\nartifact = {artifact:?}\ntask = \"embed\"\n"));
    place
}

/// Fails with what there is to do if a client has not been fetched.
fn fetched(path: &Path) {
    assert!(path.exists(), "{} is missing: run `make test`, which fetches the SDKs", path.display());
}

async fn run(mut command: Command, place: &Place, gateway: &Gateway) {
    let data = place.data();
    let key = std::fs::read_to_string(data.join("admin.key")).unwrap();
    let ca = data.join("tls/ca.pem");
    command
        .env("TOLLGATE_URL", format!("{}/v1", gateway.url))
        .env("TOLLGATE_KEY", key.trim())
        .env("TOLLGATE_CA", &ca)
        .env("NODE_EXTRA_CA_CERTS", &ca)
        .env("TOLLGATE_MODEL", "demo")
        .env("TOLLGATE_SCRIPTED", "scripted")
        .env("TOLLGATE_VECTORS", "vectors")
        .kill_on_drop(true);
    let Output { status, stdout, stderr } = timeout(DEADLINE, command.output()).await.expect("the SDK ends in time").unwrap();
    let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}\n{said}\n{complained}\n{}", place.log());
    assert!(said.lines().filter(|line| line.starts_with("ok ")).count() >= 20, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_is_at_home() {
    let python = repository().join("target/sdk/python/bin/python");
    fetched(&python);
    let place = place();
    let gateway = place.start().await;
    let mut command = Command::new(python);
    command.arg(repository().join("tests/sdk/openai_python.py"));
    run(command, &place, &gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_sdk_is_at_home() {
    let directory = repository().join("target/sdk/node");
    fetched(&directory.join("node_modules/openai"));
    // A module's imports are looked for beside it.
    let script = directory.join("openai_node.mjs");
    std::fs::copy(repository().join("tests/sdk/openai_node.mjs"), &script).unwrap();
    let place = place();
    let gateway = place.start().await;
    let mut command = Command::new("node");
    command.arg(script).current_dir(directory);
    run(command, &place, &gateway).await;
}
