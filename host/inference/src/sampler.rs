//! From a row of logits to a token.
//!
//! In this order: bias, penalties, schema mask, temperature, top-k, top-p, min-p. What is drawn depends on the row, the request and
//! the random number, which is a function of (seed, position): never on what else was in the step. The buffers are reused, so that
//! a token costs no allocation; a row is copied only if something in it changes, and a vocabulary is never sorted, only searched for
//! as many words as top-k or top-p reach.

mod row;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tollgate_backend::{Token, Vocabulary};
use tollgate_domain::TokenLogprobs;

use crate::sampling::Sampling;
use row::{BLOCK, Candidate};

/// How far back the repeat penalty looks.
const REPEAT_WINDOW: usize = 64;
/// What top-p may leave out is shared among so many words at first: those below such a share are not looked at.
const FIRST_SHARES: f64 = 1_024.0;
/// What OpenAI writes for a token that is as good as impossible.
const IMPOSSIBLE: f32 = -9_999.0;

/// Turns logits into tokens, one row at a time.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// A row that was changed.
    row: Vec<f32>,
    seen: Vec<bool>,
    candidates: Vec<Candidate>,
    /// The weights of a row's blocks.
    blocks: Vec<f64>,
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

impl Draw<'_> {
    /// Whether a row is sampled as it is.
    fn is_plain(&self) -> bool {
        let sampling = self.sampling;
        self.mask.is_none() && sampling.logit_bias.is_empty() && sampling.repeat_penalty == 1.0 && !self.counts_occurrences()
    }

    fn counts_occurrences(&self) -> bool {
        self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0
    }
}

impl Sampler {
    /// The next token.
    pub(crate) fn sample(&mut self, logits: &[f32], draw: Draw<'_>) -> Result<Token, SampleError> {
        let highest = row::highest(logits).ok_or(SampleError::NotANumber)?;
        if draw.is_plain() {
            return self.choose(logits, highest, draw);
        }
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.extend_from_slice(logits);
        self.change(&mut row, draw);
        let highest = row::highest(&row).ok_or(SampleError::NotANumber);
        let token = highest.and_then(|highest| self.choose(&row, highest, draw));
        self.row = row;
        token
    }

    /// How likely the model held `token`, and the `likeliest` ones, by the row as the model gave it: before bias, penalties,
    /// mask and temperature.
    pub(crate) fn logprobs(&mut self, logits: &[f32], token: Token, likeliest: usize, vocabulary: &Vocabulary) -> TokenLogprobs {
        let highest = row::highest(logits).unwrap_or(f32::NEG_INFINITY);
        row::weigh_blocks(logits, highest, 1.0, &mut self.blocks);
        let log_total = f64::from(highest) + self.blocks.iter().sum::<f64>().ln();
        #[allow(clippy::cast_possible_truncation, reason = "what is lost is precision beyond seven digits")]
        let logprob = |logit: f32| ((f64::from(logit) - log_total) as f32).clamp(IMPOSSIBLE, 0.0);
        let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let mut told = TokenLogprobs::new(vocabulary.bytes(token), logprob(own), likeliest);
        row::top(logits, likeliest, &mut self.candidates);
        for candidate in &self.candidates {
            told.push(vocabulary.bytes(candidate.token), logprob(candidate.logit));
        }
        told
    }

    /// Bias, penalties and mask.
    fn change(&mut self, row: &mut [f32], draw: Draw<'_>) {
        for &(token, bias) in &draw.sampling.logit_bias {
            if let Some(logit) = row.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalize(row, draw);
        if let Some(mask) = draw.mask {
            apply(mask, row);
        }
    }

    /// Repeat over the last tokens of prompt and reply; frequency and presence over the reply, as OpenAI defines them.
    fn penalize(&mut self, row: &mut [f32], draw: Draw<'_>) {
        let sampling = draw.sampling;
        self.seen.resize(row.len(), false);
        if sampling.repeat_penalty != 1.0 {
            let recent = draw.tokens.get(draw.tokens.len().saturating_sub(REPEAT_WINDOW)..).unwrap_or_default();
            self.over(row, recent, |logit, is_first| match (is_first, *logit > 0.0) {
                (true, true) => *logit /= sampling.repeat_penalty,
                (true, false) => *logit *= sampling.repeat_penalty,
                (false, _) => {}
            });
        }
        if draw.counts_occurrences() {
            let reply = draw.tokens.get(draw.prompt..).unwrap_or_default();
            self.over(row, reply, |logit, is_first| {
                *logit -= sampling.frequency_penalty;
                if is_first {
                    *logit -= sampling.presence_penalty;
                }
            });
        }
    }

    /// Changes the logit of each of `tokens`, told whether it is met for the first time.
    fn over(&mut self, row: &mut [f32], tokens: &[Token], change: impl Fn(&mut f32, bool)) {
        for &token in tokens {
            if let (Some(logit), Some(seen)) = (row.get_mut(token as usize), self.seen.get_mut(token as usize)) {
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

    /// Temperature and what comes after it. `highest` is the row's highest logit.
    fn choose(&mut self, row: &[f32], highest: f32, draw: Draw<'_>) -> Result<Token, SampleError> {
        let Sampling { temperature, top_p, top_k, min_p, .. } = *draw.sampling;
        if highest == f32::NEG_INFINITY {
            return Err(SampleError::NothingAllowed);
        }
        if temperature == 0.0 {
            return row::find(row, highest).ok_or(SampleError::NothingAllowed);
        }
        if top_k > 0 {
            row::top(row, top_k, &mut self.candidates);
            let total = self.weigh(highest, temperature);
            if top_p < 1.0 {
                self.cut_after(f64::from(top_p) * total);
            }
        } else if top_p < 1.0 {
            self.find_nucleus(row, highest, temperature, f64::from(top_p));
        } else if min_p > 0.0 {
            row::at_least(row, floor(highest, temperature, f64::from(min_p)), &mut self.candidates);
            self.weigh(highest, temperature);
        } else {
            return self.pick_of_all(row, highest, temperature, draw.random).ok_or(SampleError::NothingAllowed);
        }
        if min_p > 0.0 {
            self.candidates.retain(|candidate| candidate.weight >= min_p);
        }
        self.pick(draw.random).ok_or(SampleError::NothingAllowed)
    }

    /// Gives each candidate its weight. Returns their sum.
    fn weigh(&mut self, highest: f32, temperature: f32) -> f64 {
        for candidate in &mut self.candidates {
            candidate.weight = row::weight(candidate.logit, highest, temperature);
        }
        self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum()
    }

    /// The fewest words that have `top_p` of the weight of all together.
    fn find_nucleus(&mut self, row: &[f32], highest: f32, temperature: f32, top_p: f64) {
        row::weigh_blocks(row, highest, temperature, &mut self.blocks);
        let total: f64 = self.blocks.iter().sum();
        // Words below the N-th part of what may be left out can be left out, if there are no more than N. There seldom are, among
        // those that count; if so, all words are N.
        for shares in [FIRST_SHARES, row.len() as f64] {
            let least = (1.0 - top_p) * total / shares;
            row::at_least(row, floor(highest, temperature, least), &mut self.candidates);
            if self.weigh(highest, temperature) >= top_p * total {
                break;
            }
        }
        if let Some(border) = self.find_border(top_p * total) {
            // Again in the order of the vocabulary.
            row::at_least(row, border.logit, &mut self.candidates);
            self.candidates.retain(|candidate| candidate.order(&border).is_le());
            self.weigh(highest, temperature);
        }
    }

    /// Of candidates with the likeliest first, keeps the fewest that have this weight together.
    fn cut_after(&mut self, enough: f64) {
        let mut weight = 0.0;
        let reaches = self.candidates.iter().position(|candidate| {
            weight += f64::from(candidate.weight);
            weight >= enough
        });
        self.candidates.truncate(reaches.map_or(usize::MAX, |last| last.saturating_add(1)));
    }

    /// The last of the fewest candidates that have this weight together, the likeliest first. Found by halving, so that thousands
    /// need not be sorted.
    fn find_border(&mut self, enough: f64) -> Option<Candidate> {
        let mut left = self.candidates.as_mut_slice();
        let mut enough = enough;
        while left.len() > 1 {
            let middle = left.len() / 2;
            left.select_nth_unstable_by(middle, Candidate::order);
            let (likelier, rest) = left.split_at_mut(middle);
            let weight: f64 = likelier.iter().map(|candidate| f64::from(candidate.weight)).sum();
            if weight >= enough {
                left = likelier;
            } else {
                enough -= weight;
                left = rest;
            }
        }
        left.first().copied()
    }

    fn pick(&self, random: f64) -> Option<Token> {
        let total: f64 = self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        walk(self.candidates.iter().map(|candidate| (candidate.token, candidate.weight)), random * total)
    }

    /// A word of the whole vocabulary: first the block it is in, then the word.
    fn pick_of_all(&mut self, row: &[f32], highest: f32, temperature: f32, random: f64) -> Option<Token> {
        row::weigh_blocks(row, highest, temperature, &mut self.blocks);
        let mut left = random * self.blocks.iter().sum::<f64>();
        let mut chosen = None;
        for (at, &weight) in self.blocks.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            // If rounding leaves a rest, the last block that has any weight is it.
            chosen = Some((at, left));
            if left < weight {
                break;
            }
            left -= weight;
        }
        let (at, left) = chosen?;
        let first = at.saturating_mul(BLOCK);
        let block = row.get(first..)?.iter().take(BLOCK);
        walk((Token::try_from(first).ok()?..).zip(block.map(|&logit| row::weight(logit, highest, temperature))), left)
    }
}

/// The word at which the weights before it have used up `left`, or the last with any weight.
fn walk(words: impl Iterator<Item = (Token, f32)>, mut left: f64) -> Option<Token> {
    let mut last = None;
    for (token, weight) in words.filter(|(_, weight)| *weight > 0.0) {
        last = Some(token);
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// The logit of a word with this weight, and a little below: weights are rounded.
#[allow(clippy::cast_possible_truncation, reason = "what is lost is precision beyond seven digits")]
fn floor(highest: f32, temperature: f32, weight: f64) -> f32 {
    (f64::from(highest) + f64::from(temperature) * (weight.ln() - 1e-3)) as f32
}

/// Forbids what has no bit in `mask`.
fn apply(mask: &[u32], row: &mut [f32]) {
    for (logits, bits) in row.chunks_mut(32).zip(mask.iter().copied().chain(std::iter::repeat(0))) {
        match bits {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            _ => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if (bits >> bit) & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
