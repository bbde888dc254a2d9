//! What is counted of requests, by labels that come from this crate's own tables and never from a client (P-E9).

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::Duration;

use http::Method;
use metrics::{Counter, Histogram, counter, histogram};
use tollgate_domain::RefusalKind;

use crate::failure::Failure;

/// The route of what no route takes.
pub(crate) const NO_ROUTE: &str = "other";
/// The status of a request whose client left before there was an answer.
const CLIENT_GONE: u16 = 499;
/// What a failure that is no refusal of `domain` is called.
const OWN_KINDS: [&str; 4] = ["method", "media-type", "timeout", "internal"];

/// What a request is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    /// `None`: the client left before there was one.
    pub(crate) status: Option<u16>,
    pub(crate) scheme: &'static str,
}

/// Handles are found once per set of labels: after that counting allocates nothing.
static DURATIONS: LazyLock<RwLock<HashMap<Labels, Histogram>>> = LazyLock::new(RwLock::default);

static REFUSALS: LazyLock<Vec<(&'static str, Counter)>> = LazyLock::new(|| {
    let kinds = RefusalKind::ALL.into_iter().map(RefusalKind::as_str).chain(OWN_KINDS);
    kinds.map(|kind| (kind, counter!("tollgate_refusals_total", "kind" => kind))).collect()
});

/// Has every kind of refusal counted from zero, so that the first of a kind is seen as an increase.
pub(crate) fn begin() {
    LazyLock::force(&REFUSALS);
}

/// The method, as far as any route takes it. The client's own text is never a label.
pub(crate) fn method(method: &Method) -> &'static str {
    ["GET", "HEAD", "POST"].into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// What kind of no it is.
pub(crate) fn kind(failure: &Failure) -> &'static str {
    let [method, media_type, timeout, internal] = OWN_KINDS;
    match failure {
        Failure::Refused(refusal) => refusal.kind.as_str(),
        Failure::WrongMethod { .. } => method,
        Failure::NotJson => media_type,
        Failure::TooSlow => timeout,
        Failure::Internal(_) => internal,
    }
}

/// Counts a request that is over.
pub(crate) fn request(labels: Labels, took: Duration, refusal: Option<&'static str>) {
    if let Some((_, count)) = refusal.and_then(|kind| REFUSALS.iter().find(|(known, _)| *known == kind)) {
        count.increment(1);
    }
    if let Some(duration) = DURATIONS.read().unwrap_or_else(PoisonError::into_inner).get(&labels) {
        return duration.record(took.as_secs_f64());
    }
    let handle = histogram!(
        "http_server_request_duration_seconds",
        "http_request_method" => labels.method,
        "http_route" => labels.route,
        "http_response_status_code" => labels.status.unwrap_or(CLIENT_GONE).to_string(),
        "url_scheme" => labels.scheme,
    );
    let mut durations = DURATIONS.write().unwrap_or_else(PoisonError::into_inner);
    durations.entry(labels).or_insert(handle).record(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_kind_that_is_counted() {
        let failures = [
            Failure::unknown_path(),
            Failure::WrongMethod { allow: "GET" },
            Failure::NotJson,
            Failure::TooSlow,
            Failure::unfinished(),
        ];
        for failure in failures {
            assert!(REFUSALS.iter().any(|(known, _)| *known == kind(&failure)), "{failure:?}");
        }
    }

    #[test]
    fn a_method_of_the_clients_own_making_is_no_label() {
        assert_eq!(method(&Method::POST), "POST");
        for other in ["PATCH", "SECRET", "get"] {
            assert_eq!(method(&Method::from_bytes(other.as_bytes()).unwrap()), "_OTHER");
        }
    }
}
