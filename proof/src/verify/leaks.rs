//! What error bodies give away: none of the gateway's addresses, paths, crates or panics (P-E11).

use serde_json::{Value, json};
use tollgate_tests::Place;

use super::bodies;
use super::checks::Checks;
use super::wire::{CHAT, JSON, Wire};
use crate::report::Found;
use crate::rows::Here;

/// What no client may read. Names of plugins and of WASM are policy; the rest is the machine.
const INTERNALS: [&str; 16] = [
    "0x7f",
    "0x55",
    "/home",
    "/root",
    "/tmp",
    "/work",
    "/usr",
    ".rs:",
    "panicked",
    "SELECT ",
    "INSERT ",
    "tollgate_",
    "wasm",
    "hyper::",
    "stack backtrace",
    ".cargo",
];

/// Provokes errors of every kind that can be had from outside, then searches what this and all other rows have seen.
pub(crate) async fn run(_here: Here) -> anyhow::Result<Found> {
    let place = Place::new();
    place.plugin("probe", "probe", "grants = [\"log\"]\n");
    place.write("routes/chat.toml", "plugins = [\"probe\"]\n");
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    for text in ["trap", "loop", "grow", "refuse", "fail 1", "nan"] {
        wire.chat("scripted", text, Value::Null).await?;
    }
    wire.chat("no-such-model", "say a", Value::Null).await?;
    for more in [json!({ "temperature": 9 }), json!({ "unknown": 1 }), json!({ "n": -1 }), json!({ "stop": [1] })] {
        wire.chat("scripted", "say a", more).await?;
    }
    for body in [&b"{"[..], b"[]", b"\xff\xfe", b"{\"a\":1,\"a\":2}", &[b'['; 100_000]] {
        wire.ask("POST", CHAT, &[JSON], body).await?;
    }
    for (method, path) in [("GET", "/nowhere"), ("PUT", CHAT), ("GET", "/v1/models/x"), ("GET", "/%2e%2e/etc")] {
        wire.ask(method, path, &[], b"").await?;
        wire.with_key("").ask(method, path, &[], b"").await?;
    }
    let all = bodies::all();
    let hits = all.iter().filter(|body| INTERNALS.iter().any(|word| body.contains(word))).collect::<Vec<_>>();
    let mut checks = Checks::default();
    checks.check(
        format!("{} of {} different error bodies name internals", hits.len(), all.len()),
        hits.is_empty() && !all.is_empty(),
    );
    checks.method("All error bodies that this row provoked and the others saw since target/verify was made, searched for addresses, paths, crates, SQL and panics.");
    checks.sample("hits", json!(hits));
    Ok(checks.found())
}
