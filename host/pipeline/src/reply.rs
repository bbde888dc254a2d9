//! A reply on its way: what the model says, through the filters, as it may leave.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tollgate_domain::{FinishReason, Piece, Refusal, Share, TokenLogprobs, Usage};
use tollgate_models::{Event, GenerateError, Generation as Decoding, RemoteEvent, RemoteReply, Timing};

use crate::Generation;
use crate::chain::ReplyChain;
use crate::record::{End, Record, Timings};
use crate::turn::{Answering, Failure, generate_failure, provider_failure};

/// The model ends a reply at its deadline by itself, between two steps; this much later it is taken for stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What a dialect hears of a reply: any number of pieces, then exactly one `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplyEvent {
    /// The tokens of the text that comes next, where their log-probabilities were asked for.
    Logprobs(Vec<TokenLogprobs>),
    /// More of it.
    Piece(Piece),
    /// It is whole.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens, exactly.
        usage: Usage,
    },
    /// It ends here, unfinished.
    Failed(Refusal),
}

/// A reply on its way. Dropping it stops the decoding and ends the plugins' instances.
pub struct Reply {
    events: Pin<Box<dyn Stream<Item = ReplyEvent> + Send>>,
    generation: Arc<Generation>,
    answering: Answering,
    fallback: Option<String>,
    timings: Timings,
    is_first: bool,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("model", &self.answering.id()).finish_non_exhaustive()
    }
}

/// Where a reply comes from.
pub(crate) enum Source {
    /// A model that runs here.
    Decoding(Decoding),
    /// One that a provider has, and the place among those who may ask it.
    Remote(Box<RemoteReply>, #[expect(dead_code, reason = "held for as long as the reply goes on")] Share),
    /// A filter that answered in its place; taken once.
    Fixed(Option<String>),
}

/// What comes from there, wherever that is.
pub(crate) enum Heard {
    /// The tokens of the text that comes next.
    Logprobs(Vec<TokenLogprobs>),
    /// More of the reply.
    Piece(Piece),
    /// It is whole.
    Done(FinishReason, Usage),
    /// It ends here, unfinished.
    Failed(Failure),
}

impl Source {
    /// What comes next. It ends when `retired` does, and soon after the deadline, which a model that is stuck does not look at.
    pub(crate) async fn hear(&mut self, retired: impl Future<Output = ()>, deadline: Instant) -> Heard {
        let late = || Heard::Failed(generate_failure(&GenerateError::Deadline));
        match self {
            Source::Fixed(text) => fixed(text),
            Source::Decoding(decoding) => tokio::select! {
                biased;
                event = decoding.next() => of_model(event),
                () = retired => Heard::Failed(retired_refusal().into()),
                () = tokio::time::sleep_until((deadline + PATIENCE).into()) => late(),
            },
            Source::Remote(reply, _) => tokio::select! {
                biased;
                event = reply.next() => of_provider(event),
                () = retired => Heard::Failed(retired_refusal().into()),
                () = tokio::time::sleep_until((deadline + PATIENCE).into()) => late(),
            },
        }
    }

    /// When it reached its stages, and its tokens up to now; nothing of a fixed answer.
    fn counted(&self) -> Option<(Timing, Usage)> {
        match self {
            Source::Fixed(_) => None,
            Source::Decoding(decoding) => Some((decoding.timing(), decoding.usage())),
            Source::Remote(reply, _) => {
                // Where it waits at the provider's is not known: it has a place there from the beginning.
                let (first_token, last_token) = (reply.first_token(), reply.last_token());
                Some((Timing { submitted: reply.sent(), placed: Some(reply.sent()), first_token, last_token }, reply.usage()))
            }
        }
    }
}

fn of_model(event: Option<Event>) -> Heard {
    match event {
        Some(Event::Logprobs(tokens)) => Heard::Logprobs(tokens),
        Some(Event::Piece(piece)) => Heard::Piece(piece),
        Some(Event::Done(finish)) => Heard::Done(finish.reason, finish.usage),
        Some(Event::Failed(error)) => Heard::Failed(generate_failure(&error)),
        None => Heard::Failed(generate_failure(&GenerateError::Stopped)),
    }
}

fn of_provider(event: Option<RemoteEvent>) -> Heard {
    match event {
        Some(RemoteEvent::Piece(piece)) => Heard::Piece(piece),
        Some(RemoteEvent::Done { reason, usage }) => Heard::Done(reason, usage),
        Some(RemoteEvent::Failed(error)) => Heard::Failed(provider_failure(&error)),
        None => Heard::Failed(generate_failure(&GenerateError::Stopped)),
    }
}

/// Whether pieces leave as they come.
pub(crate) enum Whole {
    Streamed,
    /// A format hook wants all of it first.
    Needed(String),
}

/// All that a reply starts from.
pub(crate) struct Start {
    pub(crate) source: Source,
    /// What was heard of it already.
    pub(crate) heard: Option<Heard>,
    pub(crate) chain: ReplyChain,
    pub(crate) whole: Whole,
    pub(crate) record: Record,
    pub(crate) timings: Timings,
    pub(crate) generation: Arc<Generation>,
    pub(crate) answering: Answering,
    /// Its id, where it is another one than was meant.
    pub(crate) fallback: Option<String>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// Holds even while the model is stuck in a step, where its own deadlines are not looked at.
    pub(crate) deadline: Instant,
}

impl Reply {
    pub(crate) fn new(start: Start) -> Self {
        let Start { source, heard, chain, whole, record, timings, generation, answering, fallback, permit, deadline } = start;
        let (own, over) = (Arc::clone(&generation), false);
        let driver = Driver { source, heard, chain, whole, record, generation: own, deadline, over, _permit: permit };
        // The future of a step lives in the stream, so that a reader may stop waiting at any point and lose nothing.
        let events = stream::unfold(driver, |mut driver| async move {
            if driver.over {
                return None;
            }
            let events = driver.step().await;
            Some((stream::iter(events), driver))
        });
        Reply { events: Box::pin(events.flatten()), generation, answering, fallback, timings, is_first: true }
    }

    /// The generation that serves it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.number
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &str {
        self.answering.id()
    }

    /// Its id, where it answers in the place of the one that was meant.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// SHA-256 of the model's artifact; `remote:NAME` of one that a provider has.
    #[must_use]
    pub fn model_digest(&self) -> &str {
        self.answering.digest()
    }

    /// The stages so far, as the value of a `Server-Timing` header.
    #[must_use]
    pub fn server_timing(&self) -> String {
        self.timings.header()
    }

    /// The next event; `None` after the last. Safe to cancel.
    pub async fn next(&mut self) -> Option<ReplyEvent> {
        let event = self.events.next().await;
        if std::mem::take(&mut self.is_first) {
            self.timings.lap("first");
        }
        event
    }
}

struct Driver {
    source: Source,
    heard: Option<Heard>,
    chain: ReplyChain,
    whole: Whole,
    record: Record,
    generation: Arc<Generation>,
    deadline: Instant,
    over: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Driver {
    /// Goes on until there is something to tell.
    async fn step(&mut self) -> Vec<ReplyEvent> {
        loop {
            let heard = match self.heard.take() {
                Some(heard) => heard,
                None => self.source.hear(self.generation.retired.cancelled(), self.deadline).await,
            };
            let events = match heard {
                // There are none where a plugin may change the text (see `tokens`).
                Heard::Logprobs(tokens) => vec![ReplyEvent::Logprobs(tokens)],
                Heard::Piece(piece) => self.piece(piece).await,
                Heard::Done(reason, usage) => {
                    self.count();
                    self.record.usage = usage;
                    self.finish(reason).await
                }
                Heard::Failed(failure) => self.failed(*failure.refusal),
            };
            if !events.is_empty() || self.over {
                return events;
            }
        }
    }

    async fn piece(&mut self, piece: Piece) -> Vec<ReplyEvent> {
        match self.chain.push(piece).await {
            Err(refusal) => self.failed(refusal),
            Ok(step) => {
                self.record.flag(step.flags);
                let mut events = self.release(step.release);
                if let Some(refusal) = step.cut {
                    events.extend(self.cut(&refusal));
                }
                events
            }
        }
    }

    async fn finish(&mut self, reason: FinishReason) -> Vec<ReplyEvent> {
        let step = match self.chain.finish().await {
            Err(refusal) => return self.failed(refusal),
            Ok(step) => step,
        };
        self.record.flag(step.flags);
        let mut events = self.release(step.release);
        if let Some(refusal) = step.cut {
            events.extend(self.cut(&refusal));
            return events;
        }
        if let Whole::Needed(text) = std::mem::replace(&mut self.whole, Whole::Streamed) {
            // A reply that was cut short by its length is no whole one to format; the client is told so.
            if reason == FinishReason::Length {
                let message = "The reply was cut by its token limit before it was complete. Allow more tokens.";
                return self.failed(Refusal::invalid("incomplete", message).field("max_tokens"));
            }
            match self.chain.format(&text).await {
                Ok(formatted) => events.push(ReplyEvent::Piece(Piece::Text(formatted))),
                Err(refusal) => return self.failed(refusal),
            }
        }
        self.over = true;
        self.record.end = Some(End::Finished(reason));
        events.push(ReplyEvent::Done { reason, usage: self.record.usage });
        events
    }

    /// What may leave, or is kept for the format hook.
    fn release(&mut self, pieces: Vec<Piece>) -> Vec<ReplyEvent> {
        match &mut self.whole {
            Whole::Streamed => pieces.into_iter().filter(|piece| !piece.as_str().is_empty()).map(ReplyEvent::Piece).collect(),
            Whole::Needed(text) => {
                for piece in pieces {
                    if let Piece::Text(more) = piece {
                        text.push_str(&more);
                    }
                }
                Vec::new()
            }
        }
    }

    /// A filter ended the reply: what is held is dropped.
    fn cut(&mut self, refusal: &Refusal) -> Option<ReplyEvent> {
        tracing::info!(target: "reply", request_id = self.record.request_id, code = refusal.code, detail = refusal.detail, "reply cut");
        self.over = true;
        self.record.end = Some(End::Finished(FinishReason::ContentFilter));
        self.count();
        self.source = Source::Fixed(None);
        Some(ReplyEvent::Done { reason: FinishReason::ContentFilter, usage: self.record.usage })
    }

    /// Takes down what was decoded for a reply that ends before its time; until the first token only the prompt is known.
    fn count(&mut self) {
        if let Some((timing, usage)) = self.source.counted() {
            self.record.timing = Some(timing);
            if usage.prompt > 0 {
                self.record.usage = usage;
            }
        }
    }

    fn failed(&mut self, refusal: Refusal) -> Vec<ReplyEvent> {
        self.over = true;
        self.record.end = Some(End::failed(&refusal));
        self.count();
        self.source = Source::Fixed(None);
        vec![ReplyEvent::Failed(refusal)]
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A client that left is told nothing, but what was decoded for it is counted.
        if !self.over {
            self.count();
        }
    }
}

/// A fixed answer as a model would have said it.
fn fixed(text: &mut Option<String>) -> Heard {
    match text.take() {
        Some(text) => Heard::Piece(Piece::Text(text)),
        None => Heard::Done(FinishReason::Stop, Usage::default()),
    }
}

pub(crate) fn retired_refusal() -> Refusal {
    Refusal::unavailable("generation_retired", "The gateway's configuration changed long ago and this reply took too long.", 1)
}
