//! The span of one request, within the caller's trace if it sent one.

use tracing::Span;
use tracing::field::Empty;

use super::TARGET;
use crate::TraceContext;

/// Begins the spans of requests. Clones are alike.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Sampler>);

/// Which traces are kept.
#[derive(Debug, Clone, Copy)]
struct Sampler {
    /// Those whose id is below, of 2^56; the last 56 bits of an id are random (W3C Trace Context, level 2).
    below: u64,
    follow_parent: bool,
}

/// A request's place in a trace.
#[derive(Debug, Clone)]
pub struct RequestTrace {
    /// Its span, for what happens in it to be children of; disabled where its trace is not kept.
    pub span: Span,
    /// What is sent on as `traceparent` (W3C Trace Context): the caller's trace, or a new one, with a span of our own. `None` if the
    /// machine gives no random numbers.
    pub traceparent: Option<String>,
}

impl Tracer {
    /// Keeps the share `sampling` of traces, 0 to 1, told by the trace's id; with `follow_parent` a caller's `traceparent` decides
    /// instead where there is one.
    pub(super) fn new(sampling: f64, follow_parent: bool) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the share is 0 to 1, so that this is 0 to 2^56"
        )]
        let below = (sampling.clamp(0.0, 1.0) * 2.0_f64.powi(56)) as u64;
        Tracer(Some(Sampler { below, follow_parent }))
    }

    /// Begins the span of a request. `traceparent` is the caller's, if it sent any; `scheme` is `http` or `https`.
    ///
    /// Whoever answers records `otel.name`, `http.request.method`, `http.route`, `http.response.status_code` and, where something
    /// is wrong, `error.type` and `otel.status_code`.
    #[must_use]
    pub fn begin(&self, traceparent: Option<&str>, request_id: &str, scheme: &str) -> RequestTrace {
        let caller = traceparent.and_then(TraceContext::parse);
        let Ok(ours) = caller.map_or_else(TraceContext::begin, TraceContext::child) else {
            return RequestTrace { span: Span::none(), traceparent: None };
        };
        let Some(sampler) = self.0 else {
            // Without an exporter the trace goes on all the same.
            return RequestTrace { span: Span::none(), traceparent: Some(ours.to_string()) };
        };
        let ours = TraceContext { sampled: sampler.keeps(caller, ours), ..ours };
        let traceparent = ours.to_string();
        let span = if ours.sampled { span(caller, &traceparent, request_id, scheme) } else { Span::none() };
        RequestTrace { span, traceparent: Some(traceparent) }
    }
}

impl Sampler {
    fn keeps(self, caller: Option<TraceContext>, ours: TraceContext) -> bool {
        match caller {
            Some(caller) if self.follow_parent => caller.sampled,
            _ => {
                let [.., a, b, c, d, e, f, g] = ours.trace.to_be_bytes();
                u64::from_be_bytes([0, a, b, c, d, e, f, g]) < self.below
            }
        }
    }
}

fn span(caller: Option<TraceContext>, traceparent: &str, request_id: &str, scheme: &str) -> Span {
    tracing::info_span!(
        target: TARGET,
        parent: None,
        "request",
        trace.context = traceparent,
        trace.parent = caller.map(|caller| caller.parent),
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        "http.request.method" = Empty,
        "http.route" = Empty,
        "http.response.status_code" = Empty,
        "error.type" = Empty,
        "url.scheme" = scheme,
        "tollgate.request_id" = request_id,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn is_kept(tracer: &Tracer, traceparent: Option<&str>) -> bool {
        let trace = tracer.begin(traceparent, "r", "https");
        let ours = TraceContext::parse(&trace.traceparent.expect("random numbers")).expect("valid");
        if let Some(caller) = traceparent.and_then(TraceContext::parse) {
            assert_eq!(ours.trace, caller.trace);
            assert_ne!(ours.parent, caller.parent);
        }
        ours.sampled
    }

    #[test]
    fn the_share_decides_or_the_caller() {
        for (sampling, follow_parent, traceparent, kept) in [
            (1.0, false, None, true),
            (0.0, false, None, false),
            (1.0, false, Some(CALLER), true),
            (0.0, false, Some(CALLER), false),
            (0.0, true, Some(CALLER), true),
            (0.0, true, None, false),
            (1.0, true, None, true),
            (1.0, true, Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), false),
        ] {
            let tracer = Tracer::new(sampling, follow_parent);
            assert_eq!(is_kept(&tracer, traceparent), kept, "{sampling} {follow_parent} {traceparent:?}");
        }
    }

    #[test]
    fn a_share_is_about_that_many_and_the_same_trace_is_always_judged_alike() {
        let tracer = Tracer::new(0.25, false);
        let kept = (0..4_000).filter(|_| is_kept(&tracer, None)).count();
        assert!((800..1_200).contains(&kept), "{kept}");
        let first = is_kept(&tracer, Some(CALLER));
        assert!((0..10).all(|_| is_kept(&tracer, Some(CALLER)) == first));
    }

    #[test]
    fn without_an_exporter_the_trace_goes_on() {
        let trace = Tracer::default().begin(Some(CALLER), "r", "https");
        assert!(trace.span.is_disabled());
        assert!(
            trace
                .traceparent
                .is_some_and(|ours| ours.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && ours.ends_with("-01"))
        );
    }
}
