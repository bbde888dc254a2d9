//! How a request decodes, with every number in its closed range (P-M6).
//!
//! [`Parameters`] is what people ask for; [`Sampling`] is what the sampler obeys. Nothing else builds one.

use std::ops::RangeInclusive;

use tollgate_backend::Token;
use tollgate_domain::Parameters;

/// Stop strings in one request, at most.
const MAX_STOPS: usize = 4;
/// Bytes of one stop string, at most: also how much text a stop can hold back.
const MAX_STOP_BYTES: usize = 1_024;
/// Tokens that one request can favour or ban, at most.
const MAX_BIASES: usize = 300;
/// Likeliest tokens told beside each token of a reply, at most.
const MAX_LIKELIEST: u8 = 20;
/// Tokens of a reply that tells log-probabilities, at most: each costs up to two kilobytes on its way.
const MAX_TOLD_TOKENS: u32 = 4_096;

/// Resolved parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampling {
    /// 1 to 131,072, or 4,096 with `logprobs`; what nobody limited ends with the context.
    pub(crate) max_tokens: u32,
    /// 0 (greedy) to 2.
    pub(crate) temperature: f32,
    /// Above 0, up to 1 (off).
    pub(crate) top_p: f32,
    /// 0 (off) to 1,000.
    pub(crate) top_k: usize,
    /// 0 (off) to 1.
    pub(crate) min_p: f32,
    /// -2 to 2; 0 is off.
    pub(crate) frequency_penalty: f32,
    /// -2 to 2; 0 is off.
    pub(crate) presence_penalty: f32,
    /// 0.01 to 2; 1 is off.
    pub(crate) repeat_penalty: f32,
    /// The client's seed, if it gave one.
    pub(crate) seed: Option<u64>,
    /// At most 4, none empty.
    pub(crate) stop: Vec<String>,
    /// At most 300, each -100 to 100. That the tokens exist is the engine's to check.
    pub(crate) logit_bias: Vec<(Token, f32)>,
    /// How many of the likeliest tokens are told beside each of the reply, 0 to 20; `None` tells nothing.
    pub(crate) logprobs: Option<usize>,
}

/// A parameter outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfRange {
    /// The parameter's name.
    pub(crate) field: &'static str,
    /// What it may be.
    pub(crate) range: &'static str,
}

impl Sampling {
    /// The largest `max_tokens`.
    pub(crate) const MAX_TOKENS: u32 = 131_072;

    /// Fills in what is open and checks all the rest.
    pub(crate) fn resolve(parameters: Parameters) -> Result<Self, OutOfRange> {
        let max_tokens = parameters.max_tokens.unwrap_or(Self::MAX_TOKENS);
        within(&(1..=Self::MAX_TOKENS), &max_tokens, "max_tokens", "1 to 131072")?;
        let temperature = parameters.temperature.unwrap_or(1.0);
        within(&(0.0..=2.0), &temperature, "temperature", "0 to 2")?;
        let top_p = parameters.top_p.unwrap_or(1.0);
        within(&(f32::MIN_POSITIVE..=1.0), &top_p, "top_p", "above 0, up to 1")?;
        let top_k = parameters.top_k.unwrap_or(0);
        within(&(0..=1_000), &top_k, "top_k", "0 to 1000")?;
        let min_p = parameters.min_p.unwrap_or(0.0);
        within(&(0.0..=1.0), &min_p, "min_p", "0 to 1")?;
        let frequency_penalty = parameters.frequency_penalty.unwrap_or(0.0);
        within(&(-2.0..=2.0), &frequency_penalty, "frequency_penalty", "-2 to 2")?;
        let presence_penalty = parameters.presence_penalty.unwrap_or(0.0);
        within(&(-2.0..=2.0), &presence_penalty, "presence_penalty", "-2 to 2")?;
        let repeat_penalty = parameters.repeat_penalty.unwrap_or(1.0);
        within(&(0.01..=2.0), &repeat_penalty, "repeat_penalty", "0.01 to 2")?;
        within(&(0..=MAX_STOPS), &parameters.stop.len(), "stop", "at most 4 strings")?;
        for stop in &parameters.stop {
            within(&(1..=MAX_STOP_BYTES), &stop.len(), "stop", "strings of 1 to 1024 bytes")?;
        }
        within(&(0..=MAX_BIASES), &parameters.logit_bias.len(), "logit_bias", "at most 300 tokens")?;
        for (_, bias) in &parameters.logit_bias {
            within(&(-100.0..=100.0), bias, "logit_bias", "-100 to 100 for each token")?;
        }
        let logprobs = parameters.logprobs;
        within(&(0..=MAX_LIKELIEST), &logprobs.unwrap_or(0), "top_logprobs", "0 to 20")?;
        Ok(Sampling {
            max_tokens: if logprobs.is_some() { max_tokens.min(MAX_TOLD_TOKENS) } else { max_tokens },
            temperature,
            top_p,
            top_k: usize::try_from(top_k).unwrap_or(usize::MAX),
            min_p,
            frequency_penalty,
            presence_penalty,
            repeat_penalty,
            seed: parameters.seed,
            stop: parameters.stop,
            logit_bias: parameters.logit_bias,
            logprobs: logprobs.map(usize::from),
        })
    }
}

/// Not a number is in no range.
fn within<T: PartialOrd>(
    range: &RangeInclusive<T>,
    value: &T,
    field: &'static str,
    text: &'static str,
) -> Result<(), OutOfRange> {
    if range.contains(value) { Ok(()) } else { Err(OutOfRange { field, range: text }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_plain_sampling() {
        let sampling = Sampling::resolve(Parameters::default()).expect("defaults are in range");
        assert_eq!(sampling.max_tokens, Sampling::MAX_TOKENS);
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (1.0, 1.0, 0));
    }

    /// P-M6: every number has a closed range, and not-a-number and the infinities are outside.
    #[test]
    fn hostile_numbers_are_refused_by_name() {
        let refused = |parameters: Parameters| Sampling::resolve(parameters).expect_err("out of range").field;
        for number in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -2.5, 2.5] {
            let given = Some(number);
            assert_eq!(refused(Parameters { temperature: given, ..Parameters::default() }), "temperature");
            assert_eq!(refused(Parameters { top_p: given, ..Parameters::default() }), "top_p");
            assert_eq!(refused(Parameters { min_p: given, ..Parameters::default() }), "min_p");
            assert_eq!(refused(Parameters { frequency_penalty: given, ..Parameters::default() }), "frequency_penalty");
            assert_eq!(refused(Parameters { presence_penalty: given, ..Parameters::default() }), "presence_penalty");
            assert_eq!(refused(Parameters { repeat_penalty: given, ..Parameters::default() }), "repeat_penalty");
        }
        assert_eq!(refused(Parameters { max_tokens: Some(0), ..Parameters::default() }), "max_tokens");
        assert_eq!(refused(Parameters { max_tokens: Some(u32::MAX), ..Parameters::default() }), "max_tokens");
        assert_eq!(refused(Parameters { top_k: Some(1_001), ..Parameters::default() }), "top_k");
        assert_eq!(refused(Parameters { top_p: Some(0.0), ..Parameters::default() }), "top_p");
        assert_eq!(refused(Parameters { stop: vec!["x".into(); 5], ..Parameters::default() }), "stop");
        assert_eq!(refused(Parameters { stop: vec![String::new()], ..Parameters::default() }), "stop");
        assert_eq!(refused(Parameters { stop: vec!["x".repeat(1_025)], ..Parameters::default() }), "stop");
        for bias in [f32::NAN, f32::INFINITY, -100.5, 101.0] {
            assert_eq!(refused(Parameters { logit_bias: vec![(0, bias)], ..Parameters::default() }), "logit_bias");
        }
        assert_eq!(refused(Parameters { logit_bias: vec![(0, 1.0); 301], ..Parameters::default() }), "logit_bias");
        assert_eq!(refused(Parameters { logprobs: Some(21), ..Parameters::default() }), "top_logprobs");
    }

    /// A reply that tells log-probabilities is bounded, whatever it asks for.
    #[test]
    fn log_probabilities_cap_the_tokens() {
        let most = |logprobs| {
            let asked = Parameters { max_tokens: Some(100_000), logprobs, ..Parameters::default() };
            Sampling::resolve(asked).expect("in range").max_tokens
        };
        assert_eq!((most(None), most(Some(0)), most(Some(20))), (100_000, 4_096, 4_096));
    }
}
