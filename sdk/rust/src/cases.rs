//! Golden cases under `cargo test`: the files of `cases/` against the plugin as it is compiled for this machine.
//!
//! ```text
//! #[test]
//! fn golden_cases() {
//!     tollgate_sdk::cases::check::<FilterPii>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
//! }
//! ```
//!
//! The format is described in `docs/plugin-cases.md`. The same files are run on the component by `tollgate plugin test`, and by the
//! gateway before the plugin may serve. Here there are no limits, and a panic stands for a trap. A case with `config = "any"`
//! runs under an empty config.

mod convert;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tollgate_cases::{self as cases, Case, ENTROPY, Fault, Set, Start, Verdict};

use crate::{
    ChatRequest, Content, Context, Decision, FilterReply, JsonSchema, Outcome, Piece, Plugin, Refusal, RequestHead, Step, config,
    testing,
};

/// Runs the cases of a directory against a plugin, each on a plugin of its own.
///
/// # Panics
/// A case does not pass, or the files are not what they should be; the text says all that is wrong.
#[allow(clippy::panic, reason = "it is called by tests, which fail this way")]
pub fn check<P: Hooks>(directory: impl AsRef<Path>) {
    if let Err(failures) = run::<P>(directory.as_ref()) {
        panic!("{failures}");
    }
}

/// As [`check`], and returns what is wrong, one line for each failure.
///
/// # Errors
/// See [`check`].
pub fn run<P: Hooks>(directory: &Path) -> Result<(), String> {
    let files = cases::sources(directory).map_err(|problems| problems.to_string())?;
    let set = Set::read(&files).map_err(|problems| problems.to_string())?;
    if set.is_empty() {
        return Err(format!("{}: there are no cases", directory.display()));
    }
    let native = Native::<P>(std::marker::PhantomData);
    let failures = set.cases().iter().filter_map(|case| match now(cases::run(&native, case, || true)) {
        Verdict::Passed | Verdict::OutOfTime => None,
        Verdict::Failed(failure) => Some(failure.to_string()),
    });
    let failures = failures.collect::<Vec<_>>();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// The hooks of a plugin as cases call them. [`export!`](crate::export!) implements it; what is not exported is `None`.
pub trait Hooks: Plugin {
    /// Calls `authenticate`.
    fn call_authenticate(&self, _head: RequestHead) -> Option<Decision> {
        None
    }
    /// Calls `compose`.
    fn call_compose(&self, _ctx: Context, _request: ChatRequest) -> Option<Result<ChatRequest, Refusal>> {
        None
    }
    /// Calls `filter-prompt`.
    fn call_filter_prompt(&self, _ctx: Context, _request: ChatRequest) -> Option<Outcome> {
        None
    }
    /// Begins a reply of `filter-reply`.
    fn call_filter_reply(_plugin: &Rc<Self>, _ctx: Context, _choice: u32) -> Option<Box<dyn Stream>> {
        None
    }
    /// Calls `format.constraint`.
    fn call_constraint(&self, _ctx: Context) -> Option<Option<JsonSchema>> {
        None
    }
    /// Calls `format.format`.
    fn call_format(&self, _ctx: Context, _reply: String) -> Option<Result<Content, Refusal>> {
        None
    }
}

/// One reply under way.
pub trait Stream {
    /// A piece came.
    fn push(&mut self, piece: Piece) -> Step;
    /// Nothing follows.
    fn finish(&mut self) -> Step;
}

/// Begins a reply.
pub fn begin<P: FilterReply>(plugin: &Rc<P>, ctx: Context, choice: u32) -> Box<dyn Stream> {
    Box::new(Reply { plugin: Rc::clone(plugin), state: plugin.start(ctx, choice) })
}

struct Reply<P: FilterReply> {
    plugin: Rc<P>,
    state: P::Reply,
}

impl<P: FilterReply> Stream for Reply<P> {
    fn push(&mut self, piece: Piece) -> Step {
        self.plugin.push(&mut self.state, piece)
    }

    fn finish(&mut self) -> Step {
        self.plugin.finish(&mut self.state)
    }
}

/// The plugin as it is compiled for this machine, under whatever config a case has.
struct Native<P>(std::marker::PhantomData<P>);

struct Running<P> {
    plugin: Rc<P>,
    reply: Option<Box<dyn Stream>>,
}

impl<P: Hooks> cases::Under for Native<P> {
    type Subject = Running<P>;

    async fn fresh(&self, case: &Case) -> Result<Running<P>, Start> {
        let config = match case.config() {
            cases::Config::Any => "{}".to_owned(),
            cases::Config::Given(config) => config.to_string(),
        };
        testing::reset();
        // As in the gateway: there is no chance, no time and no key while a plugin is made.
        let made = guarded(|| P::new(config::read(&config)?));
        let plugin = made.map_err(|Fault(reason)| Start::Failed(reason))?.map_err(Start::Refused)?;
        let keys = case.clone();
        testing::answer_lookups(move |secret| convert::lookup(keys.lookup(secret)));
        crate::random::reseed(&ENTROPY);
        crate::time::set(case.now_ms());
        // What `init` logged belongs to no request.
        drop(testing::logged());
        Ok(Running { plugin: Rc::new(plugin), reply: None })
    }
}

impl<P: Hooks> cases::Subject for Running<P> {
    async fn authenticate(&mut self, head: &cases::Head) -> Result<cases::Decision, Fault> {
        let decision = guarded(|| self.plugin.call_authenticate(convert::head(head)))?;
        decision.map(convert::decision).ok_or_else(|| missing("authenticate"))
    }

    async fn compose(
        &mut self,
        ctx: &cases::Context,
        request: &cases::Request,
    ) -> Result<Result<cases::Request, cases::Refusal>, Fault> {
        let composed = guarded(|| self.plugin.call_compose(convert::context(ctx), convert::request(request)))?;
        let composed = composed.ok_or_else(|| missing("compose"))?;
        Ok(composed.map(convert::request_back).map_err(convert::refusal))
    }

    async fn filter_prompt(&mut self, ctx: &cases::Context, request: &cases::Request) -> Result<cases::Outcome, Fault> {
        let outcome = guarded(|| self.plugin.call_filter_prompt(convert::context(ctx), convert::request(request)))?;
        outcome.map(convert::outcome).ok_or_else(|| missing("filter-prompt"))
    }

    async fn begin(&mut self, ctx: &cases::Context, choice: u32) -> Result<(), Fault> {
        let reply = guarded(|| P::call_filter_reply(&self.plugin, convert::context(ctx), choice))?;
        self.reply = Some(reply.ok_or_else(|| missing("filter-reply"))?);
        Ok(())
    }

    async fn push(&mut self, piece: &cases::Piece) -> Result<cases::Step, Fault> {
        let reply = self.reply.as_mut().ok_or_else(|| missing("filter-reply"))?;
        guarded(|| reply.push(convert::piece(piece))).map(convert::step)
    }

    async fn finish(&mut self) -> Result<cases::Step, Fault> {
        let reply = self.reply.as_mut().ok_or_else(|| missing("filter-reply"))?;
        guarded(|| reply.finish()).map(convert::step)
    }

    async fn constraint(&mut self, ctx: &cases::Context) -> Result<Option<String>, Fault> {
        guarded(|| self.plugin.call_constraint(convert::context(ctx)))?.ok_or_else(|| missing("format"))
    }

    async fn format(&mut self, ctx: &cases::Context, reply: &str) -> Result<Result<String, cases::Refusal>, Fault> {
        let formatted = guarded(|| self.plugin.call_format(convert::context(ctx), reply.to_owned()))?;
        let formatted = formatted.ok_or_else(|| missing("format"))?;
        Ok(formatted.map(|content| content.text).map_err(convert::refusal))
    }

    fn logged(&mut self) -> Vec<String> {
        testing::logged().into_iter().map(|(_, line)| line).collect()
    }
}

/// A panic ends the case and not the test, as a trap ends the instance and not the gateway.
fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Fault(format!("it panicked: {text}"))
    })
}

fn missing(hook: &str) -> Fault {
    Fault(format!("the plugin has no hook `{hook}`: name it in export!"))
}

/// The value of a future that waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a native plugin is called and answers"),
    }
}

#[cfg(test)]
mod tests;
