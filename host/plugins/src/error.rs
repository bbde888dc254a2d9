//! What can go wrong with a plugin that runs.

use std::fmt;

/// Why an instance was ended. It is never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillReason {
    /// It trapped; the text is wasmtime's name of the trap.
    Trap(String),
    /// It used up its CPU time.
    Cpu,
    /// It wanted more memory than it may have.
    Memory,
    /// Its stack ran over.
    Stack,
    /// Its calls to the host took too long.
    HostTime,
    /// It returned more than it may.
    Output,
    /// It returned something that the contract does not allow.
    Contract(&'static str),
    /// No instance could be made: the pool is smaller than the slots promised.
    Pool,
}

impl KillReason {
    /// Every word of [`KillReason::as_str`].
    pub const WORDS: [&'static str; 8] = ["trap", "cpu", "memory", "stack", "host-time", "output", "contract", "pool"];

    /// One word for logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            KillReason::Trap(_) => "trap",
            KillReason::Cpu => "cpu",
            KillReason::Memory => "memory",
            KillReason::Stack => "stack",
            KillReason::HostTime => "host-time",
            KillReason::Output => "output",
            KillReason::Contract(_) => "contract",
            KillReason::Pool => "pool",
        }
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillReason::Trap(what) => write!(f, "it trapped: {what}"),
            KillReason::Cpu => f.write_str("it used up its CPU time"),
            KillReason::Memory => f.write_str("it wanted more memory than it may have"),
            KillReason::Stack => f.write_str("its stack ran over"),
            KillReason::HostTime => f.write_str("its calls to the host took too long"),
            KillReason::Output => f.write_str("it returned more than it may"),
            KillReason::Contract(what) => write!(f, "it broke the contract: {what}"),
            KillReason::Pool => f.write_str("no instance could be made"),
        }
    }
}

/// A plugin was ended in a hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin} was ended in {hook}: {reason}")]
pub struct Kill {
    /// The plugin's id.
    pub plugin: String,
    /// Where.
    pub hook: &'static str,
    /// Why.
    pub reason: KillReason,
}

/// An artifact cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// wasmtime does not take it.
    #[error("the compiled plugin cannot be loaded: {0}")]
    Engine(String),
    /// It asks for something that the operator did not grant.
    #[error("plugin {plugin} asks for `{capability}`: add it to `grants` in plugins/{plugin}.toml, or remove the plugin")]
    NotGranted {
        /// The plugin's id.
        plugin: String,
        /// What it asks for.
        capability: String,
    },
}
