//! What is not serving, and why.

use serde::Serialize;
use tollgate_config::Problem;

/// Something of the config that failed. The last good generation serves on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// The config file, relative to the config directory.
    pub file: String,
    /// Where it stopped: `config`, `check`, `init`, `snapshot`, `compile`, `process`, `load`, `route`.
    pub stage: String,
    /// Why, and what to do.
    pub reason: String,
    /// The digest that serves in its place, where there is one.
    pub last_good: Option<String>,
}

impl Quarantined {
    pub(crate) fn new(file: impl Into<String>, stage: impl Into<String>, reason: impl Into<String>) -> Self {
        Quarantined { file: file.into(), stage: stage.into(), reason: reason.into(), last_good: None }
    }

    pub(crate) fn of_config(problem: &Problem) -> Self {
        Quarantined::new(problem.file.as_str(), "config", problem.to_string())
    }

    pub(crate) fn internal(reason: &str) -> Self {
        Quarantined::new("", "process", reason)
    }
}

impl std::fmt::Display for Quarantined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.stage, self.reason)
    }
}
