//! Request smuggling: 150 and more conversations that two readers may count differently, to the gateway itself and through real
//! proxies, with everybody's count of the requests (P-E4).

mod downgrades;
mod payloads;
mod proxies;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tollgate_tests::{Gateway, Place};

use super::checks::Checks;
use super::raw::{Talk, exchange, exchange2};
use super::scrape::Scrape;
use super::wire::{Alpn, Wire};
use crate::report::Found;
use crate::rows::Here;
use downgrades::{Downgrade, downgrades};
use payloads::{Expect, Payload, payloads};
use proxies::{Proxy, Sent};

/// Conversations at once; their requests are counted together.
const BATCH: usize = 16;
/// A count has to be right within this.
const SETTLES: Duration = Duration::from_secs(5);

/// Where conversations go.
#[derive(Debug, Clone)]
enum Target {
    Direct(Wire),
    /// A port of a proxy.
    Proxy(u16),
}

impl Target {
    async fn http1(&self, bytes: &[u8]) -> anyhow::Result<Talk> {
        Ok(match self {
            Target::Direct(wire) => exchange(&mut wire.tls(Alpn::Http1, Ipv4Addr::LOCALHOST).await?, bytes).await,
            Target::Proxy(port) => exchange(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?, bytes).await,
        })
    }

    async fn http2(&self, bytes: &[u8]) -> anyhow::Result<Talk> {
        Ok(match self {
            Target::Direct(wire) => exchange2(&mut wire.tls(Alpn::Http2, Ipv4Addr::LOCALHOST).await?, bytes).await,
            Target::Proxy(port) => exchange2(&mut TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await?, bytes).await,
        })
    }
}

/// What is wrong with a conversation with the gateway itself; empty if nothing.
fn faults(payload: &Payload, talk: &Talk) -> Vec<String> {
    let (count, mut faults) = (talk.statuses.len(), Vec::new());
    let is_right = match payload.expect {
        Expect::Refused => count == 1 && matches!(talk.statuses[0], 400 | 501),
        Expect::Served(expected) => count == expected,
        Expect::OneOrTwo => count == 1 || count == 2,
    };
    if !is_right {
        faults.push(format!("answers {:?}, expected {:?}", talk.statuses, payload.expect));
    }
    if !talk.is_closed {
        faults.push("not closed".to_owned());
    }
    if talk.says("`evil`") {
        faults.push("the smuggled request was served".to_owned());
    }
    faults
}

/// The gateway's count since `before`, once it is all that was sent, or at the deadline.
async fn counted(wire: &Wire, before: u64, sent: impl Fn() -> anyhow::Result<Sent>) -> anyhow::Result<(u64, Sent)> {
    let end = Instant::now() + SETTLES;
    loop {
        let (found, sent) = (Scrape::of(wire).await?.requests().saturating_sub(before), sent()?);
        if found == sent.answered + sent.given_up || Instant::now() > end {
            return Ok((found, sent));
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// All conversations at once; results in their order.
async fn together(target: &Target, conversations: Vec<(Vec<u8>, bool)>) -> anyhow::Result<Vec<Talk>> {
    let mut tasks = JoinSet::new();
    for (at, (bytes, is_http2)) in conversations.into_iter().enumerate() {
        let target = target.clone();
        tasks.spawn(async move {
            let talk = if is_http2 { target.http2(&bytes).await } else { target.http1(&bytes).await };
            (at, talk)
        });
    }
    let mut talks = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (at, talk) = done?;
        talks.push((at, talk?));
    }
    talks.sort_by_key(|(at, _)| *at);
    Ok(talks.into_iter().map(|(_, talk)| talk).collect())
}

/// The gateway itself: what each conversation was answered, and the answers of every batch against the gateway's count.
async fn direct(wire: &Wire, list: &[Payload], down: &[Downgrade]) -> anyhow::Result<(Vec<String>, u64)> {
    let (target, mut wrong, mut total) = (Target::Direct(wire.clone()), Vec::new(), 0);
    for batch in list.chunks(BATCH) {
        let before = Scrape::of(wire).await?.requests();
        let talks = together(&target, batch.iter().map(|payload| (payload.bytes.clone(), false)).collect()).await?;
        for (payload, talk) in batch.iter().zip(&talks) {
            wrong.extend(faults(payload, talk).into_iter().map(|fault| format!("direct, {}: {fault}", payload.name)));
        }
        let answers = talks.iter().map(|talk| talk.statuses.len() as u64).sum::<u64>();
        total += answers;
        let (found, _) = counted(wire, before, || Ok(Sent { answered: answers, given_up: 0 })).await?;
        if found != answers {
            let names = batch.iter().map(|payload| payload.name.as_str()).collect::<Vec<_>>().join(" | ");
            wrong.push(format!("direct: {answers} answers, {found} requests by the gateway's count, among {names}"));
        }
    }
    for one in down {
        let before = Scrape::of(wire).await?.requests();
        let talk = target.http2(&one.bytes).await?;
        let answers = talk.statuses.len() as u64;
        // A request that is reset while it is answered is counted and has no answer.
        let (found, _) = counted(wire, before, || Ok(Sent { answered: answers, given_up: 0 })).await?;
        total += answers;
        if found > 1 || answers > found || talk.says("`evil`") || !talk.is_closed {
            wrong.push(format!("direct, {}: answers {:?}, {found} requests, closed {}", one.name, talk.statuses, talk.is_closed));
        }
    }
    Ok((wrong, total))
}

/// Somebody else's request on the proxy's kept connections: the answer has to be theirs.
async fn victim(port: u16, key: &str, number: usize) -> anyhow::Result<Option<String>> {
    let name = format!("victim-{number}");
    let talk = Target::Proxy(port).http1(payloads::get(&name, key, "connection: close\r\n").as_bytes()).await?;
    let is_own = talk.statuses == [404] && talk.says(&format!("`{name}`"));
    Ok((!is_own).then(|| format!("{name} was answered {:?}: {}", talk.statuses, String::from_utf8_lossy(&talk.bytes))))
}

/// One batch through a proxy: what it sent on against what the gateway counts.
async fn batch(
    wire: &Wire,
    proxy: &Proxy,
    conversations: Vec<(Vec<u8>, bool)>,
    number: usize,
) -> anyhow::Result<(Sent, u64, Option<String>)> {
    let (before, sent) = (Scrape::of(wire).await?.requests(), proxy.sent_on()?);
    let (one, two) = conversations.into_iter().partition::<Vec<_>, _>(|(_, is_http2)| !is_http2);
    together(&Target::Proxy(proxy.http1), one).await?;
    together(&Target::Proxy(proxy.http2), two).await?;
    let hurt = victim(proxy.http1, &wire.key, number).await?;
    let (found, sent) = counted(wire, before, || Ok(proxy.sent_on()?.since(sent))).await?;
    Ok((sent, found, hurt))
}

/// Through a proxy: all conversations in batches; a batch whose counts differ is taken apart.
async fn behind(wire: &Wire, proxy: &Proxy, list: &[(String, Vec<u8>, bool)]) -> anyhow::Result<(Vec<String>, u64)> {
    let (mut wrong, mut total) = (Vec::new(), 0);
    for (number, part) in list.chunks(BATCH).enumerate() {
        let conversations =
            |part: &[(String, Vec<u8>, bool)]| part.iter().map(|(_, bytes, two)| (bytes.clone(), *two)).collect::<Vec<_>>();
        let (sent, found, hurt) = batch(wire, proxy, conversations(part), number).await?;
        total += sent.answered + sent.given_up;
        wrong.extend(hurt.map(|hurt| format!("{}: {hurt}", proxy.name)));
        if sent.agrees(found) {
            continue;
        }
        let from = wrong.len();
        for one in part {
            let (sent, found, _) = batch(wire, proxy, conversations(std::slice::from_ref(one)), number).await?;
            if !sent.agrees(found) {
                wrong.push(format!("{}, {}: {sent:?} sent on, {found} by the gateway's count", proxy.name, one.0));
            }
        }
        if wrong.len() == from {
            wrong.push(format!("{}: {sent:?} sent on, {found} by the gateway's count, in a batch of {}", proxy.name, part.len()));
        }
    }
    Ok((wrong, total))
}

/// Two listeners: one that gives up soon, for whom speaks to it; one that is patient, for proxies that keep connections.
async fn gateway(place: &Place) -> anyhow::Result<(Gateway, Wire, Wire, u16)> {
    place.write("tollgate.toml", "[log]\nlevel = \"error\"\n");
    let listener = "address = \"127.0.0.1:0\"\nauthenticators = [\"auth-keys\"]\n[limits]\n";
    place.write("listeners/main.toml", &format!("{listener}idle_s = 1\nheader_s = 1\nbody_idle_s = 1\n"));
    place.write("listeners/behind.toml", &format!("{listener}idle_s = 600\n"));
    let gateway = place.start().await;
    let status = gateway.admin(&["status"]).await;
    let listeners = status["listeners"].as_array().context("listeners")?;
    let url = |id: &str| listeners.iter().find(|listener| listener["id"] == id).and_then(|listener| listener["urls"][0].as_str());
    let key = std::fs::read_to_string(place.data().join("admin.key"))?.trim().to_owned();
    let main = Wire::at(place, url("main").context("main")?, key.clone())?;
    let other = url("behind").context("behind")?;
    let port = other.rsplit(':').next().context("a port")?.parse()?;
    Ok((gateway, main, Wire::at(place, other, key)?, port))
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let place = Place::new();
    let (mut gateway, main, patient, port) = gateway(&place).await?;
    let (list, down) = (payloads(&main.key), downgrades(&main.key));
    let many = list.len() + down.len();
    ensure!(many >= 150, "{many} payloads");
    let mut checks = Checks::default();
    let (wrong, answers) = direct(&main, &list, &down).await?;
    checks.check(
        format!("{many} payloads to the gateway itself: {} disagreements over {answers} requests", wrong.len()),
        wrong.is_empty(),
    );
    checks.sample("direct", json!(wrong));
    let both = list.iter().map(|payload| (payload.name.clone(), payload.bytes.clone(), false));
    let both = both.chain(down.iter().map(|down| (down.name.clone(), down.bytes.clone(), true))).collect::<Vec<_>>();
    let rounds = here.pick(3, 1);
    for name in ["haproxy", "nginx"] {
        let Some(proxy) = Proxy::start(name, &place, port).await? else {
            checks.method(format!("{name} is not installed here, so that nothing is said of it."));
            continue;
        };
        let (mut wrong, mut total) = (Vec::new(), 0);
        for _ in 0..rounds {
            let (faults, sent) = behind(&patient, &proxy, &both).await?;
            wrong.extend(faults);
            total += sent;
        }
        let line = format!("behind {name}, {rounds} times: {} disagreements over {total} requests sent on", wrong.len());
        checks.check(line, wrong.is_empty() && total > 0);
        checks.sample(name, Value::from(wrong));
    }
    let alive = timeout(Duration::from_millis(10), gateway.ended()).await.is_err();
    checks.check("the gateway runs", alive);
    checks.method(
        "CL.TE, TE.CL, TE.TE, lengths, chunks, line ends, request lines, hosts, bodies left, early upgrades, and HTTP/2 fields that end a \
         line. Direct: answers against the gateway's count, and the smuggled request is never served. Behind a proxy, with kept \
         connections to the gateway: what the proxy's log says it sent on against the gateway's count, and a victim after every 16.",
    );
    Ok(checks.found())
}
