//! What the operating system says of this process.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::Scrape;

/// Adds what is known of this process. It reads files: not for an async task.
pub(crate) fn add(scrape: &mut Scrape) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    scrape.value("process_cpu_seconds_total", &[], cpu_time().as_secs_f64());
    for (name, value) in [
        ("process_threads", field(&status, "Threads")),
        ("process_virtual_memory_bytes", field(&status, "VmSize").map(bytes)),
        ("process_resident_memory_bytes", field(&status, "VmRSS").map(bytes)),
        ("process_open_fds", open_fds()),
        ("process_max_fds", getrlimit(Resource::Nofile).current),
    ] {
        if let Some(value) = value {
            scrape.count(name, &[], value);
        }
    }
}

/// CPU time of all threads, in user and kernel.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The number in the line `NAME: NUMBER [kB]` of `/proc/PID/status` (proc(5)).
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The file says kB and means KiB.
fn bytes(kib: u64) -> u64 {
    kib.saturating_mul(1_024)
}

/// Open file descriptors but for the one that counts them.
fn open_fds() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "Name:\tVmRSS: 7\nVmHWM:\t   9 kB\nVmRSS:\t  2048 kB\nThreads:\t12\n";
        assert_eq!((field(status, "VmRSS"), field(status, "Threads"), field(status, "Vm")), (Some(2_048), Some(12), None));
    }

    #[test]
    fn a_process_knows_itself() {
        let mut scrape = Scrape::default();
        add(&mut scrape);
        let text = scrape.text();
        for name in ["process_cpu_seconds_total", "process_threads", "process_resident_memory_bytes", "process_open_fds"] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value = line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name}: {line:?}");
        }
    }
}
