//! Rows over the plugin host itself, without a gateway around it: a fresh instance and its call, a stream filter's piece, and how
//! much memory an instance writes to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tempfile::TempDir;
use tollgate_domain::{ChatRequest, Context, Message, Origin, Parameters, Piece, Principal, RequestHead, Role};
use tollgate_plugins::{
    BuildLimits, Builder, Capability, Credentials, Instance, Limits, Lookup, MacKey, OnFailure, Plugin, PluginHost, Spec,
};

use crate::process::memory_kib;
use crate::report::{Found, Verdict};
use crate::rows::Here;
use crate::stats::{median, percentile};

/// What an instance may take: start, call and end.
const AIM_US: f64 = 60.0;
/// What making it may take.
const AIM_START_US: f64 = 20.0;
/// What a piece of a reply may take.
const AIM_PIECE_US: f64 = 3.0;
/// Instances that are held at once to see what they write to.
const HELD: u32 = 32;

/// A first-party plugin, and the call that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// 13 request headers in, a principal out.
    AuthKeys,
    /// A message of 300 characters in, no personal data found.
    FilterPii,
    /// A system message added; 0.9 MB, the largest.
    TemplateJinja,
}

impl Which {
    fn component(self) -> &'static str {
        match self {
            Which::AuthKeys => "auth-keys",
            Which::FilterPii => "filter-pii",
            Which::TemplateJinja => "template-jinja",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Which::AuthKeys => r#"{"accept":["bearer","x-api-key"]}"#,
            Which::FilterPii => r#"{"kinds":["email","phone","nik","npwp","card","iban"],"restore":false}"#,
            Which::TemplateJinja => r#"{"system":"You are the help desk of Example Ltd. Answer briefly."}"#,
        }
    }

    fn grants(self) -> Vec<Capability> {
        if self == Which::AuthKeys { vec![Capability::Log, Capability::Credentials] } else { Vec::new() }
    }

    async fn call(self, instance: &mut Instance) -> anyhow::Result<()> {
        match self {
            Which::AuthKeys => drop(instance.authenticate(head()).await?),
            Which::FilterPii => drop(instance.filter_prompt(context(), request()).await?),
            Which::TemplateJinja => drop(instance.compose(context(), request()).await?),
        }
        Ok(())
    }
}

/// Anyone may come in.
struct Anyone;

impl Credentials for Anyone {
    fn lookup<'a>(&'a self, _secret: &'a str) -> Lookup<'a> {
        Box::pin(std::future::ready(Ok(principal())))
    }
}

struct Fixture {
    host: PluginHost,
    plugin: Arc<Plugin>,
    /// Of the component, in KiB.
    size_kib: u64,
    _cache: TempDir,
}

impl Fixture {
    async fn new(which: Which) -> anyhow::Result<Self> {
        let cache = tempfile::tempdir()?;
        let limits = BuildLimits { memory_bytes: 512 << 20, time_s: 60 };
        let builder =
            Builder::new(tollgate_tests::program(), "__build-plugin", cache.path().to_owned(), MacKey::new([7; 32]), limits)?;
        let spec = Spec {
            id: which.component().to_owned(),
            config_json: which.config().to_owned(),
            grants: which.grants(),
            limits: Limits::default(),
            on_failure: OnFailure::Refuse,
        };
        let file: PathBuf = tollgate_tests::plugin_file(which.component());
        let artifact = builder.build(&file, &spec).await?;
        let host = PluginHost::new(2 * HELD, Arc::new(Anyone))?;
        let plugin = Arc::new(host.load(&artifact, spec)?);
        ensure!(plugin.is_snapshot(), "{} starts from no snapshot", which.component());
        Ok(Fixture { host, plugin, size_kib: file.metadata()?.len() / 1024, _cache: cache })
    }

    async fn start(&self) -> anyhow::Result<Instance> {
        let mut reservation = self.host.slots().reserve(1).context("a slot is free")?;
        let slot = reservation.take().context("a slot was reserved")?;
        Ok(self.plugin.start(slot, &"request".into(), 1_234).await?)
    }

    /// KiB that each of many instances alive at once has written to, after its call.
    async fn dirty_kib(&self, which: Which) -> anyhow::Result<f64> {
        let own = std::process::id();
        let before = memory_kib(own, "Private_Dirty")?;
        let mut held = Vec::new();
        for _ in 0..HELD {
            let mut instance = self.start().await?;
            which.call(&mut instance).await?;
            held.push(instance);
        }
        let after = memory_kib(own, "Private_Dirty")?;
        Ok(after.saturating_sub(before) as f64 / f64::from(HELD))
    }
}

/// Start, call and end of a fresh instance.
pub(crate) async fn call(here: Here, which: Which) -> anyhow::Result<Found> {
    let fixture = Fixture::new(which).await?;
    // First, while no slot has been used.
    let dirty = fixture.dirty_kib(which).await?;
    let (mut starts, mut calls, mut ends, mut wholes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (warm, count) = here.pick((2_000, 20_000), (50, 200));
    for round in 0..warm + count {
        let began = Instant::now();
        let mut instance = fixture.start().await?;
        let started = Instant::now();
        which.call(&mut instance).await?;
        let called = Instant::now();
        drop(instance);
        let ended = Instant::now();
        if round >= warm {
            starts.push(us(started - began));
            calls.push(us(called - started));
            ends.push(us(ended - called));
            wholes.push(us(ended - began));
        }
    }
    let (start, whole) = (median(&starts), median(&wholes));
    Ok(Found {
        figure: format!(
            "{whole:.0} us whole (p99 {:.0}): start {start:.0}, call {:.0}, end {:.0}; {dirty:.0} KiB dirty",
            percentile(&wholes, 0.99),
            median(&calls),
            median(&ends)
        ),
        verdict: Verdict::of(whole <= AIM_US && start <= AIM_START_US),
        method: format!(
            "{}.wasm, {} KiB, from its snapshot; start includes `resume`; medians of {count} instances, one after another; dirty: \
             private dirty memory of {HELD} instances at once, after their call.",
            which.component(),
            fixture.size_kib
        ),
        samples: json!({ "start_us": quantiles(&starts), "call_us": quantiles(&calls), "end_us": quantiles(&ends),
            "whole_us": quantiles(&wholes), "dirty_kib": dirty }),
    })
}

/// A reply of 64 pieces through `filter-pii`.
pub(crate) async fn stream(here: Here) -> anyhow::Result<Found> {
    const PIECES: usize = 64;
    let fixture = Fixture::new(Which::FilterPii).await?;
    let (mut pieces, mut wholes) = (Vec::new(), Vec::new());
    let (warm, count) = here.pick((200, 3_000), (10, 50));
    for round in 0..warm + count {
        let began = Instant::now();
        let mut instance = fixture.start().await?;
        instance.reply_begins(context(), 0).await?;
        let first = Instant::now();
        for number in 0..PIECES {
            instance.push(Piece::Text(format!(" word{}", number % 7))).await?;
        }
        let last = Instant::now();
        instance.finish().await?;
        drop(instance);
        if round >= warm {
            pieces.push(us(last - first) / PIECES as f64);
            wholes.push(us(began.elapsed()));
        }
    }
    let piece = median(&pieces);
    Ok(Found {
        figure: format!(
            "{piece:.2} us a piece (p99 {:.2}); {:.0} us a reply of {PIECES}",
            percentile(&pieces, 0.99),
            median(&wholes)
        ),
        verdict: Verdict::of(piece <= AIM_PIECE_US),
        method: format!("filter-pii with all kinds, words of six letters; {count} replies, one after another."),
        samples: json!({ "piece_us": quantiles(&pieces), "reply_us": quantiles(&wholes) }),
    })
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What is kept of many samples.
pub(crate) fn quantiles(samples: &[f64]) -> serde_json::Value {
    let at = |share| (percentile(samples, share) * 1e3).round() / 1e3;
    json!({ "count": samples.len(), "min": at(0.0), "p10": at(0.1), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0) })
}

fn principal() -> Principal {
    Principal {
        id: "ann".to_owned(),
        tenant: "default".to_owned(),
        roles: vec!["user".to_owned()],
        scopes: vec!["chat".to_owned()],
        models: vec!["*".to_owned()],
        default_model: None,
        attributes: Vec::new(),
    }
}

fn context() -> Context {
    Context {
        request_id: "0199c0de-0000-7000-8000-000000000000".to_owned(),
        received_at_ms: 1_234,
        deadline_ms: 61_234,
        listener: "main".to_owned(),
        dialect: "openai".to_owned(),
        route: "chat".to_owned(),
        principal: principal(),
        model: "demo".to_owned(),
        is_stream: true,
        conversation: None,
        attributes: Vec::new(),
    }
}

fn request() -> ChatRequest {
    let text = "The quarterly report is due on Friday, and the draft still lacks the figures of the southern region. ".repeat(3);
    ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, &text)],
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: None,
        model: "demo".to_owned(),
        fields: Vec::new(),
    }
}

fn head() -> RequestHead {
    let names = ["host", "accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent"];
    let names = names.into_iter().chain(["x-a", "x-b", "x-c", "x-d", "x-request-id"]);
    let mut headers = names.map(|name| (name.to_owned(), "a value of some length".to_owned())).collect::<Vec<_>>();
    headers.push(("authorization".to_owned(), "Bearer tg_0123456789abcdef0123456789abcdef".to_owned()));
    RequestHead {
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        headers,
        client_ip: std::net::Ipv4Addr::LOCALHOST.into(),
        listener: "main".to_owned(),
        peer_cert: None,
    }
}
