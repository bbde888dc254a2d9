//! Every route of the router's own table, in many spellings, over both protocols, with every kind of key that opens nothing (P-A1).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use tollgate_tests::{Gateway, Place, program};

use super::checks::Checks;
use super::raw::{Talk, block, exchange, exchange2, request};
use super::scrape::{Scrape, whole};
use super::wire::{Alpn, Wire, chat_body};
use crate::report::Found;
use crate::rows::Here;

/// P-A1: the public list is this long at most.
const MOST_PUBLIC: usize = 6;
const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"];
/// What a route may answer a stranger; 400 and 501 come from the framing, before any route.
const REFUSALS: [u16; 4] = [401, 403, 404, 405];

/// One way to ask for a route.
#[derive(Debug, Clone)]
struct Variant {
    name: &'static str,
    target: String,
    fields: Vec<(&'static str, &'static str)>,
}

/// The ways to ask for `path`: itself, other spellings of it, and fields that are meant to change what it means.
fn variants(path: &str) -> Vec<Variant> {
    let (parent, last) = path.rsplit_once('/').unwrap_or_default();
    let (head, tail) = last.split_at(1.min(last.len()));
    let encoded = format!("{parent}/%{:02x}{tail}", head.bytes().next().unwrap_or(b'x'));
    let spelled = [
        ("double slash", format!("/{path}")),
        ("inner double slash", format!("{parent}//{last}")),
        ("%2f", format!("{parent}%2f{last}")),
        ("%2F at the root", format!("/%2F{}", path.trim_start_matches('/'))),
        ("%252f", format!("{parent}%252f{last}")),
        ("overlong %c0%af", format!("{parent}%c0%af{last}")),
        ("backslash", format!("{parent}/%5c{last}")),
        ("upper case", path.to_uppercase()),
        ("one letter upper case", format!("{parent}/{}{tail}", head.to_uppercase())),
        ("a letter encoded", encoded),
        ("trailing slash", format!("{path}/")),
        (";x", format!("{path};x")),
        (";x inside", format!("{parent};x=y/{last}")),
        ("public with ;", format!("/health;{path}")),
        ("/./", format!("{parent}/./{last}")),
        ("/../ out of a public route", format!("/health/..{path}")),
        ("%2e%2e out of a public route", format!("/health/%2e%2e{path}")),
        ("public below", format!("/ready{path}")),
        ("query", format!("{path}?api_key=x&access_token=y&key=z")),
        ("%20", format!("{path}%20")),
        ("%00", format!("{path}%00")),
        (".json", format!("{path}.json")),
        ("absolute form", format!("https://localhost{path}")),
        ("absolute form of another host", format!("https://internal{path}")),
    ];
    let fielded: [(&'static str, Vec<(&'static str, &'static str)>); 6] = [
        ("as it is", vec![]),
        ("method override", vec![("x-http-method-override", "GET"), ("x-http-method", "POST"), ("x-method-override", "PUT")]),
        ("rewritten path", vec![("x-original-url", "/health"), ("x-rewrite-url", "/ready"), ("x-forwarded-prefix", "/health")]),
        ("from this machine", vec![("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "::1"), ("forwarded", "for=127.0.0.1")]),
        ("WebSocket", vec![("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]),
        ("SSE resume", vec![("accept", "text/event-stream"), ("last-event-id", "1"), ("cookie", "admin=1; session=admin")]),
    ];
    let spelled = spelled.into_iter().map(|(name, target)| Variant { name, target, fields: vec![] });
    let fielded = fielded.into_iter().map(|(name, fields)| Variant { name, target: path.to_owned(), fields });
    fielded.chain(spelled).collect()
}

/// The routes of the gateway's own dump: those that need a key, and how many do not.
async fn table(gateway: &Gateway) -> anyhow::Result<(Vec<String>, usize)> {
    let dump = gateway.admin(&["routes"]).await;
    let paths = dump["paths"].as_array().context("the dump has paths")?;
    let public = paths.iter().filter(|path| path["public"] == true).count();
    let private = paths.iter().filter(|path| path["public"] != true);
    let private = private.filter_map(|path| Some(path["path"].as_str()?.replace("{*id}", "scripted"))).collect::<Vec<_>>();
    ensure!(private.len() + public == paths.len() && !private.is_empty(), "{dump}");
    Ok((private, public))
}

/// Adds a key to the place's config, and returns its secret.
async fn add_key(place: &Place, id: &str, more: &[&str]) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::new(program());
    command.args(["keys", "add", id, "--config"]).arg(place.config()).args(more);
    let output = command.output().await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Keys that open nothing here, by name.
async fn keys(place: &Place) -> anyhow::Result<Vec<(&'static str, String)>> {
    let expired = add_key(place, "expired", &["--expires", "2020-01-01T00:00:00Z"]).await?;
    let foreign = add_key(place, "foreign", &["--tenant", "other", "--model", "another"]).await?;
    let powerless = add_key(place, "powerless", &["--tenant", "other", "--scope", "nothing"]).await?;
    let bad = "tg-not-a-key-of-this-gateway".to_owned();
    Ok(vec![
        ("none", String::new()),
        ("bad", bad),
        ("expired", expired),
        ("other tenant's", foreign),
        ("without scope", powerless),
    ])
}

/// What came of all requests of one key.
#[derive(Debug, Default)]
struct Seen {
    by_status: BTreeMap<u16, u64>,
    /// Lists of models that the other tenant's key may ask for, and that are empty.
    empty_lists: u64,
    wrong: Vec<String>,
}

/// One request over either protocol, on a connection of its own.
async fn ask(wire: &Wire, alpn: Alpn, method: &str, variant: &Variant, body: &[u8]) -> anyhow::Result<Talk> {
    let mut stream = wire.tls(alpn, Ipv4Addr::LOCALHOST).await?;
    let key = format!("Bearer {}", wire.key);
    let mut fields = variant.fields.clone();
    if !wire.key.is_empty() {
        fields.push(("authorization", &key));
    }
    fields.push(("content-type", "application/json"));
    let body = if method == "POST" { body } else { b"" };
    if alpn == Alpn::Http1 {
        if !variant.fields.iter().any(|(name, _)| *name == "connection") {
            fields.push(("connection", "close"));
        }
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        let length = body.len();
        let head = format!("{method} {} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {length}\r\n\r\n", variant.target);
        return Ok(exchange(&mut stream, &[head.as_bytes(), body].concat()).await);
    }
    let mut block_fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", variant.target.as_bytes()),
    ];
    block_fields.extend(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let body = (!body.is_empty()).then_some(body);
    Ok(exchange2(&mut stream, &request(&block(&block_fields), body)).await)
}

/// Every variant of every path and method.
async fn knock(wire: Wire, name: &'static str, paths: Vec<String>, methods: Vec<&'static str>) -> anyhow::Result<Seen> {
    let body = chat_body("scripted", "say admitted", json!({}));
    let mut seen = Seen::default();
    for path in &paths {
        for variant in variants(path) {
            for (method, alpn) in methods.iter().flat_map(|method| [(*method, Alpn::Http1), (*method, Alpn::Http2)]) {
                let talk = ask(&wire, alpn, method, &variant, &body).await?;
                // A stream that is reset has no answer; it counts as status 0.
                let status = talk.statuses.first().copied().unwrap_or(0);
                *seen.by_status.entry(status).or_default() += 1;
                let is_list = name == "other tenant's" && path == "/v1/models" && matches!(method, "GET" | "HEAD");
                if status == 200 && is_list && (method == "HEAD" || talk.says("\"data\":[]")) {
                    seen.empty_lists += 1;
                } else if !talk.is_closed
                    || talk.statuses.len() > 1
                    || ![0, 400, 501].iter().chain(&REFUSALS).any(|ok| *ok == status)
                {
                    seen.wrong
                        .push(format!("{name} key, {method} {alpn:?}, {}: {} {:?}", variant.name, variant.target, talk.statuses));
                }
            }
        }
    }
    Ok(seen)
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let methods = METHODS[..here.pick(METHODS.len(), 3)].to_vec();
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n");
    let keys = keys(&place).await?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let (paths, public) = table(&gateway).await?;
    let mut tasks = JoinSet::new();
    for (name, key) in keys {
        tasks.spawn(knock(wire.with_key(&key), name, paths.clone(), methods.clone()));
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        let seen = seen??;
        seen.by_status.into_iter().for_each(|(status, count)| *all.by_status.entry(status).or_default() += count);
        all.empty_lists += seen.empty_lists;
        all.wrong.extend(seen.wrong);
    }
    let rejections = whole(Scrape::of(&wire).await?.rejections());
    let models = gateway.admin(&["models"]).await;
    let count = |statuses: &[u16]| statuses.iter().filter_map(|status| all.by_status.get(status)).sum::<u64>();
    let (total, unread) = (all.by_status.values().sum::<u64>(), count(&[400, 501]));
    let mut checks = Checks::default();
    let many = variants("/v1/models").len();
    checks.check(
        format!(
            "{} let in of {total} requests: {} routes, {many} variants, {} methods, 5 keys, HTTP/1.1 and 2",
            all.wrong.len(),
            paths.len(),
            methods.len()
        ),
        all.wrong.is_empty(),
    );
    checks.check(
        format!("{} answered 401, 403, 404 or 405; {unread} refused as malformed before any route, {rejections} by the gateway's count",
            count(&REFUSALS)),
        unread == rejections,
    );
    checks.state(format!("{} HTTP/2 streams reset; the other tenant's own list, empty, {} times", count(&[0]), all.empty_lists));
    checks.check(format!("{public} public routes, {MOST_PUBLIC} at most"), public <= MOST_PUBLIC);
    checks.check("the model did nothing", models[0]["steps"] == 0);
    let good = wire.chat("scripted", "say yes", json!({})).await?;
    checks.check("a good key is let in", good.status.is_success());
    checks.sample("by_status", json!(all.by_status));
    checks.sample("wrong", json!(all.wrong.iter().take(50).collect::<Vec<_>>()));
    Ok(checks.found())
}
