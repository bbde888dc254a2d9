//! `tollgate __build-plugin`: one plugin, from standard input to a file, under limits that it sets on itself first.

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};
use tollgate_plugins::{BuildFailure, BuildReport, BuildRequest, BuildStage, run_build};

/// Behind everything that serves.
const NICE: i32 = 10;
/// A request names files and a config; more is none.
const MAX_REQUEST_BYTES: u64 = 16 << 20;

pub(crate) fn main(memory_bytes: u64, time_s: u64) -> ExitCode {
    let result = limit(memory_bytes, time_s).and_then(|()| build());
    let answer = serde_json::to_vec(&result).unwrap_or_default();
    match std::io::stdout().write_all(&answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writable memory rather than address space is limited: wasmtime reserves gigabytes of the latter and touches little of it.
fn limit(memory_bytes: u64, time_s: u64) -> Result<(), BuildFailure> {
    // The soft limit on CPU time ends it by SIGXCPU, which says why; at the hard one it would be SIGKILL.
    let limits =
        [(Resource::Data, memory_bytes, memory_bytes), (Resource::Cpu, time_s, time_s.saturating_add(1)), (Resource::Core, 0, 0)];
    for (resource, soft, hard) in limits {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) }).map_err(|error| process(&error))?;
    }
    setpriority_process(None, NICE).map_err(|error| process(&error))
}

fn build() -> Result<BuildReport, BuildFailure> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_REQUEST_BYTES).read_to_end(&mut text).map_err(|error| process(&error))?;
    let request: BuildRequest = serde_json::from_slice(&text).map_err(|error| process(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| process(&error))?;
    runtime.block_on(run_build(&request))
}

fn process(error: &dyn std::fmt::Display) -> BuildFailure {
    BuildFailure { stage: BuildStage::Process, reason: error.to_string() }
}
