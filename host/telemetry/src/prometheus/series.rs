//! One counter or histogram: atomics, so that counting never waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{CounterFn, HistogramFn};

/// A counter.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }
}

/// A histogram with fixed buckets. It keeps no sample, so that it never grows.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Upper bounds, ascending.
    bounds: &'static [f64],
    /// One per bound, and one for what is above them all.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Buckets {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Buckets { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// How many in each bucket, and the sum of all. A reader may see one sample in the one and not yet in the other.
    pub(super) fn get(&self) -> (Vec<u64>, f64) {
        (self.counts.iter().map(|count| count.load(Relaxed)).collect(), f64::from_bits(self.sum.load(Relaxed)))
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        // What is no number has no bucket, and would spoil the sum for good.
        if !value.is_finite() {
            return;
        }
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Relaxed);
        }
        // It fails only if the closure says so.
        let _ = self.sum.fetch_update(Relaxed, Relaxed, |sum| Some((f64::from_bits(sum) + value).to_bits()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let buckets = Buckets::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 3.0, f64::NAN, f64::INFINITY] {
            buckets.record(value);
        }
        assert_eq!(buckets.get(), (vec![2, 2, 1], 8.0));
    }

    #[test]
    fn many_threads_lose_nothing() {
        let buckets = Buckets::new(&[1.0]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| buckets.record(0.5)));
            }
        });
        assert_eq!(buckets.get(), (vec![40_000, 0], 20_000.0));
    }
}
