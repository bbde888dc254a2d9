//! Passes over a row of logits.
//!
//! A row may have 150,000 numbers and more, so each pass is one the compiler turns into vector instructions: no branch and no call
//! within, and sums in a fixed order, so that a row gives the same everywhere. Nothing is known of requests here.

use tollgate_backend::Token;

/// Numbers that are added up beside each other.
const LANES: usize = 16;
/// Numbers of a row that are looked at together.
pub(super) const BLOCK: usize = 1_024;
/// Numbers that are compared at once in a search.
const STRIDE: Token = 64;

/// A word that may come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) token: Token,
    pub(super) logit: f32,
    /// Its probability over that of the likeliest.
    pub(super) weight: f32,
}

impl Candidate {
    /// The likeliest first, and of equals the one with the lower number.
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

/// The highest logit, minus infinity if there is none; `None` if one is not a number or is infinite.
pub(super) fn highest(logits: &[f32]) -> Option<f32> {
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut is_bad = [false; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for ((most, is_bad), &logit) in most.iter_mut().zip(&mut is_bad).zip(chunk) {
            *most = if logit > *most { logit } else { *most };
            // Not a number is below nothing.
            *is_bad |= !is_finite_or_forbidden(logit);
        }
    }
    let of_rest = rest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let bad = is_bad.iter().any(|bad| *bad) || !rest.iter().all(|logit| is_finite_or_forbidden(*logit));
    (!bad).then(|| most.iter().copied().fold(of_rest, f32::max))
}

/// Minus infinity is how a word is forbidden; all else has to be a finite number.
fn is_finite_or_forbidden(logit: f32) -> bool {
    logit < f32::INFINITY
}

/// The first token with just this logit.
pub(super) fn find(logits: &[f32], wanted: f32) -> Option<Token> {
    let mut first: Token = 0;
    for block in logits.chunks(STRIDE as usize) {
        if block.iter().fold(false, |is_here, logit| is_here | (*logit == wanted)) {
            return (first..).zip(block).find(|(_, logit)| **logit == wanted).map(|(token, _)| token);
        }
        first = first.saturating_add(STRIDE);
    }
    None
}

/// Calls `take` for each token above `floor()`, or at it too with `AT`, in the order of the vocabulary. The floor may rise on the
/// way.
fn above<const AT: bool>(logits: &[f32], floor: &mut f32, mut take: impl FnMut(Token, f32, &mut f32)) {
    let mut first: Token = 0;
    for block in logits.chunks(STRIDE as usize) {
        let least = *floor;
        if block.iter().fold(false, |is_here, logit| is_here | (*logit > least) | (AT & (*logit == least))) {
            for (token, &logit) in (first..).zip(block) {
                if logit > *floor || (AT && logit == *floor) {
                    take(token, logit, floor);
                }
            }
        }
        first = first.saturating_add(STRIDE);
    }
}

/// The `count` highest, the highest first; fewer if fewer are not forbidden. Their weights are 0. Never sorts more than it keeps.
pub(super) fn top(logits: &[f32], count: usize, found: &mut Vec<Candidate>) {
    found.clear();
    if count == 0 {
        return;
    }
    let room = count.saturating_mul(2).saturating_add(STRIDE as usize);
    let mut floor = f32::NEG_INFINITY;
    above::<false>(logits, &mut floor, |token, logit, floor| {
        found.push(Candidate { token, logit, weight: 0.0 });
        if found.len() >= room {
            keep_highest(found, count);
            // Of equals the earlier stays, so what comes now has to be above the least of these.
            *floor = found.last().map_or(*floor, |least| least.logit);
        }
    });
    keep_highest(found, count);
    found.sort_unstable_by(Candidate::order);
}

/// Keeps the `count` highest, the least of them last.
fn keep_highest(found: &mut Vec<Candidate>, count: usize) {
    if found.len() > count && count > 0 {
        found.select_nth_unstable_by(count - 1, Candidate::order);
        found.truncate(count);
    }
}

/// Every token at or above `floor`, in the order of the vocabulary. Their weights are 0.
pub(super) fn at_least(logits: &[f32], mut floor: f32, found: &mut Vec<Candidate>) {
    found.clear();
    // What is forbidden stays so.
    floor = floor.max(f32::MIN);
    above::<true>(logits, &mut floor, |token, logit, _| found.push(Candidate { token, logit, weight: 0.0 }));
}

/// The weight of each [`BLOCK`] of a row: the sum of its probabilities over that of `highest`, at `temperature`.
pub(super) fn weigh_blocks(logits: &[f32], highest: f32, temperature: f32, blocks: &mut Vec<f64>) {
    blocks.clear();
    blocks.extend(logits.chunks(BLOCK).map(|block| {
        let mut sums = [0.0_f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, &logit) in sums.iter_mut().zip(chunk) {
                *sum += weight(logit, highest, temperature);
            }
        }
        let of_rest: f64 = rest.iter().map(|&logit| f64::from(weight(logit, highest, temperature))).sum();
        sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() + of_rest
    }));
}

/// A token's probability over that of the one with the logit `highest`, at `temperature`.
#[inline]
pub(super) fn weight(logit: f32, highest: f32, temperature: f32) -> f32 {
    exp((logit - highest) / temperature)
}

/// e to the power of `x`, which is at most 0; 0 below -87, where less than 1e-37 is left. Off by less than 3e-7 of the result.
///
/// The standard library's is one call per number; this one is arithmetic that eight or sixteen numbers share, and gives the same
/// bits on every machine.
#[inline]
fn exp(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    /// Adding it rounds to a whole number, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x > LEAST { x } else { LEAST };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = bounded - whole * LN_2_HIGH - whole * LN_2_LOW;
    // Taylor's series around 0; the rest is at most half of ln 2.
    let mut sum = 1.0 / 5_040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + factor;
    }
    // Two to the power of the whole part: only its exponent is set.
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x > LEAST { sum * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_exponential_is_close_enough(x in -87.0_f32..=0.0) {
            let exact = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) - exact).abs() <= exact * 3e-7, "{x}: {} {exact}", exp(x));
        }

        /// Against sorting everything.
        #[test]
        fn the_highest_are_found(logits in proptest::collection::vec(-4_i8..4, 0..400), count in 0_usize..90) {
            // Many are equal, and some forbidden.
            let number = |logit: i8| if logit == -4 { f32::NEG_INFINITY } else { f32::from(logit) };
            let logits: Vec<f32> = logits.into_iter().map(number).collect();
            let mut sorted: Vec<(Token, f32)> = (0..).zip(logits.iter().copied()).filter(|(_, logit)| logit.is_finite()).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            prop_assert_eq!(highest(&logits), Some(sorted.first().map_or(f32::NEG_INFINITY, |(_, logit)| *logit)));
            prop_assert_eq!(sorted.first().and_then(|(_, logit)| find(&logits, *logit)), sorted.first().map(|(token, _)| *token));
            let mut found = Vec::new();
            top(&logits, count, &mut found);
            let tokens: Vec<Token> = found.iter().map(|candidate| candidate.token).collect();
            prop_assert_eq!(tokens, sorted.iter().take(count).map(|(token, _)| *token).collect::<Vec<_>>());
            at_least(&logits, 1.0, &mut found);
            prop_assert_eq!(found.len(), logits.iter().filter(|logit| **logit >= 1.0).count());
            prop_assert!(found.is_sorted_by_key(|candidate| candidate.token));
        }

        #[test]
        fn blocks_add_up(logits in proptest::collection::vec(-20.0_f32..20.0, 1..3_000), temperature in 0.1_f32..2.0) {
            let most = highest(&logits).expect("numbers");
            let mut blocks = Vec::new();
            weigh_blocks(&logits, most, temperature, &mut blocks);
            let exact: f64 = logits.iter().map(|logit| (f64::from(logit - most) / f64::from(temperature)).exp()).sum();
            prop_assert!((blocks.iter().sum::<f64>() / exact - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn what_is_no_number_is_seen_wherever_it_stands() {
        for length in [1, 16, 17, 100] {
            for at in 0..length {
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut logits = vec![0.0; length];
                    logits[at] = bad;
                    assert_eq!(highest(&logits), None);
                }
            }
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }
}
