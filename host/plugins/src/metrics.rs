//! What is counted of a plugin's calls. The handles are kept with the plugin: a call that lasts microseconds looks nothing up.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::KillReason;

/// What is called, in the words of [`Kill::hook`](crate::Kill).
const HOOKS: [&str; 8] = ["instantiate", "resume", "setup", "authenticate", "compose", "filter-prompt", "filter-reply", "format"];

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    /// It answered.
    Ok,
    /// It answered, and the answer is no.
    Refused,
    /// It was ended.
    Killed,
}

/// The handles of one plugin. A series exists from its first count on.
#[derive(Debug)]
pub(crate) struct PluginMetrics {
    plugin: String,
    /// By hook and [`Called`].
    calls: [[OnceLock<Histogram>; 3]; HOOKS.len()],
    /// By reason.
    kills: [OnceLock<Counter>; KillReason::WORDS.len()],
}

impl PluginMetrics {
    pub(crate) fn new(plugin: &str) -> Self {
        PluginMetrics {
            plugin: plugin.to_owned(),
            calls: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            kills: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Counts a call of `hook`, one of [`HOOKS`].
    pub(crate) fn called(&self, hook: &'static str, how: Called, took: Duration) {
        let (at, word) = match how {
            Called::Ok => (0, "ok"),
            Called::Refused => (1, "refused"),
            Called::Killed => (2, "killed"),
        };
        let cells = HOOKS.iter().position(|known| *known == hook).and_then(|hook| self.calls.get(hook));
        let Some(cell) = cells.and_then(|cells| cells.get(at)) else { return };
        let handle = cell.get_or_init(|| {
            histogram!(
                "tollgate_plugin_call_duration_seconds",
                "plugin" => self.plugin.clone(),
                "hook" => hook,
                "outcome" => word,
            )
        });
        handle.record(took.as_secs_f64());
    }

    pub(crate) fn killed(&self, reason: &KillReason) {
        let word = reason.as_str();
        let cell = KillReason::WORDS.iter().position(|known| *known == word).and_then(|at| self.kills.get(at));
        let Some(cell) = cell else { return };
        let handle =
            cell.get_or_init(|| counter!("tollgate_plugin_kills_total", "plugin" => self.plugin.clone(), "reason" => word));
        handle.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place() {
        let reasons = [
            KillReason::Trap(String::new()),
            KillReason::Cpu,
            KillReason::Memory,
            KillReason::Stack,
            KillReason::HostTime,
            KillReason::Output,
            KillReason::Contract(""),
            KillReason::Pool,
        ];
        assert_eq!(reasons.each_ref().map(KillReason::as_str), KillReason::WORDS);
    }
}
