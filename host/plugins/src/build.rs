//! The build step: check, init, snapshot, compile, golden cases. Runs in a child process that may be killed at any time.
//!
//! It reads foreign bytes and compiles them, so nothing of it runs in the gateway. What it leaves is one file, signed with the
//! key that it was handed.

mod incremental;
mod init;
mod passed;
mod quick;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tollgate_cases::{Problems, Set};
use wasmtime::Engine;
use wasmtime::component::Component;

pub(crate) use self::init::{Init, NotInitialised, Prepared, process_cpu};
use crate::artifact::{Artifact, MacKey};
use crate::cases::{self, Served, Trial};
use crate::engine::{self, Allocation};
use crate::manifest::{Capability, Manifest};

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
    /// Running the golden cases that the component brings.
    Cases,
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
            BuildStage::Cases => "cases",
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
    /// What was compiled quickly before.
    pub quick: PathBuf,
    /// Where it is noted that the component's cases passed, under whatever config they name.
    pub passed: PathBuf,
    /// The key, in hex.
    pub key: String,
    /// CPU time of the whole, in seconds: half of it for `init`, a third for the cases.
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
    /// Golden cases that the component brings; all of them passed.
    pub cases: u32,
    /// How long they took, in milliseconds; those that passed in an earlier build are not run again.
    pub cases_ms: u64,
}

impl BuildReport {
    /// A report of what is not kept.
    pub(crate) fn of(manifest: Manifest, snapshot: bool, memory_bytes: u64) -> Self {
        BuildReport {
            digest: String::new(),
            manifest,
            snapshot,
            no_snapshot_because: None,
            memory_bytes,
            init_ms: 0,
            compile_ms: 0,
            cases: 0,
            cases_ms: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(digest: &str) -> Self {
        let hooks = vec![crate::Hook::Setup];
        let manifest = Manifest { name: "p".to_owned(), version: "1".to_owned(), hooks, capabilities: Vec::new() };
        BuildReport { digest: digest.to_owned(), ..BuildReport::of(manifest, true, 0) }
    }
}

pub(crate) fn failed(stage: BuildStage) -> impl Fn(wasmtime::Error) -> BuildFailure {
    move |error| BuildFailure { stage, reason: format!("{error:#}") }
}

pub(crate) fn failure(stage: BuildStage, reason: impl Into<String>) -> BuildFailure {
    BuildFailure { stage, reason: reason.into() }
}

/// Builds a plugin in this process. The gateway calls it in a child, through [`Builder`](crate::Builder).
///
/// # Errors
/// Whatever is wrong with the component, its config or what it asks for, or what its golden cases found.
pub async fn run_build(request: &BuildRequest) -> Result<BuildReport, BuildFailure> {
    let key = key_of(request)?;
    let bytes =
        std::fs::read(&request.component).map_err(|error| failure(BuildStage::Check, format!("the component: {error}")))?;
    let manifest = Manifest::read(&bytes).map_err(|reason| failure(BuildStage::Check, reason))?;
    check_grants(&request.id, &manifest, &request.grants)?;
    let set = cases::within(&bytes).map_err(|problems| malformed(&problems))?;

    let began = Instant::now();
    let prepared = Prepared::new(&bytes, &manifest, Some(quick::Kept { path: &request.quick, key: &key }))?;
    let init = Init {
        id: &request.id,
        manifest: &manifest,
        config_json: &request.config_json,
        // Half of the child's time: it is to say what happened before its own limit ends it.
        until: Duration::from_secs(request.time_s) / 2,
    };
    let initialised = init.run(&prepared).await?;
    let memory_bytes = initialised.memory_bytes();
    let snapshot = prepared.snapshot(initialised).await;
    let init_ms = millis(began.elapsed());

    let began = Instant::now();
    let functions = Arc::new(incremental::Functions::open(&request.incremental, &key));
    let compiler = compiler(&functions).map_err(failed(BuildStage::Process))?;
    let code = snapshot.as_deref().unwrap_or(prepared.bytes());
    let component = Component::new(&compiler, code).map_err(failed(BuildStage::Compile))?;
    let compiled = component.serialize().map_err(failed(BuildStage::Compile))?;
    // Functions compiled before only save time; a full disk shows below.
    let _ = functions.save(&request.incremental, &key);
    let mut report = BuildReport {
        digest: request.digest.clone(),
        manifest: manifest.clone(),
        snapshot: snapshot.is_ok(),
        no_snapshot_because: snapshot.err(),
        memory_bytes,
        init_ms,
        compile_ms: millis(began.elapsed()),
        cases: u32::try_from(set.cases().len()).unwrap_or(u32::MAX),
        cases_ms: 0,
    };
    let began = Instant::now();
    check_cases(request, &key, &set, &prepared, &component, &report).await?;
    report.cases_ms = millis(began.elapsed());
    let io = |error: std::io::Error| failure(BuildStage::Process, format!("{}: {error}", request.out.display()));
    Artifact::write(&request.out, &key, &report, &compiled).map_err(io)?;
    Ok(report)
}

/// Runs the cases that hold under the operator's config on what will serve, and the others, which no config of his can change, if
/// they have not passed before.
async fn check_cases(
    request: &BuildRequest,
    key: &MacKey,
    set: &Set,
    prepared: &Prepared<'_>,
    component: &Component,
    report: &BuildReport,
) -> Result<(), BuildFailure> {
    if set.is_empty() {
        return Ok(());
    }
    engine::start_ticker(component.engine()).map_err(|error| failure(BuildStage::Process, error.to_string()))?;
    let trial = Trial {
        id: &request.id,
        manifest: &report.manifest,
        config_json: &request.config_json,
        prepared,
        served: Some(Served { component, report }),
        time_s: request.time_s,
    };
    let are_known = passed::is_noted(&request.passed, key);
    let tested = trial.run(set, are_known).await?;
    if let Some(reason) = tested.reason() {
        return Err(failure(BuildStage::Cases, reason));
    }
    if !are_known {
        // A note that is missing costs time and nothing else.
        let _ = passed::note(&request.passed, key);
    }
    Ok(())
}

/// The first problem of the component's cases, and how many there are.
fn malformed(problems: &Problems) -> BuildFailure {
    let first = problems.0.first().map(ToString::to_string).unwrap_or_default();
    let more = problems.0.len().saturating_sub(1);
    let and_more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    failure(BuildStage::Cases, format!("{first}{and_more}"))
}

fn key_of(request: &BuildRequest) -> Result<MacKey, BuildFailure> {
    let mut key = [0; 32];
    hex::decode_to_slice(&request.key, &mut key).map_err(|_| failure(BuildStage::Process, "the key is not 64 hex digits"))?;
    Ok(MacKey::new(key))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
