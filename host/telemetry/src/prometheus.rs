//! Metrics in Prometheus' text format, behind the `metrics` facade.
//!
//! Everyone counts through the facade and holds the handles; this recorder knows which metrics there are ([`FAMILIES`]) and takes
//! no other, so that no label can come from a client (P-E9). What others keep as plain numbers already is read at the scrape.

mod registry;
mod series;
mod table;
mod text;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use registry::Registry;

use crate::process;

pub use table::{FAMILIES, Family, Kind};
pub use text::Scrape;

/// Metrics were installed before.
#[derive(Debug, thiserror::Error)]
#[error("metrics were set up before")]
pub struct Installed;

/// The process's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// When they were installed, which is when the process started, in seconds since 1970.
    started_s: f64,
}

impl Metrics {
    /// Becomes the recorder behind the facade. Handles that were made before count nothing.
    ///
    /// # Errors
    /// There is one already.
    pub fn install() -> Result<Self, Installed> {
        let registry = Arc::new(Registry::default());
        metrics::set_global_recorder(Arc::clone(&registry)).map_err(|_| Installed)?;
        let started_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(Metrics { registry, started_s })
    }

    /// What was counted so far and what the operating system says of the process, to which others add what they keep themselves.
    /// It reads files: not for an async task.
    #[must_use]
    pub fn scrape(&self) -> Scrape {
        let mut scrape = Scrape::default();
        self.registry.write(&mut scrape);
        process::add(&mut scrape);
        scrape.value("process_start_time_seconds", &[], self.started_s);
        scrape
    }
}
