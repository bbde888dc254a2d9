//! Every metric there is: name, type, labels, meaning. What is not here is not recorded.
//!
//! Names are OpenTelemetry's where it has some, in Prometheus' form (dots become `_`, a unit and `_total` are added); own ones begin
//! with `tollgate_`. A label's values come from the config or from a list in the code, never from a client (P-E9). `docs/metrics.md`
//! says the same to readers, and a test compares the two with what a gateway answers.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many were how large, by these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Prometheus' word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, in one line.
    pub help: &'static str,
}

/// Where `name` is in [`FAMILIES`].
pub(super) fn position(name: &str) -> Option<usize> {
    FAMILIES.iter().position(|family| family.name == name)
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], bounds: &'static [f64], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram(bounds), labels, help }
}

/// From a refusal (1 ms) to the longest reply (10 min); OpenTelemetry's bounds end at 10 s.
const HTTP_S: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// OpenTelemetry's, and three more for long replies.
const REQUEST_S: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36];
/// OpenTelemetry's, and two more for long prompts on a CPU.
const FIRST_TOKEN_S: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];
/// OpenTelemetry's, and three more for small models.
const PER_TOKEN_S: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// OpenTelemetry's, up to the longest context.
const TOKENS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];
/// From the push of a piece (2.5 us) to a guest at its limits.
const PLUGIN_S: &[f64] =
    &[0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];
const QUEUE_S: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// The buckets that an engine keeps.
const ROWS: &[f64] = &[1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0, 255.0, 511.0];

/// Of every GenAI metric.
const GEN_AI: &[&str] = &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"];

/// Every metric there is.
pub static FAMILIES: &[Family] = &[
    gauge("tollgate_build_info", &["version", "contract"], "Always 1; which gateway this is, and the plugin contract it speaks."),
    // HTTP.
    histogram(
        "http_server_request_duration_seconds",
        &["http_request_method", "http_route", "http_response_status_code", "url_scheme"],
        HTTP_S,
        "Time from a request's head to the last byte of its answer. Status 499: the client left before there was one.",
    ),
    counter(
        "tollgate_refusals_total",
        &["kind"],
        "Requests that got no answer, or none that is whole, by what kind of no it was.",
    ),
    // Listeners.
    gauge("tollgate_connections", &["listener"], "Open connections."),
    counter("tollgate_connections_accepted_total", &["listener"], "Connections accepted."),
    counter("tollgate_connections_refused_total", &["listener"], "Connections closed at once because a cap was reached."),
    gauge("tollgate_requests_in_flight", &["listener"], "Requests between their head and the last byte of their answer."),
    counter(
        "tollgate_edge_rejections_total",
        &["listener", "code"],
        "Requests that were malformed or too large, answered before anything else saw them.",
    ),
    counter("tollgate_tls_handshakes_failed_total", &["listener", "reason"], "TLS handshakes that came to nothing."),
    gauge(
        "tollgate_certificate_expiry_timestamp_seconds",
        &["listener"],
        "When the certificate that is served ends, in seconds since 1970.",
    ),
    // Models.
    histogram(
        "gen_ai_server_request_duration_seconds",
        &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"],
        REQUEST_S,
        "Time from a request's admission to the end of its reply; error_type is empty where the reply is whole.",
    ),
    histogram(
        "gen_ai_server_time_to_first_token_seconds",
        GEN_AI,
        FIRST_TOKEN_S,
        "Time from a request's admission to its first token, of replies that are whole.",
    ),
    histogram(
        "gen_ai_server_time_per_output_token_seconds",
        GEN_AI,
        PER_TOKEN_S,
        "Time per token after the first, of replies that are whole.",
    ),
    histogram(
        "gen_ai_client_token_usage",
        &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"],
        TOKENS,
        "Tokens of a request (input) and of its reply (output).",
    ),
    histogram(
        "tollgate_model_queue_duration_seconds",
        &["model"],
        QUEUE_S,
        "Time from a request's place in the queue to its place in the model.",
    ),
    gauge(
        "tollgate_model_alive",
        &["model"],
        "1 while the model takes requests, 0 when it ended and has to be loaded again, or its provider's breaker is not closed.",
    ),
    counter(
        "tollgate_model_fallbacks_total",
        &["model", "to", "reason"],
        "Times that another model was to answer in the place of one that could not.",
    ),
    gauge("tollgate_model_requests_waiting", &["model"], "Requests that wait for a place in the model."),
    gauge("tollgate_model_requests_running", &["model"], "Requests that are being decoded."),
    gauge("tollgate_model_requests_parked", &["model"], "Requests whose reader has stalled."),
    gauge("tollgate_model_sequences", &["model"], "Requests that can be decoded at once."),
    counter("tollgate_model_preemptions_total", &["model"], "Times that a request lost its place in the cache to others."),
    gauge("tollgate_model_cache_cells_used", &["model"], "Cells of the key-value cache that requests hold or have reserved."),
    gauge("tollgate_model_cache_cells", &["model"], "Cells of the key-value cache."),
    histogram("tollgate_model_step_rows", &["model"], ROWS, "Sequences that had a token sampled in a step."),
    counter("tollgate_model_steps_total", &["model"], "Steps decoded, those of nothing but prompts included."),
    counter("tollgate_model_decoded_tokens_total", &["model"], "Tokens of replies decoded."),
    counter(
        "tollgate_model_prefilled_tokens_total",
        &["model"],
        "Tokens of prompts decoded, and of replies that had to be computed again.",
    ),
    counter("tollgate_model_cached_tokens_total", &["model"], "Tokens of prompts that were found in the cache."),
    counter(
        "tollgate_model_restored_tokens_total",
        &["model"],
        "Tokens that a request got back with a new place in the cache, without computing them again.",
    ),
    gauge("tollgate_model_loaded", &["model"], "1 while the model is in memory, 0 when its next request loads it."),
    gauge("tollgate_model_leases", &["model"], "Requests that use the model; it stays in memory while there are any."),
    gauge("tollgate_model_predicted_bytes", &["model"], "Memory that the model takes, predicted before it is loaded."),
    gauge(
        "tollgate_model_memory_bytes",
        &["model"],
        "Memory that the loaded model takes: what its backend says, or what was seen if that is more.",
    ),
    gauge("tollgate_model_grown_bytes", &["model"], "Bytes by which the process grew while the model was loaded."),
    gauge("tollgate_models_budget_bytes", &[], "Memory that all models together may take."),
    gauge("tollgate_models_held_bytes", &[], "Memory of all models that are loaded, being loaded or being unloaded."),
    gauge("tollgate_models_requests_waiting", &[], "Requests that wait for a model to be loaded."),
    counter("tollgate_models_loads_total", &[], "Models loaded."),
    counter("tollgate_models_unloads_total", &[], "Models unloaded."),
    gauge("tollgate_model_load_duration_seconds", &["model"], "How long loading it took."),
    gauge("tollgate_model_info", &["model", "digest"], "Always 1; the artifact that answers under this id."),
    // Plugins.
    histogram(
        "tollgate_plugin_call_duration_seconds",
        &["plugin", "hook", "outcome"],
        PLUGIN_S,
        "Time of one call of a plugin. The outcome is ok, refused (the plugin said no) or killed.",
    ),
    counter("tollgate_plugin_kills_total", &["plugin", "reason"], "Plugin instances that were ended because they failed."),
    gauge("tollgate_plugin_slots", &[], "Plugin instances that may be alive at once."),
    gauge("tollgate_plugin_slots_free", &[], "Those of them that nobody has reserved."),
    gauge("tollgate_plugin_info", &["plugin", "version", "digest"], "Always 1; the component that serves under this id."),
    // Configuration.
    gauge("tollgate_generation", &[], "The configuration's generation that serves new requests."),
    gauge("tollgate_generations_live", &[], "Generations that still serve a request."),
    counter("tollgate_reloads_total", &["outcome"], "Changes of the configuration that took effect (ok) or did not (failed)."),
    gauge("tollgate_reload_duration_seconds", &[], "How long the last build of a generation took."),
    gauge("tollgate_quarantined", &[], "Things in the configuration that failed and do not serve."),
    gauge("tollgate_ready", &[], "1 while requests are taken."),
    // Traces.
    counter(
        "tollgate_trace_spans_total",
        &["outcome"],
        "Spans that were exported, that failed to be, or that were dropped at a full queue.",
    ),
    // The process, by Prometheus' own names.
    counter("process_cpu_seconds_total", &[], "CPU time, in seconds."),
    gauge("process_resident_memory_bytes", &[], "Resident memory."),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory; plugins reserve address space without taking memory."),
    gauge("process_open_fds", &[], "Open file descriptors."),
    gauge("process_max_fds", &[], "File descriptors that may be open."),
    gauge("process_threads", &[], "Threads."),
    gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let names = FAMILIES.iter().map(|family| family.name).collect::<BTreeSet<_>>();
        assert_eq!(names.len(), FAMILIES.len(), "a name is there twice");
        for family in FAMILIES {
            let is_word =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(is_word(family.name) && family.labels.iter().all(|label| is_word(label)), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            assert!(["tollgate_", "http_", "gen_ai_", "process_"].iter().any(|prefix| family.name.starts_with(prefix)));
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\']), "{}", family.name);
            assert!(!family.labels.contains(&"le"), "{}", family.name);
            if let Kind::Histogram(bounds) = family.kind {
                assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{}", family.name);
                assert!((4..=20).contains(&bounds.len()), "{}", family.name);
            }
        }
    }
}
