//! What the operating system says of a process: memory, descriptors, threads. Linux only.

use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

/// A process by its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    fn status(self, field: &str) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find(|line| line.starts_with(field)).with_context(|| format!("no {field}"))?;
        Ok(line.split_whitespace().nth(1).unwrap_or_default().parse()?)
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// CPU time of its threads so far, in nanoseconds; threads that have ended are not counted.
    pub(crate) fn cpu_ns(self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0))? {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            sum += text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Threads.
    pub(crate) fn threads(self) -> anyhow::Result<u64> {
        self.status("Threads:")
    }

    /// Open descriptors.
    pub(crate) fn descriptors(self) -> anyhow::Result<u64> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.0))?.count() as u64)
    }

    /// The most resident memory in KiB while `work` runs, looked at every 50 ms.
    pub(crate) async fn peak_kib<T>(self, work: impl Future<Output = T>) -> anyhow::Result<(T, u64)> {
        let mut peak = self.rss_kib()?;
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok((done, peak.max(self.rss_kib()?))),
                () = sleep(Duration::from_millis(50)) => peak = peak.max(self.rss_kib()?),
            }
        }
    }
}

/// Slope of `(seconds, KiB)` points by least squares, in KiB per hour.
pub(crate) fn slope_kib_per_hour(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    if points.len() < 2 {
        return 0.0;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
    let under = points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    if under == 0.0 { 0.0 } else { over / under * 3_600.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        let points = (0..10).map(|at| (f64::from(at), 5.0 + f64::from(at) * 2.0)).collect::<Vec<_>>();
        assert!((slope_kib_per_hour(&points) - 7_200.0).abs() < 1e-6);
        assert_eq!(slope_kib_per_hour(&points[..1]), 0.0);
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let own = Process(std::process::id());
        assert!(
            own.rss_kib().unwrap() > 100
                && own.threads().unwrap() >= 1
                && own.cpu_ns().unwrap() > 0
                && own.descriptors().unwrap() >= 3
        );
    }
}
