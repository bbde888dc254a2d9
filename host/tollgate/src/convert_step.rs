//! `tollgate __convert-model`: converts one model, which standard input names, under limits that it sets on itself first. How far it is
//! goes to standard output, an object a line, and what came of it is the last line.

use std::io::{Read, Write};
use std::process::ExitCode;

use serde_json::json;
use tollgate_models::{ConvertRefusal, ConvertReport, ConvertRequest, convert};

use crate::probe_step;

/// A request names two paths and a name; more is none.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Between two lines about the same work are so many bytes at least.
const STEP: u64 = 8 << 20;
/// What is logged: why llama.cpp does not take a file.
const LEVEL: &str = "error";

pub(crate) fn main(memory_bytes: u64, time_s: u64) -> ExitCode {
    if !probe_step::ends_with_parent() {
        return ExitCode::FAILURE;
    }
    let result = probe_step::limit(memory_bytes, time_s).map_err(refused).and_then(|()| answer());
    let line = serde_json::to_string(&result).unwrap_or_default();
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refused(reason: String) -> ConvertRefusal {
    ConvertRefusal { reason, advice: "this is a bug".to_owned(), is_unsupported: false }
}

fn answer() -> Result<ConvertReport, ConvertRefusal> {
    // Without a log the reasons are missing, and nothing else.
    let _log = tollgate_telemetry::init(LEVEL, None);
    let mut text = Vec::new();
    std::io::stdin().take(MAX_REQUEST_BYTES).read_to_end(&mut text).map_err(|error| refused(error.to_string()))?;
    let request: ConvertRequest = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
    let (mut last, mut told) = (String::new(), 0_u64);
    convert(&request, &mut |what, done, total| {
        if last == what && done < told.saturating_add(STEP) && Some(done) != total {
            return;
        }
        what.clone_into(&mut last);
        told = done;
        // If nobody listens any more, the signal that says so ends this process.
        let _ = writeln!(std::io::stdout(), "{}", json!({ "what": what, "done": done, "total": total }));
    })
}
