//! A million inputs for every parser of foreign bytes, by libFuzzer with coverage feedback (P-E5 and others).

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::process::Command;

use super::checks::Checks;
use crate::report::Found;
use crate::rows::Here;

/// One for each `[[bin]]` of `fuzz/Cargo.toml`.
const TARGETS: [&str; 11] = [
    "chat_request",
    "http_head",
    "config_file",
    "manifest",
    "trace_context",
    "chat_template",
    "reply_schema",
    "gguf_header",
    "safetensors_header",
    "onnx_graph",
    "tokenizer_json",
];
/// What libFuzzer needs of the compiler; cargo-fuzz would set the same, and a nightly compiler's address sanitizer besides.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// An input may take this long, and the process this much memory.
const SECONDS: u64 = 10;
const MEBIBYTES: u64 = 2_048;

/// Builds the targets and gives each its inputs.
pub(crate) async fn run(here: Here) -> anyhow::Result<Found> {
    let runs = here.pick(1_000_000, 5_000);
    let (folder, out) = (here.root.join("fuzz"), here.root.join("target/fuzz"));
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
    for bin in manifest.split("[[bin]]").skip(1) {
        let name = bin.split('"').nth(1).unwrap_or_default();
        ensure!(TARGETS.contains(&name), "the target `{name}` of fuzz/Cargo.toml is not in this row's list");
    }
    let mut build = Command::new("cargo");
    build.current_dir(&folder).args(["build", "--release", "--quiet", "--target", TRIPLE, "--target-dir"]).arg(&out);
    let status = build.env("RUSTFLAGS", FLAGS).kill_on_drop(true).status().await.context("cargo")?;
    ensure!(status.success(), "the fuzz targets do not build: {status}");
    let mut checks = Checks::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = TARGETS.map(|target| {
        let (folder, out) = (folder.clone(), out.clone());
        async move { (target, fuzz(&folder, &out, target, runs).await) }
    });
    let mut jobs = stream::iter(jobs).buffer_unordered(cores);
    while let Some((target, said)) = jobs.next().await {
        let said = said?;
        eprintln!("   {target} {}", said.figure);
        checks.check(format!("{target} {}", said.figure), said.is_good);
        checks.sample(target, json!(said.last_lines));
    }
    checks.method(format!(
        "libFuzzer, {runs} inputs of up to 4 KiB for each, from the seeds in fuzz/seeds, with overflow checks and debug assertions; an \
         input that takes {SECONDS} s or a process over {MEBIBYTES} MiB fails."
    ));
    Ok(checks.found())
}

struct Said {
    is_good: bool,
    figure: String,
    last_lines: Vec<String>,
}

async fn fuzz(folder: &Path, out: &Path, target: &str, runs: u64) -> anyhow::Result<Said> {
    let corpus = out.join("corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    let mut command = Command::new(out.join(TRIPLE).join("release").join(target));
    command.arg(&corpus).arg(folder.join("seeds").join(target)).args([
        format!("-runs={runs}"),
        format!("-timeout={SECONDS}"),
        format!("-rss_limit_mb={MEBIBYTES}"),
        format!("-artifact_prefix={}/", corpus.display()),
        "-max_len=4096".to_owned(),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
    ]);
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| target.to_owned())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let stat = |name: &str| {
        let line = text.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let units = stat("number_of_executed_units").unwrap_or(0);
    let slowest = stat("slowest_unit_time_sec").unwrap_or(0);
    let lines = text.lines().rev().take(30).map(str::to_owned).collect::<Vec<_>>();
    Ok(Said {
        is_good: output.status.success() && units >= runs,
        figure: format!("{units} inputs, slowest {slowest} s, peak {} MiB", stat("peak_rss_mb").unwrap_or(0)),
        last_lines: lines.into_iter().rev().collect(),
    })
}
