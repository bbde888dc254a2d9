//! An authenticator that fails, in every way that a plugin can, under requests and hot reloads: nobody is let in (P-A5).
//!
//! The listener asks the faulty plugin first and `auth-keys` after it, so that a failure that was passed over would let a good key in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tollgate_tests::{Gateway, Place, plugin_file};

use super::attack::Attack;
use super::checks::Checks;
use super::wire::{CHAT, Http, JSON, Wire, chat_body};
use crate::report::Found;
use crate::rows::Here;

/// They fail, in a call or by what they return: whoever asks, with a good key or none, is refused.
const FAILING: [&str; 10] = ["trap", "deep", "loop", "tenantless", "nameless", "crowd", "garbage", "grow", "flood", "late"];
/// They do not fail, and know nobody: a stranger is refused.
const STRANGE: [&str; 4] = ["slow", "prints", "lies", "abstain"];
/// What can be wrong with the plugin itself. It is in quarantine then, and the faulty one before it serves on.
const BROKEN: [&str; 6] = ["unborn", "stillborn", "missing", "no component", "no authenticator", "skips"];
/// What is aimed at; the row says what was held.
const PER_S: u64 = 500;

/// What the answers were: how many, by generation and status (0 is none).
type Seen = BTreeMap<(u64, u16), u64>;

/// What the clients share.
#[derive(Debug, Default)]
struct Crowd {
    stop: AtomicBool,
    /// Whether good keys are sent as well.
    is_good_sent: AtomicBool,
    good_in_flight: AtomicUsize,
    seen: Mutex<Seen>,
    admitted: Mutex<Vec<String>>,
}

fn gate(mode: &str) -> String {
    let file = plugin_file("misauth");
    format!("component = {file:?}\ngrants = [\"log\"]\n[config]\nmode = {mode:?}\n")
}

fn broken(place: &Place, kind: &str) -> String {
    match kind {
        "missing" => "component = \"nowhere.wasm\"\n".to_owned(),
        "no component" => {
            let file = place.data().join("garbage.wasm");
            // A file that cannot be written is missing, which is a fault as well.
            let _ = std::fs::write(&file, b"\0asm\x0d\0\x01\0\xff\xff\xff\xff");
            format!("component = {file:?}\n")
        }
        "no authenticator" => "component = \"builtin:filter-pii\"\n".to_owned(),
        "skips" => gate(FAILING[0]).replace("[config]", "on_failure = \"skip\"\n[config]"),
        init => gate(init),
    }
}

async fn client(wire: Wire, number: usize, of: usize, crowd: Arc<Crowd>) {
    let body = chat_body("scripted", "say admitted", json!({ "max_tokens": 4 }));
    let keys = [wire.key.clone(), String::new(), "tg-not-a-key-of-this-gateway".to_owned()];
    let mut pace = interval(Duration::from_micros(1_000_000 * of as u64 / PER_S));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connections = [None, None, None];
    for turn in number.. {
        pace.tick().await;
        if crowd.stop.load(Ordering::Relaxed) {
            return;
        }
        let at = turn % keys.len();
        crowd.good_in_flight.fetch_add(1, Ordering::SeqCst);
        let is_good = at == 0 && crowd.is_good_sent.load(Ordering::SeqCst);
        let at = if at == 0 && !is_good { 1 } else { at };
        if !is_good {
            crowd.good_in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        let asked = ask(&wire.with_key(&keys[at]), &mut connections[at], &body).await;
        if asked.is_err() {
            connections[at] = None;
        }
        let (generation, status, text) = asked.unwrap_or_default();
        *crowd.seen.lock().await.entry((generation, status)).or_default() += 1;
        if (1..400).contains(&status) {
            crowd.admitted.lock().await.push(format!("generation {generation}: {status} {text}"));
        }
        if is_good {
            crowd.good_in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

async fn ask(wire: &Wire, connection: &mut Option<Http>, body: &[u8]) -> anyhow::Result<(u64, u16, String)> {
    if connection.is_none() {
        *connection = Some(wire.http().await?);
    }
    let answer = connection.as_mut().context("it was opened above")?.ask("POST", CHAT, &[JSON], body).await?;
    let generation = answer.header("x-tollgate-generation").parse().unwrap_or_default();
    Ok((generation, answer.status.as_u16(), answer.text().chars().take(200).collect()))
}

/// Has the gateway take in `text` as its first authenticator; the generation that then serves.
async fn change(place: &Place, gateway: &Gateway, text: &str, is_to_serve: bool) -> anyhow::Result<u64> {
    place.write("plugins/gate.toml", text);
    let status = gateway.reload().await;
    let is_ok = status["state"] == "ok";
    ensure!(is_ok == is_to_serve, "{text}: {status}");
    status["generation"].as_u64().context("a generation")
}

/// The modes, or every `step`-th of them, while the clients ask; which generation had which mode.
async fn modes(
    place: &Place,
    gateway: &Gateway,
    crowd: &Crowd,
    (each, step): (Duration, usize),
) -> anyhow::Result<(BTreeMap<u64, &'static str>, usize)> {
    let mut served = BTreeMap::from([(1, FAILING[0])]);
    let last = BROKEN[BROKEN.len() - 1];
    let mut faults = BTreeSet::from([last]);
    sleep(each).await;
    for (at, mode) in FAILING.into_iter().enumerate().step_by(step).skip(1) {
        served.insert(change(place, gateway, &gate(mode), true).await?, mode);
        sleep(each).await;
        if let Some(kind) = BROKEN.get(at / step - 1) {
            change(place, gateway, &broken(place, kind), false).await?;
            faults.insert(*kind);
            sleep(each / 2).await;
        }
    }
    // From here on a good key may be let in by the second authenticator.
    crowd.is_good_sent.store(false, Ordering::SeqCst);
    let end = Instant::now() + super::wire::PATIENCE * 2;
    while crowd.good_in_flight.load(Ordering::SeqCst) > 0 {
        ensure!(Instant::now() < end, "requests with a good key are still under way");
        sleep(Duration::from_millis(20)).await;
    }
    for mode in STRANGE.into_iter().step_by(step) {
        served.insert(change(place, gateway, &gate(mode), true).await?, mode);
        sleep(each).await;
    }
    change(place, gateway, &broken(place, last), false).await?;
    sleep(each / 2).await;
    let kinds = served.len() + faults.len();
    Ok((served, kinds))
}

/// The row.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    // Fewer connections and every second mode in a short run: its time is the builds', which the others' loops slow down.
    let (each, connections) = (Duration::from_millis(here.pick(15_000, 300)), here.pick(64, 8));
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"error\"\n[reload]\npoll_s = 3600\ndebounce_ms = 3600\n");
    place.write("listeners/main.toml", "address = \"127.0.0.1:0\"\nauthenticators = [\"gate\", \"auth-keys\"]\n");
    place.write("plugins/gate.toml", &broken(&place, "missing"));
    let refusal = place.start_fails().await;
    place.write("plugins/gate.toml", &gate(FAILING[0]));
    let gateway = place.start().await;
    let wire = Wire::new(&place, &gateway)?;
    let (attack, crowd) = (Attack::new()?, Arc::new(Crowd::default()));
    crowd.is_good_sent.store(true, Ordering::SeqCst);
    let clients = (0..connections)
        .map(|number| attack.spawn(client(wire.clone(), number, connections, Arc::clone(&crowd))))
        .collect::<Vec<_>>();
    let began = Instant::now();
    let (served, kinds) = modes(&place, &gateway, &crowd, (each, here.pick(1, 2))).await?;
    let took = began.elapsed().as_secs_f64();
    crowd.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    // The model itself is the second witness.
    let models = gateway.admin(&["models"]).await;
    let steps = models[0]["steps"].as_u64().context("a model has its steps")?;
    change(&place, &gateway, "component = \"builtin:auth-keys\"\ngrants = [\"credentials\", \"log\"]\n", true).await?;
    let after = wire.chat("scripted", "say back", Value::Null).await?;
    let mut checks = Checks::default();
    judge(&mut checks, &crowd, (&served, kinds), took).await;
    checks.check(format!("{steps} steps of the model"), steps == 0);
    checks.check("no start without the authenticator", refusal.contains("gate"));
    let is_back = after.status.is_success() && after.content() == "back";
    checks.check("a good key is let in again once the authenticator is mended", is_back);
    checks.method(
        "The faulty plugin stands before auth-keys. While it fails, a third of the requests has a good key, a third a bad one, a third \
         none; while it merely knows nobody, no good ones. Faults in the plugin itself (init fails, init traps, file missing, no \
         component, no such hook, on_failure = \"skip\") are put in by reloads in between, and the one before serves on.",
    );
    Ok(checks.found())
}

async fn judge(checks: &mut Checks, crowd: &Crowd, (served, kinds): (&BTreeMap<u64, &'static str>, usize), took: f64) {
    let (seen, admitted) = (crowd.seen.lock().await, crowd.admitted.lock().await);
    let total = seen.values().sum::<u64>();
    let unanswered = seen.iter().filter(|((_, status), _)| *status == 0).map(|(_, count)| count).sum::<u64>();
    let rate = total as f64 / took;
    checks.check(
        format!("{} admitted of {total} requests in {kinds} modes at {rate:.0}/s (aimed at {PER_S}/s)", admitted.len()),
        admitted.is_empty() && total > 0,
    );
    let quiet = served.iter().filter(|(generation, _)| !seen.keys().any(|(found, status)| found == *generation && *status > 0));
    let quiet = quiet.map(|(_, mode)| *mode).collect::<Vec<_>>();
    checks.check(format!("{} of {} serving modes answered nobody", quiet.len(), served.len()), quiet.is_empty());
    checks.state(format!("{unanswered} without an answer"));
    let rows = seen
        .iter()
        .map(|((generation, status), count)| json!([generation, served.get(generation).copied().unwrap_or("?"), status, count]));
    checks.sample("generation_mode_status_count", rows.collect());
    checks.sample("silent_modes", json!(quiet));
    checks.sample("admitted", json!(admitted.iter().take(20).collect::<Vec<_>>()));
}
