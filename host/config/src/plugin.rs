//! `plugins/ID.toml`: a component, what it may use, and the config that its `setup.init` receives. No component is read here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::source::Source;

/// A plugin: a component with its grants, limits and config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// The component: `builtin:NAME`, or a `.wasm` file.
    pub component: Source,
    /// What becomes of a request when the plugin fails. An authenticator always refuses. Default `refuse`.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The capabilities that the operator grants; the component's manifest has to ask for them as well. Default none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub grants: Vec<Capability>,
    /// Limits of one instance.
    #[serde(default)]
    pub limits: PluginLimits,
    /// Handed to the component as JSON when it is built, and part of its snapshot from then on. It must hold no secret:
    /// write a secret's name, which is resolved at call time.
    #[serde(default)]
    pub config: BTreeMap<String, Value>,
}

impl Plugin {
    /// `config` as JSON with sorted keys: the same config gives the same text, hence the same snapshot.
    #[must_use]
    pub fn config_json(&self) -> String {
        canonical::json(&self.config)
    }
}

/// What becomes of a request when a plugin traps, runs out of a limit or cannot be instantiated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The request is refused.
    #[default]
    Refuse,
    /// The request goes on as if the plugin were not on the route.
    Skip,
}

/// A power that the host lends to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Write lines to the gateway's log.
    Log,
    /// Look up who holds a key.
    Credentials,
}

impl Capability {
    /// The name used in config files and manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Credentials => "credentials",
        }
    }
}

/// Limits of one plugin instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginLimits {
    /// Memory above the snapshot's own size in MiB, 1 to 64. Default 16.
    #[schemars(range(min = 1, max = 64))]
    pub memory_mib: u32,
    /// CPU time of one call in milliseconds, 1 to 10000. Default 50.
    #[schemars(range(min = 1, max = 10_000))]
    pub cpu_ms: u32,
    /// Time that all calls of one request may spend in the host's functions, in milliseconds, 1 to 600000. Default 5000.
    #[schemars(range(min = 1, max = 600_000))]
    pub wall_ms: u32,
    /// Resource handles at once, 1 to 100000. Default 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub handles: u32,
    /// What it adds to the log in one request in KiB, lines as they stand there, 0 to 1024; what is over is dropped. Default 64.
    #[schemars(range(min = 0, max = 1_024))]
    pub log_kib: u32,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self { memory_mib: 16, cpu_ms: 50, wall_ms: 5_000, handles: 1_000, log_kib: 64 }
    }
}
