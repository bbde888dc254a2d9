//! Runs a case: one fresh instance for each way that its reply is cut, and every hook in the gateway's order.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::case::Case;
use crate::compare::{Mismatch, compare, excerpt};
use crate::contract;
use crate::expect::{self, Authenticated, Composed, Constraint, Formatted, RefusalLike, Replied, Screened, Streams};
use crate::input::{Reply, Splits};
use crate::json;
use crate::splits;
use crate::words::{Context, Decision, Flag, Head, Outcome, Piece, PromptVerdict, Refusal, Request, Step};

/// What `resume` brings in a case: the same every time, so that a plugin that draws numbers has one outcome.
pub const ENTROPY: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut at = 0;
    #[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "counts to 32, and iterators are not const")]
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// A hook came to no end: it trapped, ran over a limit, broke the contract, or does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub String);

/// Why there is no instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// `setup` refused the config, with this error.
    Refused(String),
    /// Something else went wrong.
    Failed(String),
}

/// A plugin under one config.
pub trait Under {
    /// What its hooks are called on.
    type Subject: Subject;

    /// Makes a fresh instance for `case`: its clock is [`Case::now_ms`], its chance [`ENTROPY`], its keys are [`Case::lookup`]'s.
    fn fresh(&self, case: &Case) -> impl Future<Output = Result<Self::Subject, Start>>;
}

/// One fresh instance.
pub trait Subject {
    /// Calls `authenticate`.
    fn authenticate(&mut self, head: &Head) -> impl Future<Output = Result<Decision, Fault>>;
    /// Calls `compose`.
    fn compose(&mut self, ctx: &Context, request: &Request) -> impl Future<Output = Result<Result<Request, Refusal>, Fault>>;
    /// Calls `filter-prompt`.
    fn filter_prompt(&mut self, ctx: &Context, request: &Request) -> impl Future<Output = Result<Outcome, Fault>>;
    /// Calls the constructor of `filter-reply`'s reply.
    fn begin(&mut self, ctx: &Context, choice: u32) -> impl Future<Output = Result<(), Fault>>;
    /// Calls its `push`.
    fn push(&mut self, piece: &Piece) -> impl Future<Output = Result<Step, Fault>>;
    /// Calls its `finish`.
    fn finish(&mut self) -> impl Future<Output = Result<Step, Fault>>;
    /// Calls `format.constraint`.
    fn constraint(&mut self, ctx: &Context) -> impl Future<Output = Result<Option<String>, Fault>>;
    /// Calls `format.format`.
    fn format(&mut self, ctx: &Context, reply: &str) -> impl Future<Output = Result<Result<String, Refusal>, Fault>>;
    /// The lines that were logged so far.
    fn logged(&mut self) -> Vec<String>;
}

/// What a case came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Everything came as expected.
    Passed,
    /// Something did not.
    Failed(Failure),
    /// The time was up before all of its runs were done.
    OutOfTime,
}

/// What did not come as expected.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// The case.
    pub case: String,
    /// Where it stands: `mask.toml:12`.
    pub place: String,
    /// The pieces that the reply came in, where the case cuts it.
    pub pieces: Option<Vec<Value>>,
    /// What differs; at least one.
    pub mismatches: Vec<Mismatch>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the case `{}` ({}) failed", self.case, self.place)?;
        if let Some(pieces) = self.pieces_shown() {
            write!(f, ", the reply coming as {pieces}")?;
        }
        for (at, mismatch) in self.mismatches.iter().enumerate() {
            write!(f, "{} {mismatch}", if at == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl Failure {
    /// The pieces of the reply in one line.
    #[must_use]
    pub fn pieces_shown(&self) -> Option<String> {
        let pieces = self.pieces.as_ref()?;
        let texts = pieces.iter().map(|piece| piece.get("text").unwrap_or(piece).to_string());
        Some(excerpt(&texts.collect::<Vec<_>>().join(" | ")))
    }
}

/// Runs a case. `goes_on` is asked before each run after the first.
pub async fn run<U: Under>(under: &U, case: &Case, mut goes_on: impl FnMut() -> bool) -> Verdict {
    let ways: Box<dyn Iterator<Item = Vec<usize>> + '_> = match (&case.reply, &case.expect.filter_reply) {
        (Some(Reply { pieces, splits, .. }), Some(_)) => match splits {
            Splits::None => Box::new(std::iter::once(Vec::new())),
            Splits::Every => Box::new(splits::every(pieces)),
            Splits::Characters => Box::new(std::iter::once(splits::inner(pieces))),
            Splits::At(cuts) => Box::new(std::iter::once(cuts.clone())),
        },
        _ => Box::new(std::iter::once(Vec::new())),
    };
    for (at, cuts) in ways.enumerate() {
        if at > 0 && !goes_on() {
            return Verdict::OutOfTime;
        }
        let pieces = case.reply.as_ref().map(|reply| splits::cut(&reply.pieces, &cuts)).unwrap_or_default();
        let mismatches = run_once(under, case, &pieces).await;
        if !mismatches.is_empty() {
            let pieces = (!cuts.is_empty()).then(|| pieces.iter().map(json::piece).collect());
            return Verdict::Failed(Failure { case: case.name.clone(), place: case.place(), pieces, mismatches });
        }
    }
    Verdict::Passed
}

async fn run_once<U: Under>(under: &U, case: &Case, pieces: &[Piece]) -> Vec<Mismatch> {
    let started = under.fresh(case).await;
    let subject = match (started, &case.expect.setup) {
        (Ok(_), Some(error)) => return vec![Mismatch::new("setup.error", error.as_str(), "setup succeeded")],
        (Err(Start::Refused(got)), Some(error)) => {
            return if got.contains(error.as_str()) {
                Vec::new()
            } else {
                vec![Mismatch::new("setup.error", error.as_str(), got)]
            };
        }
        (Err(Start::Refused(error)), None) => return vec![Mismatch::new("setup", "the config is accepted", error)],
        (Err(Start::Failed(reason)), _) => return vec![Mismatch::new("setup", "an instance", reason)],
        (Ok(subject), None) => subject,
    };
    let mut run =
        Run { case, subject, context: case.context.clone(), request: case.request.clone(), seen: Vec::new(), found: Vec::new() };
    if let Err((hook, Fault(reason))) = run.hooks(pieces).await {
        run.found.push(Mismatch::new(hook, "an outcome", reason));
    }
    run.check_never();
    run.found
}

/// A case under way.
struct Run<'a, S> {
    case: &'a Case,
    subject: S,
    context: Context,
    /// The request as it is now.
    request: Option<Request>,
    /// Everything that left the plugin, by field, for `never`.
    seen: Vec<Word>,
    found: Vec<Mismatch>,
}

/// An outcome: its kind, and what is in it.
type Word = (&'static str, Value);
type Faulty = Result<(), (&'static str, Fault)>;

impl<S: Subject> Run<'_, S> {
    /// Calls the case's hooks, until one does not do what it should.
    async fn hooks(&mut self, pieces: &[Piece]) -> Faulty {
        let expect = &self.case.expect;
        if let Some(expected) = &expect.authenticate {
            self.authenticate(expected).await?;
        }
        if let Some(expected) = expect.compose.as_ref().filter(|_| self.found.is_empty()) {
            self.compose(expected).await?;
        }
        if let Some(expected) = expect.filter_prompt.as_ref().filter(|_| self.found.is_empty()) {
            self.filter_prompt(expected).await?;
        }
        if let Some(expected) = expect.format.as_ref().filter(|_| self.found.is_empty()) {
            self.constraint(expected).await?;
        }
        let mut text = Streams::of(pieces).text;
        if let (Some(expected), true) = (&expect.filter_reply, self.found.is_empty()) {
            text = self.filter_reply(expected, pieces).await?;
        }
        if let (Some(Formatted { content: Some(expected), .. }), true) = (&expect.format, self.found.is_empty()) {
            self.format(expected, &text).await?;
        }
        Ok(())
    }

    async fn authenticate(&mut self, expected: &Authenticated) -> Faulty {
        const HOOK: &str = "authenticate";
        let decision = self.subject.authenticate(&self.case.head).await.map_err(|fault| (HOOK, fault))?;
        let got = match decision {
            Decision::Abstain => ("abstain", Value::Bool(true)),
            Decision::Refuse(refusal) => return self.refused(HOOK, "refuse", refusal, refusal_of(expected)),
            Decision::Identity(principal) => {
                contract::principal(&principal).map_err(|what| (HOOK, Fault(format!("it broke the contract: {what}"))))?;
                let got = json::principal(&principal);
                if !self.case.has_principal {
                    self.context.principal = principal;
                }
                ("identity", got)
            }
        };
        let expected = match expected {
            Authenticated::Abstain => ("abstain", Value::Bool(true)),
            Authenticated::Identity(principal) => ("identity", json::principal(principal)),
            Authenticated::Refuse(refusal) => ("refuse", json::refusal_alone(refusal)),
        };
        self.compare(HOOK, &expected, got);
        Ok(())
    }

    async fn compose(&mut self, expected: &Composed) -> Faulty {
        const HOOK: &str = "compose";
        let Some(came) = self.request.take() else { return Ok(()) };
        let composed = self.subject.compose(&self.context, &came).await.map_err(|fault| (HOOK, fault))?;
        let composed = match (composed, expected) {
            (Err(refusal), Composed::Refuse(like)) => return self.refused(HOOK, "refuse", refusal, Ok(like)),
            (Err(refusal), Composed::Unchanged) => {
                return self.refused(HOOK, "refuse", refusal, Err(("request", json::request(&came))));
            }
            (Err(refusal), Composed::Request(like)) => {
                return self.refused(HOOK, "refuse", refusal, Err(("request", json::request(&like.over(&came)))));
            }
            (Ok(composed), _) => composed,
        };
        let expected = match expected {
            Composed::Unchanged => ("request", json::request(&came)),
            Composed::Request(like) => ("request", json::request(&like.over(&came))),
            Composed::Refuse(refusal) => ("refuse", json::refusal_alone(refusal)),
        };
        self.compare(HOOK, &expected, ("request", json::request(&composed)));
        self.request = Some(composed);
        Ok(())
    }

    async fn filter_prompt(&mut self, expected: &Screened) -> Faulty {
        const HOOK: &str = "filter-prompt";
        let Some(came) = self.request.take() else { return Ok(()) };
        let outcome = self.subject.filter_prompt(&self.context, &came).await.map_err(|fault| (HOOK, fault))?;
        self.compare_flags("filter-prompt.flags", expected.flags.as_ref(), &contract::flags(outcome.flags));
        let verdict = match &expected.verdict {
            expect::Verdict::Pass => ("pass", Value::Bool(true)),
            expect::Verdict::Replace(like) => ("replace", json::request(&like.over(&came))),
            expect::Verdict::Answer(text) => ("answer", text.as_str().into()),
            expect::Verdict::Block(refusal) => ("block", json::refusal_alone(refusal)),
        };
        let got = match outcome.verdict {
            PromptVerdict::Pass => ("pass", Value::Bool(true)),
            PromptVerdict::Replace(request) => {
                let got = json::request(&request);
                self.request = Some(*request);
                ("replace", got)
            }
            PromptVerdict::Answer(text) => ("answer", text.into()),
            PromptVerdict::Block(refusal) => {
                let like = if let expect::Verdict::Block(like) = &expected.verdict { Ok(like) } else { Err(verdict) };
                return self.refused(HOOK, "block", refusal, like);
            }
        };
        self.compare(HOOK, &verdict, got);
        Ok(())
    }

    async fn constraint(&mut self, expected: &Formatted) -> Faulty {
        const FIELD: &str = "format.constraint";
        let got = self.subject.constraint(&self.context).await.map_err(|fault| ("format", fault))?;
        let parsed = match &got {
            None => Value::Bool(false),
            Some(text) => {
                serde_json::from_str(text).map_err(|error| ("format", Fault(format!("its constraint is no JSON: {error}"))))?
            }
        };
        match &expected.constraint {
            None => {}
            Some(Constraint::Is(is)) if *is == got.is_some() => {}
            Some(Constraint::Is(is)) => self.found.push(Mismatch::new(FIELD, *is, parsed)),
            Some(Constraint::Like(schema)) => compare(FIELD, schema, &parsed, &mut self.found),
        }
        Ok(())
    }

    /// Returns the text that left.
    async fn filter_reply(&mut self, expected: &Replied, pieces: &[Piece]) -> Result<String, (&'static str, Fault)> {
        let fault = |fault| ("filter-reply", fault);
        let choice = self.case.reply.as_ref().map_or(0, |reply| reply.choice);
        self.subject.begin(&self.context, choice).await.map_err(fault)?;
        let (mut released, mut flags, mut cut) = (Vec::new(), Vec::<Flag>::new(), None);
        for piece in pieces.iter().map(Some).chain([None]) {
            let step = match piece {
                Some(piece) => self.subject.push(piece).await.map_err(fault)?,
                None => self.subject.finish().await.map_err(fault)?,
            };
            flags.extend(contract::flags(step.flags));
            released.push(step.release);
            if let Some(refusal) = step.cut {
                cut = Some(contract::refusal(refusal));
                break;
            }
        }
        let streams = Streams::of(released.iter().flatten());
        let wanted = expected.streams.clone().unwrap_or_else(|| Streams::of(pieces));
        self.compare_streams(&wanted, &streams);
        self.compare_flags("filter-reply.flags", expected.flags.as_ref(), &flags);
        let (wanted, got) = match (&expected.cut, &cut) {
            (None, None) => (Value::Null, Value::Null),
            (None, Some(cut)) => (Value::Null, json::refusal(cut)),
            (Some(like), Some(cut)) => (json::refusal_like(like, cut), json::refusal(cut)),
            (Some(like), None) => (json::refusal_alone(like), Value::Null),
        };
        compare("filter-reply.cut", &wanted, &got, &mut self.found);
        self.seen.push(("filter-reply.cut", got));
        if let Some(releases) = &expected.releases {
            let of = |releases: &[Vec<Piece>]| releases.iter().map(|pieces| json::release(pieces)).collect::<Value>();
            compare("filter-reply.releases", &of(releases), &of(&released), &mut self.found);
        }
        Ok(streams.text)
    }

    async fn format(&mut self, expected: &Result<String, RefusalLike>, text: &str) -> Faulty {
        const HOOK: &str = "format";
        let formatted = self.subject.format(&self.context, text).await.map_err(|fault| (HOOK, fault))?;
        match (formatted, expected) {
            (Err(refusal), Err(like)) => self.refused(HOOK, "refuse", refusal, Ok(like)),
            (Err(refusal), Ok(text)) => self.refused(HOOK, "refuse", refusal, Err(("text", text.as_str().into()))),
            (Ok(got), Ok(text)) => {
                self.compare(HOOK, &("text", text.as_str().into()), ("text", got.into()));
                Ok(())
            }
            (Ok(got), Err(like)) => {
                self.compare(HOOK, &("refuse", json::refusal_alone(like)), ("text", got.into()));
                Ok(())
            }
        }
    }

    /// The hook refused. `expected` is the refusal that it should have been, or what should have come in its place.
    fn refused(
        &mut self,
        hook: &'static str,
        word: &'static str,
        refusal: Refusal,
        expected: Result<&RefusalLike, Word>,
    ) -> Faulty {
        let refusal = contract::refusal(refusal);
        let got = (word, json::refusal(&refusal));
        match expected {
            Ok(like) => self.compare(hook, &(word, json::refusal_like(like, &refusal)), got),
            Err(other) => self.compare(hook, &other, got),
        }
        Ok(())
    }

    fn compare(&mut self, hook: &'static str, expected: &Word, got: Word) {
        if expected.0 == got.0 {
            compare(&format!("{hook}.{}", got.0), &expected.1, &got.1, &mut self.found);
        } else {
            let one = |(word, value): &Word| Value::Object([((*word).to_owned(), value.clone())].into_iter().collect());
            self.found.push(Mismatch::new(hook, one(expected), one(&got)));
        }
        self.seen.push((hook, got.1));
    }

    fn compare_streams(&mut self, expected: &Streams, got: &Streams) {
        let got = json::streams(got);
        compare("filter-reply", &json::streams(expected), &got, &mut self.found);
        self.seen.push(("filter-reply", got));
    }

    fn compare_flags(&mut self, field: &'static str, expected: Option<&expect::Flags>, got: &[Flag]) {
        let got = json::flags(got);
        if let Some(expected) = expected {
            compare(field, &serde_json::json!(expected), &got, &mut self.found);
        }
        self.seen.push((field, got));
    }

    /// Nothing that left holds what must never leave.
    fn check_never(&mut self) {
        if self.case.never.is_empty() {
            return;
        }
        self.seen.push(("log", self.subject.logged().into()));
        for text in &self.case.never {
            if let Some((field, holder)) = self.seen.iter().find_map(|(field, value)| Some((*field, holds(value, text)?))) {
                self.found.push(Mismatch {
                    field: field.to_owned(),
                    expected: Some(format!("nothing with {text}").into()),
                    got: Some(holder.into()),
                });
            }
        }
    }
}

fn refusal_of(expected: &Authenticated) -> Result<&RefusalLike, Word> {
    match expected {
        Authenticated::Refuse(like) => Ok(like),
        Authenticated::Abstain => Err(("abstain", Value::Bool(true))),
        Authenticated::Identity(principal) => Err(("identity", json::principal(principal))),
    }
}

/// The first text within `value` that holds `text`; names of keys count as well.
fn holds<'a>(value: &'a Value, text: &str) -> Option<&'a str> {
    match value {
        Value::String(held) => held.contains(text).then_some(held.as_str()),
        Value::Array(items) => items.iter().find_map(|item| holds(item, text)),
        Value::Object(object) => {
            object.iter().find_map(|(key, value)| if key.contains(text) { Some(key.as_str()) } else { holds(value, text) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
