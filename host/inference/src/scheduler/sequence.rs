//! One request from the queue to its last piece: its tokens, how far they are decoded, and how its reply grows.
//!
//! It does not know the others, nor where its memory comes from.

use std::sync::Arc;
use std::time::Instant;

use tollgate_backend::{AdapterId, SequenceId, State, Token, Vocabulary};
use tollgate_domain::{FinishReason, Usage};

use super::pace::SHORT_ROWS;
use super::to_usize;
use crate::constraint::Constraint;
use crate::engine::{Adapter, Finish, GenerateError, Writer};
use crate::reply::Reply;
use crate::sampler::{self, Draw, SampleError, Sampler};
use crate::sampling::Sampling;
use crate::tickets::Ticket;

/// Cells kept free for a reply when its prompt is admitted, so that it is not preempted at once.
const HEADROOM: u32 = 32;

/// Whose prefixes are whose: an HMAC of the server's secret and the tenant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) [u8; 32]);

/// Who may use what was computed: the tenant, with the adapter that it was computed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) salt: Salt,
    pub(super) adapter: Option<AdapterId>,
}

/// What a sequence is made of.
pub(crate) struct Request {
    pub(crate) tokens: Vec<Token>,
    pub(crate) constraint: Option<Constraint>,
    pub(crate) sampling: Sampling,
    /// Taken if the request brings none of its own.
    pub(crate) seed: u64,
    pub(crate) reply: Reply,
    pub(crate) salt: Salt,
    pub(crate) adapter: Option<Adapter>,
    pub(crate) ticket: Ticket,
    pub(crate) weight: u32,
    pub(crate) deadline: Instant,
    /// Its number in the order of submission.
    pub(crate) arrived: u64,
    pub(crate) submitted: Instant,
    pub(crate) writer: Writer,
}

/// How a sequence ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The reply is whole.
    Whole(FinishReason, Option<String>),
    /// It is not.
    Failed(GenerateError),
}

/// A request on its way.
pub(crate) struct Sequence {
    /// Prompt and reply so far.
    pub(super) tokens: Vec<Token>,
    /// How many of them the backend has decoded.
    pub(super) decoded: usize,
    /// Of the decoded ones, how many were copied and share their cells with another sequence.
    pub(super) shared: usize,
    /// Where they are; `None` in the queue, or after the place was lost to others.
    pub(super) slot: Option<SequenceId>,
    /// What it had computed when it lost its place, where that was kept.
    pub(super) aside: Option<State>,
    pub(super) scope: Scope,
    pub(super) tenant: Arc<str>,
    /// Its place in the queue while it waits.
    pub(super) ticket: Option<Ticket>,
    pub(super) weight: u32,
    /// Whether little of its prompt was left to decode when it got its place.
    pub(super) is_short: bool,
    pub(super) deadline: Instant,
    pub(super) arrived: u64,
    pub(super) submitted: Instant,
    /// When its reader fell behind.
    pub(super) parked_at: Option<Instant>,
    pub(super) writer: Writer,
    prompt: usize,
    /// Of the prompt, how many were found in the cache at first admission; `None` before.
    cached: Option<usize>,
    /// Up to where the tenant has been charged: what is computed again is not charged again.
    charged: usize,
    sampling: Sampling,
    seed: u64,
    constraint: Option<Constraint>,
    reply: Reply,
    /// Keeps the adapter loaded.
    _adapter: Option<Adapter>,
}

impl Sequence {
    pub(crate) fn new(request: Request) -> Self {
        Sequence {
            decoded: 0,
            shared: 0,
            slot: None,
            aside: None,
            scope: Scope { salt: request.salt, adapter: request.adapter.as_ref().map(Adapter::id) },
            tenant: Arc::clone(request.ticket.tenant()),
            ticket: Some(request.ticket),
            weight: request.weight,
            is_short: false,
            deadline: request.deadline,
            arrived: request.arrived,
            submitted: request.submitted,
            parked_at: None,
            writer: request.writer,
            prompt: request.tokens.len(),
            cached: None,
            charged: 0,
            seed: request.sampling.seed.unwrap_or(request.seed),
            sampling: request.sampling,
            constraint: request.constraint,
            reply: request.reply,
            _adapter: request.adapter,
            tokens: request.tokens,
        }
    }

    /// Rows of its next batch where batches are the same whatever else is decoded: what is left of the prompt up to the next
    /// multiple of `chunk`, and each token of a reply alone, also when it is computed again.
    pub(super) fn fixed_rows(&self, chunk: usize) -> usize {
        if self.decoded >= self.prompt {
            return self.remaining().min(1);
        }
        let border = (self.decoded / chunk.max(1)).saturating_add(1).saturating_mul(chunk.max(1));
        border.min(self.prompt).saturating_sub(self.decoded)
    }

    /// Its tokens of which a prefix may be found: all but the last, which has to be decoded for its logits. Where batches are fixed,
    /// the prompt's alone, since a reply is never in a chunk.
    pub(super) fn findable(&self, is_fixed: bool) -> &[Token] {
        let most = self.tokens.len().saturating_sub(1);
        self.tokens.get(..if is_fixed { most.min(self.prompt) } else { most }).unwrap_or_default()
    }

    /// How much of what is decoded any other prompt with the same beginning would decode in just these batches: the whole chunks of
    /// the prompt.
    pub(super) fn fixed_prefix(&self, chunk: usize) -> usize {
        let whole = self.decoded.min(self.prompt);
        whole.saturating_sub(whole % chunk.max(1))
    }

    /// Tokens that are not decoded yet: one while a reply grows, more before that.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len().saturating_sub(self.decoded)
    }

    /// Whether the reply has begun.
    pub(super) fn has_replied(&self) -> bool {
        self.tokens.len() > self.prompt
    }

    /// Cells that it holds or will hold for what it has now.
    pub(super) fn cells(&self) -> usize {
        self.tokens.len().saturating_sub(self.shared)
    }

    /// Cells to be kept free beyond those, when it is admitted.
    pub(super) fn headroom(&self) -> usize {
        usize::try_from(self.sampling.max_tokens.min(HEADROOM)).unwrap_or(usize::MAX)
    }

    /// What is decoded, for others to share.
    pub(super) fn decoded_tokens(&self) -> &[Token] {
        self.tokens.get(..self.decoded).unwrap_or_default()
    }

    /// It got a place in which its first `decoded` tokens are already, `shared` of them with another. Returns how many of the
    /// prompt were found in the cache if this is the first time.
    pub(super) fn place(&mut self, slot: SequenceId, decoded: usize, shared: usize) -> Option<usize> {
        self.slot = Some(slot);
        self.decoded = decoded;
        self.shared = shared;
        self.is_short = self.remaining() <= SHORT_ROWS;
        self.charged = self.charged.max(decoded);
        let is_first = self.cached.is_none();
        self.cached.get_or_insert(decoded);
        is_first.then_some(decoded)
    }

    /// It lost its place. What is not kept of its tokens is decoded again when it gets another.
    pub(super) fn displace(&mut self) -> Option<SequenceId> {
        self.decoded = 0;
        self.shared = 0;
        self.slot.take()
    }

    /// Tokens of which it gets back what it had computed.
    pub(super) fn kept_aside(&self) -> usize {
        self.aside.as_ref().map_or(0, |state| to_usize(state.tokens()))
    }

    /// Whether it lost its place once and has not computed again what it had.
    pub(super) fn is_catching_up(&self) -> bool {
        self.decoded < self.charged
    }

    /// `rows` more were decoded. Returns how many of them its tenant has to pay for.
    pub(super) fn advance(&mut self, rows: usize) -> usize {
        self.decoded = self.decoded.saturating_add(rows);
        let due = self.decoded.saturating_sub(self.charged);
        self.charged = self.charged.max(self.decoded);
        due
    }

    /// Takes the next token from a row of logits, and shows what there is to show. `limit` is how many tokens a sequence can
    /// have. Returns how the reply ends, if it does.
    pub(super) fn speak(&mut self, logits: &[f32], sampler: &mut Sampler, vocabulary: &Vocabulary, limit: usize) -> Option<End> {
        let token = match self.sample(logits, sampler) {
            Ok(token) => token,
            Err(error) => return Some(End::Failed(error)),
        };
        if vocabulary.ends_generation(token) {
            return Some(End::Whole(FinishReason::Stop, None));
        }
        // Of the model's own row, and not of the token that ends a reply: it has no text.
        let told = self.sampling.logprobs.map(|likeliest| sampler.logprobs(logits, token, likeliest, vocabulary));
        self.tokens.push(token);
        let is_complete = match self.constraint.as_mut().map_or(Ok(false), |constraint| constraint.accept(token)) {
            Ok(is_complete) => is_complete,
            Err(error) => return Some(End::Failed(GenerateError::Constraint(error))),
        };
        let addition = self.reply.push(token, told, vocabulary);
        self.writer.push(addition.piece, addition.logprobs, self.usage());
        if addition.stop.is_some() {
            return Some(End::Whole(FinishReason::Stop, addition.stop));
        }
        if is_complete {
            return Some(End::Whole(FinishReason::Stop, None));
        }
        let is_full = self.replied() >= self.sampling.max_tokens || self.tokens.len() >= limit;
        is_full.then_some(End::Whole(FinishReason::Length, None))
    }

    fn sample(&mut self, logits: &[f32], sampler: &mut Sampler) -> Result<Token, GenerateError> {
        let mask = self.constraint.as_mut().map(Constraint::mask).transpose().map_err(GenerateError::Constraint)?;
        let draw = Draw {
            sampling: &self.sampling,
            tokens: &self.tokens,
            prompt: self.prompt,
            mask: mask.as_ref().map(|mask| mask.as_slice()),
            random: sampler::random(self.seed, self.tokens.len().saturating_sub(self.prompt)),
        };
        sampler.sample(logits, draw).map_err(|error| match error {
            SampleError::NotANumber => GenerateError::NotANumber,
            SampleError::NothingAllowed => GenerateError::Constraint("no word of the model fits".to_owned()),
        })
    }

    /// Tells the reader how it ended.
    pub(super) fn end(&mut self, end: End) {
        match end {
            End::Failed(error) => self.writer.fail(error),
            End::Whole(reason, stop) => {
                // What a stop cut off is not shown; what was held back otherwise is.
                if stop.is_none() {
                    let rest = self.reply.finish();
                    self.writer.push(rest.piece, rest.logprobs, self.usage());
                }
                self.writer.finish(Finish { reason, usage: self.usage(), stop });
            }
        }
    }

    fn usage(&self) -> Usage {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        Usage { prompt: count(self.prompt), cached: count(self.cached.unwrap_or(0)), completion: self.replied() }
    }

    fn replied(&self) -> u32 {
        u32::try_from(self.tokens.len().saturating_sub(self.prompt)).unwrap_or(u32::MAX)
    }
}
