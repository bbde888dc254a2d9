//! Cases against toys: plugins that do right and plugins that do wrong.

use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::case::Set;
use crate::words::{Principal, RefusalKind};

/// What the toy does with a reply.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Filter {
    /// Masks `secret` however it comes, and holds what may become one.
    Holds,
    /// Masks `secret` within a piece.
    Leaks,
    /// Ends the reply at `stop`.
    Cuts,
}

struct Toy(Filter);

struct Running {
    filter: Filter,
    held: String,
    key: Result<Principal, crate::LookupError>,
    lines: Vec<String>,
}

impl Under for Toy {
    type Subject = Running;

    async fn fresh(&self, case: &Case) -> Result<Running, Start> {
        match case.config() {
            crate::Config::Given(config) if config.get("bad").is_some() => Err(Start::Refused("unknown field `bad`".to_owned())),
            _ => Ok(Running { filter: self.0, held: String::new(), key: case.lookup("key"), lines: Vec::new() }),
        }
    }
}

impl Running {
    /// What may leave of the text held.
    fn settle(&mut self, at_end: bool) -> Step {
        let text = std::mem::take(&mut self.held);
        let count = u32::try_from(text.matches("secret").count()).unwrap_or(u32::MAX);
        let masked = text.replace("secret", "[S]");
        let keep = (1..6).rev().find(|length| masked.ends_with(&"secret"[..*length])).unwrap_or(0);
        let keep = if at_end || self.filter == Filter::Leaks { 0 } else { keep };
        let (now, later) = masked.split_at(masked.len() - keep);
        self.held = later.to_owned();
        let flags = if count > 0 { vec![Flag { name: "secret".to_owned(), count }] } else { Vec::new() };
        Step { release: vec![Piece::Text(now.to_owned())], flags, cut: None }
    }
}

impl Subject for Running {
    async fn authenticate(&mut self, head: &Head) -> Result<Decision, Fault> {
        self.lines.push(format!("asked with {} headers", head.headers.len()));
        match (&self.key, head.headers.is_empty()) {
            (_, true) => Ok(Decision::Abstain),
            (Ok(principal), _) => Ok(Decision::Identity(principal.clone())),
            (Err(_), _) => Ok(Decision::Refuse(refusal("unknown key"))),
        }
    }

    async fn compose(&mut self, ctx: &Context, request: &Request) -> Result<Result<Request, Refusal>, Fault> {
        Ok(Ok(Request { model: format!("{}/{}", ctx.principal.id, request.model), ..request.clone() }))
    }

    async fn filter_prompt(&mut self, _ctx: &Context, request: &Request) -> Result<Outcome, Fault> {
        let verdict = match request.model.as_str() {
            "ann/answer" => PromptVerdict::Answer("hello".to_owned()),
            "ann/block" => PromptVerdict::Block(refusal("Not That")),
            "ann/trap" => return Err(Fault("it trapped".to_owned())),
            _ => PromptVerdict::Pass,
        };
        Ok(Outcome { verdict, flags: vec![Flag { name: "seen".to_owned(), count: 1 }] })
    }

    async fn begin(&mut self, _ctx: &Context, _choice: u32) -> Result<(), Fault> {
        Ok(())
    }

    async fn push(&mut self, piece: &Piece) -> Result<Step, Fault> {
        match piece {
            Piece::Text(text) if self.filter == Filter::Cuts && text.contains("stop") => {
                Ok(Step { cut: Some(refusal("stopped")), ..Step::default() })
            }
            Piece::Text(text) => {
                self.held.push_str(text);
                Ok(self.settle(false))
            }
            other => Ok(Step { release: vec![other.clone()], ..Step::default() }),
        }
    }

    async fn finish(&mut self) -> Result<Step, Fault> {
        Ok(self.settle(true))
    }

    async fn constraint(&mut self, _ctx: &Context) -> Result<Option<String>, Fault> {
        Ok(Some(r#"{"type":"object"}"#.to_owned()))
    }

    async fn format(&mut self, _ctx: &Context, reply: &str) -> Result<Result<String, Refusal>, Fault> {
        Ok(if reply.is_empty() { Err(refusal("empty")) } else { Ok(reply.to_uppercase()) })
    }

    fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}

fn refusal(code: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Forbidden,
        code: code.replace(' ', "_").to_lowercase(),
        message: "No.".to_owned(),
        detail: "why".to_owned(),
        retry_after: None,
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a toy waits for nothing"),
    }
}

fn outcome(filter: Filter, case: &str) -> Result<(), String> {
    let set = Set::read(&[("t.toml", format!("[[case]]\nname = 'x'\n{case}"))]).expect("well-formed");
    match now(run(&Toy(filter), &set.cases()[0], || true)) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(failure) => Err(failure.to_string()),
        Verdict::OutOfTime => Err("out of time".to_owned()),
    }
}

fn passes(case: &str) {
    outcome(Filter::Holds, case).unwrap_or_else(|failure| panic!("{case}\n{failure}"));
}

fn fails(case: &str, part: &str) {
    let failure = outcome(Filter::Holds, case).expect_err(case);
    assert!(failure.starts_with("the case `x` (t.toml:1) failed") && failure.contains(part), "{case}\n{failure}");
}

const ASKED: &str = "head.headers = [['x-key', 'key']]\n";
const HELD: &str = "credentials.key.id = 'ann'\n";

#[test]
fn each_outcome_is_told_from_the_others() {
    passes("authenticate = 'abstain'");
    passes(&format!("{ASKED}{HELD}authenticate.identity.id = 'ann'"));
    passes(&format!("{ASKED}authenticate.refuse = {{ kind = 'forbidden', code = 'unknown_key' }}"));
    fails(&format!("{ASKED}authenticate = 'abstain'"), r#"authenticate: expected {"abstain":true}, got {"refuse":{"#);
    fails(
        &format!("{ASKED}{HELD}authenticate.identity = {{ id = 'ann', scopes = [] }}"),
        r#"authenticate.identity.scopes[0]: expected nothing, got "chat""#,
    );
    fails(
        &format!("{ASKED}authenticate.refuse = {{ kind = 'invalid', code = 'x', message = 'Yes.' }}"),
        r#"authenticate.refuse.code: expected "x", got "unknown_key"; "#,
    );
    passes("config.bad = 1\nsetup.error = '`bad`'");
    fails("config.bad = 1\nauthenticate = 'abstain'", "setup: expected \"the config is accepted\", got \"unknown field `bad`\"");
    fails("setup.error = '`bad`'", "setup succeeded");
}

#[test]
fn a_chain_passes_on_what_each_hook_made() {
    let chain = |model: &str, rest: &str| {
        format!(
            "{ASKED}{HELD}authenticate.identity.id = 'ann'\nrequest = {{ text = 'a', model = '{model}' }}\ncompose.request.model = 'ann/{model}'\n{rest}"
        )
    };
    passes(&chain("m", "filter-prompt = 'pass'"));
    passes(&chain("m", "filter-prompt = { pass = true, flags = { seen = 1 } }"));
    fails(&chain("m", "filter-prompt = { pass = true, flags = {} }"), "filter-prompt.flags.seen: expected nothing, got 1");
    passes(&chain("answer", "filter-prompt.answer = 'hello'"));
    passes(&chain("block", "filter-prompt.block = { kind = 'forbidden', code = 'not_that' }"));
    fails(&chain("trap", "filter-prompt = 'pass'"), r#"filter-prompt: expected "an outcome", got "it trapped""#);
    passes(&chain(
        "m",
        "reply.text = 'a secret'\nfilter-reply.text = 'a [S]'\nformat.text = 'A [S]'\nformat.constraint = { type = 'object' }",
    ));
    fails("request.text = 'a'\ncompose = 'unchanged'", r#"compose.request.model: expected "demo", got "tester/demo""#);
    passes("format.constraint = true");
    fails("format.constraint = false", "format.constraint: expected false, got {");
    passes("reply.text = ''\nformat.refuse = { kind = 'forbidden', code = 'empty' }");
    fails("reply.text = 'a'\nformat.refuse = { kind = 'forbidden', code = 'empty' }", r#"got {"text":"A"}"#);
}

#[test]
fn what_must_never_leave_is_found_wherever_it_leaves() {
    fails(
        &format!("{ASKED}authenticate.refuse = {{ kind = 'forbidden', code = 'unknown_key' }}\nnever = ['why']"),
        "nothing with why",
    );
    fails("authenticate = 'abstain'\nnever = ['0 headers']", r#"log: expected "nothing with 0 headers""#);
    passes("authenticate = 'abstain'\nnever = ['x-key']\n");
    fails("reply.text = 'abc'\nreply.splits = 'every'\nfilter-reply = 'unchanged'\nnever = ['bc']", "filter-reply: expected");
}

#[test]
fn a_reply_is_cut_in_every_way() {
    let case = "reply = { text = 'my secret, not my secre', splits = 'every' }\nfilter-reply = { text = 'my [S], not my secre', flags = { secret = 1 } }";
    passes(case);
    let leak = outcome(Filter::Leaks, case).expect_err("it leaks");
    assert!(leak.contains("the reply coming as \"") && leak.contains(" | "), "{leak}");
    assert!(leak.contains(r#"filter-reply.text: expected "my [S], not my secre", got "my secret, not my secre""#), "{leak}");
    passes("reply = { text = 'my secret', splits = [5] }\nfilter-reply = { text = 'my [S]', releases = ['my ', '[S]', ''] }");
    fails(
        "reply = { text = 'my secret', splits = [5] }\nfilter-reply = { text = 'my [S]', releases = ['my se', '', '[S]'] }",
        r#"filter-reply.releases[0]: expected "my se", got "my ""#,
    );
    passes(
        "reply.pieces = ['a', { reasoning = 'r' }, { tool-name = 'f' }, { tool-arguments = '{}' }]\nfilter-reply = 'unchanged'",
    );
    let cut = "reply = { text = 'a stop b', splits = [2] }\nfilter-reply = { text = 'a ', cut = { kind = 'forbidden', code = 'stopped' }, releases = ['a ', ''] }";
    outcome(Filter::Cuts, cut).expect("it is cut");
    assert!(
        outcome(Filter::Cuts, "reply.text = 'a stop'\nfilter-reply = 'unchanged'")
            .expect_err("cut")
            .contains("filter-reply.cut: expected null")
    );
    fails("reply.text = 'a'\nfilter-reply = { text = 'a', cut = { kind = 'forbidden', code = 'stopped' } }", "}, got null");
}

#[test]
fn the_time_is_looked_at_between_runs() {
    let set =
        Set::read(&[("t.toml", "[[case]]\nname = 'x'\nreply = { text = 'abc', splits = 'every' }\nfilter-reply = 'unchanged'")]);
    let set = set.expect("well-formed");
    let mut left = 2;
    let verdict = now(run(&Toy(Filter::Holds), &set.cases()[0], || {
        left -= 1;
        left > 0
    }));
    assert_eq!(verdict, Verdict::OutOfTime);
}

proptest! {
    /// A filter that holds passes every split, and then it passes random ones.
    #[test]
    fn what_passes_every_split_passes_any(text in "(secret|sec|e|cret| |ü){1,12}", cuts in proptest::collection::btree_set(1_usize..60, 0..12)) {
        let masked = text.replace("secret", "[S]");
        let length = text.chars().count();
        let cuts = cuts.into_iter().filter(|at| *at < length).map(|at| at.to_string()).collect::<Vec<_>>().join(",");
        for splits in ["'every'".to_owned(), "'characters'".to_owned(), format!("[{cuts}]")] {
            let case = format!("reply = {{ text = '{text}', splits = {splits} }}\nfilter-reply.text = '{masked}'");
            prop_assert_eq!(outcome(Filter::Holds, &case), Ok(()));
        }
    }
}
