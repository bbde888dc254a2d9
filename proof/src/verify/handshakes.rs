//! TLS as an attacker sees it: what testssl.sh says, hellos in fragments, mutated hellos, and a flood of handshakes (P-E6).

mod hello;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tollgate_tests::{Gateway, Place};

use super::attack::Attack;
use super::chance::Chance;
use super::checks::Checks;
use super::good::{Good, Mix};
use super::process::Process;
use super::scrape::{Scrape, whole};
use super::wire::{Alpn, PATIENCE, Wire};
use crate::report::Found;
use crate::rows::Here;

const SEED: u64 = 20_261_121;
/// Loopback addresses that the row's own clients come from.
const SOURCES: usize = 32;
/// P-E6: new connections a second.
const PER_S: u32 = 500;

fn place() -> Place {
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n");
    place.write(
        "listeners/main.toml",
        "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\n[limits]\nconnections_per_ip = 4000\n",
    );
    place
}

fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, u8::try_from(number % SOURCES + 1).unwrap_or(1))
}

/// testssl.sh's findings that are grave, and how many there are in all; `None` where it is not installed.
async fn testssl(place: &Place, gateway: &Gateway, is_quick: bool) -> anyhow::Result<Option<(Vec<String>, usize)>> {
    let out = place.data().join("testssl.json");
    let port = gateway.url.rsplit(':').next().context("a port")?;
    let mut command = Command::new("testssl");
    // Protocols, ciphers and forward secrecy in a short run; everything in a long one.
    let what: &[&str] = if is_quick { &["--protocols", "--std", "--fs"] } else { &[] };
    command.args(what).args(["--warnings", "batch", "--color", "0", "--quiet", "--ip", "127.0.0.1", "--add-ca"]);
    command.arg(place.data().join("tls/ca.pem")).arg("--jsonfile").arg(&out).arg(format!("https://localhost:{port}"));
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).kill_on_drop(true);
    let mut run = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        run => run?,
    };
    timeout(Duration::from_secs(600), run.wait()).await.context("testssl.sh is not done after 10 minutes")??;
    let findings = serde_json::from_slice::<Vec<Value>>(&std::fs::read(&out)?)?;
    // Who issues certificates for this machine alone has no address at which others could ask whether they are revoked.
    let of_the_issuer = |finding: &Value| finding["id"] == "cert_revocation";
    let is_grave =
        |finding: &&Value| matches!(finding["severity"].as_str(), Some("HIGH" | "CRITICAL" | "FATAL")) && !of_the_issuer(finding);
    let grave = findings.iter().filter(is_grave).map(|finding| format!("{}: {}", finding["id"], finding["finding"])).collect();
    Ok(Some((grave, findings.len())))
}

/// One mutated hello: whether the gateway closed the connection in time.
async fn mutant(wire: &Wire, seed: &[u8], number: u64) -> bool {
    let mut chance = Chance(SEED.wrapping_add(number));
    let bytes = hello::mutate(seed, &mut chance);
    let sent = async {
        let mut stream = wire.tcp(source(chance.below(SOURCES))).await.ok()?;
        // The gateway may close before it has all: then the read tells.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut chunk = [0; 4_096];
        while let Ok(1..) = stream.read(&mut chunk).await {}
        // A reset leaves no port behind that waits.
        socket_reset(&stream);
        Some(())
    };
    timeout(PATIENCE, sent).await.ok().flatten().is_some()
}

/// Has the socket reset when it is dropped, so that a hundred thousand of them do not use up the ports.
fn socket_reset(stream: &TcpStream) {
    // Where it cannot be set, ports come back a minute later.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// So many mutated hellos on the attack's threads; how many were not closed.
async fn mutants(wire: &Wire, count: u64) -> anyhow::Result<u64> {
    let attack = Attack::new()?;
    let seed = Arc::new(hello::seed()?);
    let left_open = Arc::new(AtomicU64::new(0));
    let workers = (0..32).map(|worker| {
        let (wire, seed, left_open) = (wire.clone(), Arc::clone(&seed), Arc::clone(&left_open));
        attack.spawn(async move {
            for number in (worker..count).step_by(32) {
                if !mutant(&wire, &seed, number).await {
                    left_open.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await?;
    }
    Ok(left_open.load(Ordering::Relaxed))
}

/// New connections at a set pace: how many there were, and how many failed.
async fn flood(wire: Wire, time: Duration) -> (u64, u64) {
    let mut pace = interval(Duration::from_secs(1) / PER_S);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = tokio::time::Instant::now() + time;
    let (mut tasks, mut done, mut failed) = (JoinSet::new(), 0, 0);
    let mut number = 0;
    while tokio::time::Instant::now() < end {
        pace.tick().await;
        let (wire, source) = (wire.clone(), source(number));
        number += 1;
        tasks.spawn(async move {
            let mut stream = wire.tls(Alpn::Http1, source).await?;
            stream.shutdown().await?;
            socket_reset(stream.get_ref().0);
            anyhow::Ok(())
        });
        while let Some(result) = tasks.try_join_next() {
            done += 1;
            failed += u64::from(!matches!(result, Ok(Ok(()))));
        }
    }
    while let Some(result) = tasks.join_next().await {
        done += 1;
        failed += u64::from(!matches!(result, Ok(Ok(()))));
    }
    (done, failed)
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (count, seconds) = here.pick((100_000, 120), (3_000, 10));
    let place = place();
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let mut checks = Checks::default();
    match testssl(&place, &gateway, here.is_quick).await? {
        None => checks.state("testssl.sh is not installed here"),
        Some((grave, all)) => {
            checks.check(format!("testssl.sh: {} HIGH or CRITICAL of {all} findings", grave.len()), grave.is_empty() && all > 0);
            checks.sample("testssl", json!(grave));
        }
    }
    let mut fragmented = 0;
    for (record, write) in [(1, 1), (1, 4_096), (7, 3), (64, 64), (16_384, 1)] {
        let said = hello::in_fragments(&wire, record, write).await;
        fragmented += u32::from(said.is_ok());
        if let Err(error) = said {
            checks.sample(&format!("fragments_{record}_{write}"), json!(format!("{error:#}")));
        }
    }
    checks.check(format!("{fragmented} of 5 handshakes in fragments"), fragmented == 5);

    let failed_before = failures(&wire).await?;
    let before = process.rss_kib()?;
    let (left_open, peak) = process.peak_kib(mutants(&wire, count)).await?;
    let (left_open, failed) = (left_open?, failures(&wire).await? - failed_before);
    checks
        .check(format!("{count} mutated hellos: {failed} refused, {left_open} left open"), left_open == 0 && failed * 2 > count);
    checks.state(format!("resident memory {before} KiB before, {peak} KiB at most"));

    let good = here.pick(Duration::from_secs(30), Duration::from_secs(5));
    let alone = Good::run_for(&wire, here.pick(200, 100), Mix::Mixed, good).await;
    let (attack, traffic) = (Attack::new()?, Good::start(&wire, here.pick(200, 100), Mix::Mixed));
    let (done, not_done) = attack.spawn(flood(wire.clone(), Duration::from_secs(seconds))).await?;
    let tally = traffic.finish().await;
    let rate = done as f64 / seconds as f64;
    checks.check(
        format!("{done} new connections in {seconds} s, {rate:.0}/s of {PER_S}/s, {not_done} failed"),
        not_done == 0 && rate >= f64::from(PER_S) * 0.9,
    );
    super::compare(&mut checks, &alone, &tally, 2.0);
    let panics = place.log().matches("panicked").count();
    checks.check(format!("{panics} panics in the log"), panics == 0);
    checks.check("the gateway answers", wire.ask("GET", "/health", &[], b"").await?.status.is_success());
    checks.method(
        "That the local authority's certificate names no place to ask for revocation is no finding here. The clients of the flood \
         share the two cores, at low priority; each makes a whole handshake and closes. Established: good traffic over kept \
         connections, p99 against the same before the flood.",
    );
    Ok(checks.found())
}

async fn failures(wire: &Wire) -> anyhow::Result<u64> {
    Ok(whole(Scrape::of(wire).await?.sum("tollgate_tls_handshakes_failed_total", &[], &[])))
}
