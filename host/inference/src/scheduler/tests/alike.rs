//! P-M13: a reply depends on its own request alone.

use super::*;

/// SplitMix64: the same run every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).expect("small")]
    }
}

/// A short request with any parameters, always the same for the same number.
pub(super) fn request(number: u64) -> Ask {
    let mut chance = Chance(number);
    let length = 8 + chance.below(33);
    let command = match chance.below(6) {
        0 => format!("say {}", "The cat and the dog. ".repeat(2)),
        1 => format!("utf8 {}", length / 2),
        2 => format!("count {}", length / 2),
        3 => format!("think {number}"),
        _ => format!("random {length} {}", chance.below(50)),
    };
    let parameters = Parameters {
        max_tokens: Some(u32::try_from(8 + chance.below(33)).expect("small")),
        temperature: Some(chance.one_of(&[0.0, 0.3, 1.0, 1.5])),
        top_p: Some(chance.one_of(&[1.0, 1.0, 0.9, 0.5])),
        top_k: Some(chance.one_of(&[0, 0, 1, 5, 40])),
        min_p: Some(chance.one_of(&[0.0, 0.0, 0.1])),
        frequency_penalty: Some(chance.one_of(&[0.0, 0.0, 0.5, -0.5])),
        presence_penalty: Some(chance.one_of(&[0.0, 0.0, 0.7])),
        repeat_penalty: Some(chance.one_of(&[1.0, 1.0, 1.1])),
        seed: Some(chance.below(1_000)),
        stop: chance.one_of(&[&[][..], &["e"][..], &["9 1", "the dog", "zz"][..]]).iter().map(ToString::to_string).collect(),
        logit_bias: chance.one_of(&[&[][..], &[][..], &[(101, -100.0), (97, 3.5)][..]]).to_vec(),
        logprobs: chance.one_of(&[None, None, Some(0), Some(3)]),
    };
    Ask { command, tenant: chance.one_of(&["ann", "bob"]), weight: chance.one_of(&[1, 7]), parameters, ..ask("") }
}

/// All but how much of the prompt was cached, which depends on who came before.
pub(super) fn essence(mut heard: Heard) -> Heard {
    if let Some(Ok(finish)) = &mut heard.end {
        finish.usage.cached = 0;
    }
    heard
}

#[test]
fn ten_thousand_requests_are_the_same_alone_and_in_any_company() {
    const REQUESTS: u64 = 10_000;
    let mut alone = Bench::with(Settings::default(), false);
    let expected: Vec<Heard> = (0..REQUESTS).map(|number| essence(alone.hear(&request(number)))).collect();
    assert!(expected.iter().all(|heard| matches!(heard.end, Some(Ok(_)))));

    let mut chance = Chance(42);
    // Little memory, so that many are preempted on the way.
    let mut together = Bench::new(Settings { max_sequences: 16, context_tokens: 700, step_rows: 64, ..Settings::default() });
    let mut number = 0;
    let mut heard: Vec<(u64, Heard, Generation)> = Vec::new();
    let mut passers_by: Vec<Generation> = Vec::new();
    while number < REQUESTS || !heard.is_empty() {
        for _ in 0..chance.below(24).min(REQUESTS - number) {
            let generation = together.submit(&request(number));
            heard.push((number, Heard::default(), generation));
            number += 1;
        }
        // Others come and leave in the middle of it.
        if chance.below(4) == 0 {
            passers_by.push(together.submit(&ask("forever")));
        }
        if passers_by.len() > 3 || chance.below(6) == 0 {
            passers_by.clear();
        }
        for _ in 0..chance.below(40) {
            together.step();
        }
        heard.retain_mut(|(number, heard, generation)| {
            let more = listen(generation);
            heard.pieces.extend(more.pieces);
            heard.logprobs.extend(more.logprobs);
            heard.end = more.end;
            if heard.end.is_some() {
                let expected = &expected[usize::try_from(*number).expect("small")];
                assert_eq!(&essence(heard.clone()), expected, "request {number}: {:?}", request(*number));
            }
            heard.end.is_none()
        });
    }
    assert!(together.gauges.preemptions() > 100, "{}", together.gauges.preemptions());
    assert!(together.gauges.cached_tokens() > 10_000 && together.gauges.restored_tokens() > 1_000);
    let busy: u64 = together.gauges.rows_per_step().iter().skip(3).sum();
    assert!(busy > 1_000, "they were together indeed: {busy}");
}

/// Greedy and sampled, a reply is the same at every split of its prompt into chunks.
#[test]
fn the_size_of_a_step_changes_nothing() {
    for number in 0..20 {
        let whole = essence(Bench::new(Settings::default()).hear(&request(number)));
        for step_rows in [1, 2, 3, 7, 64] {
            let split = essence(Bench::new(Settings { step_rows, ..Settings::default() }).hear(&request(number)));
            assert_eq!(split, whole, "request {number}, {step_rows} rows");
        }
    }
}

#[test]
fn the_seed_decides_where_there_is_something_to_decide() {
    let seeded = |seed| {
        let parameters = Parameters { temperature: Some(1.0), seed: Some(seed), ..Parameters::default() };
        Bench::new(Settings::default()).hear(&Ask { parameters, ..ask("random 40") }).text()
    };
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
}
