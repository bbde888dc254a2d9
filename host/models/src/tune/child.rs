//! The child process that measures: started, fed, listened to, and ended where it takes too long.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Measured, TuneError, TuneReport, TuneRequest, choose};

/// What the child may write in all.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Lines that may wait to be read.
const LINES: usize = 16;
/// By the clock, on top of what it was given to measure: for reading the weights once, whatever the disk.
const TO_LOAD: Duration = Duration::from_secs(30);
/// The same for each GiB that it may write to.
const TO_LOAD_PER_GIB: Duration = Duration::from_secs(5);

/// Signals that ask a process to end: SIGHUP, SIGINT and SIGTERM. A terminal and a service manager send them to the child as well.
const ASK_TO_END: [i32; 3] = [1, 2, 15];

/// How the child that measures is started.
#[derive(Debug, Clone)]
pub struct Tuner {
    program: PathBuf,
    subcommand: &'static str,
    parent: &'static str,
    at_load: RangeInclusive<u64>,
}

/// A line of the child's standard output, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum TuneLine {
    /// It begins, while other programs take so many percent of the cores.
    Began(u8),
    /// One more candidate was measured.
    Measured(Measured),
    /// It is done.
    Done(TuneReport),
    /// Other programs want the cores: so many percent of them.
    Busy(u8),
    /// It does not work, in words for an operator.
    Failed(String),
}

impl Tuner {
    /// `program` measures with `subcommand`, the bytes that it may write to and its seconds of CPU time as arguments: it is to read a
    /// [`TuneRequest`] from standard input and to write lines. `parent` is the variable that has this process's id. Models with
    /// `at_load` bytes of weights are measured at their first load, others when somebody asks for it only.
    #[must_use]
    pub fn new(program: PathBuf, subcommand: &'static str, parent: &'static str, at_load: RangeInclusive<u64>) -> Self {
        Tuner { program, subcommand, parent, at_load }
    }

    /// Bytes of weights that a model has which is measured at its first load.
    pub(super) fn at_load(&self) -> &RangeInclusive<u64> {
        &self.at_load
    }

    /// Measures. Returns at a deadline of its own at the latest, with what was measured until then.
    pub(super) fn run(
        &self,
        request: &TuneRequest,
        memory_bytes: u64,
        told: &mut dyn FnMut(&Measured),
    ) -> Result<TuneReport, TuneError> {
        let gib = u32::try_from(memory_bytes >> 30).unwrap_or(u32::MAX);
        let within = Duration::from_millis(request.budget_ms).saturating_add(TO_LOAD).saturating_add(TO_LOAD_PER_GIB * gib);
        let cores = std::thread::available_parallelism().map_or(1, |cores| u64::try_from(cores.get()).unwrap_or(u64::MAX));
        let cpu_s = within.as_secs().saturating_mul(cores);
        let failed = |error: std::io::Error| TuneError::Stopped(format!("the process that measures cannot be started: {error}"));
        let mut child = self.start(memory_bytes, cpu_s).map_err(failed)?;
        let answer = talk(&mut child, request, within, told);
        // It is over, or has to be: what it was asked for nobody waits for any more.
        let _ = child.kill();
        let status = child.wait().map_err(failed)?;
        match answer {
            Some(answer) => answer,
            None if status.signal().is_some_and(|signal| ASK_TO_END.contains(&signal)) => {
                Err(TuneError::Stopped(format!("the process that measures was told to end ({status})")))
            }
            None => Err(TuneError::Failed(ending(status))),
        }
    }

    fn start(&self, memory_bytes: u64, cpu_s: u64) -> std::io::Result<Child> {
        Command::new(&self.program)
            .arg(self.subcommand)
            .arg(memory_bytes.to_string())
            .arg(cpu_s.to_string())
            .env_clear()
            .env(self.parent, std::process::id().to_string())
            // Before ggml aborts it would start a debugger, if there is one.
            .env("GGML_NO_BACKTRACE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    }
}

/// Gives the child its request and hears what comes of it; nothing of a child that ended without an answer.
fn talk(
    child: &mut Child,
    request: &TuneRequest,
    within: Duration,
    told: &mut dyn FnMut(&Measured),
) -> Option<Result<TuneReport, TuneError>> {
    let began = Instant::now();
    let text = serde_json::to_vec(request).ok()?;
    // A child that ends before it has read all of it says why, or its status does.
    let _ = child.stdin.take()?.write_all(&text);
    hear(&listen(child.stdout.take()?)?, began, within, told)
}

fn hear(
    lines: &Receiver<TuneLine>,
    began: Instant,
    within: Duration,
    told: &mut dyn FnMut(&Measured),
) -> Option<Result<TuneReport, TuneError>> {
    // As many rows as the child may write.
    let (mut table, mut others_percent) = (Vec::new(), 0);
    loop {
        match lines.recv_timeout(within.saturating_sub(began.elapsed())) {
            Ok(TuneLine::Began(busy_percent)) => others_percent = busy_percent,
            Ok(TuneLine::Measured(measured)) => {
                told(&measured);
                table.push(measured);
            }
            Ok(TuneLine::Done(report)) => return Some(Ok(report)),
            Ok(TuneLine::Busy(busy_percent)) => return Some(Err(TuneError::Busy { busy_percent })),
            Ok(TuneLine::Failed(reason)) => return Some(Err(TuneError::Failed(reason))),
            Err(RecvTimeoutError::Timeout) => {
                // What it measured until now is as good as if it had been given less time.
                return Some(choose::report(table, false, others_percent, began.elapsed()).ok_or_else(late));
            }
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

fn late() -> TuneError {
    TuneError::Failed(
        "the model was not loaded and measured once in time: its disk or this machine is too slow for that".to_owned(),
    )
}

/// Reads lines on a thread of its own, which ends with the child.
fn listen(stdout: ChildStdout) -> Option<Receiver<TuneLine>> {
    let (sender, receiver) = sync_channel(LINES);
    let read = move || {
        for line in BufReader::new(stdout.take(MAX_ANSWER_BYTES)).lines() {
            let Some(line) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("tune".to_owned()).spawn(read).ok()?;
    Some(receiver)
}

/// How a child ended that gave no answer.
fn ending(status: ExitStatus) -> String {
    format!("the process that measures ended without an answer ({status}): its file is damaged, or memory is short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::Candidate;

    fn request() -> TuneRequest {
        TuneRequest {
            path: PathBuf::from("model.gguf"),
            mapped: false,
            context_tokens: None,
            sequences: 1,
            step_rows: 16,
            threads: None,
            kv_cache: tollgate_config::KvCache::F16,
            budget_ms: 1_000,
            is_forced: true,
        }
    }

    /// A child that is a script.
    fn run(script: &str) -> (Result<TuneReport, TuneError>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        std::fs::write(&file, script).unwrap();
        // What a process is started with is known when it is built; not so here.
        let file: &'static str = file.display().to_string().leak();
        let mut heard = 0;
        let result =
            Tuner::new(PathBuf::from("/bin/sh"), file, "PARENT", 0..=u64::MAX).run(&request(), 1 << 30, &mut |_| heard += 1);
        (result, heard)
    }

    const ROW: &str = r#"{"repack":true,"threads":1,"micro_batch":16,"spin":true,"prompt_tps":2.5,"decode_tps":1.5,"decode4_tps":null,"load_ms":3,"bytes":4}"#;

    #[test]
    fn what_the_child_says_is_heard() {
        let chosen = r#"{"repack":true,"threads":1,"micro_batch":16,"spin":true}"#;
        let done = format!(
            r#"{{"Done":{{"table":[{ROW}],"chosen":{chosen},"gained_prompt_percent":0.0,"gained_decode_percent":0.0,"is_complete":true,"busy_percent":0,"took_ms":5}}}}"#
        );
        let (report, heard) = run(&format!("echo '{{\"Measured\":{ROW}}}'\necho '{done}'"));
        let report = report.unwrap();
        assert_eq!((heard, report.table.len(), report.chosen.micro_batch), (1, 1, 16));
        let (busy, _) = run("echo '{\"Busy\":70}'");
        assert!(matches!(busy, Err(TuneError::Busy { busy_percent: 70 })));
        let (failed, _) = run("echo '{\"Failed\":\"no such file\"}'");
        assert_eq!(failed.unwrap_err().to_string(), "no such file");
    }

    #[test]
    fn what_was_measured_in_time_counts() {
        let first = serde_json::from_str::<Measured>(ROW).unwrap();
        let second = Measured { candidate: Candidate { threads: 2, ..first.candidate }, decode_tps: 3.0, ..first };
        let (sender, lines) = sync_channel(LINES);
        let hear_late = |said: &[TuneLine]| {
            for line in said {
                sender.send(line.clone()).unwrap();
            }
            // What was said is heard, and nothing is waited for.
            hear(&lines, Instant::now(), Duration::ZERO, &mut |_| ()).unwrap()
        };
        let report = hear_late(&[TuneLine::Began(7), TuneLine::Measured(first), TuneLine::Measured(second)]).unwrap();
        assert_eq!((report.table, report.chosen), (vec![first, second], second.candidate));
        assert_eq!((report.is_complete, report.busy_percent), (false, 7));
        let nothing = hear_late(&[TuneLine::Began(7)]);
        assert!(matches!(&nothing, Err(TuneError::Failed(reason)) if reason.contains("in time")), "{nothing:?}");
    }

    #[test]
    fn a_child_that_dies_is_told_of() {
        for script in ["exit 3", "kill -ABRT $$", "echo nonsense", "true"] {
            let error = run(script).0.unwrap_err().to_string();
            assert!(error.contains("without an answer"), "{script}: {error}");
        }
        // Who ends the gateway says nothing of its model.
        let stopped = run("kill -TERM $$").0;
        assert!(matches!(stopped, Err(TuneError::Stopped(_))), "{stopped:?}");
        let missing = Tuner::new(PathBuf::from("/nowhere"), "measure", "PARENT", 0..=u64::MAX).run(&request(), 1, &mut |_| ());
        assert!(missing.unwrap_err().to_string().contains("cannot be started"));
    }
}
