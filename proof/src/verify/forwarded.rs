//! Forged addresses: whatever a client writes about where it comes from, the gateway knows better (P-E10).
//!
//! The listener's authenticator answers with the address that it was told; the row knows which one is right, since it is the row
//! that plays the client and every proxy. Caps per address are held against the connection itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::ensure;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tollgate_tests::{Place, plugin_file};

use super::chance::Chance;
use super::checks::Checks;
use super::raw::exchange;
use super::wire::{Alpn, Http, Wire};
use crate::report::Found;
use crate::rows::Here;

const SEED: u64 = 20_261_121;
/// What the listener trusts: the address that the row's own proxy connects from, and more proxies behind it.
const TRUSTED: &str = r#"["127.0.0.2", "127.0.3.0/24", "10.0.0.0/8", "fd00::/8", "192.0.2.7"]"#;
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A peer that is no proxy, however near its address is to one's.
const STRANGERS: [Ipv4Addr; 4] =
    [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 2, 255), Ipv4Addr::new(127, 0, 4, 0)];
/// The cap per address that is to be got round.
const CAP: usize = 4;

/// A list of fields, and the address that is the right one.
#[derive(Debug)]
struct Case {
    from: Ipv4Addr,
    fields: Vec<(&'static str, String)>,
    right: IpAddr,
}

/// An address that no entry of [`TRUSTED`] holds.
fn outsider(chance: &mut Chance) -> IpAddr {
    let bits = chance.next();
    match chance.below(4) {
        0 => IpAddr::V6(Ipv6Addr::from((0x2001_0db8_u128 << 96) | u128::from(bits))),
        // Just beside what is trusted.
        1 => *chance.pick(&[[9, 255, 255, 255], [11, 0, 0, 0], [192, 0, 2, 6], [192, 0, 2, 8], [127, 0, 4, 1]].map(IpAddr::from)),
        _ => IpAddr::from([203, 0, bits.to_le_bytes()[0], bits.to_le_bytes()[1]]),
    }
}

fn proxy(chance: &mut Chance) -> IpAddr {
    let bits = chance.next().to_le_bytes();
    match chance.below(4) {
        0 => IpAddr::from([127, 0, 3, bits[0]]),
        1 => IpAddr::from([192, 0, 2, 7]),
        2 => IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) | u128::from(chance.next()))),
        _ => IpAddr::from([10, bits[0], bits[1], bits[2]]),
    }
}

/// An address as some proxies write it.
fn written(address: IpAddr, chance: &mut Chance) -> String {
    match (address, chance.below(5)) {
        (IpAddr::V4(four), 0) => format!("{four}:{}", chance.below(65_536)),
        (IpAddr::V4(four), 1) => format!("::ffff:{four}"),
        (IpAddr::V6(six), 0) => format!("[{six}]:{}", chance.below(65_536)),
        (IpAddr::V6(six), 1) => format!("[{six}]"),
        (address, _) => address.to_string(),
    }
}

/// What a client makes up.
fn forged(chance: &mut Chance) -> String {
    let (trusted, other) = (proxy(chance), outsider(chance));
    match chance.below(10) {
        0 => trusted.to_string(),
        1 => "127.0.0.1".to_owned(),
        2 => "unknown, _hidden".to_owned(),
        3 => ", , ,".to_owned(),
        4 => format!("{other}, {trusted}, garbage"),
        5 => "0x7f000001, 2130706433, 127.1, 0177.0.0.1".to_owned(),
        6 => format!("\"{trusted}\";for=x"),
        7 => format!("{trusted}\t{other}"),
        8 => "::1%lo, fe80::1%25eth0, [::1".to_owned(),
        _ => other.to_string(),
    }
}

/// One case. What stands right of the client's own address was written by proxies, and is right.
fn case(number: u64) -> Case {
    let mut chance = Chance(SEED.wrapping_add(number));
    let chance = &mut chance;
    let mut entries = (0..chance.below(5)).map(|_| forged(chance)).collect::<Vec<_>>();
    let is_stranger = chance.below(3) == 0;
    let (from, right) = if is_stranger {
        let from = *chance.pick(&STRANGERS);
        entries.push(written(proxy(chance), chance));
        (from, IpAddr::V4(from))
    } else {
        let client = outsider(chance);
        entries.push(written(client, chance));
        entries.extend((0..chance.below(4)).map(|_| proxy(chance)).collect::<Vec<_>>().into_iter().map(|at| written(at, chance)));
        (PROXY, client)
    };
    let mut fields = Vec::new();
    // One field or several of the same name: they are one list.
    while !entries.is_empty() {
        let rest = entries.split_off(1 + chance.below(entries.len()));
        let between = *chance.pick(&[",", ", ", " , ", ",\t"]);
        fields.push((*chance.pick(&["x-forwarded-for", "X-Forwarded-For"]), entries.join(between)));
        entries = rest;
    }
    let lie = forged(chance);
    for name in [
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "via",
        "x-forwarded-host",
        "x_forwarded_for",
    ] {
        if chance.below(3) == 0 {
            let value = if name == "forwarded" { format!("for={lie};proto=https;by={lie}") } else { lie.clone() };
            fields.insert(chance.below(fields.len() + 1), (name, value));
        }
    }
    Case { from, fields, right }
}

/// Cases of one worker: how many, and those that were believed.
async fn cases(wire: Wire, numbers: Vec<u64>) -> anyhow::Result<Vec<String>> {
    let mut connections = HashMap::<Ipv4Addr, Http>::new();
    let mut wrong = Vec::new();
    for number in numbers {
        let case = case(number);
        let http = match connections.entry(case.from) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(none) => none.insert(wire.http_from(case.from).await?),
        };
        let fields = case.fields.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>();
        let answer = http.ask("GET", "/v1/models", &fields, b"").await?;
        let said = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        if answer.status != 401 || said.parse() != Ok(case.right) {
            wrong.push(format!("{case:?}: {} {said}", answer.status));
        }
    }
    Ok(wrong)
}

/// PROXY headers before TLS and within it: how many were answered with anything but a refusal.
async fn proxy_headers(wire: &Wire) -> anyhow::Result<(u64, u64)> {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x1f\x90\x20\xfb";
    let headers = [
        &b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 8443\r\n"[..],
        b"PROXY TCP6 2001:db8::1 ::1 4711 8443\r\n",
        b"PROXY UNKNOWN\r\n",
        V2,
    ];
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let (mut tried, mut taken) = (0, 0);
    for header in headers {
        for from in [PROXY, Ipv4Addr::LOCALHOST] {
            let mut within = wire.tls(Alpn::Http1, from).await?;
            let talk = exchange(&mut within, &[header, request].concat()).await;
            let mut before = wire.tcp(from).await?;
            before.write_all(header).await?;
            let plain = exchange(&mut before, request).await;
            tried += 2;
            taken += u64::from(talk.statuses != [400]) + u64::from(!plain.statuses.is_empty());
        }
    }
    Ok((tried, taken))
}

/// Connections from one address, each with a request that claims another: how many were served at once.
async fn over_the_cap(wire: &Wire, from: Ipv4Addr, tries: usize) -> usize {
    let mut held = Vec::new();
    for number in 0..tries {
        let Ok(mut http) = wire.http_from(from).await else { continue };
        let lie = format!("203.0.113.{}", number % 250);
        let fields = [("x-forwarded-for", lie.as_str()), ("forwarded", &format!("for={lie}")), ("x-real-ip", &lie)];
        if http.ask("GET", "/health", &fields, b"").await.is_ok() {
            held.push(http);
        }
    }
    held.len()
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let count = here.pick(100_000, 10_000_u64);
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"error\"\n");
    let file = plugin_file("misauth");
    place.write("plugins/where.toml", &format!("component = {file:?}\ngrants = [\"log\"]\n[config]\nmode = \"where\"\n"));
    let listener = format!("address = \"127.0.0.1:0\"\nauthenticators = [\"where\"]\ntrusted_proxies = {TRUSTED}\n");
    place.write("listeners/main.toml", &listener);
    place.write("listeners/narrow.toml", &format!("{listener}[limits]\nconnections_per_ip = {CAP}\n"));
    let gateway = place.start().await;
    let status = gateway.admin(&["status"]).await;
    let url = |id: &str| {
        let mut listeners = status["listeners"].as_array().into_iter().flatten();
        listeners.find(|listener| listener["id"] == id).and_then(|listener| listener["urls"][0].as_str()).unwrap_or_default()
    };
    let (wire, narrow) = (Wire::at(&place, url("main"), String::new())?, Wire::at(&place, url("narrow"), String::new())?);
    let mut tasks = JoinSet::new();
    for worker in 0..8 {
        tasks.spawn(cases(wire.clone(), (worker..count).step_by(8).collect()));
    }
    let mut wrong = Vec::new();
    while let Some(part) = tasks.join_next().await {
        wrong.extend(part??);
    }
    let (tried, taken) = proxy_headers(&wire).await?;
    let mut checks = Checks::default();
    checks.check(format!("{} believed of {count} generated lists", wrong.len()), wrong.is_empty());
    checks.check(format!("{taken} PROXY headers taken of {tried}"), taken == 0);
    for from in [STRANGERS[1], PROXY] {
        let served = over_the_cap(&narrow, from, CAP * 10).await;
        let line = format!("{served} connections at once from {from} with forged addresses, cap {CAP}");
        ensure!(served > 0, "{line}");
        checks.check(line, served == CAP);
    }
    checks.method(
        "Lists of one to nine entries over one or more fields: what a client made up, the client's own address, what proxies added; \
         two thirds through a trusted peer, the others from peers just beside one. The cap per address counts connections by their \
         peer, a proxy's as one.",
    );
    checks.sample("wrong", json!(wrong.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}
