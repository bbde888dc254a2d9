//! The build step: check, init, snapshot, compile. Runs in a child process that may be killed at any time.
//!
//! It reads foreign bytes and compiles them, so nothing of it runs in the gateway. What it leaves is one file, signed with the
//! key that it was handed.

mod incremental;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use wasmtime::{Engine, OptLevel, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

use crate::artifact::{Artifact, MacKey};
use crate::engine::{self, Allocation};
use crate::imports::State;
use crate::instance::{new_store, reason_of};
use crate::manifest::{Capability, Hook, Manifest};
use crate::plugin::Indices;
use crate::{CONTRACT_VERSION, Limits};

/// Where a build stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildStage {
    /// Reading the component and its manifest; imports and exports.
    Check,
    /// Running `init` with the config.
    Init,
    /// Baking the memory into the component.
    Snapshot,
    /// Making machine code.
    Compile,
    /// The child itself: time, memory, its files.
    Process,
}

impl std::fmt::Display for BuildStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BuildStage::Check => "check",
            BuildStage::Init => "init",
            BuildStage::Snapshot => "snapshot",
            BuildStage::Compile => "compile",
            BuildStage::Process => "process",
        })
    }
}

/// A plugin was not built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{stage}: {reason}")]
pub struct BuildFailure {
    /// Where it stopped.
    pub stage: BuildStage,
    /// Why, and what to do.
    pub reason: String,
}

/// What the build step is handed on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The plugin's id, for its log lines.
    pub id: String,
    /// The component.
    pub component: PathBuf,
    /// Digest of (component, config, engine).
    pub digest: String,
    /// The plugin's config.
    pub config_json: String,
    /// What the operator grants.
    pub grants: Vec<Capability>,
    /// Where the result goes.
    pub out: PathBuf,
    /// Functions compiled before.
    pub incremental: PathBuf,
    /// The key, in hex.
    pub key: String,
    /// CPU time of `init`, in seconds.
    pub time_s: u64,
}

/// What the build step found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildReport {
    /// Digest of (component, config, engine).
    pub digest: String,
    /// What the plugin says of itself.
    pub manifest: Manifest,
    /// Whether `init` is inside the compiled plugin.
    pub snapshot: bool,
    /// Why not, where it is not.
    pub no_snapshot_because: Option<String>,
    /// Memory after `init`, in bytes.
    pub memory_bytes: u64,
    /// How long `init` and the snapshot took, in milliseconds.
    pub init_ms: u64,
    /// How long the compiler took, in milliseconds.
    pub compile_ms: u64,
}

#[cfg(test)]
impl BuildReport {
    pub(crate) fn for_tests(digest: &str) -> Self {
        let manifest =
            Manifest { name: "p".to_owned(), version: "1".to_owned(), hooks: vec![Hook::Setup], capabilities: Vec::new() };
        BuildReport {
            digest: digest.to_owned(),
            manifest,
            snapshot: true,
            no_snapshot_because: None,
            memory_bytes: 0,
            init_ms: 0,
            compile_ms: 0,
        }
    }
}

fn failed(stage: BuildStage) -> impl Fn(wasmtime::Error) -> BuildFailure {
    move |error| BuildFailure { stage, reason: format!("{error:#}") }
}

fn failure(stage: BuildStage, reason: impl Into<String>) -> BuildFailure {
    BuildFailure { stage, reason: reason.into() }
}

/// Builds a plugin in this process. The gateway calls it in a child, through [`Builder`](crate::Builder).
///
/// # Errors
/// Whatever is wrong with the component, its config or what it asks for.
pub async fn run_build(request: &BuildRequest) -> Result<BuildReport, BuildFailure> {
    let key = key_of(request)?;
    let bytes =
        std::fs::read(&request.component).map_err(|error| failure(BuildStage::Check, format!("the component: {error}")))?;
    let manifest = Manifest::read(&bytes).map_err(|reason| failure(BuildStage::Check, reason))?;
    check_grants(&request.id, &manifest, &request.grants)?;

    let began = Instant::now();
    let engine = quick_compiler().map_err(failed(BuildStage::Process))?;
    let init = Init { engine: &engine, request, manifest: &manifest };
    let (code, snapshot, memory_bytes) = match init.with_snapshot(&bytes).await {
        Ok((snapshot, memory)) => (snapshot, Ok(()), memory),
        Err(failure) if failure.stage == BuildStage::Snapshot => (bytes.clone(), Err(failure.reason), init.plain(&bytes).await?),
        Err(failure) => return Err(failure),
    };
    let init_ms = millis(began.elapsed());

    let began = Instant::now();
    let functions = Arc::new(incremental::Functions::open(&request.incremental, &key));
    let compiler = compiler(&functions).map_err(failed(BuildStage::Process))?;
    let compiled = compiler.precompile_component(&code).map_err(failed(BuildStage::Compile))?;
    let report = BuildReport {
        digest: request.digest.clone(),
        manifest,
        snapshot: snapshot.is_ok(),
        no_snapshot_because: snapshot.err(),
        memory_bytes,
        init_ms,
        compile_ms: millis(began.elapsed()),
    };
    let io = |error: std::io::Error| failure(BuildStage::Process, format!("{}: {error}", request.out.display()));
    Artifact::write(&request.out, &key, &report, &compiled).map_err(io)?;
    // Functions compiled before only save time; a full disk shows above.
    let _ = functions.save(&request.incremental, &key);
    Ok(report)
}

fn key_of(request: &BuildRequest) -> Result<MacKey, BuildFailure> {
    let mut key = [0; 32];
    hex::decode_to_slice(&request.key, &mut key).map_err(|_| failure(BuildStage::Process, "the key is not 64 hex digits"))?;
    Ok(MacKey::new(key))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// For code that runs once: compiling it well takes longer than running it.
fn quick_compiler() -> wasmtime::Result<Engine> {
    let engine = Engine::new(engine::config(Allocation::OnDemand).cranelift_opt_level(OptLevel::None))?;
    engine::start_ticker(&engine)?;
    Ok(engine)
}

/// For code that runs in every request.
fn compiler(functions: &Arc<incremental::Functions>) -> wasmtime::Result<Engine> {
    let mut config = engine::config(Allocation::OnDemand);
    config.enable_incremental_compilation(Arc::clone(functions) as _)?;
    Engine::new(&config)
}

/// A capability needs two yeses; the refusal names the line to add.
fn check_grants(id: &str, manifest: &Manifest, grants: &[Capability]) -> Result<(), BuildFailure> {
    match manifest.capabilities.iter().find(|asked| !grants.contains(asked)) {
        None => Ok(()),
        Some(missing) => {
            let all = manifest.capabilities.iter().map(|asked| format!("\"{}\"", asked.as_str())).collect::<Vec<_>>().join(", ");
            let reason = format!("it asks for `{}`: set `grants = [{all}]` in plugins/{id}.toml to allow it", missing.as_str());
            Err(failure(BuildStage::Check, reason))
        }
    }
}

/// The standard packages that the linker has.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
/// Bytes of standard error that are kept while `init` runs, and characters of their end that are told.
const MAX_STDERR: usize = 64 << 10;
const MAX_WORDS: usize = 400;

/// What a snapshot may read: any memory that a plugin may have, with room to spare.
const SNAPSHOT_BYTES: usize = 256 << 20;

/// Running `init` once, to see that it works and to keep what it made.
struct Init<'a> {
    engine: &'a Engine,
    request: &'a BuildRequest,
    manifest: &'a Manifest,
}

impl Init<'_> {
    /// Instruments, runs `init`, and returns the component with its memory baked in, and that memory's size.
    async fn with_snapshot(&self, bytes: &[u8]) -> Result<(Vec<u8>, u64), BuildFailure> {
        let mut wizer = wasmtime_wizer::Wizer::new();
        wizer.keep_init_func(true);
        let (context, instrumented) = wizer.instrument_component(bytes).map_err(failed(BuildStage::Snapshot))?;
        let component = Component::new(self.engine, &instrumented).map_err(failed(BuildStage::Snapshot))?;
        self.check_world(&component)?;
        let (mut store, instance) = self.initialise(&component).await?;
        // A snapshot is of memory alone: a handle in it would lead nowhere in the instances made from it.
        if store.data().lends_handles() {
            let reason = "after `init` it holds a handle of the host's, as it does when it has printed something";
            return Err(failure(BuildStage::Snapshot, reason));
        }
        let memory = store.data().memory.used() as u64;
        // The snapshot reads all of the memory through one call's result.
        store.set_hostcall_fuel(SNAPSHOT_BYTES);
        let mut state = wasmtime_wizer::WasmtimeWizerComponent { store: &mut store, instance };
        let snapshot = wizer.snapshot_component(&context, &mut state).await.map_err(failed(BuildStage::Snapshot))?;
        Ok((snapshot, memory))
    }

    /// Runs `init` on the component as it is.
    async fn plain(&self, bytes: &[u8]) -> Result<u64, BuildFailure> {
        let component = Component::new(self.engine, bytes).map_err(failed(BuildStage::Check))?;
        self.check_world(&component)?;
        let (store, _) = self.initialise(&component).await?;
        Ok(store.data().memory.used() as u64)
    }

    /// The hooks that the manifest names or the component exports.
    fn hooks_of(&self, component: &Component) -> impl Iterator<Item = Hook> {
        let exports = |hook: Hook| {
            let name = format!("tollgate:plugin/{}@{CONTRACT_VERSION}", hook.as_str());
            component.get_export_index(None, &name).is_some()
        };
        let hooks = Hook::ALL.into_iter().filter(|hook| self.manifest.hooks.contains(hook) || exports(*hook));
        hooks.collect::<Vec<_>>().into_iter()
    }

    fn check_world(&self, component: &Component) -> Result<(), BuildFailure> {
        let prefix = "tollgate:plugin/";
        let offered = |name: &str| {
            let types = name == format!("{prefix}types@{CONTRACT_VERSION}");
            let asked = |capability: &Capability| name == format!("{prefix}{}@{CONTRACT_VERSION}", capability.as_str());
            types || WASI.iter().any(|package| name.starts_with(package)) || self.manifest.capabilities.iter().any(asked)
        };
        let kind = component.component_type();
        let exports = kind.exports(self.engine).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        let export = |hook: Hook| format!("{prefix}{}@{CONTRACT_VERSION}", hook.as_str());
        let missing = std::iter::once(Hook::Setup)
            .chain(self.manifest.hooks.iter().copied())
            .find(|hook| !exports.contains(&export(*hook)));
        if let Some(hook) = missing {
            let reason = format!(
                "it does not export `{}`, so it is of another world; it exports: {}",
                export(hook),
                if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
            );
            return Err(failure(BuildStage::Check, reason));
        }
        if let Some((name, _)) = kind.imports(self.engine).find(|(name, _)| !offered(name)) {
            let cure = if name.starts_with("wasi:") {
                "of WASI 0.2 there are cli, clocks, filesystem, io, random and sockets; build it without the rest"
            } else {
                "an import of the gateway's own needs its name in the manifest's capabilities"
            };
            let reason = format!("it imports `{name}`, which is not offered ({cure})");
            return Err(failure(BuildStage::Check, reason));
        }
        Ok(())
    }

    /// Instantiates, loads every hook (names alone do not tell their types) and calls `init`, with `log` as the only live import.
    async fn initialise(&self, component: &Component) -> Result<(Store<State>, wasmtime::component::Instance), BuildFailure> {
        let check = failed(BuildStage::Check);
        let wasi = engine::imports_wasi(component);
        let linker = engine::linker(self.engine, &self.manifest.capabilities, wasi).map_err(&check)?;
        let pre = linker.instantiate_pre(component).map_err(&check)?;
        let limits = Limits { memory_over_snapshot: engine::MAX_MEMORY_BYTES as u64, ..Limits::default() };
        let mut state = State::new(self.request.id.as_str().into(), "build".into(), &limits, limits.memory_over_snapshot);
        let stderr = MemoryOutputPipe::new(MAX_STDERR);
        if wasi {
            state = state.with_wasi_heard(limits.handles, stderr.clone());
        }
        let mut store = new_store(self.engine, state, &limits);
        // Half of the child's CPU time: it is to say what happened before its own limit ends it.
        let limit = Duration::from_millis(self.request.time_s.saturating_mul(500));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or(Duration::MAX);
            if used < limit { Ok(UpdateDeadline::Continue(1)) } else { Err(Trap::Interrupt.into()) }
        });
        let indices = Indices::new(&pre).map_err(&check)?;
        if let Some(hook) = self.hooks_of(component).find(|hook| !indices.has(*hook)) {
            let reason = format!("its `{}` is not the contract's, or no hook that this gateway calls yet", hook.as_str());
            return Err(failure(BuildStage::Check, reason));
        }
        let instance = pre.instantiate_async(&mut store).await.map_err(&check)?;
        load_every_hook(&indices, &mut store, &instance).map_err(&check)?;
        let setup = indices.setup.load(&mut store, &instance).map_err(&check)?;
        let ready = setup.call_init(&mut store, &self.request.config_json).await;
        let ready = ready.map_err(|error| self.init_failed(store.data(), &error, &stderr.contents()))?;
        ready.map_err(|reason| failure(BuildStage::Init, reason))?;
        Ok((store, instance))
    }
}

impl Init<'_> {
    fn init_failed(&self, state: &State, error: &wasmtime::Error, stderr: &[u8]) -> BuildFailure {
        let mut reason = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                format!("it did not come to an end in half of the build's time of {} s", self.request.time_s)
            }
            _ => reason_of(state, error).to_string(),
        };
        let said = String::from_utf8_lossy(stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if !said.is_empty() {
            let skipped = said.chars().count().saturating_sub(MAX_WORDS);
            reason.push_str("; it said: ");
            reason.extend(said.chars().skip(skipped).flat_map(char::escape_debug));
        }
        failure(BuildStage::Init, reason)
    }
}

fn load_every_hook(
    indices: &Indices,
    store: &mut Store<State>,
    instance: &wasmtime::component::Instance,
) -> wasmtime::Result<()> {
    macro_rules! load {
        ($($hook:ident),+) => {
            $(if let Some(indices) = &indices.$hook {
                indices.load(&mut *store, instance)?;
            })+
        };
    }
    load!(resume, authenticate, compose, filter_prompt, filter_reply, format);
    Ok(())
}
