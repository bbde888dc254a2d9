//! Secrets and texts, each known by a word, driven through a gateway that tells all it can: the log at `trace`, traces, metrics, errors,
//! traps, panics. Then everything that it has written or said is searched for them (P-A8).

mod collector;
mod planted;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tollgate_tests::{Gateway, Place};

use super::checks::Checks;
use super::raw::{block, exchange, exchange2, request};
use super::wire::{Alpn, CHAT, JSON, Wire};
use crate::report::Found;
use crate::rows::Here;
use collector::Collector;
use planted::{Canary, Planted};

/// One place that was searched, and all that it holds.
struct Searched {
    /// A file below the place's root, or what it was.
    name: String,
    bytes: Vec<u8>,
}

/// Every file below `folder`.
fn files(root: &Path, folder: &Path, found: &mut Vec<Searched>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = std::fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            files(root, &path, found)?;
        } else if kind.is_file() {
            let name = path.strip_prefix(root)?.display().to_string();
            let bytes = std::fs::read(&path).with_context(|| name.clone())?;
            found.push(Searched { name, bytes });
        }
    }
    Ok(())
}

/// Whether `bytes` hold `word`, in any case, as it is or in hexadecimal.
fn holds(bytes: &[u8], word: &str) -> bool {
    let hex = hex::encode(word);
    let forms = [word.as_bytes(), hex.as_bytes()];
    forms.iter().any(|form| bytes.windows(form.len()).any(|part| part.eq_ignore_ascii_case(form)))
}

/// Lines of the log that are no JSON, or that hold a control character.
fn broken_lines(log: &[u8]) -> Vec<String> {
    let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let is_whole = |line: &[u8]| {
        serde_json::from_slice::<Value>(line).is_ok_and(|value| value.is_object()) && !line.iter().any(u8::is_ascii_control)
    };
    lines.filter(|line| !is_whole(line)).map(|line| String::from_utf8_lossy(line).chars().take(300).collect()).collect()
}

/// What is asked: every kind of request and of failure, each with its canaries.
async fn drive(wire: &Wire, planted: &Planted) -> anyhow::Result<()> {
    let own = wire.with_key(planted.word("user key"));
    let [prompt, system, ansi] = ["prompt", "system prompt", "control characters"].map(|name| planted.word(name));
    let noise = format!("\u{1b}[2J\u{1b}]0;{ansi}\u{7}\r\n{{\"level\":\"ERROR\",\"message\":\"{ansi}\"}}\u{0}\u{9b}31m");
    let reply = format!("say-hex {}", hex::encode(planted.word("reply")));
    let more = planted.fields(&noise);
    let commands = [
        format!("say {prompt}"),
        reply,
        format!("trap {prompt}"),
        format!("loop {prompt}"),
        format!("grow {prompt}"),
        format!("refuse {prompt}"),
        format!("fail 1 {prompt}"),
        format!("nan {prompt}"),
        format!("say {noise}"),
        format!("answer {prompt}"),
        format!("think {prompt}"),
    ];
    let headers = planted.headers();
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([JSON]).collect::<Vec<_>>();
    for model in ["scripted", planted.word("model"), noise.as_str(), "doomed"] {
        for (command, stream) in commands.iter().flat_map(|command| [(command, false), (command, true)]) {
            let command = if model == "doomed" { &format!("panic {prompt}") } else { command };
            let mut body = json!({
                "model": model,
                "stream": stream,
                "messages": [
                    { "role": "system", "content": format!("{system} {noise}"), "name": planted.word("name") },
                    { "role": "user", "content": command },
                ],
            });
            own.ask("POST", CHAT, &headers, body.to_string().as_bytes()).await?;
            if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more.clone()) {
                body.extend(more);
            }
            own.ask("POST", CHAT, &headers, body.to_string().as_bytes()).await?;
        }
    }
    // A client that leaves in the middle.
    drop(own.http().await?.stream("scripted", &format!("forever {prompt}"), json!({})).await?);
    let broken = format!("{{\"model\": \"{prompt}\", \"messages\": [{{\"role\": \"{ansi}");
    for body in [broken.as_bytes(), prompt.as_bytes(), b"\xff\xfe"] {
        own.ask("POST", CHAT, &headers, body).await?;
    }
    for (method, path) in planted.targets() {
        own.ask(method, &path, &headers, b"").await?;
        wire.with_key("").ask(method, &path, &headers, b"").await?;
    }
    for credentials in planted.credentials() {
        wire.with_key("").ask("POST", CHAT, &[(credentials.0, &credentials.1), JSON], b"{}").await?;
    }
    raw(wire, planted, &noise).await
}

/// What no client library sends.
async fn raw(wire: &Wire, planted: &Planted, noise: &str) -> anyhow::Result<()> {
    let word = planted.word("malformed request");
    for bytes in [
        format!("GET /{word}{noise} HTTP/1.1\r\nhost: a\r\n\r\n"),
        format!("{word} / HTTP/1.1\r\nhost: {word}\r\nauthorization: Bearer {word}\r\n{word}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: {word}\r\nx: {noise}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", word.repeat(2_000)),
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n{word}\r\n",
            wire.key
        ),
    ] {
        let mut stream = wire.tls(Alpn::Http1, std::net::Ipv4Addr::LOCALHOST).await?;
        exchange(&mut stream, bytes.as_bytes()).await;
    }
    for fields in [
        [(&b":method"[..], word.as_bytes()), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/health")],
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", word.as_bytes()), (b":path", noise.as_bytes())],
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/health"), (word.as_bytes(), noise.as_bytes())],
    ] {
        let mut stream = wire.tls(Alpn::Http2, std::net::Ipv4Addr::LOCALHOST).await?;
        exchange2(&mut stream, &request(&block(&fields), None)).await;
    }
    // In a hello that is none.
    let mut stream = wire.tcp(std::net::Ipv4Addr::LOCALHOST).await?;
    exchange(&mut stream, format!("{word}{noise}").as_bytes()).await;
    Ok(())
}

/// Operators' slips: files that cannot be used and hold what should not be shown. Each is put right again.
async fn slips(place: &Place, gateway: &Gateway, planted: &Planted) -> anyhow::Result<String> {
    let word = planted.word("operator's slip");
    let mut said = String::new();
    for (name, text) in [
        ("keys/slip.toml", format!("sha256 = \"{word}\"\n")),
        ("keys/slip.toml", format!("secret = \"{word}\"\n")),
        ("keys/slip.toml", format!("sha256 = {word}\n")),
        ("plugins/slip.toml", format!("component = \"builtin:auth-keys\"\n[config]\ntoken = \"{word}\n")),
        ("plugins/slip.toml", format!("component = \"builtin:auth-keys\"\n[config]\ntoken = \"{word}\"\n")),
        ("plugins/slip.toml", format!("component = \"builtin:auth-keys\"\ntoken = \"{word}\"\n")),
    ] {
        place.write(name, &text);
        let status = gateway.reload().await;
        ensure!(status["state"] == "degraded", "{text}: {status}");
        said.push_str(&status.to_string());
        place.remove(name);
        gateway.reload().await;
    }
    Ok(said)
}

/// Soft and hard limit of a core dump, by `/proc`.
fn core_limits(pid: u32) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max core file size")).context("a limit of core dumps")?;
    Ok(line.split_whitespace().take(2).map(str::to_owned).collect())
}

/// All that the gateway has written and said.
async fn said(place: &Place, mut gateway: Gateway, wire: &Wire, collector: &Collector) -> anyhow::Result<Vec<Searched>> {
    let mut all = Vec::new();
    all.push(Searched { name: "/metrics".to_owned(), bytes: wire.ask("GET", "/metrics", &[], b"").await?.body.to_vec() });
    for verb in ["status", "plugins", "models", "routes"] {
        all.push(Searched { name: format!("tollgate {verb}"), bytes: gateway.admin(&[verb]).await.to_string().into_bytes() });
    }
    for name in ["cmdline", "environ"] {
        all.push(Searched {
            name: format!("/proc/PID/{name}"),
            bytes: std::fs::read(format!("/proc/{}/{name}", gateway.pid()))?,
        });
    }
    // What waits to be sent goes out at the end.
    gateway.signal("TERM");
    gateway.ended().await;
    let end = Instant::now() + Duration::from_secs(10);
    while collector.bodies().is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
    ensure!(!collector.bodies().is_empty(), "the collector got no traces");
    all.push(Searched { name: "traces".to_owned(), bytes: collector.bodies() });
    all.push(Searched { name: "traces' headers".to_owned(), bytes: collector.heads() });
    let root = place.config().parent().map_or_else(PathBuf::new, Path::to_owned);
    files(&root, &root, &mut all)?;
    Ok(all)
}

/// Where each canary was found and should not have been, and where it may be and was.
fn search(all: &[Searched], canaries: &[Canary]) -> (Vec<String>, Vec<String>) {
    let (mut hits, mut meant) = (Vec::new(), Vec::new());
    for canary in canaries {
        for place in all.iter().filter(|place| holds(&place.bytes, &canary.word)) {
            let line = format!("{} in {}", canary.name, place.name);
            if canary.may.iter().any(|may| place.name.starts_with(may)) { meant.push(line) } else { hits.push(line) }
        }
    }
    (hits, meant)
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let place = Place::new();
    let (collector, mut planted) = (Collector::start().await?, Planted::new());
    planted.write(&place, collector.port);
    let gateway = place.start().await;
    planted.take_made(&place)?;
    let wire = Wire::new(&place, &gateway)?;
    let core = core_limits(gateway.pid())?;
    for _ in 0..here.pick(10, 1) {
        drive(&wire, &planted).await?;
    }
    let status = slips(&place, &gateway, &planted).await?;
    let back = wire.with_key(planted.word("user key")).chat("scripted", "say back", json!({})).await?;
    let mut all = said(&place, gateway, &wire, &collector).await?;
    all.push(Searched { name: "status of slips".to_owned(), bytes: status.into_bytes() });
    let log = all.iter().find(|place| place.name == "log").context("the log")?;
    let (lines, broken) = (log.bytes.iter().filter(|byte| **byte == b'\n').count(), broken_lines(&log.bytes));
    let (hits, meant) = search(&all, planted.all());
    let bytes = all.iter().map(|place| place.bytes.len()).sum::<usize>();
    let mut checks = Checks::default();
    let line = format!(
        "{} hits of {} canaries in {} files and answers ({} KiB)",
        hits.len(),
        planted.all().len(),
        all.len(),
        bytes >> 10
    );
    checks.check(line, hits.is_empty());
    checks.state(format!("found where they are meant to be: {}", meant.len()));
    checks.check(
        format!("{} of {lines} log lines broken or with control characters", broken.len()),
        broken.is_empty() && lines > 100,
    );
    let is_off = core.iter().all(|limit| limit.parse::<u64>().is_ok_and(|limit| limit <= 1));
    checks.check(format!("core dumps: limit {}", core.join(" ")), is_off);
    checks.check("the key works before and after", back.content() == "back");
    checks.method(
        "Log at trace, traces to a collector of the row's, metrics; errors, traps, a panic of a model's thread, broken config files. \
         Searched: every file of the data directory and the log, /metrics, the admin channel's answers, traces, environment; as text in \
         any case and in hexadecimal. Meant places: keys in their own files, a plugin's config in its file and in the plugin built from \
         it, the collector's key in its file and in the collector's requests.",
    );
    checks.sample("hits", json!(hits));
    checks.sample("meant", json!(meant));
    checks.sample("broken_lines", json!(broken.iter().take(20).collect::<Vec<_>>()));
    Ok(checks.found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_every_form() {
        assert!(holds(b"..Canary-1..", "canary-1") && holds(b"63616e6172792d31", "canary-1"));
        assert!(!holds(b"canary-2", "canary-1"));
    }

    #[test]
    fn a_line_that_is_none_is_seen() {
        assert_eq!(broken_lines(b"{\"a\":1}\n\nthread panicked\n{\"a\":\"\x1b\"}\n").len(), 2);
    }
}
