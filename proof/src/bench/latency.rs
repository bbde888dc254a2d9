//! What a gateway adds to a request: Tollgate against a bare hyper and rustls server, and LiteLLM against the server behind it.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;
use tollgate_tests::Place;

use super::bare;
use super::pair::{self, Pair};
use super::peers::{LiteLlm, LlamaServer, Setting};
use super::plugin::quantiles;
use crate::load::Target;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::{median, percentile};

/// What a chain of five plugins may add.
const AIM_P50_US: f64 = 250.0;
const AIM_P99_US: f64 = 1_000.0;

/// What each of the targets took, in microseconds.
type Times = Vec<Vec<f64>>;

/// Asks the targets in turn, in blocks, each over a connection that stays open.
async fn interleave(targets: &[Target], bodies: &[Bytes], blocks: usize, block: usize) -> anyhow::Result<Times> {
    let mut links = Vec::new();
    for target in targets {
        links.push(target.connect().await?);
    }
    let mut times = vec![Vec::new(); targets.len()];
    for round in 0..=blocks {
        for ((link, body), times) in links.iter_mut().zip(bodies).zip(&mut times) {
            for _ in 0..block {
                link.renew().await?;
                let took = link.post(body).await?.succeeded()?.took;
                // The first round warms up.
                if round > 0 {
                    times.push(took.as_secs_f64() * 1e6);
                }
            }
        }
    }
    Ok(times)
}

/// A gateway whose model `plugins-N` is the scripted one behind N plugins.
fn place(plugins: usize) -> anyhow::Result<Place> {
    let place = Place::new();
    place.remove("tollgate.toml");
    place
        .write("plugins/template-jinja.toml", "component = \"builtin:template-jinja\"\n[config]\nsystem = \"Answer briefly.\"\n");
    place.write("plugins/filter-pii.toml", "component = \"builtin:filter-pii\"\n");
    let mut chain = vec!["template-jinja".to_owned(), "filter-pii".to_owned()];
    for number in 1..=3 {
        let id = format!("probe-{number}");
        place.plugin(&id, "probe", "grants = [\"log\"]\n");
        chain.push(id);
    }
    // One plugin is the one that the default route has.
    let chain = if plugins == 1 { &chain[1..2] } else { chain.get(..plugins).context("up to five plugins")? };
    place.write("routes/chat.toml", &format!("plugins = {chain:?}\n"));
    Ok(place)
}

/// What Tollgate adds to a request with `plugins` on its route, on the scripted backend.
pub(crate) async fn added(here: Here, plugins: usize) -> anyhow::Result<Found> {
    let place = place(plugins)?;
    let folder = tempfile::tempdir()?;
    let gateway = place.start().await;
    let ours = pair::target(&gateway, &place, "scripted")?;
    let system = "You are the help desk of Example Ltd. Answer briefly, and ask if you are not sure what is meant.";
    let messages = json!([{ "role": "system", "content": system }, { "role": "user", "content": "say done" }]);
    let body = ours.body("", json!({ "messages": messages, "temperature": 0, "max_tokens": 16 }));
    let size = body.len();
    let answer = ours.connect().await?.post(&body).await?.succeeded()?;
    let content = answer.json()?.pointer("/choices/0/message/content").cloned();
    anyhow::ensure!(content == Some(json!("done")), "the reply is {content:?}");
    let (_bare, theirs) = bare::start(&place.data().join("tls"), &answer.body, folder.path()).await?;
    let (blocks, block) = here.pick((100, 200), (4, 25));
    let times = interleave(&[theirs, ours], &[body.clone(), body], blocks, block).await?;
    let (bare, whole) = (&times[0], &times[1]);
    let p50 = median(whole) - median(bare);
    let p99 = percentile(whole, 0.99) - percentile(bare, 0.99);
    let verdict = if plugins == 5 { Verdict::of(p50 <= AIM_P50_US && p99 <= AIM_P99_US) } else { Verdict::Stated };
    Ok(Found {
        figure: format!(
            "p50 {p50:+.0} us, p99 {p99:+.0} us (whole {:.0} and {:.0}, bare {:.0} and {:.0})",
            median(whole),
            percentile(whole, 0.99),
            median(bare),
            percentile(bare, 0.99)
        ),
        verdict,
        method: format!(
            "The same request of {size} bytes over TLS on an open connection, answered with the same {} bytes; {} of each in blocks of \
             {block}, in turn. Tollgate's part holds everything: the key's check by the auth-keys plugin, routing, the plugins \
             on the route, the scripted backend's own three steps, the encoding.",
            answer.body.len(),
            whole.len()
        ),
        samples: json!({ "whole_us": quantiles(whole), "bare_us": quantiles(bare) }),
    })
}

/// What LiteLLM adds to `llama-server`, and what Tollgate takes for the same request on the same model.
pub(crate) async fn litellm(here: Here, clients: usize) -> anyhow::Result<Found> {
    let (server, litellm) = (LlamaServer::ensure(&here.root).await?, LiteLlm::ensure().await?);
    let file = here.root.join("host/demo-model/demo.gguf");
    let setting = Setting { threads: 0, sequences: 16, context_tokens: 16 * 512 };
    let pair = Pair::on(&server, &file, setting).await?;
    let [ours, direct] = &pair.targets;
    let (_litellm, through) = litellm.start(direct.port(), pair.folder.path()).await?;
    let targets = [direct.clone(), through, ours.clone()];
    let bodies =
        targets.clone().map(|target| target.body("How do I start the gateway?", json!({ "max_tokens": 1, "temperature": 0 })));
    let [direct, through, ours] = if clients == 1 {
        let (blocks, block) = here.pick((30, 20), (2, 5));
        let mut times = interleave(&targets, &bodies, blocks, block).await?.into_iter();
        [times.next(), times.next(), times.next()].map(Option::unwrap_or_default)
    } else {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..here.pick(3, 1) {
            for ((target, body), times) in targets.iter().zip(&bodies).zip(&mut all) {
                times.extend(crowd(target, body, clients, here.pick(Duration::from_secs(10), Duration::from_secs(2))).await?);
            }
        }
        all
    };
    let added = |times: &[f64]| (median(times) - median(&direct)) / 1e3;
    let (theirs, own) = (added(&through), added(&ours));
    Ok(Found {
        figure: format!(
            "Tollgate {own:+.2} ms, LiteLLM {theirs:+.2} ms (p50 whole: {:.2}, {:.2}, llama-server itself {:.2}; p99 {:.2}, {:.2}, {:.2})",
            median(&ours) / 1e3,
            median(&through) / 1e3,
            median(&direct) / 1e3,
            percentile(&ours, 0.99) / 1e3,
            percentile(&through, 0.99) / 1e3,
            percentile(&direct, 0.99) / 1e3
        ),
        verdict: Verdict::of(own < theirs),
        method: format!(
            "A reply of one token from the demo model, {clients} at a time. LiteLLM {} (one worker, no key, no TLS) proxies to \
             llama-server; Tollgate runs the model itself, with TLS, a key and its authenticator. Both are compared with \
             asking llama-server directly, in turn. {}",
            litellm.version, pair.method
        ),
        samples: json!({ "llama-server_us": quantiles(&direct), "litellm_us": quantiles(&through), "tollgate_us": quantiles(&ours) }),
    })
}

/// Asks from many connections at once for a while; what each request took, in microseconds.
async fn crowd(target: &Target, body: &Bytes, clients: usize, time: Duration) -> anyhow::Result<Vec<f64>> {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (target, body) = (target.clone(), body.clone());
        tasks.spawn(async move {
            let mut link = target.connect().await?;
            let mut times = Vec::new();
            while Instant::now() < end {
                link.renew().await?;
                times.push(link.post(&body).await?.succeeded()?.took.as_secs_f64() * 1e6);
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = tasks.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}
