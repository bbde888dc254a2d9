//! `tollgate.toml`: what concerns the process as a whole. Every field is optional, and so is the file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Quantization;
use crate::provider::HostPort;
use crate::telemetry::Telemetry;
use crate::text::PublicKey;

/// Settings of the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The log.
    pub log: Log,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// How changes in the config directory are taken up.
    pub reload: Reload,
    /// Limits of the child process that builds plugins.
    pub build: Build,
    /// The pool that plugin instances come from.
    pub plugins: PluginPool,
    /// All models together.
    pub models: Models,
    /// Requests of all listeners together.
    pub requests: Requests,
    /// Traces.
    pub telemetry: Telemetry,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter in the form of `tracing`: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels per target such as
    /// `info,tollgate_plugins=debug`. Default `info`.
    #[schemars(length(min = 1, max = 512))]
    pub level: String,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds that running requests have to finish after SIGTERM, 0 to 3600. Default 30.
    #[schemars(range(min = 0, max = 3_600))]
    pub grace_s: u32,
}

/// How changes in the config directory are taken up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Seconds between two looks at the content, for what the watcher missed, 1 to 3600. Default 10.
    #[schemars(range(min = 1, max = 3_600))]
    pub poll_s: u32,
    /// Milliseconds of quiet after a change before it is read, 0 to 10000. Default 20.
    #[schemars(range(min = 0, max = 10_000))]
    pub debounce_ms: u32,
    /// Seconds that requests of a replaced generation have to finish, 1 to 3600. Default 600.
    #[schemars(range(min = 1, max = 3_600))]
    pub drain_s: u32,
    /// Generations alive at once, the serving one among them, 2 to 64. Default 8.
    #[schemars(range(min = 2, max = 64))]
    pub generations: u32,
}

/// Limits of the child process that builds plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Build {
    /// Memory of the child in MiB, 64 to 4096. Default 1024: a 12 MB component of JavaScript needs more than half of it.
    #[schemars(range(min = 64, max = 4_096))]
    pub memory_mib: u32,
    /// Seconds for one plugin, 1 to 600. Default 60.
    #[schemars(range(min = 1, max = 600))]
    pub time_s: u32,
}

/// All models together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// What has to be there before the gateway serves. Default `strict`.
    pub startup: Startup,
    /// Memory of all models together in MiB, 1 to 16777216: weights, caches and buffers. A model that does not fit beside the others
    /// waits until one of them is idle. Without it, 80 % of what the machine or the control group has.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub memory_mib: Option<u32>,
    /// Requests that may wait for a model to be loaded, of all models together, 1 to 65536; one more is refused at once (503).
    /// Default 1024.
    #[schemars(range(min = 1, max = 65_536))]
    pub queue: u32,
    /// Whether a model of the backend `llama` with 64 MiB to 8 GiB of weights is measured at its first load on this machine, for 8 s
    /// at most, and computed from then on as was found best. Default true.
    pub tune: bool,
    /// ONNX Runtime, a path of `libonnxruntime.so` 1.24 or later. Without it, what `ORT_DYLIB_PATH` names, or the system's.
    pub onnxruntime: Option<PathBuf>,
    /// Keys whose signature on a model's manifest is good, up to 64. Default none.
    #[schemars(length(max = 64))]
    pub trusted_keys: Vec<PublicKey>,
    /// Whether models that nobody has signed may be installed. Default false.
    pub unsigned: bool,
    /// What safetensors become when they are installed and neither the command nor the model's file says. Default `auto`.
    pub quantization: Quantization,
    /// Hosts with their ports that models of the backend `provider` may send prompts to, up to 64. Default none.
    #[schemars(length(max = 64))]
    pub egress: Vec<HostPort>,
}

/// What has to be there before the gateway serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Startup {
    /// Every model: as many as there is memory for are loaded, the others are checked. One that cannot be used stops the start, or
    /// the reload that brings it.
    #[default]
    Strict,
    /// None: each is loaded with its first request, and one that cannot be used fails that.
    Lazy,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            startup: Startup::Strict,
            memory_mib: None,
            queue: 1_024,
            tune: true,
            onnxruntime: None,
            trusted_keys: Vec::new(),
            unsigned: false,
            quantization: Quantization::Auto,
            egress: Vec::new(),
        }
    }
}

/// Requests of all listeners together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    /// Request bodies in memory at once, in MiB, 32 to 65536; a tenant has at most as much as it leaves free, and what does not fit
    /// is answered 503. Default 256.
    #[schemars(range(min = 32, max = 65_536))]
    pub bodies_mib: u32,
}

impl Default for Requests {
    fn default() -> Self {
        Self { bodies_mib: 256 }
    }
}

/// The pool that plugin instances come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginPool {
    /// Instances alive at once, 1 to 4096. A request reserves one per plugin of its route when it is admitted, and is
    /// answered 503 where there are none; an eighth is kept for authenticators, and a tenant has at most as many of the others as it
    /// leaves free. Default 1024.
    #[schemars(range(min = 1, max = 4_096))]
    pub slots: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace_s: 30 }
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self { poll_s: 10, debounce_ms: 20, drain_s: 600, generations: 8 }
    }
}

impl Default for Build {
    fn default() -> Self {
        Self { memory_mib: 1_024, time_s: 120 }
    }
}

impl Default for PluginPool {
    fn default() -> Self {
        Self { slots: 1_024 }
    }
}
