//! A reply on its way: what the model says, through the filters, as it may leave.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tollgate_domain::{FinishReason, Piece, Refusal, TokenLogprobs, Usage};
use tollgate_models::{Event, GenerateError, Generation as Decoding, Lease};

use crate::Generation;
use crate::chain::ReplyChain;
use crate::record::{End, Record, Timings};

/// The model ends a reply at its deadline by itself, between two steps; this much later it is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(1);

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
    model: Lease,
    timings: Timings,
    is_first: bool,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("model", &self.model.id()).finish_non_exhaustive()
    }
}

/// Where a reply comes from.
pub(crate) enum Source {
    /// A model.
    Decoding(Decoding),
    /// A filter that answered in its place; taken once.
    Fixed(Option<String>),
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
    pub(crate) chain: ReplyChain,
    pub(crate) whole: Whole,
    pub(crate) record: Record,
    pub(crate) timings: Timings,
    pub(crate) generation: Arc<Generation>,
    pub(crate) model: Lease,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// Holds even while the model is stuck in a step, where its own deadlines are not looked at.
    pub(crate) deadline: Instant,
}

impl Reply {
    pub(crate) fn new(start: Start) -> Self {
        let Start { source, chain, whole, record, timings, generation, model, permit, deadline } = start;
        let driver =
            Driver { source, chain, whole, record, generation: Arc::clone(&generation), deadline, over: false, _permit: permit };
        // The future of a step lives in the stream, so that a reader may stop waiting at any point and lose nothing.
        let events = stream::unfold(driver, |mut driver| async move {
            if driver.over {
                return None;
            }
            let events = driver.step().await;
            Some((stream::iter(events), driver))
        });
        Reply { events: Box::pin(events.flatten()), generation, model, timings, is_first: true }
    }

    /// The generation that serves it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.number
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &str {
        self.model.id()
    }

    /// SHA-256 of the model's artifact.
    #[must_use]
    pub fn model_digest(&self) -> &str {
        self.model.digest()
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
            let event = match &mut self.source {
                Source::Fixed(text) => fixed(text),
                Source::Decoding(decoding) => {
                    let retired = self.generation.retired.clone();
                    tokio::select! {
                        biased;
                        event = decoding.next() => event,
                        () = retired.cancelled() => return self.failed(retired_refusal()),
                        () = tokio::time::sleep_until((self.deadline + PATIENCE).into()) => Some(Event::Failed(GenerateError::Deadline)),
                    }
                }
            };
            let events = match event {
                // There are none where a plugin may change the text (see `tokens`).
                Some(Event::Logprobs(tokens)) => vec![ReplyEvent::Logprobs(tokens)],
                Some(Event::Piece(piece)) => self.piece(piece).await,
                Some(Event::Done(finish)) => {
                    self.count();
                    self.record.usage = finish.usage;
                    self.finish(finish.reason).await
                }
                Some(Event::Failed(error)) => self.failed(generate_refusal(&error)),
                None => self.failed(generate_refusal(&GenerateError::Stopped)),
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
        if let Source::Decoding(decoding) = &self.source {
            self.record.timing = Some(decoding.timing());
            let usage = decoding.usage();
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
fn fixed(text: &mut Option<String>) -> Option<Event> {
    Some(match text.take() {
        Some(text) => Event::Piece(Piece::Text(text)),
        None => Event::Done(tollgate_models::Finish { reason: FinishReason::Stop, usage: Usage::default(), stop: None }),
    })
}

fn retired_refusal() -> Refusal {
    Refusal::unavailable("generation_retired", "The gateway's configuration changed long ago and this reply took too long.", 1)
}

fn generate_refusal(error: &GenerateError) -> Refusal {
    let refusal = match error {
        GenerateError::Deadline => Refusal::unavailable("deadline", "The reply took too long.", 1),
        GenerateError::Stalled => Refusal::unavailable("stalled", "The reply was not read.", 1),
        GenerateError::Stopped => Refusal::unavailable("stopping", "The model is being stopped.", 5),
        GenerateError::Constraint(_) => {
            Refusal::invalid("schema_dead_end", "The schema cannot be followed further.").field("response_format")
        }
        GenerateError::Backend(_) | GenerateError::NotANumber => Refusal::unavailable("model_failed", "The model failed.", 1),
    };
    refusal.detail(error.to_string())
}
