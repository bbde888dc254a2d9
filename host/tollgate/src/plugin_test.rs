//! `tollgate plugin test`: a plugin's golden cases on its component, as the build step runs them before the plugin may serve.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use tollgate_plugins::{TestRequest, Tested, run_cases};

use crate::cli::TestPlugin;

/// CPU time, in seconds; five times what the gateway gives to a build by default.
const TIME_S: u64 = 600;
/// What a component may have, as in the gateway.
const MAX_COMPONENT_BYTES: u64 = 128 << 20;

/// Runs the cases and says what they came to.
pub(crate) fn main(ask: &TestPlugin) -> anyhow::Result<ExitCode> {
    let (path, cases) = find(ask)?;
    let size = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    ensure!(size <= MAX_COMPONENT_BYTES, "{} has {size} bytes; {MAX_COMPONENT_BYTES} at most", path.display());
    let component = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let files = cases.map(|folder| tollgate_cases::sources(&folder)).transpose()?;
    let request = TestRequest {
        component: &component,
        files: files.as_deref(),
        config_json: &ask.config,
        filter: &ask.filter,
        time_s: TIME_S,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tested = runtime.block_on(run_cases(&request)).with_context(|| path.display().to_string())?;
    if ask.json {
        tell_json(&tested);
    } else {
        tell(&tested);
    }
    let has_passed = tested.failures.is_empty() && tested.unfinished == 0;
    Ok(if has_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The component, and the folder of its cases where it is not to bring them itself.
fn find(ask: &TestPlugin) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
    if !ask.plugin.is_dir() {
        return Ok((ask.plugin.clone(), ask.cases.clone()));
    }
    let folder = ask.plugin.display();
    let cases = ask.cases.clone().unwrap_or_else(|| ask.plugin.join("cases"));
    let mut components = components(&ask.plugin).with_context(|| folder.to_string())?;
    let cure = format!("name it: tollgate plugin test COMPONENT --cases {}", cases.display());
    match (components.pop(), components.len()) {
        (Some(component), 0) => Ok((component, Some(cases))),
        (Some(_), more) => bail!("{folder} has {} components (*.wasm); {cure}", more + 1),
        (None, _) => bail!("{folder} has no component (*.wasm); build it there, or {cure}"),
    }
}

fn components(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "wasm")).collect())
}

#[allow(clippy::print_stdout, reason = "a command line tool prints")]
fn tell(tested: &Tested) {
    for failure in &tested.failures {
        println!("FAILED {} ({})", failure.case, failure.place);
        if let Some(pieces) = failure.pieces_shown() {
            println!("  the reply came as {pieces}");
        }
        for mismatch in &failure.mismatches {
            let (expected, got) = mismatch.shown();
            println!("  {}\n    expected {expected}\n    got      {got}", mismatch.field);
        }
    }
    if tested.unfinished > 0 {
        println!("OUT OF TIME: {} cases; cut fewer replies with `splits = \"every\"`", tested.unfinished);
    }
    let passed = tested.cases.saturating_sub(tested.failures.len()).saturating_sub(tested.unfinished);
    println!("{passed} of {} cases passed, on {} instances", tested.cases, tested.runs);
}

#[allow(clippy::print_stdout, reason = "a command line tool prints")]
fn tell_json(tested: &Tested) {
    let Tested { cases, runs, failures, unfinished } = tested;
    println!("{}", json!({ "cases": cases, "instances": runs, "failures": failures, "unfinished": unfinished }));
}
