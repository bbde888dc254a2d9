//! The child process that converts a model: started, fed, listened to, and each of its endings in words. Files that native code
//! crashes over end the child.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tollgate_artifacts::Progress;
use tollgate_models::{ConvertRefusal, ConvertReport, ConvertRequest};

pub(super) use super::probe::plain;
use super::probe::{PROGRAM, last_words, tail};
use super::progress::Shown;
use crate::probe_step::PARENT;

/// What the child may say in all: a line for every 8 MiB of 4 TiB, and some.
const MAX_SAID_BYTES: u64 = 128 << 20;
/// Writable memory. Weights go through it in pieces; llama.cpp takes 256 MiB at a time and maps the file.
const MEMORY_BYTES: u64 = 4 << 30;
const GIB: u64 = 1 << 30;
/// CPU time, in seconds, for any model and for each GiB of it.
const TIME_S: u64 = 600;
const TIME_S_PER_GIB: u64 = 1_800;
/// Seconds by the clock for a second of CPU time.
const CLOCK_FACTOR: u64 = 4;

/// What the child's last line says.
type Answer = Result<ConvertReport, ConvertRefusal>;

/// Converts `bytes` of weights in a process of its own.
pub(super) fn run(request: &ConvertRequest, bytes: u64, shown: &Shown) -> anyhow::Result<Answer> {
    let time_s = bytes.div_ceil(GIB).saturating_mul(TIME_S_PER_GIB).saturating_add(TIME_S);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let deadline = Duration::from_secs(time_s.saturating_mul(CLOCK_FACTOR));
        let child = start(time_s).context("the process that converts models cannot be started")?;
        match tokio::time::timeout(deadline, talk(child, request, shown)).await {
            Err(_) => bail!("it was not converted within {} s", deadline.as_secs()),
            Ok(Err(error)) => Err(anyhow!(error).context("the process that converts models cannot be spoken to")),
            Ok(Ok((answer, words, status))) => judge(answer, &words, status, time_s),
        }
    })
}

fn start(time_s: u64) -> std::io::Result<Child> {
    Command::new(PROGRAM)
        .arg("__convert-model")
        .arg(MEMORY_BYTES.to_string())
        .arg(time_s.to_string())
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

/// Gives the child its request and shows how far it is; answers what it says in the end, what it complains of, and how it ends.
async fn talk(
    mut child: Child,
    request: &ConvertRequest,
    shown: &Shown,
) -> std::io::Result<(Option<Answer>, Vec<u8>, ExitStatus)> {
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let text = serde_json::to_vec(request)?;
    if let Some(stdin) = &mut stdin {
        // A child that ends before it has read all of it says why, or its status does.
        let _ = stdin.write_all(&text).await;
    }
    drop(stdin);
    let (answer, words) = tokio::try_join!(listen(stdout, shown), tail(stderr))?;
    Ok((answer, words, child.wait().await?))
}

async fn listen(pipe: Option<ChildStdout>, shown: &Shown) -> std::io::Result<Option<Answer>> {
    let Some(pipe) = pipe else { return Ok(None) };
    let mut lines = BufReader::new(pipe.take(MAX_SAID_BYTES)).lines();
    let (mut work, mut answer) = (Work::new(shown), None);
    while let Some(line) = lines.next_line().await? {
        let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
        let number = |name: &str| said.get(name).and_then(Value::as_u64);
        match said.get("what").and_then(Value::as_str) {
            Some(what) => work.at(what, number("done").unwrap_or(0), number("total")),
            None => answer = serde_json::from_value(said).ok(),
        }
    }
    Ok(answer)
}

/// What is being shown.
struct Work<'a> {
    shown: &'a Shown,
    what: String,
    done: u64,
}

impl<'a> Work<'a> {
    fn new(shown: &'a Shown) -> Self {
        Work { shown, what: String::new(), done: 0 }
    }

    fn at(&mut self, what: &str, done: u64, total: Option<u64>) {
        if self.what != what {
            self.end();
            self.shown.begin(&plain(what), total);
            (self.what, self.done) = (what.to_owned(), 0);
        }
        self.shown.advance(done.saturating_sub(self.done));
        self.done = self.done.max(done);
    }

    fn end(&self) {
        if !self.what.is_empty() {
            self.shown.end();
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

fn judge(answer: Option<Answer>, words: &[u8], status: ExitStatus, time_s: u64) -> anyhow::Result<Answer> {
    let words = last_words(words);
    let said = if words.is_empty() { String::new() } else { format!("; it said: {words}") };
    match answer {
        Some(Ok(report)) => Ok(Ok(report)),
        Some(Err(refusal)) => {
            let reason = format!("{}{said}", plain(&refusal.reason));
            Ok(Err(ConvertRefusal { reason, ..refusal }))
        }
        None => bail!("{}{said}", ending(status, time_s)),
    }
}

/// How a child ended that gave no answer.
fn ending(status: ExitStatus, time_s: u64) -> String {
    match status.signal() {
        Some(24) => format!("it took more than {time_s} s of CPU time to convert"),
        Some(9) => "the process that converted it was killed, most likely because the machine has too little memory".to_owned(),
        Some(signal) => format!(
            "the process that converted it ended abruptly (signal {signal}): the files are damaged or hostile, and are better not used"
        ),
        None => format!("the process that converted it ended without an answer ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> ConvertRefusal {
        ConvertRefusal { reason: "tensor `a` is missing".to_owned(), advice: "get it again".to_owned(), is_unsupported: false }
    }

    #[test]
    fn every_ending_is_told_in_words() {
        let log = br#"{"level":"ERROR","message":"failed to quantize:\u001b x"}"#;
        let refused = judge(Some(Err(refusal())), log, ExitStatus::from_raw(0), 5).unwrap().unwrap_err().to_string();
        assert!(refused.starts_with("tensor `a` is missing; it said: failed to quantize:"), "{refused}");
        assert!(refused.ends_with("; get it again") && !refused.contains(char::is_control), "{refused:?}");
        for (status, expected) in
            [(6, "signal 6"), (24, "more than 5 s of CPU time"), (9, "too little memory"), (256, "exit status: 1")]
        {
            let said = judge(None, b"", ExitStatus::from_raw(status), 5).unwrap_err().to_string();
            assert!(said.contains(expected), "{said} should say {expected}");
        }
    }

    #[test]
    fn an_answer_is_what_the_child_writes() {
        let answer: Answer = Err(refusal());
        let line = serde_json::to_value(&answer).unwrap();
        assert!(line.get("what").is_none());
        assert_eq!(serde_json::from_value::<Answer>(line).unwrap(), answer);
    }
}
