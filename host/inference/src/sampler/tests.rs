//! The sampler against a plain reading of what each setting means.

use proptest::prelude::*;
use tollgate_backend::TokenKind;
use tollgate_domain::Parameters;

use super::*;

fn sampling(parameters: Parameters) -> Sampling {
    Sampling::resolve(parameters).expect("in range")
}

fn greedy() -> Sampling {
    sampling(Parameters { temperature: Some(0.0), ..Parameters::default() })
}

fn draw(sampling: &Sampling) -> Draw<'_> {
    Draw { sampling, tokens: &[], prompt: 0, mask: None, random: 0.5 }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut sampler = Sampler::default();
    let greedy = greedy();
    assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, 1.0], draw(&greedy)), Ok(1));
    let mask = [0b1001];
    assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, 1.0], Draw { mask: Some(&mask), ..draw(&greedy) }), Ok(3));
}

/// P-M6: not a number is an error, never a panic and never a token.
#[test]
fn what_is_not_a_number_is_an_error() {
    let plain = sampling(Parameters::default());
    for sampling in [greedy(), plain] {
        let mut sampler = Sampler::default();
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(sampler.sample(&[0.0, bad], draw(&sampling)), Err(SampleError::NotANumber));
        }
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3], draw(&sampling)), Err(SampleError::NothingAllowed));
        assert_eq!(sampler.sample(&[], draw(&sampling)), Err(SampleError::NothingAllowed));
        let nothing = Draw { mask: Some(&[0]), ..draw(&sampling) };
        assert_eq!(sampler.sample(&[1.0, 2.0], nothing), Err(SampleError::NothingAllowed));
    }
}

#[test]
fn penalties_count_what_they_say() {
    let mut sampler = Sampler::default();
    let presence = sampling(Parameters { temperature: Some(0.0), presence_penalty: Some(1.0), ..Parameters::default() });
    let frequency = sampling(Parameters { temperature: Some(0.0), frequency_penalty: Some(1.0), ..Parameters::default() });
    let repeat = sampling(Parameters { temperature: Some(0.0), repeat_penalty: Some(2.0), ..Parameters::default() });
    // Token 0 three times in the reply, token 2 in the prompt alone.
    let tokens = [2, 0, 0, 0];
    let logits = [3.5, 2.0, 3.0];
    let with = |sampling| Draw { tokens: &tokens, prompt: 1, ..draw(sampling) };
    assert_eq!(sampler.sample(&logits, with(&presence)), Ok(2));
    assert_eq!(sampler.sample(&[4.5, 2.0, 3.0], with(&presence)), Ok(0), "present once, however often");
    assert_eq!(sampler.sample(&[4.5, 2.0, 3.0], with(&frequency)), Ok(2), "three times three");
    assert_eq!(sampler.sample(&logits, with(&repeat)), Ok(1), "prompt and reply alike");
    // The marks of one row do not reach the next.
    assert_eq!(sampler.sample(&logits, draw(&repeat)), Ok(0));
}

#[test]
fn bias_comes_before_all_else_and_after_the_model() {
    let mut sampler = Sampler::default();
    let biased = |biases: &[(Token, f32)]| {
        sampling(Parameters { temperature: Some(0.0), logit_bias: biases.to_vec(), ..Parameters::default() })
    };
    let logits = [3.0, 2.0, 1.0];
    assert_eq!(sampler.sample(&logits, draw(&biased(&[(0, -100.0)]))), Ok(1));
    assert_eq!(sampler.sample(&logits, draw(&biased(&[(2, 100.0), (0, 97.0)]))), Ok(2));
    assert_eq!(sampler.sample(&logits, draw(&biased(&[(9, 100.0)]))), Ok(0), "no such token");
    // The schema has the last word.
    let masked = biased(&[(0, 100.0)]);
    assert_eq!(sampler.sample(&logits, Draw { mask: Some(&[0b110]), ..draw(&masked) }), Ok(1));
    // Of all words that may come, banning each leaves the likeliest.
    let banned = biased(&[(1, -100.0), (2, -100.0)]);
    assert_eq!(sampler.sample(&logits, Draw { mask: Some(&[0b110]), ..draw(&banned) }), Ok(1));
}

#[test]
fn log_probabilities_are_the_models_own() {
    let mut sampler = Sampler::default();
    let words = ["a", "b", "c", "d"].map(|word| (word, TokenKind::Text));
    let vocabulary = Vocabulary::new(words, vec![], None, None);
    let logits = [1.0_f32.ln(), 6.0_f32.ln(), f32::NEG_INFINITY, 3.0_f32.ln()];
    let told = sampler.logprobs(&logits, 0, 4, &vocabulary);
    let near = |(bytes, logprob): (&[u8], f32), word: &[u8], probability: f32| {
        assert!(bytes == word && (logprob.exp() - probability).abs() < 1e-6, "{bytes:?} {logprob}");
    };
    near(told.own(), b"a", 0.1);
    let likeliest: Vec<_> = told.likeliest().collect();
    assert_eq!(likeliest.len(), 3, "what is forbidden is not told");
    near(likeliest[0], b"b", 0.6);
    near(likeliest[1], b"d", 0.3);
    assert_eq!(sampler.logprobs(&logits, 2, 0, &vocabulary).own(), (&b"c"[..], IMPOSSIBLE));
}

#[test]
fn numbers_belong_to_their_position() {
    let forwards: Vec<f64> = (0..100).map(|position| random(7, position)).collect();
    let backwards: Vec<f64> = (0..100).rev().map(|position| random(7, position)).collect();
    assert!(forwards.iter().eq(backwards.iter().rev()));
    assert!(forwards.iter().all(|number| (0.0..1.0).contains(number)));
    let mean = forwards.iter().sum::<f64>() / 100.0;
    assert!((0.35..0.65).contains(&mean), "mean {mean}");
    assert!(random(7, 3) != random(8, 3) && random(7, 3) != random(7, 4));
}

#[test]
fn frequencies_follow_the_probabilities() {
    let mut sampler = Sampler::default();
    let plain = sampling(Parameters::default());
    let logits = [3.0_f32.ln(), 1.0_f32.ln(), 0.0];
    let mut counts = [0_u32; 3];
    for position in 0..5_000 {
        let token = sampler.sample(&logits, Draw { random: random(1, position), ..draw(&plain) }).expect("a token");
        counts[token as usize] += 1;
    }
    assert!((2_850..3_150).contains(&counts[0]) && (870..1_130).contains(&counts[1]), "{counts:?}");
}

/// Which tokens may be drawn, by sorting everything and applying each rule in turn. What is on a border to within a hundred
/// thousandth may: it is rounded differently here.
fn allowed(logits: &[f32], sampling: &Sampling) -> Vec<Token> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit - highest) / f64::from(sampling.temperature)).exp();
    let mut all: Vec<(Token, f32)> = (0..).zip(logits.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if sampling.top_k > 0 {
        all.truncate(sampling.top_k);
    }
    if sampling.top_p < 1.0 {
        let total: f64 = all.iter().map(|(_, logit)| weight(*logit)).sum();
        let mut sum = 0.0;
        let reaches = all.iter().position(|(_, logit)| {
            sum += weight(*logit);
            sum >= (f64::from(sampling.top_p) + 1e-5) * total
        });
        all.truncate(reaches.map_or(all.len(), |last| last + 1));
    }
    let least = f64::from(sampling.min_p) * (1.0 - 1e-5);
    all.into_iter().filter(|(_, logit)| weight(*logit) >= least).map(|(token, _)| token).collect()
}

proptest! {
    #[test]
    fn only_what_every_rule_allows_is_drawn(
        logits in proptest::collection::vec(-8.0_f32..8.0, 1..700),
        temperature in 0.05_f32..2.0,
        top_k in prop_oneof![Just(0_u32), 1..400_u32],
        top_p in prop_oneof![Just(1.0_f32), 0.01_f32..1.0],
        min_p in prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
        number in 0.0_f64..1.0,
    ) {
        let sampling = sampling(Parameters {
            temperature: Some(temperature),
            top_k: Some(top_k),
            top_p: Some(top_p),
            min_p: Some(min_p),
            ..Parameters::default()
        });
        let allowed = allowed(&logits, &sampling);
        let mut sampler = Sampler::default();
        let token = sampler.sample(&logits, Draw { random: number, ..draw(&sampling) });
        let token = token.expect("something is always allowed");
        prop_assert!(allowed.contains(&token), "{token} of {allowed:?}");
        // The same again, whatever the sampler did in between.
        sampler.sample(&[1.0, 2.0], draw(&sampling)).expect("a token");
        prop_assert_eq!(sampler.sample(&logits, Draw { random: number, ..draw(&sampling) }), Ok(token));
    }

    #[test]
    fn the_mask_is_obeyed(
        logits in proptest::collection::vec(-8.0_f32..8.0, 1..100),
        mask in proptest::collection::vec(any::<u32>(), 0..5),
        temperature in prop_oneof![Just(0.0_f32), 0.1_f32..2.0],
        number in 0.0_f64..1.0,
    ) {
        let sampling = sampling(Parameters { temperature: Some(temperature), ..Parameters::default() });
        let may = |token: usize| mask.get(token / 32).is_some_and(|bits| (bits >> (token % 32)) & 1 == 1);
        let token = Sampler::default().sample(&logits, Draw { mask: Some(&mask), random: number, ..draw(&sampling) });
        match token {
            Ok(token) => prop_assert!(may(token as usize)),
            Err(error) => {
                prop_assert_eq!(error, SampleError::NothingAllowed);
                prop_assert!(!(0..logits.len()).any(may));
            }
        }
    }
}
