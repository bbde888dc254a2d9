//! Masks personal data: `[EMAIL_1]`, `[PHONE_1]`, `[NIK_1]`, `[NPWP_1]`, `[CARD_1]`, `[IBAN_1]`.
//!
//! | config | values | default |
//! |---|---|---|
//! | `kinds` | any of `email`, `phone`, `nik`, `npwp`, `card`, `iban`; at least one | all |
//! | `restore` | whether the reply gets the prompt's values back | `false` |
//!
//! **Prompt.** Every text part but the operator's own (origin `template`) and the arguments of earlier tool calls are masked. The same value
//! gets the same number within a request, however it is spelled. The flags `pii.email` and so on count what was masked.
//!
//! **Reply.** What the model writes is masked as it streams; numbers go on from the prompt's. With `restore`, a placeholder that was planted
//! in this request's prompt is then replaced by its value as it was first written. Text, reasoning and tool arguments are streams
//! of their own, per choice. A tool's name passes. Arguments are JSON text: a bare number that is masked becomes a string, and a value
//! with an escape inside is not found.
//!
//! **Streaming.** What is released is the masked text, however the reply was cut into pieces, and no character of a masked value is
//! released before. At most 128 characters are held, and only while a value may still be in the making.
//!
//! **What counts.** The rules of each kind are at the top of its module: `email`, `phone`, `identity` (NIK, NPWP), `card`, `iban`.
//! Common to all but emails: no word goes on in front or behind, a dash does not tie it to a word in front, a dot or dash does not tie it
//! to a number. The earliest match is taken, there the longest, there the kind that comes first in [`Kind::ALL`]. Digits and letters
//! are ASCII (Latin letters in emails). Text that hides a value on purpose is out of reach.
//!
//! The scanners are written by hand: a regular expression cannot say whether a longer text could still match, and would be most of the
//! component's size.

mod boundary;
mod card;
#[cfg(any(test, feature = "corpus"))]
pub mod corpus;
mod email;
mod iban;
mod identity;
mod json;
mod kind;
mod ledger;
mod masker;
mod number;
mod phone;
mod restorer;

use std::cell::RefCell;

use serde::Deserialize;
use tollgate_sdk::{ChatRequest, Context, FilterPrompt, FilterReply, Origin, Outcome, Piece, Plugin, Step, Verdict};

pub use crate::kind::Kind;
use crate::kind::Kinds;
use crate::ledger::Ledger;
use crate::masker::{Masker, Syntax};
use crate::restorer::Restorer;

/// What the operator may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is masked.
    #[serde(default = "every_kind")]
    kinds: Vec<Kind>,
    /// Whether planted values are put back in the reply.
    #[serde(default)]
    restore: bool,
}

/// The plugin.
#[derive(Debug)]
pub struct FilterPii {
    kinds: Kinds,
    restore: bool,
    /// The values of this request: an instance serves one.
    ledger: RefCell<Ledger>,
}

/// One reply: its three streams.
#[derive(Debug)]
pub struct Reply {
    text: Stream,
    reasoning: Stream,
    arguments: Stream,
}

#[derive(Debug)]
struct Stream {
    masker: Masker,
    restorer: Option<Restorer>,
}

impl Plugin for FilterPii {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let kinds: Kinds = config.kinds.into_iter().collect();
        if kinds.is_empty() {
            return Err("kinds: name at least one, or leave the key out for all".to_owned());
        }
        Ok(FilterPii { kinds, restore: config.restore, ledger: RefCell::default() })
    }
}

impl FilterPrompt for FilterPii {
    fn filter_prompt(&self, _ctx: Context, mut request: ChatRequest) -> Outcome {
        let ledger = &mut *self.ledger.borrow_mut();
        ledger.plant(self.restore);
        for (_, origin, text) in request.texts_mut() {
            if origin != Origin::Template {
                self.mask(text, Syntax::Plain, ledger);
            }
        }
        for name in request.messages.iter_mut().filter_map(|message| message.name.as_mut()) {
            self.mask(name, Syntax::Plain, ledger);
        }
        for call in request.messages.iter_mut().flat_map(|message| message.tool_calls.iter_mut()) {
            self.mask(&mut call.arguments, Syntax::Json, ledger);
        }
        ledger.plant(false);
        let flags = ledger.take_flags();
        if flags.is_empty() { Outcome::pass() } else { Outcome { verdict: Verdict::Replace(request), flags } }
    }
}

impl FilterReply for FilterPii {
    type Reply = Reply;

    fn start(&self, ctx: Context, _choice: u32) -> Reply {
        // A reply that has to match a schema is JSON text: escapes count as what they stand for, and it has to stay JSON.
        let text = if ctx.attribute("format") == Some("\"json\"") { Syntax::Json } else { Syntax::Plain };
        let stream = |syntax| Stream { masker: Masker::new(self.kinds, syntax), restorer: self.restore.then(Restorer::default) };
        Reply { text: stream(text), reasoning: stream(Syntax::Plain), arguments: stream(Syntax::Json) }
    }

    fn push(&self, reply: &mut Reply, piece: Piece) -> Step {
        let ledger = &mut *self.ledger.borrow_mut();
        let release = match piece {
            Piece::Text(text) => vec![Piece::Text(reply.text.push(&text, ledger))],
            Piece::Reasoning(text) => vec![Piece::Reasoning(reply.reasoning.push(&text, ledger))],
            Piece::ToolArguments(text) => vec![Piece::ToolArguments(reply.arguments.push(&text, ledger))],
            // Another call begins, so the arguments of the one before are whole.
            Piece::ToolName(name) => vec![Piece::ToolArguments(reply.arguments.finish(ledger)), Piece::ToolName(name)],
        };
        step(release, ledger)
    }

    fn finish(&self, reply: &mut Reply) -> Step {
        let ledger = &mut *self.ledger.borrow_mut();
        let release = vec![
            Piece::Reasoning(reply.reasoning.finish(ledger)),
            Piece::Text(reply.text.finish(ledger)),
            Piece::ToolArguments(reply.arguments.finish(ledger)),
        ];
        step(release, ledger)
    }
}

impl FilterPii {
    fn mask(&self, text: &mut String, syntax: Syntax, ledger: &mut Ledger) {
        let mut out = String::with_capacity(text.len());
        let mut masker = Masker::new(self.kinds, syntax);
        masker.push(text, ledger, &mut out);
        masker.finish(ledger, &mut out);
        *text = out;
    }
}

impl Stream {
    fn push(&mut self, piece: &str, ledger: &mut Ledger) -> String {
        let mut out = String::new();
        self.masker.push(piece, ledger, &mut out);
        self.restored(out, ledger)
    }

    fn finish(&mut self, ledger: &mut Ledger) -> String {
        let mut out = String::new();
        self.masker.finish(ledger, &mut out);
        let mut out = self.restored(out, ledger);
        if let Some(restorer) = &mut self.restorer {
            restorer.finish(&mut out);
        }
        out
    }

    fn restored(&mut self, masked: String, ledger: &Ledger) -> String {
        let Some(restorer) = &mut self.restorer else { return masked };
        let mut out = String::with_capacity(masked.len());
        restorer.push(&masked, ledger, &mut out);
        out
    }
}

fn every_kind() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

/// What leaves now; a piece with nothing in it does not.
fn step(mut release: Vec<Piece>, ledger: &mut Ledger) -> Step {
    release.retain(|piece| match piece {
        Piece::Text(text) | Piece::Reasoning(text) | Piece::ToolName(text) | Piece::ToolArguments(text) => !text.is_empty(),
    });
    Step { release, flags: ledger.take_flags(), cut: None }
}

tollgate_sdk::export!(FilterPii: filter_prompt, filter_reply);

#[cfg(test)]
mod tests;
