//! The composition root: from a config directory to a running gateway, in the order in which things start.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tollgate_api::{ApiState, MetricsSource};
use tollgate_artifacts::Store;
use tollgate_config::{Config, Keys};
use tollgate_models::{Library, Pool, Running};
use tollgate_pipeline::Pipeline;
use tollgate_plugins::{BuildLimits, Builder, MacKey, PluginHost};
use tollgate_reload::{Assembler, Components, OnKeys, Quarantined, Reloader};
use tollgate_server::{Drain, Drained, Ending, LocalCa, Signals, serve};
use tollgate_store::{Holder, KeyStore};
use tollgate_telemetry::{Metrics, Tracer, Traces};

use crate::admin::server::{Admin, Listening};
use crate::builtin;
use crate::cli::Serve;
use crate::core_dumps;
use crate::credentials::StoredKeys;
use crate::data::{Data, write_default_config};
use crate::listen::{self, Bound};
use crate::notify::Manager;
use crate::observe;
use crate::open_files;
use crate::panics;
use crate::service::{Front, body_failure, edge_error};
use crate::tune_step;

/// How long everything may take beyond the grace period (P-U6), and how long the last step of a model may take in any case.
const AFTER_GRACE: Duration = Duration::from_secs(5);
const LAST_STEP: Duration = Duration::from_millis(500);
/// How long the last spans may take to be sent after a drain.
const LAST_SPANS: Duration = Duration::from_secs(2);

pub(crate) fn main(arguments: &Serve) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime")?;
    let code = runtime.block_on(run(arguments));
    // What still runs after the grace period is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn run(arguments: &Serve) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    if write_default_config(&arguments.config)? {
        say(&format!("wrote a default config to {}", arguments.config.display()));
    }
    let config = load(&arguments.config)?;
    let metrics = Metrics::install()?;
    let traces = Traces::new(&config.settings.telemetry, &config.dir)?;
    let _level = tollgate_telemetry::init(&config.settings.log.level, traces.as_ref())?;
    let signals = Signals::install().context("signal handlers")?;
    panics::into_log();
    core_dumps::turn_off();
    open_files::raise(&config);
    let manager = Manager::from_environment();
    let data = Data::open(&arguments.data)?;
    let drain = Drain::new();

    let keys = Arc::new(KeyStore::default());
    let admin_key = data.admin_key()?;
    let on_keys = key_updater(Arc::clone(&keys), admin_key);
    let first_keys = tollgate_config::load_keys(&arguments.config, &Keys::default());
    on_keys(&first_keys);

    let local = LocalCa::ensure(&data.tls(), time::OffsetDateTime::now_utc())?;
    let bound = listen::bind(&config, &local, &drain)?;

    let host = PluginHost::new(config.settings.plugins.slots, Arc::new(StoredKeys(Arc::clone(&keys))))?;
    let (budget, waiting) = tollgate_reload::limits(&config);
    let pool = Pool::new(budget, waiting);
    let mut assembler = assembler(&config, &data, host.clone(), pool.clone())?;
    let seen = tollgate_reload::fingerprint(&config, &assembler.installed());
    let first = assembler.build(&config, 1).await.map_err(|failures| refuse_to_start(&failures))?;
    let pipeline = Pipeline::new(first, host, u64::from(config.settings.requests.bodies_mib) << 20);

    let stop = CancellationToken::new();
    let tracker = drain.tracker().clone();
    tracker.spawn(pool.clone().run(stop.clone()));
    let reloader = Reloader::new(assembler, pipeline.clone(), config.clone(), seen, (first_keys, on_keys), tracker, stop.clone());
    let reload = reloader.status();
    let trigger = reloader.run().context("watching the config directory")?;

    let whole = Arc::new(OnceLock::new());
    let source = metrics_of(Arc::clone(&whole));
    let tracer = traces.as_ref().map(Traces::tracer).unwrap_or_default();
    let opened = bound.into_iter().map(|bound| open(bound, &config, &pipeline, (&source, &tracer), &drain));
    let listeners = opened.collect::<Vec<_>>();
    let urls = listeners.iter().flat_map(|listener| listener.urls.clone()).collect::<Vec<_>>();
    let models = pool.clone();
    let admin = Admin { pipeline: pipeline.clone(), reload, trigger: trigger.clone(), keys, listeners, metrics, models, started };
    // It is set here alone.
    let _ = whole.set(admin.clone());
    crate::admin::server::start(&data.admin_socket(), admin, &drain)?;

    pipeline.set_ready(true);
    ready(&urls, &data, &local, started);
    manager.ready(&urls);
    let (grace, mut end) = (Duration::from_secs(u64::from(config.settings.shutdown.grace_s)), Instant::now());
    let on_stop = || {
        manager.stopping();
        pipeline.set_ready(false);
        stop.cancel();
        end = Instant::now() + grace + AFTER_GRACE;
    };
    let ending = signals.supervise(&drain, grace, || trigger.poke(), on_stop).await;
    let left = if ending == Ending::Forced { Duration::ZERO } else { end.saturating_duration_since(Instant::now()) };
    finish(&pool, traces, Instant::now() + left).await;
    tracing::info!(?ending, "stopped");
    Ok(exit_code(&ending))
}

/// Ends what has threads of its own, in the time that is left, or in as much as it needs at least.
async fn finish(pool: &Pool, traces: Option<Traces>, end: Instant) {
    let left = || end.saturating_duration_since(Instant::now());
    stop_models(pool.running(), left().max(LAST_STEP)).await;
    send_traces(traces, left().clamp(LAST_STEP, LAST_SPANS)).await;
}

fn load(dir: &Path) -> anyhow::Result<Config> {
    tollgate_config::load(dir).map_err(|problems| {
        let list = problems.0.iter().map(|problem| format!("\n  {problem}")).collect::<String>();
        anyhow::anyhow!("the config cannot be used:{list}")
    })
}

/// Replaces the keys by those of the config, and the gateway's own.
fn key_updater(store: Arc<KeyStore>, admin_key: String) -> OnKeys {
    Arc::new(move |keys| {
        for problem in &keys.problems {
            tracing::error!(file = problem.file, reason = %problem, "a key file is wrong");
        }
        store.replace(keys, [Holder::admin(&admin_key)]);
        tracing::info!(keys = keys.keys.len(), "keys active");
    })
}

fn assembler(config: &Config, data: &Data, host: PluginHost, pool: Pool) -> anyhow::Result<Assembler> {
    let build = &config.settings.build;
    let limits = BuildLimits { memory_bytes: u64::from(build.memory_mib) << 20, time_s: u64::from(build.time_s) };
    let key = MacKey::new(data.secret("cache")?);
    // Not by its path: an upgrade may have put another version there, which compiles for another gateway.
    let program = PathBuf::from("/proc/self/exe");
    let builder = Builder::new(program, "__build-plugin", data.cache(), key, limits)?;
    let components = Components { builtin: builtin::PLUGINS, directory: data.builtin() };
    let store = Store::open(&data.models())?;
    if let Err(error) = store.heal_if_free() {
        tracing::warn!(%error, "what a crash left among the models cannot be cleared away");
    }
    let models = &config.settings.models;
    let library = Library::new(builtin::MODELS, data.builtin(), config.dir.clone(), store)
        .with_onnxruntime(models.onnxruntime.as_deref())
        .with_tuner(models.tune.then(tune_step::tuner));
    Ok(Assembler::new(host, builder, components, (library, pool), data.secret("server")?))
}

fn refuse_to_start(failures: &[Quarantined]) -> anyhow::Error {
    let list = failures.iter().map(|failure| format!("\n  {failure}")).collect::<String>();
    anyhow::anyhow!("the gateway cannot start:{list}")
}

/// What `/metrics` answers as soon as all is there that it tells of.
fn metrics_of(whole: Arc<OnceLock<Admin>>) -> MetricsSource {
    MetricsSource(Arc::new(move || whole.get().map(observe::text)))
}

/// Begins to serve a listener. Metrics are only on those that nobody but this machine reaches (P-E9).
fn open(
    bound: Bound,
    config: &Config,
    pipeline: &Pipeline,
    (source, tracer): (&MetricsSource, &Tracer),
    drain: &Drain,
) -> Listening {
    let spec = config.listeners.values().find(|listener| listener.id.as_str() == bound.id);
    let dialects = spec.map(|spec| spec.dialects.iter().map(|dialect| dialect.as_str()).collect()).unwrap_or_default();
    let is_local = bound.trusted.is_empty() && bound.listener.local_addresses().iter().all(|address| address.ip().is_loopback());
    let metrics = is_local.then(|| source.clone());
    let certificate = bound.listener.certificate().cloned();
    let state = ApiState { pipeline: pipeline.clone(), dialects, metrics, body_failure };
    let front = Front { router: tollgate_api::router(state), trusted: bound.trusted.into(), tracer: tracer.clone() };
    let gauges = serve(bound.listener, front, edge_error, drain);
    Listening { id: bound.id, urls: bound.urls, gauges, certificate }
}

/// The one line that says where the gateway is and how to be let in.
fn ready(urls: &[String], data: &Data, local: &LocalCa, started: Instant) {
    let (ca, key) = (local.authority.display(), data.admin_key_file());
    say(&format!("ready: {} (CA {ca}, admin key {}) in {} ms", urls.join(" "), key.display(), started.elapsed().as_millis()));
}

/// A service manager or a script reads this from standard output; the log goes to standard error.
#[allow(clippy::print_stdout, reason = "the ready line is for whoever started the gateway")]
fn say(text: &str) {
    println!("{text}");
}

/// Ends the models' threads before the process runs its exit handlers, which native libraries do not expect to race with. A
/// model ends after the step that it is in; one that takes too long for that is left behind.
async fn stop_models(running: Running, patience: Duration) {
    let stopped = tokio::task::spawn_blocking(move || running.stop(Instant::now()));
    if tokio::time::timeout(patience, stopped).await.is_err() {
        tracing::warn!("a model has not ended its last step; the process ends all the same");
    }
}

/// What waits is sent, as far as there is time for it.
async fn send_traces(traces: Option<Traces>, patience: Duration) {
    let Some(traces) = traces else { return };
    // It ends at its deadline by itself; if it cannot, there is nothing more to do.
    let _ = tokio::task::spawn_blocking(move || traces.finish(Instant::now() + patience)).await;
}

fn exit_code(ending: &Ending) -> ExitCode {
    match ending {
        Ending::Drained(Drained::Finished) => ExitCode::SUCCESS,
        Ending::Drained(Drained::Aborted { tasks }) => {
            tracing::warn!(tasks, "the grace period is over; what still ran was ended");
            ExitCode::SUCCESS
        }
        Ending::Forced => ExitCode::from(130),
    }
}
