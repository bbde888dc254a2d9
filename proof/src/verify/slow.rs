//! Thousands of clients that are slow on purpose, each phase of a connection by its own kind (P-E1).

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tollgate_tests::Place;

use super::attack::Attack;
use super::checks::Checks;
use super::good::{Good, Mix};
use super::process::Process;
use super::wire::{Alpn, CHAT, Wire};
use crate::report::Found;
use crate::rows::Here;

/// Later than its deadline by more than this is too late.
const OVER: Duration = Duration::from_secs(2);
/// Addresses that the connections come from, as a cap per address asks for.
const SOURCES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Half a TLS hello.
    Hello,
    /// A handshake, then nothing.
    Silent,
    /// Half an HTTP/2 preface.
    Preface,
    /// A head that drips.
    Head,
    /// A body that drips.
    Body,
    /// A request, then nothing.
    Idle,
}

/// The kinds in the proportions that keep the number open: those that live longest are most.
const MIX: [Kind; 20] = [
    Kind::Idle,
    Kind::Idle,
    Kind::Idle,
    Kind::Hello,
    Kind::Idle,
    Kind::Idle,
    Kind::Hello,
    Kind::Idle,
    Kind::Idle,
    Kind::Silent,
    Kind::Idle,
    Kind::Idle,
    Kind::Preface,
    Kind::Hello,
    Kind::Idle,
    Kind::Idle,
    Kind::Head,
    Kind::Hello,
    Kind::Idle,
    Kind::Body,
];

/// Seconds of each phase, as the listener is told.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    hello: u64,
    first: u64,
    head: u64,
    idle: u64,
}

impl Deadlines {
    fn of(self, kind: Kind) -> Duration {
        Duration::from_secs(match kind {
            Kind::Hello => self.hello,
            Kind::Silent => self.first,
            Kind::Preface | Kind::Head => self.head,
            // The rate is held against the promise after 5 s.
            Kind::Body => 6,
            Kind::Idle => self.idle,
        })
    }
}

/// How long connections of each kind lived, and what went wrong with them.
#[derive(Debug, Default)]
struct Seen {
    closed: Vec<(Kind, Duration)>,
    wrong: Vec<String>,
    open: usize,
    most: usize,
}

type Shared = Arc<Mutex<Seen>>;

fn with<T>(seen: &Shared, change: impl FnOnce(&mut Seen) -> T) -> T {
    change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Opens connections of its kind one after the other, for as long as it is let.
async fn client(wire: Wire, kind: Kind, source: Ipv4Addr, deadlines: Deadlines, seen: Shared) {
    loop {
        let deadline = deadlines.of(kind);
        match one(&wire, kind, source, deadline, &seen).await {
            Ok(lived) => with(&seen, |seen| seen.closed.push((kind, lived))),
            Err(error) => with(&seen, |seen| {
                if seen.wrong.len() < 20 {
                    seen.wrong.push(format!("{kind:?}: {error:#}"));
                }
            }),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// One connection: how long it lived from the moment that its phase began.
async fn one(wire: &Wire, kind: Kind, source: Ipv4Addr, deadline: Duration, seen: &Shared) -> anyhow::Result<Duration> {
    if kind == Kind::Hello {
        let mut stream = wire.tcp(source).await?;
        let began = Instant::now();
        stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await?;
        return held(seen, lives(stream, began, deadline, b"")).await;
    }
    let alpn = if kind == Kind::Preface { Alpn::Http2 } else { Alpn::Http1 };
    let mut stream = wire.tls(alpn, source).await?;
    let began = Instant::now();
    let key = &wire.key;
    let head = match kind {
        Kind::Preface => "PRI * HTTP".to_owned(),
        Kind::Head => "GET / HTTP/1.1\r\nhost: a\r\n".to_owned(),
        Kind::Body => format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n"
        ),
        Kind::Idle => "GET /health HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        Kind::Hello | Kind::Silent => String::new(),
    };
    stream.write_all(head.as_bytes()).await?;
    let drip: &[u8] = match kind {
        Kind::Head => b"x: y\r\n",
        Kind::Body => b"                                                  ",
        _ => b"",
    };
    held(seen, lives(stream, began, deadline, drip)).await
}

/// Counts a connection as open while it lives.
async fn held(seen: &Shared, life: impl Future<Output = anyhow::Result<Duration>>) -> anyhow::Result<Duration> {
    with(seen, |seen| {
        seen.open += 1;
        seen.most = seen.most.max(seen.open);
    });
    let lived = life.await;
    with(seen, |seen| seen.open -= 1);
    lived
}

/// Reads to the end while it drips; fails if the other side is far too patient.
async fn lives<S>(mut stream: S, began: Instant, deadline: Duration, drip: &[u8]) -> anyhow::Result<Duration>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut chunk = [0; 1024];
    let mut pace = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            read = stream.read(&mut chunk) => if !matches!(read, Ok(count) if count > 0) {
                return Ok(began.elapsed());
            },
            _ = pace.tick(), if !drip.is_empty() => {
                // Its failure is the close, which the next read tells.
                let _ = stream.write_all(drip).await;
            }
            () = sleep(deadline * 3 + OVER * 5) => bail!("still open after {:?}", began.elapsed()),
        }
        ensure!(began.elapsed() < deadline * 3 + OVER * 5, "still open after {:?}", began.elapsed());
    }
}

fn place(deadlines: Deadlines) -> Place {
    let place = Place::new();
    let Deadlines { hello, first, head, idle } = deadlines;
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n");
    place.write(
        "listeners/main.toml",
        &format!(
            "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\n[limits]\ntls_handshake_s = {hello}\nfirst_byte_s = {first}\n\
             header_s = {head}\nidle_s = {idle}\n"
        ),
    );
    place
}

/// Starts the clients, so many a second that handshakes leave room for the good ones.
async fn start(wire: &Wire, count: usize, per_s: u64, deadlines: Deadlines, seen: &Shared, attack: &Attack) {
    let (wire, seen) = (wire.clone(), Arc::clone(seen));
    let starting = attack.spawn(async move {
        let mut pace = interval(Duration::from_micros(1_000_000 / per_s));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            pace.tick().await;
            let source = Ipv4Addr::new(127, 0, 1, u8::try_from(number % SOURCES + 1).unwrap_or(1));
            tasks.spawn(client(wire.clone(), MIX[number % MIX.len()], source, deadlines, Arc::clone(&seen)));
        }
        tasks
    });
    if let Ok(mut tasks) = starting.await {
        // They run until the attack's threads end.
        tasks.detach_all();
    }
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let (count, seconds, rate) = here.pick((8_000, 300, 200), (300, 20, 100));
    let full = Deadlines { hello: 10, first: 5, head: 10, idle: 60 };
    let deadlines = here.pick(full, Deadlines { hello: 2, first: 1, head: 2, idle: 4 });
    let place = place(deadlines);
    let gateway = place.start().await;
    let (wire, process) = (Wire::new(&place, &gateway)?, Process(gateway.pid()));
    let alone = Good::run_for(&wire, rate, Mix::Mixed, Duration::from_secs(here.pick(30, 5))).await;
    let before = process.rss_kib()?;
    let (seen, attack) = (Shared::default(), Attack::new()?);
    let good = Good::start(&wire, rate, Mix::Mixed);
    let ((), peak) = process
        .peak_kib(async {
            start(&wire, count, here.pick(250, 100), deadlines, &seen, &attack).await;
            sleep(Duration::from_secs(seconds)).await;
        })
        .await?;
    let tally = good.finish().await;
    drop(attack);
    let emptied = async {
        while gateway.admin(&["status"]).await["listeners"][0]["connections"].as_u64().unwrap_or(0) > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let is_empty = timeout(Duration::from_secs(90), emptied).await.is_ok();
    let mut checks = Checks::default();
    with(&seen, |seen| judge(seen, deadlines, count, &mut checks));
    let each = (peak.saturating_sub(before)) as f64 / count as f64;
    checks.check(format!("{each:.1} KiB resident for each"), each <= 32.0);
    super::compare(&mut checks, &alone, &tally, 2.0);
    checks.check(if is_empty { "no connection left" } else { "connections left open" }, is_empty);
    checks.method("Each kind reconnects when it is closed. TLS but for the half hellos; clients on this machine at low priority, from 16 loopback addresses.");
    Ok(checks.found())
}

fn judge(seen: &Seen, deadlines: Deadlines, count: usize, checks: &mut Checks) {
    let late = seen.closed.iter().filter(|(kind, lived)| *lived > deadlines.of(*kind) + OVER).count();
    checks.check(format!("{} of {count} open at once", seen.most), seen.most * 10 >= count * 9);
    let line = format!("{} closed, {late} of them later than deadline + 2 s, {} otherwise", seen.closed.len(), seen.wrong.len());
    checks.check(line, late == 0 && seen.wrong.is_empty());
    let mut longest = std::collections::BTreeMap::<Kind, f64>::new();
    for (kind, lived) in &seen.closed {
        let entry = longest.entry(*kind).or_default();
        *entry = entry.max(lived.as_secs_f64());
    }
    let longest = longest.into_iter().map(|(kind, seconds)| (format!("{kind:?}"), json!(seconds)));
    checks.sample("longest_s", Value::Object(longest.collect()));
    checks.sample("wrong", json!(seen.wrong));
}
