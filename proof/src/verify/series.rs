//! Whatever clients call things, the gateway's metrics and its memory do not grow by it; and what belongs to the operator is not to be
//! had from a public address (P-E9).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate_tests::{Gateway, Place};

use super::chance::Chance;
use super::checks::Checks;
use super::process::Process;
use super::scrape::Scrape;
use super::wire::{CHAT, Http, JSON, PATIENCE, Wire, chat_body};
use crate::report::Found;
use crate::rows::Here;

const SEED: u64 = 20_261_121;
const CONNECTIONS: u64 = 16;
/// In every word of a client's, so that one in a label would be found.
const MARK: &str = "zqx";

fn word(chance: &mut Chance) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%";
    let tail = (0..1 + chance.below(24)).map(|_| char::from(*chance.pick(letters))).collect::<String>();
    // A lone percent sign is no encoding; that is the gateway's to judge.
    format!("{MARK}{tail}")
}

/// One request with a random path, model, method, key or field.
async fn one(wire: &Wire, connection: &mut Option<Http>, chance: &mut Chance) -> anyhow::Result<()> {
    let (name, kind) = (word(chance), chance.below(8));
    if kind == 0 || connection.is_none() {
        let key = if kind == 0 { word(chance) } else { wire.key.clone() };
        *connection = Some(wire.with_key(&key.replace('%', "_")).http().await?);
    }
    let methods = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"];
    let (path, model) = match kind {
        1 | 2 => (format!("/{name}/{}", word(chance)), name.clone()),
        3 => (format!("/v1/models/{name}"), name.clone()),
        4 => (format!("/metrics/{name}?{name}={name}"), name.clone()),
        _ => (CHAT.to_owned(), name.clone()),
    };
    let own = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase();
    let method = match kind {
        1 => own.as_str(),
        5..=7 => "POST",
        _ => *chance.pick(&methods),
    };
    let more = json!({ "max_tokens": 1, "user": name, "metadata": { &name: name } });
    let body = if method == "POST" { chat_body(&model, &name, more) } else { Vec::new() };
    let fields =
        [JSON, ("user-agent", name.as_str()), ("x-request-id", &name), ("x-tollgate-tenant", &name), ("tracestate", &name)];
    let http = connection.as_mut().context("it was opened above")?;
    // Not by `ask`: a million bodies that differ by a name would drive out the others that P-E11 searches.
    let asked = async {
        let (_, _, body) = http.open(method, &path, &fields, &body).await?;
        body.collect().await?;
        anyhow::Ok(())
    };
    timeout(PATIENCE, asked).await.context("no whole answer in time")?
}

/// Requests of one connection: how many were answered.
async fn storm(wire: Wire, seed: u64, count: u64) -> u64 {
    let (mut chance, mut connection, mut answered) = (Chance(seed), None, 0);
    for _ in 0..count {
        // A refusal may close the connection: then the next request opens another.
        match one(&wire, &mut connection, &mut chance).await {
            Ok(()) => answered += 1,
            Err(_) => connection = None,
        }
    }
    answered
}

async fn storms(wire: &Wire, from: u64, count: u64) -> anyhow::Result<u64> {
    let mut tasks = JoinSet::new();
    for worker in 0..CONNECTIONS {
        tasks.spawn(storm(wire.clone(), SEED + from + worker, count / CONNECTIONS));
    }
    let mut answered = 0;
    while let Some(part) = tasks.join_next().await {
        answered += part?;
    }
    Ok(answered)
}

/// What an operator's or a debugger's page might be called, with what the admin channel has, on the public address with the admin key.
async fn hidden(public: &Wire) -> anyhow::Result<(usize, Vec<String>)> {
    let words = [
        "metrics",
        "status",
        "plugins",
        "models",
        "routes",
        "keys",
        "reload",
        "admin",
        "debug",
        "config",
        "env",
        "heap",
        "pprof",
        "trace",
        "generation",
        "shutdown",
        "stop",
        "log",
        "level",
        "dump",
        "stats",
        "info",
        "version",
        "swagger",
        "openapi.json",
        "console",
        "api",
        "server-status",
        "actuator",
        "prometheus",
        "vars",
        "threads",
        "profile",
        "build",
        "cache",
        "tokens",
        "v1",
        "load",
        "unload",
        "exec",
    ];
    let prefixes =
        ["/", "/admin/", "/_admin/", "/debug/", "/debug/pprof/", "/internal/", "/actuator/", "/v1/admin/", "/-/", "/api/", "/."];
    let (mut tried, mut found, mut http) = (0, Vec::new(), public.http().await?);
    let paths = prefixes.iter().flat_map(|prefix| words.iter().map(move |word| format!("{prefix}{word}"))).collect::<Vec<_>>();
    for path in paths {
        for method in ["GET", "POST"] {
            let answer = http.ask(method, &path, &[], b"").await?;
            tried += 1;
            if answer.status != 404 {
                found.push(format!("{method} {path}: {}", answer.status));
            }
        }
    }
    Ok((tried, found))
}

/// Ports that the process listens on, by the kernel's table.
fn ports(pid: u32) -> anyhow::Result<BTreeSet<u16>> {
    let mut sockets = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed while the others are read.
        if let Ok(target) = std::fs::read_link(entry?.path())
            && let Some(inode) = target.to_string_lossy().strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'))
        {
            sockets.insert(inode.to_owned());
        }
    }
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words = line.split_whitespace().collect::<Vec<_>>();
            // 0A is LISTEN.
            if let [_, local, _, "0A", ..] = words[..]
                && words.get(9).is_some_and(|inode| sockets.contains(*inode))
            {
                ports.insert(u16::from_str_radix(local.rsplit(':').next().unwrap_or_default(), 16)?);
            }
        }
    }
    Ok(ports)
}

fn urls(status: &Value) -> Vec<(String, String)> {
    let listeners = status["listeners"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    listeners.map(|listener| (text(&listener["id"]), text(&listener["urls"][0]))).collect()
}

async fn judge_public(place: &Place, gateway: &Gateway, key: &str, checks: &mut Checks) -> anyhow::Result<()> {
    let urls = urls(&gateway.admin(&["status"]).await);
    let (_, url) = urls.iter().find(|(id, _)| id == "public").context("the public listener")?;
    let public = Wire::at(place, url, key.to_owned())?;
    ensure!(public.ask("GET", "/v1/models", &[], b"").await?.status.is_success(), "the key is good there");
    let (tried, found) = hidden(&public).await?;
    checks
        .check(format!("{} of {tried} operator's paths on a public address, with the admin key", found.len()), found.is_empty());
    checks.sample("operator_paths", json!(found));
    let mut known =
        urls.iter().map(|(_, url)| url.rsplit(':').next().unwrap_or_default().parse()).collect::<Result<BTreeSet<u16>, _>>()?;
    let open = ports(gateway.pid())?;
    known.retain(|port| open.contains(port));
    checks.check(
        format!("{} ports open, {} of them listeners'", open.len(), known.len()),
        open == known && open.len() == urls.len(),
    );
    Ok(())
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(1_000_000, 50_000_u64);
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"error\"\n");
    place.write("listeners/public.toml", "address = \"0.0.0.0:0\"\nauthenticators = [\"auth-keys\"]\n");
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    // A label's values are few, but each is made when it is first met: the first tenth meets them all.
    let mut answered = storms(&wire, 0, count / 10).await?;
    // So does the row's own look at them.
    Scrape::of(&wire).await?;
    let (first, before) = (Scrape::of(&wire).await?, process.rss_kib()?);
    answered += storms(&wire, CONNECTIONS, count - count / 10).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (last, after) = (Scrape::of(&wire).await?, process.rss_kib()?);
    let mut checks = Checks::default();
    let made = last.names().filter(|name| name.to_ascii_lowercase().contains(MARK)).map(str::to_owned).collect::<Vec<_>>();
    let new = last.names().filter(|name| !first.names().any(|old| old == *name)).map(str::to_owned).collect::<Vec<_>>();
    checks.check(
        format!(
            "{answered} of {count} random requests answered: {} series after a tenth of them, {} at the end",
            first.count(),
            last.count()
        ),
        new.is_empty() && answered * 10 >= count * 9,
    );
    checks.check(format!("{} series with a client's word", made.len()), made.is_empty());
    let growth = after as f64 / before as f64 - 1.0;
    checks.check(format!("resident memory {before} KiB, then {after} KiB ({:+.1}%)", growth * 100.0), growth <= 0.05);
    judge_public(&place, &gateway, &wire.key, &mut checks).await?;
    checks.sample("new_series", json!(new));
    checks.sample("made_series", json!(made));
    Ok(checks.found())
}
