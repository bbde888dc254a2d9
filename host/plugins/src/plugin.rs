//! A plugin that is loaded and ready.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre};

use crate::bindings::hooks::{authenticate, compose, filter_prompt, filter_reply, format, resume, setup};
use crate::engine::{imports_wasi, linker};
use crate::imports::State;
use crate::metrics::PluginMetrics;
use crate::{
    Artifact, BuildReport, Capability, Credentials, Hook, Instance, Kill, KillReason, Limits, LoadError, Manifest, Slot,
};

/// What happens to a request when a plugin was ended. An authenticator always refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The request ends with an error.
    #[default]
    Refuse,
    /// The request goes on without the plugin.
    Skip,
}

/// How the operator wants a plugin to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its id in the config.
    pub id: String,
    /// Its `[config]` table as JSON with sorted keys.
    pub config_json: String,
    /// What the operator grants.
    pub grants: Vec<Capability>,
    /// What an instance may use.
    pub limits: Limits,
    /// What happens when it fails.
    pub on_failure: OnFailure,
}

/// Where each hook's functions are in the component.
pub(crate) struct Indices {
    pub(crate) setup: setup::GuestIndices,
    pub(crate) resume: Option<resume::GuestIndices>,
    pub(crate) authenticate: Option<authenticate::GuestIndices>,
    pub(crate) compose: Option<compose::GuestIndices>,
    pub(crate) filter_prompt: Option<filter_prompt::GuestIndices>,
    pub(crate) filter_reply: Option<filter_reply::GuestIndices>,
    pub(crate) format: Option<format::GuestIndices>,
}

impl Indices {
    /// Finds the hooks that a component exports. wasmtime's own world type wants every export (its issue 11538).
    pub(crate) fn new(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(Indices {
            setup: setup::GuestIndices::new(pre)?,
            resume: resume::GuestIndices::new(pre).ok(),
            authenticate: authenticate::GuestIndices::new(pre).ok(),
            compose: compose::GuestIndices::new(pre).ok(),
            filter_prompt: filter_prompt::GuestIndices::new(pre).ok(),
            filter_reply: filter_reply::GuestIndices::new(pre).ok(),
            format: format::GuestIndices::new(pre).ok(),
        })
    }

    /// Whether the component exports `hook` as far as this host calls it.
    pub(crate) fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::Setup => true,
            Hook::Resume => self.resume.is_some(),
            Hook::Authenticate => self.authenticate.is_some(),
            Hook::Compose => self.compose.is_some(),
            Hook::FilterPrompt => self.filter_prompt.is_some(),
            Hook::FilterReply => self.filter_reply.is_some(),
            Hook::Format => self.format.is_some(),
            Hook::Channel | Hook::Tool => false,
        }
    }
}

/// A plugin that is loaded and ready. Immutable: a change of its file or config makes another.
pub struct Plugin {
    pub(crate) id: Arc<str>,
    pub(crate) spec: Spec,
    pub(crate) pre: InstancePre<State>,
    pub(crate) indices: Indices,
    pub(crate) credentials: Option<Arc<dyn Credentials>>,
    pub(crate) wasi: bool,
    /// Whether `init` already ran, inside the snapshot.
    pub(crate) initialised: bool,
    /// What an instance may have, in bytes.
    pub(crate) memory: u64,
    pub(crate) metrics: PluginMetrics,
    manifest: Manifest,
    digest: String,
    cases: u32,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("id", &self.id).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Plugin {
    pub(crate) fn load(
        engine: &Engine,
        artifact: &Artifact,
        spec: Spec,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Self, LoadError> {
        let report = artifact.report();
        if let Some(missing) = report.manifest.capabilities.iter().find(|asked| !spec.grants.contains(asked)) {
            return Err(LoadError::NotGranted { plugin: spec.id, capability: missing.as_str().to_owned() });
        }
        let component = deserialize(engine, artifact).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        Plugin::of(&component, report, spec, credentials)
    }

    /// Makes a component ready that is compiled. What it asks for is granted.
    pub(crate) fn of(
        component: &Component,
        report: &BuildReport,
        spec: Spec,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Self, LoadError> {
        let error = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let wasi = imports_wasi(component);
        let linker = linker(component.engine(), &report.manifest.capabilities, wasi).map_err(error)?;
        let pre = linker.instantiate_pre(component).map_err(error)?;
        let indices = Indices::new(&pre).map_err(error)?;
        let asked = |capability| report.manifest.capabilities.contains(&capability);
        Ok(Plugin {
            id: spec.id.as_str().into(),
            credentials: asked(Capability::Credentials).then_some(credentials),
            wasi,
            initialised: report.snapshot,
            memory: report.memory_bytes.saturating_add(spec.limits.memory_over_snapshot),
            manifest: report.manifest.clone(),
            digest: report.digest.clone(),
            cases: report.cases,
            metrics: PluginMetrics::new(&spec.id),
            spec,
            pre,
            indices,
        })
    }

    /// Its id in the config.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it has this hook.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.indices.has(hook)
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest of (component, config, engine), 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether requests start from a snapshot; if not, `init` runs in each.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.initialised
    }

    /// Counts that an instance was ended, for metrics. Whoever decides what becomes of the request calls it, once.
    pub fn count_kill(&self, reason: &KillReason) {
        self.metrics.killed(reason);
    }

    /// Golden cases that it brought along and passed.
    #[must_use]
    pub fn cases(&self) -> u32 {
        self.cases
    }

    /// What happens to a request when it fails.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.spec.on_failure
    }

    /// Makes a fresh, initialised instance for one request.
    ///
    /// # Errors
    /// `resume` or, without a snapshot, `init` failed.
    pub async fn start(self: &Arc<Self>, slot: Slot, request_id: &Arc<str>, now_ms: u64) -> Result<Instance, Kill> {
        Instance::start(Arc::clone(self), slot, Arc::clone(request_id), now_ms, None).await
    }
}

#[allow(unsafe_code, reason = "wasmtime runs what it is given here")]
fn deserialize(engine: &Engine, artifact: &Artifact) -> wasmtime::Result<Component> {
    // SAFETY: an `Artifact` is only made by the build step of this binary or from a cache file whose MAC was verified over just
    // these bytes in memory (P-W6), so that they are what wasmtime's own compiler wrote; wasmtime checks version and settings.
    unsafe { Component::deserialize(engine, artifact.compiled()) }
}
