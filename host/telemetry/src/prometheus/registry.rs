//! The recorder: a handle per series, shared by all who ask for it.
//!
//! A series lives as long as somebody holds its handle: what counts for a plugin or a model goes with it, and a gateway whose
//! config changes a thousand times has no more series than its config has objects.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::series::{Buckets, Count};
use super::table::{self, FAMILIES, Kind};
use super::text::Scrape;

/// Series of one metric. The labels are bounded by the config; this bounds what their product may come to.
const MAX_SERIES: usize = 4_096;

/// The values of a series' labels, in the order of the table.
type Values = Vec<String>;

/// All series, by metric.
#[derive(Debug)]
pub(crate) struct Registry {
    counters: Vec<RwLock<BTreeMap<Values, Arc<Count>>>>,
    histograms: Vec<RwLock<BTreeMap<Values, Arc<Buckets>>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            counters: FAMILIES.iter().map(|_| RwLock::default()).collect(),
            histograms: FAMILIES.iter().map(|_| RwLock::default()).collect(),
        }
    }
}

impl Registry {
    /// Writes all series, and then lets go of those that nobody holds: what they came to is told once more.
    pub(super) fn write(&self, scrape: &mut Scrape) {
        for (family, series) in FAMILIES.iter().zip(&self.counters) {
            let mut series = series.write().unwrap_or_else(PoisonError::into_inner);
            for (values, count) in series.iter() {
                scrape.value(family.name, &borrowed(values), exact(count.get()));
            }
            series.retain(|_, count| Arc::strong_count(count) > 1);
        }
        for (family, series) in FAMILIES.iter().zip(&self.histograms) {
            let mut series = series.write().unwrap_or_else(PoisonError::into_inner);
            for (values, buckets) in series.iter() {
                let (counts, sum) = buckets.get();
                scrape.histogram(family.name, &borrowed(values), &counts, sum);
            }
            series.retain(|_, buckets| Arc::strong_count(buckets) > 1);
        }
    }
}

/// The series of these values, made if need be.
fn series<T>(family: &RwLock<BTreeMap<Values, Arc<T>>>, values: Values, make: impl FnOnce() -> T) -> Option<Arc<T>> {
    let mut family = family.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = family.get(&values) {
        return Some(Arc::clone(known));
    }
    if family.len() >= MAX_SERIES {
        return None;
    }
    let made = Arc::new(make());
    family.insert(values, Arc::clone(&made));
    Some(made)
}

fn borrowed(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

/// A count as a number of the text format; above 2^53 its last digits go.
#[allow(clippy::cast_precision_loss, reason = "Prometheus has 64-bit floats only")]
pub(super) fn exact(count: u64) -> f64 {
    count as f64
}

/// Where `key` is in the table, and its label values in the table's order. A metric that is not there is a mistake in the code.
fn find(key: &Key, kind: impl Fn(&Kind) -> bool) -> Option<(usize, Values)> {
    let found = table::position(key.name()).filter(|at| FAMILIES.get(*at).is_some_and(|family| kind(&family.kind)));
    let values = found.and_then(|at| {
        let family = FAMILIES.get(at)?;
        let value = |name: &&str| key.labels().find(|label| label.key() == *name).map(|label| label.value().to_owned());
        let values = family.labels.iter().map(value).collect::<Option<Values>>()?;
        (key.labels().len() == values.len()).then_some((at, values))
    });
    if values.is_none() {
        tracing::error!(metric = key.name(), "a metric that is not in the table, or has other labels there");
    }
    values
}

impl Recorder for Registry {
    // The table describes them.
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        let found = find(key, |kind| matches!(kind, Kind::Counter));
        let series = found.and_then(|(at, values)| series(self.counters.get(at)?, values, Count::default));
        series.map_or_else(Counter::noop, Counter::from_arc)
    }

    /// There are none: a gauge is read from its owner at the scrape, so that it cannot be stale.
    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        tracing::error!(metric = key.name(), "gauges are read at the scrape and not set");
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        let found = find(key, |kind| matches!(kind, Kind::Histogram(_)));
        let series = found.and_then(|(at, values)| {
            let Kind::Histogram(bounds) = FAMILIES.get(at)?.kind else { return None };
            series(self.histograms.get(at)?, values, || Buckets::new(bounds))
        });
        series.map_or_else(Histogram::noop, Histogram::from_arc)
    }
}

#[cfg(test)]
mod tests {
    use metrics::{counter, histogram, with_local_recorder};

    use super::*;

    fn text(registry: &Registry) -> String {
        let mut scrape = Scrape::default();
        registry.write(&mut scrape);
        scrape.text()
    }

    #[test]
    fn a_series_is_shared_by_who_asks_and_goes_with_the_last_handle() {
        let registry = Registry::default();
        let handles = with_local_recorder(&registry, || {
            // In whatever order the labels come.
            let one = counter!("tollgate_plugin_kills_total", "plugin" => "a", "reason" => "cpu");
            let same = counter!("tollgate_plugin_kills_total", "reason" => "cpu", "plugin" => "a");
            (one, same)
        });
        handles.0.increment(2);
        handles.1.increment(1);
        let line = "tollgate_plugin_kills_total{plugin=\"a\",reason=\"cpu\"} 3\n";
        assert!(text(&registry).contains(line));
        drop(handles.0);
        assert!(text(&registry).contains(line));
        handles.1.increment(1);
        drop(handles.1);
        assert!(text(&registry).contains("} 4\n"), "what came last is told once more");
        assert!(!text(&registry).contains("tollgate_plugin_kills_total{"));
    }

    /// P-E9: what is not in the table does not exist.
    #[test]
    fn no_metric_and_no_label_beside_the_table() {
        let registry = Registry::default();
        let handles = with_local_recorder(&registry, || {
            [
                counter!("tollgate_made_up_total"),
                counter!("tollgate_refusals_total"),
                counter!("tollgate_refusals_total", "kind" => "a", "path" => "/x"),
                counter!("tollgate_refusals_total", "path" => "/x"),
                counter!("tollgate_generation"),
            ]
        });
        handles.iter().for_each(|handle| handle.increment(1));
        let samples = text(&registry).lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples, 0);
    }

    /// P-E9: even a label that nobody bounded cannot grow without end.
    #[test]
    fn series_have_a_bound() {
        let registry = Registry::default();
        let handles = with_local_recorder(&registry, || {
            let one = |number: usize| counter!("tollgate_refusals_total", "kind" => number.to_string());
            (0..MAX_SERIES + 100).map(one).collect::<Vec<_>>()
        });
        assert_eq!(handles.len(), MAX_SERIES + 100);
        assert_eq!(text(&registry).lines().filter(|line| line.starts_with("tollgate_refusals_total{")).count(), MAX_SERIES);
    }

    #[test]
    fn histograms_count_up() {
        let registry = Registry::default();
        let name = "tollgate_model_queue_duration_seconds";
        let handle = with_local_recorder(&registry, || histogram!(name, "model" => "m"));
        handle.record(0.0001);
        handle.record(1e9);
        let text = text(&registry);
        assert!(text.contains("tollgate_model_queue_duration_seconds_bucket{model=\"m\",le=\"+Inf\"} 2\n"), "{text}");
        assert!(text.contains("tollgate_model_queue_duration_seconds_count{model=\"m\"} 2\n"), "{text}");
        assert!(text.contains("tollgate_model_queue_duration_seconds_bucket{model=\"m\",le=\"0.001\"} 1\n"), "{text}");
    }
}
