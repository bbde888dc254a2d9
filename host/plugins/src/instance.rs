//! One plugin in one request.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tollgate_domain::{self as domain, ChatRequest, Context, Flag, Piece, Principal, Refusal, RequestHead};
use wasmtime::component::ResourceAny;
use wasmtime::{Store, Trap};

use crate::bindings::hooks::{authenticate, filter_prompt, filter_reply};
use crate::convert;
use crate::error::{Kill, KillReason};
use crate::imports::State;
use crate::meter::{CpuSpent, HostTimeSpent, Meter, Metered};
use crate::metrics::Called;
use crate::{Plugin, Slot, Slots};

/// What an authenticator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This is who asks.
    Identity(Principal),
    /// No.
    Refuse(Refusal),
    /// Ask the next.
    Abstain,
}

/// What a prompt filter says.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Go on with this.
    Replace(Box<ChatRequest>),
    /// No.
    Block(Refusal),
    /// Answer this; the model is not asked.
    Answer(String),
}

/// A verdict and what was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What to do.
    pub verdict: Verdict,
    /// What was seen.
    pub flags: Vec<Flag>,
}

/// What a reply filter lets go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What may leave now.
    pub release: Vec<Piece>,
    /// What was seen.
    pub flags: Vec<Flag>,
    /// The reply ends here.
    pub cut: Option<Refusal>,
}

/// One plugin in one request: a fresh copy of its snapshot, shared by its hooks. After an error it is not to be used again.
pub struct Instance {
    plugin: Arc<Plugin>,
    store: Store<State>,
    instance: wasmtime::component::Instance,
    meter: Arc<Meter>,
    reply: Option<(filter_reply::Guest, ResourceAny)>,
    slot: Slot,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("plugin", &self.plugin.id).finish_non_exhaustive()
    }
}

/// Calls an export under the meter and turns its failure into a reason; `$says_no` tells whether an answer is a refusal. A macro,
/// since a closure over a borrowed store has no nameable future.
macro_rules! call {
    ($self:ident, $hook:literal, $call:expr) => {
        call!($self, $hook, $call, never)
    };
    ($self:ident, $hook:literal, $call:expr, $says_no:expr) => {{
        let plugin = Arc::clone(&$self.plugin);
        let meter = Arc::clone(&$self.meter);
        let began = Instant::now();
        arm(&mut $self.store, &meter, began);
        let result = Metered::new(meter, &plugin.spec.limits, pin!($call)).await;
        let how = match &result {
            Ok(answer) if $says_no(answer) => Called::Refused,
            Ok(_) => Called::Ok,
            Err(_) => Called::Killed,
        };
        plugin.metrics.called($hook, how, began.elapsed());
        result.map_err(|error| $self.killed($hook, &error))
    }};
}

/// The hook that this call needs is there: the pipeline asks [`Plugin::has`] first.
macro_rules! hook {
    ($self:ident, $field:ident, $name:literal) => {{
        let indices = $self.plugin.indices.$field.as_ref();
        let indices = indices.ok_or_else(|| $self.kill($name, KillReason::Contract("it has no such hook")))?;
        indices.load(&mut $self.store, &$self.instance).map_err(|error| kill_of(&$self.plugin, $name, &$self.store, &error))?
    }};
}

/// The guest yields at the first tick after now, when the call begins.
fn arm(store: &mut Store<State>, meter: &Arc<Meter>, began: Instant) {
    let meter = Arc::clone(meter);
    store.epoch_deadline_callback(move |store| meter.on_tick(store, began));
    store.set_epoch_deadline(1);
}

/// A store with an instance's limits.
pub(crate) fn new_store(engine: &wasmtime::Engine, state: State, limits: &crate::Limits) -> Store<State> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(limits.output_bytes);
    store.set_max_component_handles(limits.handles);
    store
}

impl Instance {
    /// `entropy` is what `resume` brings; `None` draws it.
    pub(crate) async fn start(
        plugin: Arc<Plugin>,
        slot: Slot,
        request_id: Arc<str>,
        now_ms: u64,
        entropy: Option<[u8; 32]>,
    ) -> Result<Self, Kill> {
        let limits = &plugin.spec.limits;
        let mut state =
            State::new(Arc::clone(&plugin.id), request_id, limits, plugin.memory).with_credentials(plugin.credentials.clone());
        if plugin.wasi {
            state = state.with_wasi(limits.handles);
        }
        let mut store = new_store(plugin.pre.engine(), state, limits);
        let meter = Arc::new(Meter::new(plugin.memory));
        let began = Instant::now();
        arm(&mut store, &meter, began);
        let made = Metered::new(Arc::clone(&meter), limits, pin!(plugin.pre.instantiate_async(&mut store))).await;
        let how = if made.is_ok() { Called::Ok } else { Called::Killed };
        plugin.metrics.called("instantiate", how, began.elapsed());
        let instance = made.map_err(|error| kill_of(&plugin, "instantiate", &store, &error))?;
        let mut started = Instance { plugin, store, instance, meter, reply: None, slot };
        started.resume(now_ms, entropy).await?;
        Ok(started)
    }

    /// Brings entropy and time, and runs `init` where no snapshot holds it.
    async fn resume(&mut self, now_ms: u64, entropy: Option<[u8; 32]>) -> Result<(), Kill> {
        if self.plugin.indices.resume.is_some() {
            let mut drawn = entropy.unwrap_or_default().to_vec();
            if entropy.is_none() {
                getrandom::fill(&mut drawn)
                    .map_err(|_| self.kill("resume", KillReason::Contract("the machine gave no entropy")))?;
            }
            let guest = hook!(self, resume, "resume");
            call!(self, "resume", guest.call_resume(&mut self.store, &drawn, now_ms))?;
        }
        if !self.plugin.initialised {
            let guest = self.plugin.indices.setup.load(&mut self.store, &self.instance);
            let guest = guest.map_err(|error| self.killed("setup", &error))?;
            let config = self.plugin.spec.config_json.clone();
            let ready = call!(self, "setup", guest.call_init(&mut self.store, &config))?;
            ready.map_err(|_| {
                self.kill("setup", KillReason::Contract("init failed, though it did not when the plugin was built"))
            })?;
        }
        Ok(())
    }

    /// Counts it as `tenant`'s, if it is nobody's yet; false if the tenant has its share.
    #[must_use]
    pub fn charge(&mut self, slots: &Slots, tenant: &str) -> bool {
        slots.charge(&mut self.slot, tenant)
    }

    /// Asks who it is.
    ///
    /// # Errors
    /// The plugin was ended.
    pub async fn authenticate(&mut self, head: RequestHead) -> Result<Decision, Kill> {
        let guest = hook!(self, authenticate, "authenticate");
        let head = head.into();
        match call!(self, "authenticate", guest.call_authenticate(&mut self.store, &head), refuses)? {
            authenticate::Decision::Identity(principal) => {
                let principal =
                    convert::principal(principal).map_err(|what| self.kill("authenticate", KillReason::Contract(what)))?;
                Ok(Decision::Identity(principal))
            }
            authenticate::Decision::Refuse(refusal) => Ok(Decision::Refuse(convert::refusal(refusal))),
            authenticate::Decision::Abstain => Ok(Decision::Abstain),
        }
    }

    /// Lets it change the request.
    ///
    /// # Errors
    /// The plugin was ended; `Ok(Err(..))` is its refusal.
    pub async fn compose(&mut self, ctx: Context, request: ChatRequest) -> Result<Result<ChatRequest, Refusal>, Kill> {
        let guest = hook!(self, compose, "compose");
        let (ctx, request) = (ctx.into(), request.into());
        let composed = call!(self, "compose", guest.call_compose(&mut self.store, &ctx, &request), Result::is_err)?;
        Ok(composed.map(domain::ChatRequest::from).map_err(convert::refusal))
    }

    /// Lets it screen the request.
    ///
    /// # Errors
    /// The plugin was ended.
    pub async fn filter_prompt(&mut self, ctx: Context, request: ChatRequest) -> Result<Outcome, Kill> {
        let guest = hook!(self, filter_prompt, "filter-prompt");
        let (ctx, request) = (ctx.into(), request.into());
        let outcome = call!(self, "filter-prompt", guest.call_filter(&mut self.store, &ctx, &request), blocks)?;
        let verdict = match outcome.verdict {
            filter_prompt::Verdict::Pass => Verdict::Pass,
            filter_prompt::Verdict::Replace(request) => Verdict::Replace(Box::new(request.into())),
            filter_prompt::Verdict::Block(refusal) => Verdict::Block(convert::refusal(refusal)),
            filter_prompt::Verdict::Answer(text) => Verdict::Answer(text),
        };
        Ok(Outcome { verdict, flags: convert::flags(outcome.flags) })
    }

    /// A reply begins.
    ///
    /// # Errors
    /// The plugin was ended.
    pub async fn reply_begins(&mut self, ctx: Context, choice: u32) -> Result<(), Kill> {
        let guest = hook!(self, filter_reply, "filter-reply");
        let ctx = ctx.into();
        let reply = guest.reply();
        let resource = call!(self, "filter-reply", reply.call_constructor(&mut self.store, &ctx, choice))?;
        self.reply = Some((guest, resource));
        Ok(())
    }

    /// A piece of the reply came.
    ///
    /// # Errors
    /// The plugin was ended, or no reply began.
    pub async fn push(&mut self, piece: Piece) -> Result<Step, Kill> {
        let Some((guest, resource)) = &self.reply else { return Err(self.no_reply()) };
        let (reply, resource) = (guest.reply(), *resource);
        let piece = piece.into();
        let step = call!(self, "filter-reply", reply.call_push(&mut self.store, resource, &piece), cuts)?;
        Ok(step_of(step))
    }

    /// The reply is over.
    ///
    /// # Errors
    /// The plugin was ended, or no reply began.
    pub async fn finish(&mut self) -> Result<Step, Kill> {
        let Some((guest, resource)) = &self.reply else { return Err(self.no_reply()) };
        let (reply, resource) = (guest.reply(), *resource);
        let step = call!(self, "filter-reply", reply.call_finish(&mut self.store, resource), cuts)?;
        Ok(step_of(step))
    }

    /// What the model's reply has to match.
    ///
    /// # Errors
    /// The plugin was ended.
    pub async fn constraint(&mut self, ctx: Context) -> Result<Option<String>, Kill> {
        let guest = hook!(self, format, "format");
        let ctx = ctx.into();
        call!(self, "format", guest.call_constraint(&mut self.store, &ctx))
    }

    /// Lets it shape the whole reply.
    ///
    /// # Errors
    /// The plugin was ended; `Ok(Err(..))` is its refusal.
    pub async fn format(&mut self, ctx: Context, reply: &str) -> Result<Result<String, Refusal>, Kill> {
        let guest = hook!(self, format, "format");
        let ctx = ctx.into();
        let content = call!(self, "format", guest.call_format(&mut self.store, &ctx, reply), Result::is_err)?;
        Ok(content.map(|content| content.text).map_err(convert::refusal))
    }

    /// The plugin.
    #[must_use]
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Keeps what it logs from now on, besides logging it.
    pub(crate) fn keep_log(&mut self) {
        self.store.data_mut().keep_log();
    }

    /// What it logged since it was kept.
    pub(crate) fn logged(&mut self) -> Vec<String> {
        self.store.data_mut().logged()
    }

    fn no_reply(&self) -> Kill {
        self.kill("filter-reply", KillReason::Contract("no reply began"))
    }

    fn kill(&self, hook: &'static str, reason: KillReason) -> Kill {
        Kill { plugin: self.plugin.id.to_string(), hook, reason }
    }

    fn killed(&self, hook: &'static str, error: &wasmtime::Error) -> Kill {
        kill_of(&self.plugin, hook, &self.store, error)
    }
}

/// For answers that cannot be a refusal.
fn never<T>(_: &T) -> bool {
    false
}

fn refuses(decision: &authenticate::Decision) -> bool {
    matches!(decision, authenticate::Decision::Refuse(_))
}

fn blocks(outcome: &filter_prompt::Outcome) -> bool {
    matches!(outcome.verdict, filter_prompt::Verdict::Block(_))
}

fn cuts(step: &filter_reply::Step) -> bool {
    step.cut.is_some()
}

fn step_of(step: filter_reply::Step) -> Step {
    Step {
        release: step.release.into_iter().map(Piece::from).collect(),
        flags: convert::flags(step.flags),
        cut: step.cut.map(convert::refusal),
    }
}

fn kill_of(plugin: &Plugin, hook: &'static str, store: &Store<State>, error: &wasmtime::Error) -> Kill {
    Kill { plugin: plugin.id.to_string(), hook, reason: reason_of(store.data(), error) }
}

/// Why a call failed. A guest that got no memory or no answer from the host often traps on its own: the cause comes first.
pub(crate) fn reason_of(state: &State, error: &wasmtime::Error) -> KillReason {
    if error.downcast_ref::<CpuSpent>().is_some() {
        return KillReason::Cpu;
    }
    if state.memory.refused() {
        return KillReason::Memory;
    }
    if state.host_time_spent() || error.downcast_ref::<HostTimeSpent>().is_some() {
        return KillReason::HostTime;
    }
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return KillReason::Pool;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => KillReason::Stack,
        Some(trap) => KillReason::Trap(trap.to_string()),
        None if error.to_string().contains("fuel") => KillReason::Output,
        None => KillReason::Trap(error.root_cause().to_string()),
    }
}
