//! Processes that a row starts: they end with the row, and what they use can be read.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// A running process. Dropping it kills it by its id.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with its output in `log`.
    pub(crate) fn spawn(name: &'static str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Process { name, child, log: log.to_owned() })
    }

    /// Waits until `is_ready` says so. Fails when it ends before or is not ready in time, with the end of its log.
    pub(crate) async fn until<F: Future<Output = bool>>(
        &mut self,
        within: Duration,
        mut is_ready: impl FnMut() -> F,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + within;
        while !is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}):\n{}", self.name, self.log_end());
            }
            if Instant::now() > end {
                bail!("{} is not ready after {} s:\n{}", self.name, within.as_secs(), self.log_end());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// The last lines of its output.
    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().collect::<Vec<_>>();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// A port of loopback that was free just now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Loops that keep a core busy each, beside what is measured.
pub(crate) fn busy_loops(count: usize, folder: &Path) -> anyhow::Result<Vec<Process>> {
    let program = std::env::current_exe()?;
    let one =
        |number| Process::spawn("a busy loop", Command::new(&program).arg("__busy"), &folder.join(format!("busy-{number}")));
    (0..count).map(one).collect()
}

/// A line of `/proc/PID/smaps_rollup`, in KiB: `Rss`, `Pss`, `Private_Dirty`, `Anonymous`.
pub(crate) fn memory_kib(pid: u32, name: &str) -> anyhow::Result<u64> {
    proc_kib(&format!("/proc/{pid}/smaps_rollup"), name)
}

/// The most that was ever resident, in KiB.
pub(crate) fn peak_kib(pid: u32) -> anyhow::Result<u64> {
    proc_kib(&format!("/proc/{pid}/status"), "VmHWM")
}

fn proc_kib(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.with_context(|| format!("{path} has no {name}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
