//! `traceparent`: what is taken is what is passed on.
#![no_main]
#![allow(dead_code, reason = "parts of crates are taken in by path")]

#[path = "../../host/telemetry/src/ids.rs"]
mod ids;

libfuzzer_sys::fuzz_target!(|header: &str| {
    if let Some(context) = ids::TraceContext::parse(header) {
        assert_eq!(ids::TraceContext::parse(&context.to_string()), Some(context));
        assert_eq!(context.trace_id(), header[3..35]);
    }
});
