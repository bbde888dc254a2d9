//! The sandbox under attack (P-W1 to P-W8, P-W10, P-W11): hostile components in a running gateway. One row or two in each file below;
//! the components are written as text (`guest.rs`), and those of the suite are listed in `hostile.rs`.

pub(crate) mod blocked;
pub(crate) mod compile;
mod guest;
mod hostile;
mod image;
pub(crate) mod imports;
mod inside;
pub(crate) mod lift;
pub(crate) mod limits;
pub(crate) mod parallel;
pub(crate) mod residue;
pub(crate) mod tamper;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tollgate_tests::{Gateway, Place};

use super::process::Process;

/// The longest wait for instances to be given back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the log's lines of a plugin have.
fn of_plugin(name: &str) -> String {
    format!("\"plugin\":\"{name}\"")
}

/// What the log's lines of an end for `reason` have.
fn for_reason(reason: &str) -> String {
    format!("\"reason\":\"{reason}\"")
}

/// Instances that are not free, after `patience` at most.
async fn instances_left(gateway: &Gateway, patience: Duration) -> u64 {
    let end = Instant::now() + patience;
    loop {
        let slots = gateway.admin(&["status"]).await["plugin_slots"].clone();
        let number = |name: &str| slots[name].as_u64().unwrap_or(u64::MAX);
        let left = number("total").abs_diff(number("free"));
        if left == 0 || Instant::now() > end {
            return left;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Resident memory in KiB once it is at `before` and a twentieth or less, or after 60 s.
async fn memory_after(process: Process, before: u64) -> anyhow::Result<u64> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let now = process.rss_kib()?;
        if now <= before + before / 20 || Instant::now() > end {
            return Ok(now);
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// A place whose log has warnings and what plugins say, and in which only asked reloads happen.
fn place() -> Place {
    let place = Place::new();
    place.write("tollgate.toml", "[log]\nlevel = \"warn\"\n[reload]\ndebounce_ms = 0\n");
    place
}
