//! From a row of logits to a token.
//!
//! In this order: penalties, schema mask, temperature, top-k, top-p, min-p. What is drawn depends on the row, the request and the
//! random number, which is a function of (seed, position): never on what else was in the step. The buffers are reused, so that a
//! token costs no allocation; a vocabulary is never sorted whole, only as deep as top-k or top-p reach.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tollgate_backend::Token;

use crate::sampling::Sampling;

/// How far back the repeat penalty looks.
const REPEAT_WINDOW: usize = 64;
/// How many candidates top-p sorts at first; four times as many each time that was too few.
const FIRST_SORT: usize = 256;

/// Turns logits into tokens, one row at a time.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    logits: Vec<f32>,
    seen: Vec<bool>,
    candidates: Vec<Candidate>,
}

/// What a row is sampled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw<'a> {
    /// The request's parameters.
    pub(crate) sampling: &'a Sampling,
    /// Prompt and reply so far.
    pub(crate) tokens: &'a [Token],
    /// How many of them are prompt.
    pub(crate) prompt: usize,
    /// One bit for each word that may come, 32 to a number, the lowest first.
    pub(crate) mask: Option<&'a [u32]>,
    /// From 0 up to 1.
    pub(crate) random: f64,
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SampleError {
    /// A logit is not a number, or is infinite.
    NotANumber,
    /// The mask leaves no word.
    NothingAllowed,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: Token,
    logit: f32,
    /// Its probability over that of the likeliest.
    weight: f32,
}

impl Candidate {
    /// The likeliest first, and of equals the one with the lower number.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

/// The random number for the `position`-th token of a reply, from 0 up to 1. Each position has its own, in whatever order they
/// are asked for.
pub(crate) fn random(seed: u64, position: usize) -> f64 {
    let mut stream = ChaCha8Rng::seed_from_u64(seed);
    // Two words of the stream for each position.
    stream.set_word_pos(u128::try_from(position).unwrap_or(u128::MAX).saturating_mul(2));
    let bits = stream.next_u64() >> 11;
    // 53 bits are what an f64 holds exactly.
    bits as f64 / 9_007_199_254_740_992.0
}

impl Sampler {
    /// The next token.
    pub(crate) fn sample(&mut self, logits: &[f32], draw: Draw<'_>) -> Result<Token, SampleError> {
        if logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY) {
            return Err(SampleError::NotANumber);
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalize(&draw);
        if let Some(mask) = draw.mask {
            apply(mask, &mut self.logits);
        }
        if draw.sampling.temperature == 0.0 {
            return self.likeliest().map(|(token, _)| token).ok_or(SampleError::NothingAllowed);
        }
        self.weigh(draw.sampling.temperature)?;
        let top_k = draw.sampling.top_k;
        if top_k > 0 {
            if top_k < self.candidates.len() {
                self.candidates.select_nth_unstable_by(top_k, Candidate::order);
                self.candidates.truncate(top_k);
            }
            self.candidates.sort_unstable_by(Candidate::order);
        }
        if draw.sampling.top_p < 1.0 {
            self.keep_top_p(f64::from(draw.sampling.top_p));
        }
        if draw.sampling.min_p > 0.0 {
            self.candidates.retain(|candidate| candidate.weight >= draw.sampling.min_p);
        }
        self.pick(draw.random).ok_or(SampleError::NothingAllowed)
    }

    /// Repeat over the last tokens of prompt and reply; frequency and presence over the reply, as OpenAI defines them.
    fn penalize(&mut self, draw: &Draw<'_>) {
        let sampling = draw.sampling;
        self.seen.resize(self.logits.len(), false);
        if sampling.repeat_penalty != 1.0 {
            let recent = draw.tokens.get(draw.tokens.len().saturating_sub(REPEAT_WINDOW)..).unwrap_or_default();
            self.over(recent, |logit, is_first| match (is_first, *logit > 0.0) {
                (true, true) => *logit /= sampling.repeat_penalty,
                (true, false) => *logit *= sampling.repeat_penalty,
                (false, _) => {}
            });
        }
        if sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0 {
            let reply = draw.tokens.get(draw.prompt..).unwrap_or_default();
            self.over(reply, |logit, is_first| {
                *logit -= sampling.frequency_penalty;
                if is_first {
                    *logit -= sampling.presence_penalty;
                }
            });
        }
    }

    /// Changes the logit of each of `tokens`, told whether it is met for the first time.
    fn over(&mut self, tokens: &[Token], change: impl Fn(&mut f32, bool)) {
        for &token in tokens {
            if let (Some(logit), Some(seen)) = (self.logits.get_mut(token as usize), self.seen.get_mut(token as usize)) {
                change(logit, !*seen);
                *seen = true;
            }
        }
        for &token in tokens {
            if let Some(seen) = self.seen.get_mut(token as usize) {
                *seen = false;
            }
        }
    }

    /// The highest logit, and of equals the lowest token.
    fn likeliest(&self) -> Option<(Token, f32)> {
        let mut best: Option<(Token, f32)> = None;
        for (token, &logit) in (0..).zip(&self.logits) {
            if logit > best.map_or(f32::NEG_INFINITY, |(_, best)| best) {
                best = Some((token, logit));
            }
        }
        best
    }

    /// Every word that may come, in the order of the vocabulary.
    fn weigh(&mut self, temperature: f32) -> Result<(), SampleError> {
        let (_, highest) = self.likeliest().ok_or(SampleError::NothingAllowed)?;
        self.candidates.clear();
        self.candidates.extend(
            (0..).zip(&self.logits).filter(|(_, logit)| **logit > f32::NEG_INFINITY).map(|(token, &logit)| Candidate {
                token,
                logit,
                weight: ((logit - highest) / temperature).exp(),
            }),
        );
        Ok(())
    }

    /// Keeps the fewest words that have `top_p` of the weight together.
    fn keep_top_p(&mut self, top_p: f64) {
        let total: f64 = self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let mut depth = FIRST_SORT;
        loop {
            let sorted = depth.min(self.candidates.len());
            if sorted < self.candidates.len() {
                self.candidates.select_nth_unstable_by(sorted, Candidate::order);
            }
            let (head, _) = self.candidates.split_at_mut(sorted);
            head.sort_unstable_by(Candidate::order);
            let mut weight = 0.0;
            let reaches = head.iter().position(|candidate| {
                weight += f64::from(candidate.weight);
                weight >= top_p * total
            });
            if let Some(last) = reaches {
                self.candidates.truncate(last + 1);
                return;
            }
            if sorted == self.candidates.len() {
                return;
            }
            depth = depth.saturating_mul(4);
        }
    }

    fn pick(&self, random: f64) -> Option<Token> {
        let total: f64 = self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let mut left = random * total;
        let mut last = None;
        for candidate in self.candidates.iter().filter(|candidate| candidate.weight > 0.0) {
            last = Some(candidate.token);
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

/// Forbids what has no bit in `mask`.
fn apply(mask: &[u32], logits: &mut [f32]) {
    for (logits, bits) in logits.chunks_mut(32).zip(mask.iter().copied().chain(std::iter::repeat(0))) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            if (bits >> bit) & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

#[cfg(test)]
mod tests;
