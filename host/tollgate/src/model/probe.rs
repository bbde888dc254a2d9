//! The child process that tries a model: started, fed, waited for, and each of its endings in words (P-M4). A file that a native
//! library crashes over ends the child, and the model is not made current.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tollgate_artifacts::store::Version;
use tollgate_artifacts::{Format, Manifest};
use tollgate_models::{ProbeReport, ProbeRequest};

use super::progress::tell;
use crate::probe_step::PARENT;

/// Tokens of the reply.
pub(super) const TOKENS: u32 = 16;
/// The gateway's own binary. Not by its path: an upgrade may have put another version there.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// What the child may answer.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// What is kept of the end of its standard error, and how many characters of that are told.
const MAX_WORDS_BYTES: usize = 4 << 10;
const MAX_WORDS: usize = 600;
const GIB: u64 = 1 << 30;
/// CPU time, in seconds, for any model and for each GiB of it.
const TIME_S: u64 = 120;
const TIME_S_PER_GIB: u64 = 60;
/// Seconds by the clock for a second of CPU time: a disk may be slow, and beside busy models the child gets little.
const CLOCK_FACTOR: u64 = 4;

/// What the child may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// Writable memory, in bytes.
    memory_bytes: u64,
    /// CPU time, in seconds.
    time_s: u64,
}

impl Limits {
    /// For a model of so many bytes.
    fn of(bytes: u64) -> Self {
        let memory_bytes = bytes.saturating_mul(2).saturating_add(GIB);
        let time_s = bytes.div_ceil(GIB).saturating_mul(TIME_S_PER_GIB).saturating_add(TIME_S);
        Limits { memory_bytes, time_s }
    }
}

/// Tries an installed version: it has to load and to answer, and to answer what its manifest says if that says something.
pub(super) fn version(version: &Version) -> anyhow::Result<ProbeReport> {
    let Manifest { format, check, .. } = &version.manifest;
    let path = match format {
        Format::Gguf | Format::LoraGguf => version.folder.join(version.manifest.main_file().path.as_str()),
        Format::Safetensors | Format::Onnx | Format::LoraPeft => version.folder.clone(),
    };
    let request = ProbeRequest {
        path,
        format: format.to_string(),
        prompt: check.as_ref().map(|check| check.prompt.clone()),
        expected: check.as_ref().map(|check| check.reply.clone()),
        max_tokens: TOKENS,
    };
    run(&request, version.manifest.total_bytes())
}

/// Asks a model that is not installed; answers its greedy reply.
pub(super) fn ask(path: PathBuf, format: Format, prompt: &str, bytes: u64) -> anyhow::Result<String> {
    let prompt = Some(prompt.to_owned());
    let report = run(&ProbeRequest { path, format: format.to_string(), prompt, expected: None, max_tokens: TOKENS }, bytes)?;
    if report.tokens == 0 {
        bail!("models of the format {format} are checked by their headers only and answer nothing: leave --check-prompt out");
    }
    Ok(report.reply)
}

fn run(request: &ProbeRequest, bytes: u64) -> anyhow::Result<ProbeReport> {
    let limits = Limits::of(bytes);
    tell("checking the model in a process of its own");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let deadline = Duration::from_secs(limits.time_s.saturating_mul(CLOCK_FACTOR));
        let child = start(limits).context("the process that tries models cannot be started")?;
        match tokio::time::timeout(deadline, talk(child, request)).await {
            Err(_) => bail!("it did not load and answer within {} s", deadline.as_secs()),
            Ok(Err(error)) => Err(anyhow!(error).context("the process that tries models cannot be spoken to")),
            Ok(Ok((answer, words, status))) => judge(&answer, &words, status, limits),
        }
    })
}

fn start(limits: Limits) -> std::io::Result<Child> {
    Command::new(PROGRAM)
        .arg("__probe-model")
        .arg(limits.memory_bytes.to_string())
        .arg(limits.time_s.to_string())
        .env_clear()
        .env(PARENT, std::process::id().to_string())
        // Before ggml aborts it would start a debugger, if there is one.
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Gives the child its request; answers what it writes, the end of what it complains of, and how it ends.
async fn talk(mut child: Child, request: &ProbeRequest) -> std::io::Result<(Vec<u8>, Vec<u8>, ExitStatus)> {
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let text = serde_json::to_vec(request)?;
    if let Some(stdin) = &mut stdin {
        // A child that ends before it has read all of it says why, or its status does.
        let _ = stdin.write_all(&text).await;
    }
    drop(stdin);
    let (answer, words) = tokio::try_join!(head(stdout), tail(stderr))?;
    Ok((answer, words, child.wait().await?))
}

/// All that a pipe brings, up to a limit.
async fn head(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The end of all that a pipe brings.
pub(super) async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let Some(mut pipe) = pipe else { return Ok(Vec::new()) };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; MAX_WORDS_BYTES]);
    loop {
        let got = pipe.read(&mut buffer).await?;
        if got == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(buffer.get(..got).unwrap_or_default());
        let excess = kept.len().saturating_sub(MAX_WORDS_BYTES);
        kept.drain(..excess);
    }
}

fn judge(answer: &[u8], words: &[u8], status: ExitStatus, limits: Limits) -> anyhow::Result<ProbeReport> {
    let words = last_words(words);
    let said = if words.is_empty() { String::new() } else { format!("; it said: {words}") };
    match serde_json::from_slice::<Result<ProbeReport, String>>(answer) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(reason)) => bail!("{}{said}", plain(&reason)),
        Err(_) => bail!("{}{said}", ending(status, &words, limits)),
    }
}

/// How a child ended that gave no answer.
fn ending(status: ExitStatus, words: &str, limits: Limits) -> String {
    let has_no_memory = words.contains("memory allocation of") || words.contains("bad_alloc");
    let crash = |signal: &str| {
        format!("llama.cpp ended abruptly ({signal}) while it was loaded: the file is damaged or hostile, and is better not used")
    };
    match status.signal() {
        Some(6) if has_no_memory => {
            format!("it needs more than {} MiB, far more than its file has: it is damaged or hostile", limits.memory_bytes >> 20)
        }
        Some(4) => crash("SIGILL"),
        Some(6) => crash("SIGABRT"),
        Some(7) => crash("SIGBUS"),
        Some(8) => crash("SIGFPE"),
        Some(11) => crash("SIGSEGV"),
        Some(24) => format!("it took more than {} s of CPU time to load and to answer", limits.time_s),
        Some(9) => {
            "the process that tried it was killed, most likely because the machine has too little memory for it".to_owned()
        }
        Some(signal) => format!("the process that tried it was ended by signal {signal}"),
        None => format!("the process that tried it ended without an answer ({status})"),
    }
}

/// What a child complained of before it ended, on one line: errors of its log, and what libraries write beside that.
pub(super) fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let of_line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(logged) => logged.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
        // The first line may have lost its beginning.
        Err(_) if line.ends_with('}') => String::new(),
        Err(_) => line.to_owned(),
    };
    let words = text.lines().map(of_line).collect::<Vec<_>>().join(" ");
    let words = plain(&words).split_whitespace().collect::<Vec<_>>().join(" ");
    let excess = words.chars().count().saturating_sub(MAX_WORDS);
    words.chars().skip(excess).collect()
}

/// Without what a terminal would obey: a file's own words may be in it.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 64 << 20, time_s: 120 };

    fn told(answer: &str, words: &str, status: i32) -> String {
        judge(answer.as_bytes(), words.as_bytes(), ExitStatus::from_raw(status), LIMITS).unwrap_err().to_string()
    }

    #[test]
    fn every_ending_is_told_in_words() {
        let log = r#"{"level":"ERROR","message":"tensor 'a' has\na wrong shape"}"#;
        for (answer, words, status, expected) in [
            (r#"{"Err":"cannot load the model"}"#, log, 0, "cannot load the model; it said: tensor 'a' has a wrong shape"),
            ("", "GGML_ASSERT(x) failed", 6, "llama.cpp ended abruptly (SIGABRT) while it was loaded"),
            ("", "GGML_ASSERT(x) failed", 6, "GGML_ASSERT(x) failed"),
            ("", "", 11, "(SIGSEGV)"),
            ("", "memory allocation of 9 bytes failed", 6, "more than 64 MiB"),
            ("", "", 24, "more than 120 s of CPU time"),
            ("", "", 9, "too little memory"),
            ("", "", 15, "signal 15"),
            ("half", "", 256, "exit status: 1"),
            (r#"{"Err":"\u001b[2Jgone"}"#, "", 0, " [2Jgone"),
        ] {
            let said = told(answer, words, status);
            assert!(said.contains(expected), "{said} should say {expected}");
            assert!(!said.contains(char::is_control), "{said:?}");
        }
    }

    #[test]
    fn a_good_answer_is_a_report() {
        let report = r#"{"Ok":{"architecture":"llama","tokens":9,"reply":"Hi","load_ms":3,"memory_bytes":7}}"#;
        let report = judge(report.as_bytes(), b"", ExitStatus::from_raw(0), LIMITS).unwrap();
        assert_eq!((report.tokens, report.reply.as_str()), (9, "Hi"));
    }

    #[test]
    fn the_end_of_long_complaints_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let text = format!("{}the end", "x".repeat(3 * MAX_WORDS_BYTES));
        let kept = runtime.block_on(tail(Some(text.as_bytes()))).unwrap();
        assert_eq!(kept.len(), MAX_WORDS_BYTES);
        let words = last_words(&kept);
        assert!(words.ends_with("the end") && words.chars().count() == MAX_WORDS, "{words}");
        assert_eq!(last_words(b"e\":\"cut\"}\n{\"message\":\"whole\"}"), "whole");
    }

    #[test]
    fn limits_grow_with_the_model() {
        assert_eq!(Limits::of(0), Limits { memory_bytes: GIB, time_s: TIME_S });
        assert_eq!(Limits::of(GIB + 1), Limits { memory_bytes: 3 * GIB + 2, time_s: TIME_S + 2 * TIME_S_PER_GIB });
        assert_eq!(Limits::of(u64::MAX).memory_bytes, u64::MAX);
    }
}
