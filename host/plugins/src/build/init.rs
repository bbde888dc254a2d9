//! `init`: run once, to see that it works and to keep what it made.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{Component, Instance};
use wasmtime::{Engine, OptLevel, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wizer::{ComponentContext, WasmtimeWizerComponent, Wizer};

use super::quick::Kept;
use super::{BuildFailure, BuildStage, failed, failure};
use crate::engine::{self, Allocation};
use crate::imports::State;
use crate::instance::{new_store, reason_of};
use crate::manifest::{Capability, Hook, Manifest};
use crate::plugin::Indices;
use crate::{CONTRACT_VERSION, Limits};

/// The standard packages that the linker has.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
/// Bytes of standard error that are kept while `init` runs, and characters of their end that are told.
const MAX_STDERR: usize = 64 << 10;
const MAX_WORDS: usize = 400;

/// What a snapshot may read: any memory that a plugin may have, with room to spare.
const SNAPSHOT_BYTES: usize = 256 << 20;

/// For code that runs once: compiling it well takes longer than running it.
fn quick_compiler() -> wasmtime::Result<Engine> {
    let engine = Engine::new(engine::config(Allocation::OnDemand).cranelift_opt_level(OptLevel::None))?;
    engine::start_ticker(&engine)?;
    Ok(engine)
}

/// A component on which `init` can be run, under any config.
pub(crate) struct Prepared<'a> {
    bytes: &'a [u8],
    component: Component,
    /// What a snapshot needs, or why there can be none.
    wizer: Result<(Wizer, ComponentContext<'a>), String>,
    /// How long the compiler took, in seconds.
    pub(crate) compile_s: f64,
}

impl<'a> Prepared<'a> {
    /// Compiles the component quickly, or finds it in `kept`, and checks its imports and exports.
    ///
    /// # Errors
    /// It is no component, or not of this contract.
    pub(crate) fn new(bytes: &'a [u8], manifest: &Manifest, kept: Option<Kept<'_>>) -> Result<Self, BuildFailure> {
        let engine = quick_compiler().map_err(failed(BuildStage::Process))?;
        let began = Instant::now();
        let compile = |code: &[u8]| match kept {
            Some(kept) => kept.component(&engine, code),
            None => Component::new(&engine, code),
        };
        let mut wizer = Wizer::new();
        wizer.keep_init_func(true);
        let instrumented = wizer.instrument_component(bytes).and_then(|(context, instrumented)| {
            let component = compile(&instrumented)?;
            Ok((component, context))
        });
        let (component, wizer) = match instrumented {
            Ok((component, context)) => (component, Ok((wizer, context))),
            Err(error) => (compile(bytes).map_err(failed(BuildStage::Check))?, Err(format!("{error:#}"))),
        };
        check_world(&component, manifest)?;
        Ok(Prepared { bytes, component, wizer, compile_s: began.elapsed().as_secs_f64() })
    }

    /// The component with its memory as `init` left it, or why that cannot be.
    pub(crate) async fn snapshot(&self, initialised: Initialised) -> Result<Vec<u8>, String> {
        let (wizer, context) = self.wizer.as_ref().map_err(Clone::clone)?;
        let Initialised { mut store, instance } = initialised;
        // A snapshot is of memory alone: a handle in it would lead nowhere in the instances made from it.
        if store.data().lends_handles() {
            return Err("after `init` it holds a handle of the host's, as it does when it has printed something".to_owned());
        }
        // The snapshot reads all of the memory through one call's result.
        store.set_hostcall_fuel(SNAPSHOT_BYTES);
        let mut state = WasmtimeWizerComponent { store: &mut store, instance };
        wizer.snapshot_component(context, &mut state).await.map_err(|error| format!("{error:#}"))
    }

    /// Compiles a snapshot of this component as quickly as the component itself.
    pub(crate) fn compile(&self, snapshot: &[u8]) -> Result<Component, String> {
        Component::new(self.component.engine(), snapshot).map_err(|error| format!("{error:#}"))
    }

    /// The component as it is, for instances that run `init` themselves.
    pub(crate) fn component(&self) -> &Component {
        &self.component
    }

    /// The component as it came.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// An instance on which `init` ran well.
pub(crate) struct Initialised {
    store: Store<State>,
    instance: Instance,
}

impl Initialised {
    /// What it uses of memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.store.data().memory.used() as u64
    }
}

/// Why `init` did not come to a good end.
pub(crate) enum NotInitialised {
    /// It refused the config, with this error.
    Refused(String),
    /// Something else went wrong.
    Failed(BuildFailure),
}

impl From<NotInitialised> for BuildFailure {
    fn from(stopped: NotInitialised) -> Self {
        match stopped {
            NotInitialised::Refused(reason) if reason.trim().is_empty() => {
                failure(BuildStage::Init, "`init` refused the config and did not say why".to_owned())
            }
            NotInitialised::Refused(reason) => failure(BuildStage::Init, reason),
            NotInitialised::Failed(failure) => failure,
        }
    }
}

impl From<BuildFailure> for NotInitialised {
    fn from(failure: BuildFailure) -> Self {
        NotInitialised::Failed(failure)
    }
}

/// Running `init` under one config.
pub(crate) struct Init<'a> {
    /// The plugin's id, for its log lines.
    pub(crate) id: &'a str,
    pub(crate) manifest: &'a Manifest,
    pub(crate) config_json: &'a str,
    /// The CPU time of this process at which `init` is ended.
    pub(crate) until: Duration,
}

impl Init<'_> {
    /// Instantiates, loads every hook (names alone do not tell their types) and calls `init`, with `log` as the only live import.
    ///
    /// # Errors
    /// The hooks are of other types, or `init` failed.
    pub(crate) async fn run(&self, prepared: &Prepared<'_>) -> Result<Initialised, NotInitialised> {
        let check = failed(BuildStage::Check);
        let component = &prepared.component;
        let engine = component.engine();
        let wasi = engine::imports_wasi(component);
        let linker = engine::linker(engine, &self.manifest.capabilities, wasi).map_err(&check)?;
        let pre = linker.instantiate_pre(component).map_err(&check)?;
        let limits = Limits { memory_over_snapshot: engine::MAX_MEMORY_BYTES as u64, ..Limits::default() };
        let mut state = State::new(self.id.into(), "build".into(), &limits, limits.memory_over_snapshot);
        let stderr = MemoryOutputPipe::new(MAX_STDERR);
        if wasi {
            state = state.with_wasi_heard(limits.handles, stderr.clone());
        }
        let mut store = new_store(engine, state, &limits);
        let until = self.until;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if process_cpu() < until { Ok(UpdateDeadline::Continue(1)) } else { Err(Trap::Interrupt.into()) }
        });
        let indices = Indices::new(&pre).map_err(&check)?;
        if let Some(hook) = hooks_of(component, self.manifest).into_iter().find(|hook| !indices.has(*hook)) {
            let reason = format!("its `{}` is not the contract's, or no hook that this gateway calls yet", hook.as_str());
            return Err(failure(BuildStage::Check, reason).into());
        }
        let instance = pre.instantiate_async(&mut store).await.map_err(&check)?;
        load_every_hook(&indices, &mut store, &instance).map_err(&check)?;
        let setup = indices.setup.load(&mut store, &instance).map_err(&check)?;
        let ready = setup.call_init(&mut store, self.config_json).await;
        let ready = ready.map_err(|error| self.ended(store.data(), &error, &stderr.contents()))?;
        ready.map_err(NotInitialised::Refused)?;
        Ok(Initialised { store, instance })
    }

    fn ended(&self, state: &State, error: &wasmtime::Error, stderr: &[u8]) -> BuildFailure {
        let mut reason = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => {
                format!("it did not come to an end in its part of the build's time, by {} s of CPU time", self.until.as_secs())
            }
            _ => reason_of(state, error).to_string(),
        };
        let said = String::from_utf8_lossy(stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if !said.is_empty() {
            let skipped = said.chars().count().saturating_sub(MAX_WORDS);
            reason.push_str("; it said: ");
            reason.extend(said.chars().skip(skipped).flat_map(char::escape_debug));
        }
        failure(BuildStage::Init, reason)
    }
}

/// The CPU time of this process so far.
pub(crate) fn process_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or(Duration::MAX)
}

/// The hooks that the manifest names or the component exports.
fn hooks_of(component: &Component, manifest: &Manifest) -> Vec<Hook> {
    let exports = |hook: Hook| {
        let name = format!("tollgate:plugin/{}@{CONTRACT_VERSION}", hook.as_str());
        component.get_export_index(None, &name).is_some()
    };
    let hooks = Hook::ALL.into_iter().filter(|hook| manifest.hooks.contains(hook) || exports(*hook));
    hooks.collect()
}

fn check_world(component: &Component, manifest: &Manifest) -> Result<(), BuildFailure> {
    let prefix = "tollgate:plugin/";
    let offered = |name: &str| {
        let types = name == format!("{prefix}types@{CONTRACT_VERSION}");
        let asked = |capability: &Capability| name == format!("{prefix}{}@{CONTRACT_VERSION}", capability.as_str());
        types || WASI.iter().any(|package| name.starts_with(package)) || manifest.capabilities.iter().any(asked)
    };
    let kind = component.component_type();
    let exports = kind.exports(component.engine()).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let export = |hook: Hook| format!("{prefix}{}@{CONTRACT_VERSION}", hook.as_str());
    let missing =
        std::iter::once(Hook::Setup).chain(manifest.hooks.iter().copied()).find(|hook| !exports.contains(&export(*hook)));
    if let Some(hook) = missing {
        let reason = format!(
            "it does not export `{}`, so it is of another world; it exports: {}",
            export(hook),
            if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
        );
        return Err(failure(BuildStage::Check, reason));
    }
    if let Some((name, _)) = kind.imports(component.engine()).find(|(name, _)| !offered(name)) {
        let cure = if name.starts_with("wasi:") {
            "of WASI 0.2 there are cli, clocks, filesystem, io, random and sockets; build it without the rest"
        } else {
            "an import of the gateway's own needs its name in the manifest's capabilities"
        };
        let reason = format!("it imports `{name}`, which is not offered ({cure})");
        return Err(failure(BuildStage::Check, reason));
    }
    Ok(())
}

fn load_every_hook(
    indices: &Indices,
    store: &mut Store<State>,
    instance: &wasmtime::component::Instance,
) -> wasmtime::Result<()> {
    macro_rules! load {
        ($($hook:ident),+) => {
            $(if let Some(indices) = &indices.$hook {
                indices.load(&mut *store, instance)?;
            })+
        };
    }
    load!(resume, authenticate, compose, filter_prompt, filter_reply, format);
    Ok(())
}
