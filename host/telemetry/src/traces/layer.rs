//! From the spans of the `tracing` facade to spans that are sent.
//!
//! Fields become attributes, but for a few that say something of the span itself: `otel.name`, `otel.kind` (`server`) and
//! `otel.status_code` (`error`), as others use them too, and our own `trace.*` below. A span without a place in a trace of ours, by its
//! parent or by `trace.context`, is none of ours.

use std::fmt::{Debug, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::queue::Queue;
use super::span::{Kind, Span, Value};
use crate::TraceContext;

/// The request's own trace and span, as a `traceparent`.
pub(super) const CONTEXT: &str = "trace.context";
/// The caller's span.
pub(super) const PARENT: &str = "trace.parent";
/// A span that is told of afterwards: how long ago it began, and how long it took, in seconds.
const AGO_S: &str = "trace.ago_s";
const TOOK_S: &str = "trace.took_s";
/// OpenTelemetry wants a list here, which the facade has no way to say.
const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";

/// Characters of a text. What is recorded is shorter; this is so that no mistake makes a span large.
const MAX_TEXT: usize = 1_024;

/// The layer.
#[derive(Debug)]
pub(super) struct Spans(pub(super) Queue);

/// A span that has not ended.
#[derive(Debug)]
struct Open {
    trace: u128,
    id: u64,
    parent: u64,
    began: Instant,
    began_at: SystemTime,
    name: &'static str,
    fields: Fields,
}

/// What the fields of a span say.
#[derive(Debug, Default)]
struct Fields {
    context: Option<TraceContext>,
    parent: u64,
    ago: Option<Duration>,
    took: Option<Duration>,
    name: Option<String>,
    kind: Kind,
    is_error: bool,
    attributes: Vec<(&'static str, Value)>,
}

impl<S> Layer<S> for Spans
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let (trace, id, parent) = match fields.context {
            Some(ours) => (ours.trace, ours.parent, fields.parent),
            None => {
                let above = span.parent();
                let above = above.as_ref().map(tracing_subscriber::registry::SpanRef::extensions);
                let Some(above) = above.as_ref().and_then(|extensions| extensions.get::<Open>()) else { return };
                let Ok(own) = getrandom::u64() else { return };
                (above.trace, own.max(1), above.id)
            }
        };
        let name = attributes.metadata().name();
        let open = Open { trace, id, parent, began: Instant::now(), began_at: SystemTime::now(), name, fields };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let open = context.span(&id).and_then(|span| span.extensions_mut().remove::<Open>());
        if let Some(open) = open {
            self.0.push(open.end());
        }
    }
}

impl Open {
    /// The span as it is now, over.
    fn end(self) -> Span {
        let Fields { ago, took, name, kind, is_error, attributes, .. } = self.fields;
        let began = self.began_at.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago.unwrap_or_default());
        // By the monotonic clock: the other one may be set meanwhile.
        let ended = began.saturating_add(took.unwrap_or_else(|| self.began.elapsed()));
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Span {
            trace: self.trace,
            id: self.id,
            parent: self.parent,
            name: name.unwrap_or_else(|| self.name.to_owned()),
            kind,
            start_ns: ns(began),
            end_ns: ns(ended),
            attributes,
            is_error,
        }
    }
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match self.attributes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let text = || value.chars().take(MAX_TEXT).collect::<String>();
        match field.name() {
            "otel.name" => self.name = Some(text()),
            "otel.kind" => self.kind = if value == "server" { Kind::Server } else { Kind::Internal },
            "otel.status_code" => self.is_error = value == "error",
            CONTEXT => self.context = TraceContext::parse(value),
            FINISH_REASONS => self.set(field, Value::Texts(vec![text()])),
            _ => self.set(field, Value::Text(text())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            PARENT => self.parent = value,
            _ => self.set(field, Value::Int(i64::try_from(value).unwrap_or(i64::MAX))),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let duration = || Duration::try_from_secs_f64(value).ok();
        match field.name() {
            AGO_S => self.ago = duration(),
            TOOK_S => self.took = duration(),
            _ => self.set(field, Value::Float(value)),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing to a string fails only if the value does.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}
