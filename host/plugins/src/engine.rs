//! wasmtime's engine, its settings, and the ticker that counts time for it.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::imports::State;
use crate::manifest::Capability;
use crate::slots::Slots;
use crate::{Artifact, LoadError, Plugin, Spec};

/// How often a running guest gives the thread back.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// No instance has more memory than this, whatever it is granted.
pub(crate) const MAX_MEMORY_BYTES: usize = 64 << 20;
/// Elements of all tables of a module.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;
const STACK_BYTES: usize = 1 << 20;
/// A component from a toolchain of its own (Python) has up to 12 core modules and memories behind adapters.
const MODULES_PER_COMPONENT: u32 = 40;
/// Each takes 4 GiB of address space, of which there are 128 TiB.
const MEMORIES_PER_COMPONENT: u32 = 4;
/// Written pages of a slot that are kept mapped between two uses: what is more than this is mapped again when it is touched.
const KEEP_RESIDENT_BYTES: usize = 128 << 10;

/// Where instances' memory comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Allocation {
    /// A pool with this many slots, for the gateway.
    Pool(u32),
    /// As it comes, for the build step.
    OnDemand,
}

/// The settings of gateway and build step. What is compiled in one must load in the other.
pub(crate) fn config(allocation: Allocation) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    config.epoch_interruption(true);
    config.concurrency_support(false);
    config.max_wasm_stack(STACK_BYTES);
    config.async_stack_size(2 * STACK_BYTES);
    if let Allocation::Pool(slots) = allocation {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots);
        pool.total_stacks(slots);
        // Whatever components are in use, a reserved slot can be had: the totals are the most that each may take.
        pool.total_core_instances(slots.saturating_mul(MODULES_PER_COMPONENT));
        pool.total_memories(slots.saturating_mul(MEMORIES_PER_COMPONENT));
        pool.total_tables(slots.saturating_mul(MODULES_PER_COMPONENT));
        pool.max_memories_per_component(MEMORIES_PER_COMPONENT);
        pool.max_memory_size(MAX_MEMORY_BYTES);
        pool.table_elements(MAX_TABLE_ELEMENTS);
        pool.max_core_instances_per_component(MODULES_PER_COMPONENT);
        pool.max_tables_per_component(MODULES_PER_COMPONENT);
        pool.max_component_instance_size(4 << 20);
        pool.max_core_instance_size(4 << 20);
        pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
        pool.table_keep_resident(KEEP_RESIDENT_BYTES);
        // The kernel says which pages were written (Linux 6.7), so that just these are cleared; before that, the lowest are.
        pool.pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// A linker with all that `grants` allow. `wasi` adds the standard interfaces with nothing behind them: no files, no sockets, no
/// environment.
pub(crate) fn linker(engine: &Engine, grants: &[Capability], wasi: bool) -> wasmtime::Result<Linker<State>> {
    use crate::bindings::{credentials, log, types};
    let mut linker = Linker::new(engine);
    types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    if grants.contains(&Capability::Log) {
        log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    }
    if grants.contains(&Capability::Credentials) {
        credentials::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    }
    if wasi {
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    }
    Ok(linker)
}

/// Whether a component imports any standard interface.
pub(crate) fn imports_wasi(component: &Component) -> bool {
    component.component_type().imports(component.engine()).any(|(name, _)| name.starts_with("wasi:"))
}

/// Runs plugins. Clones share one engine.
#[derive(Clone)]
pub struct PluginHost {
    engine: Engine,
    slots: Slots,
    credentials: Arc<dyn crate::Credentials>,
}

impl std::fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginHost").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Makes the engine with room for `slots` instances (1 to 4,096) and starts its ticker.
    ///
    /// # Errors
    /// The machine gives no memory for the pool, or no thread.
    pub fn new(slots: u32, credentials: Arc<dyn crate::Credentials>) -> Result<Self, LoadError> {
        let error = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let engine = Engine::new(&config(Allocation::Pool(slots))).map_err(error)?;
        start_ticker(&engine).map_err(|error| LoadError::Engine(error.to_string()))?;
        Ok(PluginHost { engine, slots: Slots::new(slots), credentials })
    }

    /// The instances that may be alive.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Makes a compiled plugin ready for requests.
    ///
    /// # Errors
    /// It is not for this engine, or asks for what `spec` does not grant.
    pub fn load(&self, artifact: &Artifact, spec: Spec) -> Result<Plugin, LoadError> {
        let credentials = Arc::clone(&self.credentials);
        Plugin::load(&self.engine, artifact, spec, credentials)
    }
}

/// Counts time for `engine` on a thread of its own, until the engine is gone.
pub(crate) fn start_ticker(engine: &Engine) -> std::io::Result<()> {
    let weak = engine.weak();
    std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || tick(&weak)).map(drop)
}

/// Ticks until the engine is gone.
fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        std::thread::sleep(TICK);
    }
}
