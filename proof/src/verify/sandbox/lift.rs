//! P-W8: what a plugin returns, whatever it is: taken by the host without a panic, and harmless where it leaves the gateway.
//!
//! The guest here puts the bytes that it is sent, as hex, into its memory and returns their address as its answer.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate_domain::{Flag, Principal, Refusal};
use tollgate_plugins::{Decision, Outcome, Verdict};

use super::super::chance::Chance;
use super::super::checks::Checks;
use super::super::wire::{Alpn, CHAT, PATIENCE, Wire, chat_body};
use super::guest::Guest;
use super::image::{Hook, image};
use super::inside::{Inside, context, head, request};
use super::{instances_left, place};
use crate::report::Found;
use crate::rows::Here;

/// Where the bytes go.
pub(crate) const BASE: u32 = 131_072;
/// From the text at `$a`, `$b` characters long, to bytes at `BASE`.
const DECODE: &str = "(func $nibble (param $c i32) (result i32)
        (select (i32.sub (local.get $c) (i32.const 87)) (i32.sub (local.get $c) (i32.const 48)) (i32.gt_u (local.get $c) (i32.const 57))))
    (func $decode (param $from i32) (param $length i32) (result i32) (local $to i32)
        (local.set $to (i32.const 131072))
        (local.set $length (i32.add (local.get $from) (local.get $length)))
        (block $done (loop $again
            (br_if $done (i32.ge_u (local.get $from) (local.get $length)))
            (i32.store8 (local.get $to) (i32.or
                (i32.shl (call $nibble (i32.load8_u (local.get $from))) (i32.const 4))
                (call $nibble (i32.load8_u offset=1 (local.get $from)))))
            (local.set $from (i32.add (local.get $from) (i32.const 2)))
            (local.set $to (i32.add (local.get $to) (i32.const 1)))
            (br $again)))
        (i32.const 131072))";
/// The text of the first message's first part; messages lie behind the context's 144 bytes.
const FROM_MESSAGE: &str = "(local.set $a (i32.load offset=16 (i32.load offset=144 (local.get $in))))
    (call $decode (i32.load offset=16 (local.get $a)) (i32.load offset=20 (local.get $a)))";
/// The first header's value; headers lie behind method and path.
const FROM_HEADER: &str = "(local.set $a (i32.load offset=16 (local.get $in)))
    (call $decode (i32.load offset=8 (local.get $a)) (i32.load offset=12 (local.get $a)))";

fn guest() -> Guest<'static> {
    Guest {
        name: "image",
        pages: 4,
        items: DECODE.into(),
        filter: FROM_MESSAGE,
        authenticate: FROM_HEADER,
        // What is sent lies behind what is returned.
        realloc: "(if (i32.lt_u (global.get $bump) (i32.const 196608)) (then (global.set $bump (i32.const 196608))))",
        ..Guest::default()
    }
}

/// What came of the images of one hook.
#[derive(Debug, Default)]
struct Tally {
    taken: u64,
    ended: u64,
    wrong: Vec<String>,
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte))
}

fn is_harmless(refusal: &Refusal) -> bool {
    let texts = [&refusal.message, &refusal.detail];
    is_code(&refusal.code)
        && texts.into_iter().all(|text| is_plain(text) && text.len() <= 2_048)
        && refusal.retry_after.is_none_or(|seconds| seconds <= 86_400)
}

fn are_names(flags: &[Flag]) -> bool {
    flags.len() <= 64 && flags.iter().all(|flag| is_code(&flag.name))
}

fn is_somebody(who: &Principal) -> bool {
    let Principal { id, tenant, roles, scopes, models, default_model, attributes } = who;
    let names = roles.iter().chain(scopes).chain(models).chain(default_model).chain([id, tenant]);
    let mut lists = [roles.len(), scopes.len(), models.len(), attributes.len()].into_iter();
    names.into_iter().all(|name| is_plain(name) && (1..=256).contains(&name.len())) && lists.all(|length| length <= 256)
}

fn outcome_is_harmless(outcome: &Outcome) -> bool {
    are_names(&outcome.flags) && !matches!(&outcome.verdict, Verdict::Block(refusal) if !is_harmless(refusal))
}

fn decision_is_harmless(decision: &Decision) -> bool {
    match decision {
        Decision::Identity(who) => is_somebody(who),
        Decision::Refuse(refusal) => is_harmless(refusal),
        Decision::Abstain => true,
    }
}

/// Images through the host's own conversion, in this process: a panic would be the row's.
async fn inside(seed: u64, count: u64) -> anyhow::Result<Tally> {
    let inside = Inside::new(&guest(), 8).await?;
    let (mut chance, mut tally) = (Chance(seed), Tally::default());
    for number in 0..count {
        let hook = if number % 2 == 0 { Hook::FilterPrompt } else { Hook::Authenticate };
        let text = hex::encode(image(&mut chance, hook));
        let mut instance = inside.start().await??;
        let harmless = if hook == Hook::FilterPrompt {
            instance.filter_prompt(context(), request(&text)).await.map(|outcome| outcome_is_harmless(&outcome))
        } else {
            instance.authenticate(head(text.clone())).await.map(|decision| decision_is_harmless(&decision))
        };
        match harmless {
            Ok(true) => tally.taken += 1,
            Ok(false) => tally.wrong.push(text),
            Err(_) => tally.ended += 1,
        }
    }
    ensure!(inside.host.slots().free() == 8, "slots are kept");
    Ok(tally)
}

/// The head of the answer to a chat, as it came.
async fn raw_head(wire: &Wire, text: &str) -> anyhow::Result<String> {
    let mut stream = wire.tls(Alpn::Http1, Ipv4Addr::LOCALHOST).await?;
    let body = chat_body("image", text, json!({ "max_tokens": 4 }));
    let ask = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        wire.key,
        body.len()
    );
    stream.write_all(&[ask.as_bytes(), &body].concat()).await?;
    let mut bytes = Vec::new();
    // The other side may close without a word of TLS's.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.context("no end of the answer")?;
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no end of the head")?;
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// The headers that answers may have here.
const HEADERS: [&str; 11] = [
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "retry-after",
    "server-timing",
    "traceparent",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
];

/// What is wrong with a head.
fn wrong_in(head: &str) -> Option<String> {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let is_status = status.starts_with("HTTP/1.1 ") && status.len() >= 12;
    let mut names = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let is_known = HEADERS.contains(&name) || name.starts_with("x-tollgate-");
        if !is_known || names.contains(&name) || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Some(line.to_owned());
        }
        names.push(name);
    }
    (!is_status).then(|| status.to_owned())
}

/// Images through a gateway; heads that are not as heads are.
async fn outside(wire: Wire, seed: u64, count: usize) -> anyhow::Result<(usize, Vec<String>)> {
    let (mut chance, mut refused, mut wrong) = (Chance(seed), 0, Vec::new());
    for _ in 0..count {
        let head = raw_head(&wire, &hex::encode(image(&mut chance, Hook::FilterPrompt))).await?;
        refused += usize::from(!head.starts_with("HTTP/1.1 200") && !head.starts_with("HTTP/1.1 503"));
        wrong.extend(wrong_in(&head));
    }
    Ok((refused, wrong))
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (images, asked) = here.pick((1_000_000_u64, 8_000), (20_000, 400));
    let mut tasks = JoinSet::new();
    for seed in 0..2 {
        tasks.spawn(inside(seed, images / 2));
    }
    let mut all = Tally::default();
    while let Some(part) = tasks.join_next().await {
        let Tally { taken, ended, wrong } = part.context("a panic of the host's")??;
        (all.taken, all.ended) = (all.taken + taken, all.ended + ended);
        all.wrong.extend(wrong);
    }
    let place = place();
    guest().install(&place, "")?;
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let (mut tasks, mut refused, mut wrong) = (JoinSet::new(), 0, Vec::new());
    for seed in 100..104 {
        tasks.spawn(outside(wire.clone(), seed, asked / 4));
    }
    while let Some(part) = tasks.join_next().await {
        let (a, b) = part??;
        refused += a;
        wrong.extend(b);
    }
    let left = instances_left(&gateway, Duration::from_secs(10)).await;
    let panics = place.log().lines().filter(|line| line.contains("panicked")).count();
    let mut checks = Checks::default();
    let line =
        format!("{images} values lifted, {} taken, {} refused: 0 panics, {} not harmless", all.taken, all.ended, all.wrong.len());
    checks.check(line, all.wrong.is_empty() && all.taken > images / 10);
    let line = format!(
        "{asked} through a gateway, {refused} of them refusals: {} heads with anything raw, {panics} panics",
        wrong.len()
    );
    checks.check(line, wrong.is_empty() && panics == 0 && refused > asked / 10);
    checks.check(format!("{left} instances left"), left == 0);
    checks.method("A guest returns whatever bytes it is sent: answers of both hooks with texts full of line ends, control characters, wrong UTF-8, wrong lengths, addresses, discriminants and numbers, a tenth of them bytes at random.");
    checks.sample("wrong", json!(all.wrong.iter().take(5).collect::<Vec<_>>()));
    checks.sample("heads", json!(wrong.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}
