//! `tollgate __tune-model`: measures one model, which standard input names, under limits that it sets on itself first. Each candidate
//! that was measured goes to standard output, an object a line, and how it ended is the last line.

use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use tollgate_models::{TuneLine, TuneRequest, Tuner, tune};

use crate::probe_step;

/// A request names a file and some numbers; more is none.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Bytes of weights that a model has which is measured at its first load. The default is known to be good for smaller ones, and all
/// other loads would wait for minutes until a larger one was read and tried.
const AT_LOAD: RangeInclusive<u64> = (64 << 20)..=(8 << 30);
/// What is logged: why llama.cpp does not take a file.
const LEVEL: &str = "error";

/// Has this program measure models in a child process.
pub(crate) fn tuner() -> Tuner {
    // Not by its path: an upgrade may have put another version there.
    Tuner::new(PathBuf::from("/proc/self/exe"), "__tune-model", probe_step::PARENT, AT_LOAD)
}

pub(crate) fn main(memory_bytes: u64, time_s: u64) -> ExitCode {
    if !probe_step::ends_with_parent() {
        return ExitCode::FAILURE;
    }
    // Without a log the reasons are missing, and nothing else.
    let _log = tollgate_telemetry::init(LEVEL, None);
    let mut is_heard = true;
    let mut tell = |line: TuneLine| {
        let text = serde_json::to_string(&line).unwrap_or_default();
        is_heard &= writeln!(std::io::stdout(), "{text}").is_ok();
    };
    match probe_step::limit(memory_bytes, time_s).and_then(|()| request()) {
        Ok(request) => tune(&request, &mut tell),
        Err(reason) => tell(TuneLine::Failed(reason)),
    }
    if is_heard { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn request() -> Result<TuneRequest, String> {
    let mut text = Vec::new();
    std::io::stdin().take(MAX_REQUEST_BYTES).read_to_end(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
