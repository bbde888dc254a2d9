//! Medians and percentiles of samples.

/// The value below which `share` (0 to 1) of the samples lie: the nearest rank. Zero if there are none.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is small and not negative")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle one, or the mean of the two in the middle. Zero if there are none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.get(middle.wrapping_sub(1))) {
        (Some(upper), Some(lower)) if sorted.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
        (Some(middle), _) => *middle,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((percentile(&samples, 0.5), percentile(&samples, 0.99), percentile(&samples, 0.0)), (2.0, 4.0, 1.0));
        assert_eq!((median(&samples), median(&[2.0, 1.0, 9.0]), median(&[]), percentile(&[], 0.5)), (2.5, 2.0, 0.0, 0.0));
    }
}
