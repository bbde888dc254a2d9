//! Traces, sent by OTLP over HTTP: from the spans of the `tracing` facade to a collector.
//!
//! A span is one of ours if its target is `span`; nobody else's is looked at. What is exported never holds a prompt, a reply, a
//! key or a path as a client wrote it: attributes are named one by one where the spans are made (P-A8).

mod client;
mod layer;
mod otlp;
mod queue;
mod request;
mod span;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_config::Telemetry;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use client::Client;
use layer::Spans;
use queue::{Exporter, Queue, Worker};
use span::Value;

pub use request::{RequestTrace, Tracer};

/// The target of the spans that become traces.
const TARGET: &str = "span";

/// A file with headers may have this many bytes, and this many headers.
const MAX_HEADERS_BYTES: u64 = 64 << 10;
const MAX_HEADERS: usize = 32;

/// Traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A file could not be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line of the headers' file is none. The line itself is not repeated: it may hold a key.
    #[error("{}: line {line} is no header: write `name: value`, {MAX_HEADERS} at most", .path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// A file of authorities has none that can be used.
    #[error("{}: {reason}", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system has no authorities to trust.
    #[error("the system has no file of trusted authorities: name the collector's in `telemetry.ca`")]
    NoAuthorities,
    /// Anything else that a setting leads to.
    #[error("traces cannot be set up: {0}")]
    Setup(String),
}

/// The exporter of a running process.
#[derive(Debug)]
pub struct Traces {
    tracer: Tracer,
    queue: Queue,
    worker: Worker,
}

impl Traces {
    /// Sets up the exporter that `settings` describe; none where they name no collector. Paths are relative to `dir`. Its spans
    /// are counted if the metrics were installed before.
    ///
    /// # Errors
    /// A file that is named cannot be used, or the machine gives no thread.
    pub fn new(settings: &Telemetry, dir: &Path) -> Result<Option<Self>, TracesError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let headers = settings.headers_file.as_ref().map(|path| headers(&dir.join(path))).transpose()?;
        let ca = settings.ca.as_ref().map(|path| dir.join(path));
        let exporter = Exporter {
            client: Client::new(endpoint, ca.as_deref(), headers.unwrap_or_default())?,
            resource: resource(&settings.service_name),
            interval: Duration::from_secs(u64::from(settings.interval_s)),
            timeout: Duration::from_secs(u64::from(settings.timeout_s)),
        };
        let started = Queue::start(exporter, settings.queue as usize);
        let (queue, worker) = started.map_err(|error| TracesError::Setup(error.to_string()))?;
        let tracer = Tracer::new(settings.sampling, settings.follow_parent);
        Ok(Some(Traces { tracer, queue, worker }))
    }

    /// What begins the spans of requests.
    #[must_use]
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Puts our spans into the queue when they end.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        Spans(self.queue.clone()).with_filter(filter_fn(is_ours).with_max_level_hint(LevelFilter::INFO))
    }

    /// Sends what waits, and takes nothing more. Returns when that is done, or at `deadline`; what is left then is lost. It waits:
    /// not for an async task.
    pub fn finish(&self, deadline: Instant) {
        self.worker.finish(deadline);
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Who sends the spans, by OpenTelemetry's conventions for resources.
fn resource(service: &str) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        ("service.name", text(service)),
        ("service.version", text(env!("CARGO_PKG_VERSION"))),
        ("service.instance.id", text(&uuid::Uuid::new_v4().to_string())),
    ]
}

/// The headers of a file: `name: value` per line; empty lines and those that begin with `#` are skipped.
fn headers(path: &Path) -> Result<HeaderMap, TracesError> {
    let read = |source| TracesError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_HEADERS_BYTES {
        return Err(read(std::io::Error::other(format!("it has more than {MAX_HEADERS_BYTES} bytes"))));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let mut headers = HeaderMap::new();
    for (at, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let header = line.split_once(':').and_then(|(name, value)| {
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        });
        let header = header.filter(|_| headers.len() < MAX_HEADERS);
        let (name, value) = header.ok_or_else(|| TracesError::Header { path: path.to_owned(), line: at + 1 })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_from_a_file_and_a_bad_line_is_named_but_not_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# for the collector\n\nAuthorization: Bearer a:b\nx-scope: 7\n").expect("written");
        let found = headers(file.path()).expect("headers");
        assert_eq!(found["authorization"], "Bearer a:b");
        assert_eq!(found.len(), 2);
        assert!(!format!("{found:?}").contains("Bearer"));
        for bad in ["hunter2", "a b: c", "a: b\u{1}c"] {
            std::fs::write(file.path(), format!("x: y\n{bad}\n")).expect("written");
            let error = headers(file.path()).expect_err("a bad line").to_string();
            assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        }
        assert!(headers(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn without_a_collector_there_are_no_traces() {
        assert!(Traces::new(&Telemetry::default(), Path::new(".")).expect("nothing to set up").is_none());
    }
}
