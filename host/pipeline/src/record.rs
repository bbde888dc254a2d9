//! How long stages took, and the one line per reply.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_domain::{FinishReason, Flag, Refusal, RefusalKind, Usage};
use tollgate_models::{Ended, ModelMetrics, Timing};
use tracing::Span;

use crate::trace;
use crate::turn::Answering;

/// Different flags that a reply's line names.
const MAX_FLAGS: usize = 64;

/// When stages ended, in order.
#[derive(Debug, Clone)]
pub(crate) struct Timings {
    began: Instant,
    last: Instant,
    stages: Vec<(&'static str, f64)>,
}

impl Timings {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Timings { began: now, last: now, stages: Vec::with_capacity(8) }
    }

    /// Since the request's head was there.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The stage that just ended.
    pub(crate) fn lap(&mut self, stage: &'static str) {
        let now = Instant::now();
        self.stages.push((stage, now.duration_since(self.last).as_secs_f64() * 1e3));
        self.last = now;
    }

    /// As the value of a `Server-Timing` header (W3C Server Timing), in milliseconds.
    pub(crate) fn header(&self) -> String {
        let mut text = String::with_capacity(self.stages.len() * 20);
        for (stage, ms) in &self.stages {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{stage};dur={ms:.3}");
        }
        text
    }
}

/// What is written down when a reply is over, however it ends.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) request_id: String,
    pub(crate) tenant: String,
    pub(crate) principal: String,
    pub(crate) route: String,
    pub(crate) model: String,
    pub(crate) generation: u64,
    pub(crate) began: Instant,
    pub(crate) usage: Usage,
    pub(crate) flags: Vec<Flag>,
    /// `None`: the client went away.
    pub(crate) end: Option<End>,
    /// When the model had it; `None` where no model was asked.
    pub(crate) timing: Option<Timing>,
    /// Whether a model had it that embeds or ranks, which is one step without stages.
    pub(crate) is_embedded: bool,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) span: Span,
}

/// How a reply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Finished(FinishReason),
    /// Of what kind, and with which code.
    Failed(RefusalKind, String),
}

impl End {
    pub(crate) fn failed(refusal: &Refusal) -> Self {
        End::Failed(refusal.kind, refusal.code.clone())
    }
}

impl Record {
    /// Another model may answer than the one that was meant: what is counted is this one's.
    pub(crate) fn answers(&mut self, model: &Answering) {
        if self.model != model.id() {
            model.id().clone_into(&mut self.model);
            self.metrics = Arc::clone(model.metrics());
            self.span.record("gen_ai.response.model", model.id());
        }
    }

    pub(crate) fn flag(&mut self, flags: Vec<Flag>) {
        for flag in flags {
            let is_full = self.flags.len() >= MAX_FLAGS;
            match self.flags.iter_mut().find(|known| known.name == flag.name) {
                Some(known) => known.count = known.count.saturating_add(flag.count),
                None if is_full => {}
                None => self.flags.push(flag),
            }
        }
    }

    /// Counts what the model did, and closes the books of the span.
    fn count(&self) {
        let how = match &self.end {
            None => Ended::Cancelled,
            Some(End::Finished(_)) => Ended::Whole,
            Some(End::Failed(kind, _)) => Ended::Failed(*kind),
        };
        trace::ended(self, how);
        if self.is_embedded || self.timing.is_some() {
            self.metrics.ended(how, self.began.elapsed(), self.usage);
        }
        let Some(timing) = self.timing else { return };
        if let Some(waited) = timing.queued() {
            self.metrics.queued(waited);
        }
        if let (Ended::Whole, Some(first), Some(decoding)) = (how, timing.first_token, timing.decoding()) {
            let first = first.saturating_duration_since(self.began);
            self.metrics.pace(first, self.usage.completion.saturating_sub(1), decoding);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.count();
        let end = match &self.end {
            None => "client gone".to_owned(),
            Some(End::Finished(reason)) => format!("{reason:?}"),
            Some(End::Failed(_, code)) => code.clone(),
        };
        let flags = self.flags.iter().map(|flag| format!("{}={}", flag.name, flag.count)).collect::<Vec<_>>().join(" ");
        tracing::info!(
            target: "reply",
            request_id = self.request_id,
            tenant = self.tenant,
            principal = self.principal,
            route = self.route,
            model = self.model,
            generation = self.generation,
            prompt_tokens = self.usage.prompt,
            cached_tokens = self.usage.cached,
            completion_tokens = self.usage.completion,
            duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            end,
            flags,
            "reply ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_a_header() {
        let mut timings = Timings::start();
        timings.lap("identify");
        timings.lap("compose");
        let header = timings.header();
        assert!(header.starts_with("identify;dur=") && header.contains(", compose;dur="), "{header}");
    }
}
