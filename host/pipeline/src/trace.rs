//! The spans of a request: its stages, and the model's work by OpenTelemetry's words for generative models.
//!
//! They go through the `tracing` facade and cost nothing where the request's own span is disabled. No prompt and no reply is in
//! them, and no name as a client wrote it.

use std::time::Instant;

use tollgate_domain::{ChatRequest, FinishReason};
use tollgate_models::{Ended, Timing};
use tracing::Span;
use tracing::field::Empty;

use crate::record::{End, Record};

/// One stage within `parent`; it ends when it is dropped.
pub(crate) fn stage(parent: &Span, name: &'static str) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(target: "span", parent: parent, "stage", otel.name = name)
}

/// What `model` is asked, and what comes of it.
pub(crate) fn chat(parent: &Span, request: &ChatRequest, model: &str, is_stream: bool) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    let parameters = &request.parameters;
    tracing::info_span!(
        target: "span",
        parent: parent,
        "chat",
        otel.name = format!("chat {model}"),
        otel.status_code = Empty,
        "gen_ai.operation.name" = "chat",
        "gen_ai.provider.name" = "tollgate",
        "gen_ai.request.model" = model,
        "gen_ai.request.stream" = is_stream,
        "gen_ai.request.max_tokens" = parameters.max_tokens.map(i64::from),
        "gen_ai.request.temperature" = parameters.temperature.and_then(as_written),
        "gen_ai.request.top_p" = parameters.top_p.and_then(as_written),
        "gen_ai.request.frequency_penalty" = parameters.frequency_penalty.and_then(as_written),
        "gen_ai.request.presence_penalty" = parameters.presence_penalty.and_then(as_written),
        "gen_ai.output.type" = if request.format.is_some() { "json" } else { "text" },
        "gen_ai.response.model" = model,
        "gen_ai.response.finish_reasons" = Empty,
        "gen_ai.response.time_to_first_chunk" = Empty,
        "gen_ai.usage.input_tokens" = Empty,
        "gen_ai.usage.output_tokens" = Empty,
        "gen_ai.usage.cache_read.input_tokens" = Empty,
        "error.type" = Empty,
    )
}

/// What `model` is asked to embed or to rank, and what comes of it. `operation` is the word of [`tollgate_models::operation`].
pub(crate) fn embed(parent: &Span, operation: &'static str, model: &str) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    tracing::info_span!(
        target: "span",
        parent: parent,
        "embed",
        otel.name = format!("{operation} {model}"),
        otel.status_code = Empty,
        "gen_ai.operation.name" = operation,
        "gen_ai.provider.name" = "tollgate",
        "gen_ai.request.model" = model,
        "gen_ai.response.model" = model,
        "gen_ai.usage.input_tokens" = Empty,
        "error.type" = Empty,
    )
}

/// Writes down how it ended, and the stages that it had in the model.
pub(crate) fn ended(record: &Record, how: Ended) {
    let span = &record.span;
    if span.is_disabled() {
        return;
    }
    span.record("gen_ai.usage.input_tokens", i64::from(record.usage.prompt));
    span.record("gen_ai.usage.output_tokens", i64::from(record.usage.completion));
    span.record("gen_ai.usage.cache_read.input_tokens", i64::from(record.usage.cached));
    if let Some(End::Finished(reason)) = &record.end {
        span.record("gen_ai.response.finish_reasons", name_of(*reason));
    }
    if how != Ended::Whole {
        span.record("error.type", how.error_type());
        span.record("otel.status_code", "error");
    }
    let Some(timing) = record.timing else { return };
    if let Some(first) = timing.first_token {
        span.record("gen_ai.response.time_to_first_chunk", first.saturating_duration_since(record.began).as_secs_f64());
    }
    in_the_model(span, timing);
}

/// The model's thread makes no spans: they are told of when all is over.
fn in_the_model(span: &Span, timing: Timing) {
    let now = Instant::now();
    let Timing { submitted, placed, first_token, last_token } = timing;
    let stages = [
        ("queue", Some(submitted), placed.unwrap_or(now)),
        ("prefill", placed, first_token.unwrap_or(now)),
        ("decode", first_token, last_token.unwrap_or(now)),
    ];
    for (name, from, to) in stages {
        let Some(from) = from else { continue };
        // It is over as soon as it is told of.
        let _ = tracing::info_span!(
            target: "span",
            parent: span,
            "stage",
            otel.name = name,
            trace.ago_s = now.saturating_duration_since(from).as_secs_f64(),
            trace.took_s = to.saturating_duration_since(from).as_secs_f64(),
        );
    }
}

/// 0.7 and not 0.699999988.
fn as_written(number: f32) -> Option<f64> {
    number.to_string().parse().ok()
}

fn name_of(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::ToolCalls => "tool_calls",
    }
}
