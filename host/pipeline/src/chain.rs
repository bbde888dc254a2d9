//! The plugin instances of one request: started when first needed, shared by a plugin's hooks, gone after the last.

use std::sync::Arc;

use tollgate_domain::{ChatRequest, Context, Piece, Refusal, RequestHead};
use tollgate_plugins::{
    Decision, Hook, Instance, Kill, KillReason, OnFailure, Outcome, Plugin, Reservation, Slots, Step, Verdict,
};

use crate::Route;
use crate::held::Held;

/// Bytes that the filters of a reply may release together: more than any context of tokens spells out.
const MAX_REPLY_BYTES: usize = 16 << 20;

/// Hooks that a route runs.
const ON_A_ROUTE: [Hook; 4] = [Hook::Compose, Hook::FilterPrompt, Hook::FilterReply, Hook::Format];

/// The instances of one request.
#[derive(Debug)]
pub(crate) struct Chain {
    slots: Slots,
    reservation: Reservation,
    request_id: Arc<str>,
    now_ms: u64,
    running: Vec<Instance>,
    /// Those that failed and may be gone without: they take no further part in this request.
    skipped: Vec<Arc<Plugin>>,
}

/// What became of a plugin's part in a stage.
enum Part<T> {
    Did(T),
    /// It failed, and its config says to go on without it.
    Skipped,
}

impl Chain {
    pub(crate) fn new(slots: Slots, reservation: Reservation, request_id: Arc<str>, now_ms: u64) -> Self {
        Chain { slots, reservation, request_id, now_ms, running: Vec::new(), skipped: Vec::new() }
    }

    /// Asks an authenticator. It always refuses when it fails, whatever its config says (P-A5).
    pub(crate) async fn authenticate(&mut self, plugin: &Arc<Plugin>, head: RequestHead) -> Result<Decision, Refusal> {
        let mut instance = self.take(plugin).await.map_err(|kill| failed(plugin, &kill))?;
        let decision = instance.authenticate(head).await.map_err(|kill| failed(plugin, &kill))?;
        // An authenticator that has nothing to do on a route holds no slot while the body is awaited.
        if ON_A_ROUTE.iter().any(|hook| plugin.has(*hook)) {
            self.running.push(instance);
        }
        Ok(decision)
    }

    /// Who asks is known: gives back what was reserved to find out. What is kept for the route is the tenant's from now on.
    pub(crate) fn identified(&mut self, tenant: &str) -> Result<(), Refusal> {
        self.reservation.release();
        let is_full = self.running.iter_mut().any(|instance| !instance.charge(&self.slots, tenant));
        if is_full { Err(overloaded(&self.slots)) } else { Ok(()) }
    }

    /// Takes on the chosen route: ends what it does not need, and reserves what it does.
    pub(crate) fn settle(&mut self, route: &Route, tenant: &str) -> Result<(), Refusal> {
        self.running.retain(|instance| route.plugins.iter().any(|plugin| Arc::ptr_eq(plugin, instance.plugin())));
        let wanted = u32::try_from(route.plugins.len().saturating_sub(self.running.len())).unwrap_or(u32::MAX);
        self.reservation = self.slots.reserve_for(tenant, wanted).ok_or_else(|| overloaded(&self.slots))?;
        Ok(())
    }

    pub(crate) async fn compose(&mut self, route: &Route, ctx: &Context, request: ChatRequest) -> Result<ChatRequest, Refusal> {
        let mut request = request;
        for plugin in route.with(Hook::Compose) {
            let mut instance = match self.start(plugin).await? {
                Part::Did(instance) => instance,
                Part::Skipped => continue,
            };
            let composed = instance.compose(ctx.clone(), request.clone()).await;
            if let Part::Did(composed) = self.settle_call(plugin, instance, composed)? {
                request = composed?;
            }
        }
        Ok(request)
    }

    /// Screens the request. `on_flags` hears what was seen.
    pub(crate) async fn filter_prompt(
        &mut self,
        route: &Route,
        ctx: &Context,
        request: ChatRequest,
        mut on_flags: impl FnMut(Vec<tollgate_domain::Flag>),
    ) -> Result<Screened, Refusal> {
        let mut request = request;
        for plugin in route.with(Hook::FilterPrompt) {
            let mut instance = match self.start(plugin).await? {
                Part::Did(instance) => instance,
                Part::Skipped => continue,
            };
            let outcome = instance.filter_prompt(ctx.clone(), request.clone()).await;
            let Part::Did(Outcome { verdict, flags }) = self.settle_call(plugin, instance, outcome)? else { continue };
            on_flags(flags);
            match verdict {
                Verdict::Pass => {}
                Verdict::Replace(replaced) => request = *replaced,
                Verdict::Block(refusal) => return Err(refusal),
                Verdict::Answer(text) => return Ok(Screened::Answer(text)),
            }
        }
        Ok(Screened::Request(Box::new(request)))
    }

    /// What the route's format hook wants the reply to match.
    pub(crate) async fn constraint(&mut self, route: &Route, ctx: &Context) -> Result<Option<String>, Refusal> {
        let Some(plugin) = route.with(Hook::Format).next() else { return Ok(None) };
        let mut instance = match self.start(plugin).await? {
            Part::Did(instance) => instance,
            Part::Skipped => return Ok(None),
        };
        let constraint = instance.constraint(ctx.clone()).await;
        match self.settle_call(plugin, instance, constraint)? {
            Part::Did(constraint) => Ok(constraint),
            Part::Skipped => Ok(None),
        }
    }

    /// Goes over to the reply: the filters that screen it, begun, and the instance that formats it.
    pub(crate) async fn into_reply(mut self, route: &Route, ctx: &Context) -> Result<ReplyChain, Refusal> {
        let mut filters = Vec::new();
        let format_plugin = route.with(Hook::Format).next().cloned();
        let mut format = None;
        for plugin in &route.plugins {
            let formats = format_plugin.as_ref().is_some_and(|format| Arc::ptr_eq(format, plugin));
            if !formats && !plugin.has(Hook::FilterReply) {
                continue;
            }
            let Part::Did(mut instance) = self.start(plugin).await? else { continue };
            if plugin.has(Hook::FilterReply) {
                let begun = instance.reply_begins(ctx.clone(), 0).await;
                if let Err(kill) = begun {
                    skip_or_refuse(plugin, &kill)?;
                    continue;
                }
            }
            if plugin.has(Hook::FilterReply) {
                filters.push(Filter { instance, held: Held::default() });
            } else {
                format = Some(instance);
            }
        }
        // A plugin that both screens and formats is one instance: it stays among the filters and is asked there.
        let format = match format {
            Some(instance) => Formatter::Own(Box::new(instance)),
            None => filters
                .iter()
                .position(|filter| format_plugin.as_ref().is_some_and(|format| Arc::ptr_eq(format, filter.instance.plugin())))
                .map_or(Formatter::None, Formatter::Filter),
        };
        Ok(ReplyChain { filters, format, ctx: ctx.clone(), budget: MAX_REPLY_BYTES })
    }

    /// An instance of `plugin`, new or of an earlier hook.
    async fn start(&mut self, plugin: &Arc<Plugin>) -> Result<Part<Instance>, Refusal> {
        if self.skipped.iter().any(|skipped| Arc::ptr_eq(skipped, plugin)) {
            return Ok(Part::Skipped);
        }
        match self.take(plugin).await {
            Ok(instance) => Ok(Part::Did(instance)),
            Err(kill) => self.skip(plugin, &kill),
        }
    }

    async fn take(&mut self, plugin: &Arc<Plugin>) -> Result<Instance, Kill> {
        if let Some(at) = self.running.iter().position(|instance| Arc::ptr_eq(instance.plugin(), plugin)) {
            return Ok(self.running.swap_remove(at));
        }
        let slot = self.reservation.take().ok_or_else(|| Kill {
            plugin: plugin.id().to_owned(),
            hook: "instantiate",
            reason: KillReason::Pool,
        })?;
        plugin.start(slot, &self.request_id, self.now_ms).await
    }

    /// Keeps an instance whose call went well; a failed one is dropped.
    fn settle_call<T>(&mut self, plugin: &Arc<Plugin>, instance: Instance, result: Result<T, Kill>) -> Result<Part<T>, Refusal> {
        match result {
            Ok(value) => {
                self.running.push(instance);
                Ok(Part::Did(value))
            }
            Err(kill) => self.skip(plugin, &kill),
        }
    }

    fn skip<T>(&mut self, plugin: &Arc<Plugin>, kill: &Kill) -> Result<Part<T>, Refusal> {
        skip_or_refuse(plugin, kill)?;
        self.skipped.push(Arc::clone(plugin));
        Ok(Part::Skipped)
    }
}

/// What the prompt filters left.
pub(crate) enum Screened {
    /// A request for the model.
    Request(Box<ChatRequest>),
    /// An answer in the model's place.
    Answer(String),
}

/// What formats the reply.
enum Formatter {
    None,
    Own(Box<Instance>),
    /// One of the filters, by index.
    Filter(usize),
}

/// An instance that a reply goes through, and what it holds back of it.
struct Filter {
    instance: Instance,
    held: Held,
}

/// The instances that a reply goes through.
pub(crate) struct ReplyChain {
    filters: Vec<Filter>,
    format: Formatter,
    ctx: Context,
    /// Bytes that the filters together may still release.
    budget: usize,
}

impl ReplyChain {
    /// Whether the whole reply is needed before any of it may leave.
    pub(crate) fn formats(&self) -> bool {
        !matches!(self.format, Formatter::None)
    }

    /// Sends a piece through the filters; what comes out of the last may leave.
    pub(crate) async fn push(&mut self, piece: Piece) -> Result<Step, Refusal> {
        self.cascade(0, vec![piece]).await
    }

    /// The reply is over: each filter lets go of what it held, through those after it.
    pub(crate) async fn finish(&mut self) -> Result<Step, Refusal> {
        let mut all = Step::default();
        let mut at = 0;
        while let Some(filter) = self.filters.get_mut(at) {
            let plugin = Arc::clone(filter.instance.plugin());
            let step = match filter.instance.finish().await {
                Ok(step) => step,
                Err(kill) => {
                    // What it held goes on to those that are left.
                    let held = self.skip_filter(at, &kill)?;
                    let later = self.cascade(at, held).await?;
                    all.release.extend(later.release);
                    all.flags.extend(later.flags);
                    all.cut = later.cut;
                    if all.cut.is_some() {
                        break;
                    }
                    continue;
                }
            };
            all.flags.extend(step.flags);
            let cut = step.cut;
            self.budget = spend(self.budget, &step.release, &plugin)?;
            let later = self.cascade(at + 1, step.release).await?;
            all.release.extend(later.release);
            all.flags.extend(later.flags);
            all.cut = cut.or(later.cut);
            if all.cut.is_some() {
                break;
            }
            at += 1;
        }
        Ok(all)
    }

    /// Shapes the whole reply.
    pub(crate) async fn format(&mut self, reply: &str) -> Result<String, Refusal> {
        let instance = match &mut self.format {
            Formatter::None => return Ok(reply.to_owned()),
            Formatter::Own(instance) => Some(&mut **instance),
            Formatter::Filter(at) => self.filters.get_mut(*at).map(|filter| &mut filter.instance),
        };
        let Some(instance) = instance else { return Ok(reply.to_owned()) };
        let plugin = Arc::clone(instance.plugin());
        match instance.format(self.ctx.clone(), reply).await {
            Ok(formatted) => formatted,
            Err(kill) => skip_or_refuse(&plugin, &kill).map(|()| reply.to_owned()),
        }
    }

    async fn cascade(&mut self, from: usize, pieces: Vec<Piece>) -> Result<Step, Refusal> {
        let mut all = Step { release: pieces, ..Step::default() };
        let mut at = from;
        while let Some(filter) = self.filters.get_mut(at) {
            let mut released = Vec::new();
            let mut failed = None;
            let mut pieces = std::mem::take(&mut all.release).into_iter();
            for piece in pieces.by_ref() {
                let may_be_skipped = filter.instance.plugin().on_failure() == OnFailure::Skip;
                if may_be_skipped {
                    filter.held.takes(&piece);
                }
                match filter.instance.push(piece).await {
                    Ok(step) => {
                        self.budget = spend(self.budget, &step.release, filter.instance.plugin())?;
                        if may_be_skipped {
                            filter.held.releases(&step.release);
                        }
                        released.extend(step.release);
                        all.flags.extend(step.flags);
                        if step.cut.is_some() {
                            // What was released before the cut goes on to the filters after this one; what is held is dropped.
                            all.cut = all.cut.or(step.cut);
                            break;
                        }
                    }
                    Err(kill) => {
                        failed = Some(kill);
                        break;
                    }
                }
            }
            match failed {
                None => at += 1,
                // What it held, and what it did not get any more, goes on as it came.
                Some(kill) => released.extend(self.skip_filter(at, &kill)?.into_iter().chain(pieces)),
            }
            all.release = released;
        }
        Ok(all)
    }

    /// Goes on without a filter that failed, if that is allowed and nothing of the reply is lost by it; returns what it held.
    fn skip_filter(&mut self, at: usize, kill: &Kill) -> Result<Vec<Piece>, Refusal> {
        let Filter { instance, held } = self.filters.remove(at);
        let held = held.into_pieces().ok_or_else(|| failed(instance.plugin(), kill))?;
        skip_or_refuse(instance.plugin(), kill)?;
        if let Formatter::Filter(format) = self.format {
            self.format = match format.cmp(&at) {
                std::cmp::Ordering::Less => Formatter::Filter(format),
                std::cmp::Ordering::Equal => Formatter::None,
                std::cmp::Ordering::Greater => Formatter::Filter(format - 1),
            };
        }
        Ok(held.into())
    }
}

/// What is left of `budget` after these pieces. A filter that makes more of a reply than any model says is ended with it.
fn spend(budget: usize, pieces: &[Piece], plugin: &Plugin) -> Result<usize, Refusal> {
    let bytes = pieces.iter().map(|piece| piece.as_str().len()).sum::<usize>();
    budget
        .checked_sub(bytes)
        .ok_or_else(|| failed(plugin, &Kill { plugin: plugin.id().to_owned(), hook: "filter-reply", reason: KillReason::Output }))
}

fn skip_or_refuse(plugin: &Plugin, kill: &Kill) -> Result<(), Refusal> {
    match plugin.on_failure() {
        OnFailure::Refuse => Err(failed(plugin, kill)),
        // That there is no room is no fault of the plugin's: load must not switch a filter off.
        OnFailure::Skip if kill.reason == KillReason::Pool => Err(failed(plugin, kill)),
        OnFailure::Skip => {
            plugin.count_kill(&kill.reason);
            tracing::warn!(plugin = kill.plugin, hook = kill.hook, reason = kill.reason.as_str(), "plugin failed and is skipped");
            Ok(())
        }
    }
}

/// Full means no, at once.
pub(crate) fn overloaded(slots: &Slots) -> Refusal {
    Refusal::unavailable("overloaded", "The gateway is at its limit. Try again in a moment.", 1).detail(format!(
        "{} of {} plugin instances are free",
        slots.free(),
        slots.total()
    ))
}

/// The client learns that a policy failed, not which or why.
fn failed(plugin: &Plugin, kill: &Kill) -> Refusal {
    plugin.count_kill(&kill.reason);
    tracing::warn!(plugin = kill.plugin, hook = kill.hook, reason = kill.reason.as_str(), detail = %kill.reason, "plugin failed");
    Refusal::unavailable("plugin_failed", "A policy of this gateway failed, so the request was refused.", 1)
        .detail(kill.to_string())
}
