//! What is counted of a model's replies, by OpenTelemetry's names for generative models. The handles are kept with the model, so
//! that counting looks nothing up.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use tollgate_config::Task;
use tollgate_domain::{RefusalKind, Usage};

/// Who runs the models.
const PROVIDER: &str = "tollgate";
/// The `error_type` of a reply whose client left.
const CANCELLED: &str = "cancelled";

/// How a reply ended, as far as metrics tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is whole.
    Whole,
    /// The client left.
    Cancelled,
    /// It could not be finished.
    Failed(RefusalKind),
}

/// What is asked of a model, by OpenTelemetry's names as far as it has one.
#[must_use]
pub fn operation(task: Task) -> &'static str {
    match task {
        Task::Generate => "chat",
        Task::Embed => "embeddings",
        Task::Rerank => "rerank",
    }
}

impl Ended {
    /// The value of `error.type`; empty where nothing is wrong.
    #[must_use]
    pub fn error_type(self) -> &'static str {
        match self {
            Ended::Whole => "",
            Ended::Cancelled => CANCELLED,
            Ended::Failed(kind) => kind.as_str(),
        }
    }

    fn index(self) -> usize {
        match self {
            Ended::Whole => 0,
            Ended::Cancelled => 1,
            Ended::Failed(kind) => RefusalKind::ALL.iter().position(|known| *known == kind).map_or(1, |at| at + 2),
        }
    }
}

/// The histograms of one model.
#[derive(Debug)]
pub struct ModelMetrics {
    model: String,
    operation: &'static str,
    /// By [`Ended::index`]; a failure is counted from its first time on.
    durations: [OnceLock<Histogram>; RefusalKind::ALL.len() + 2],
    first_token: Histogram,
    per_token: Histogram,
    input: Histogram,
    output: Histogram,
    queue: Histogram,
    /// By who answered in its place, and why. A count is forgotten with its last handle.
    fallbacks: Mutex<BTreeMap<(String, &'static str), Counter>>,
}

impl ModelMetrics {
    pub(crate) fn new(model: &str, task: Task) -> Self {
        let operation = operation(task);
        let tokens = |kind: &'static str| {
            histogram!(
                "gen_ai_client_token_usage",
                "gen_ai_operation_name" => operation,
                "gen_ai_provider_name" => PROVIDER,
                "gen_ai_request_model" => model.to_owned(),
                "gen_ai_token_type" => kind,
            )
        };
        let metrics = ModelMetrics {
            durations: std::array::from_fn(|_| OnceLock::new()),
            first_token: histogram!(
                "gen_ai_server_time_to_first_token_seconds",
                "gen_ai_operation_name" => operation,
                "gen_ai_provider_name" => PROVIDER,
                "gen_ai_request_model" => model.to_owned(),
            ),
            per_token: histogram!(
                "gen_ai_server_time_per_output_token_seconds",
                "gen_ai_operation_name" => operation,
                "gen_ai_provider_name" => PROVIDER,
                "gen_ai_request_model" => model.to_owned(),
            ),
            input: tokens("input"),
            output: tokens("output"),
            queue: histogram!("tollgate_model_queue_duration_seconds", "model" => model.to_owned()),
            fallbacks: Mutex::default(),
            model: model.to_owned(),
            operation,
        };
        metrics.duration(Ended::Whole);
        metrics
    }

    /// Counts a reply that ended `took` after its admission.
    pub fn ended(&self, how: Ended, took: Duration, usage: Usage) {
        self.duration(how).record(took.as_secs_f64());
        self.input.record(f64::from(usage.prompt));
        self.output.record(f64::from(usage.completion));
    }

    /// Counts that `to` answers in its place.
    pub fn fell_back(&self, to: &str, reason: &'static str) {
        let mut fallbacks = self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = fallbacks.entry((to.to_owned(), reason)).or_insert_with(|| {
            counter!("tollgate_model_fallbacks_total", "model" => self.model.clone(), "to" => to.to_owned(), "reason" => reason)
        });
        counter.increment(1);
    }

    /// Counts how long a request waited for its place.
    pub fn queued(&self, time: Duration) {
        self.queue.record(time.as_secs_f64());
    }

    /// Counts the pace of a whole reply: the time to its first token, and the time of the `later` ones together.
    pub fn pace(&self, first_token: Duration, later: u32, decoding: Duration) {
        self.first_token.record(first_token.as_secs_f64());
        if later > 0 {
            self.per_token.record(decoding.as_secs_f64() / f64::from(later));
        }
    }

    fn duration(&self, how: Ended) -> &Histogram {
        let [whole, others @ ..] = &self.durations;
        let cell = how.index().checked_sub(1).and_then(|at| others.get(at)).unwrap_or(whole);
        cell.get_or_init(|| {
            histogram!(
                "gen_ai_server_request_duration_seconds",
                "gen_ai_operation_name" => self.operation,
                "gen_ai_provider_name" => PROVIDER,
                "gen_ai_request_model" => self.model.clone(),
                "error_type" => how.error_type(),
            )
        })
    }
}
