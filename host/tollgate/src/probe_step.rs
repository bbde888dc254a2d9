//! `tollgate __probe-model`: tries one model, which standard input names, under limits that it sets on itself first.

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setpriority_process, setrlimit};
use tollgate_models::{ProbeReport, ProbeRequest, probe};

use crate::core_dumps;

/// Behind everything that serves.
const NICE: i32 = 10;
/// A request names a file, a prompt and a reply; more is none.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// In the environment of a child: the id of the process that started it.
pub(crate) const PARENT: &str = "TOLLGATE_PARENT";
/// What is logged: why a native library does not take a file.
const LEVEL: &str = "error";

pub(crate) fn main(memory_bytes: u64, time_s: u64) -> ExitCode {
    if !ends_with_parent() {
        return ExitCode::FAILURE;
    }
    let result = limit(memory_bytes, time_s).and_then(|()| answer());
    let answer = serde_json::to_vec(&result).unwrap_or_default();
    match std::io::stdout().write_all(&answer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Has this process killed when whoever asked for its work is gone: it is for nobody then. False if that is so already.
pub(crate) fn ends_with_parent() -> bool {
    // Without the signal the work is done all the same.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // A parent that ended before sends none.
    std::env::var(PARENT).ok().is_none_or(|parent| parent.parse() == Ok(std::os::unix::process::parent_id()))
}

/// Sets the limits of a child that does native code's work: writable memory in bytes, CPU time in seconds, and the lowest urgency.
pub(crate) fn limit(memory_bytes: u64, time_s: u64) -> Result<(), String> {
    core_dumps::turn_off();
    // The soft limit on CPU time ends it by SIGXCPU, which says why; at the hard one it would be SIGKILL.
    let limits = [(Resource::Data, memory_bytes, memory_bytes), (Resource::Cpu, time_s, time_s.saturating_add(1))];
    for (resource, soft, hard) in limits {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) }).map_err(|error| error.to_string())?;
    }
    setpriority_process(None, NICE).map_err(|error| error.to_string())
}

fn answer() -> Result<ProbeReport, String> {
    // Without a log the reasons are missing, and nothing else.
    let _log = tollgate_telemetry::init(LEVEL, None);
    let mut text = Vec::new();
    std::io::stdin().take(MAX_REQUEST_BYTES).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let request: ProbeRequest = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    probe(&request)
}
