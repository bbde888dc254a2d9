//! P-L5: who gets how much of the time, told by counting.

use super::*;

/// Steps until so many tokens came, and counts them by tenant.
fn count(bench: &mut Bench, replies: &mut [(bool, Generation)], tokens: usize) -> [usize; 2] {
    let mut counts = [0; 2];
    while counts[0] + counts[1] < tokens {
        assert_eq!(bench.step(), Progress::Worked);
        for (is_heavy, reply) in &mut *replies {
            counts[usize::from(*is_heavy)] += listen(reply).pieces.len();
        }
    }
    counts
}

fn is_three_to_one(counts: [usize; 2]) {
    let share = counts[1] as f64 / (counts[0] + counts[1]) as f64;
    assert!((share / 0.75 - 1.0).abs() < 0.05, "{counts:?}");
}

/// With more requests than places, tokens are shared by weight. Shares are of computed rows: without the cache every reply costs the
/// same, so that its tokens can be counted in their place.
#[test]
fn tokens_follow_the_weights_where_places_are_few() {
    let mut bench = Bench::with(Settings { max_sequences: 4, ..Settings::default() }, false);
    let mut replies: Vec<(bool, Generation)> = Vec::new();
    for _ in 0..500 {
        let light = bench.submit(&Ask { tenant: "bob", ..ask("count 20") });
        let heavy = bench.submit(&Ask { weight: 3, ..ask("count 20") });
        replies.extend([(false, light), (true, heavy)]);
    }
    // Fewer than either has left to say.
    is_three_to_one(count(&mut bench, &mut replies, 10_000));
}

/// So they are where a step has not enough rows for all, and what each costs is not the same.
#[test]
fn tokens_follow_the_weights_where_rows_are_few() {
    let mut bench = Bench::new(Settings { max_sequences: 8, step_rows: 4, ..Settings::default() });
    let mut replies: Vec<(bool, Generation)> = Vec::new();
    for _ in 0..4 {
        let light = bench.submit(&Ask { tenant: "bob", ..ask("forever") });
        let heavy = bench.submit(&Ask { weight: 3, ..ask("forever") });
        replies.extend([(false, light), (true, heavy)]);
    }
    // Prompts count as well; from then on there are none.
    count(&mut bench, &mut replies, 500);
    is_three_to_one(count(&mut bench, &mut replies, 8_000));
}

/// A backend on which a stream's token takes 1 ms and a row of a prompt 0.1 ms, by its own clock.
fn timed() -> Settings {
    Settings { token_us: 1_000, prefill_us_per_token: 100, virtual_time: true, ..Settings::default() }
}

/// A prompt of 2,000 tokens at most doubles what another stream waits for its next token, and comes through all the same.
#[test]
fn a_long_prompt_does_not_hold_up_the_streams() {
    for streams in [1, 4] {
        let mut bench = Bench::new(timed());
        let mut streams: Vec<Generation> = (0..streams).map(|_| bench.submit(&ask("forever"))).collect();
        while streams.iter_mut().any(|stream| listen(stream).pieces.is_empty()) {
            bench.step();
        }
        let mut long = bench.submit(&ask(format!("say {}", "x".repeat(2_000))));
        let mut steps = 0;
        while listen(&mut long).pieces.is_empty() {
            let before = bench.probe.elapsed();
            bench.step();
            steps += 1;
            assert!(bench.probe.elapsed() - before <= Duration::from_millis(2), "step {steps}");
            assert!(streams.iter_mut().all(|stream| listen(stream).pieces.len() == 1), "step {steps}");
        }
        // Six rows to a step, but for those that are measured.
        assert!((2_000 / 6..2_000 / 5).contains(&steps), "{steps}");
    }
}

/// Where nobody waits for a token, prompts get whole steps.
#[test]
fn a_prompt_alone_is_read_in_whole_steps() {
    let mut bench = Bench::new(timed());
    let stream = bench.submit(&ask("forever"));
    for _ in 0..20 {
        bench.step();
    }
    let mut long = bench.submit(&ask(format!("say {}", "x".repeat(2_000))));
    for _ in 0..10 {
        bench.step();
    }
    drop(stream);
    let before = bench.probe.steps().len();
    while listen(&mut long).pieces.is_empty() {
        bench.step();
    }
    let steps = bench.probe.steps().split_off(before);
    assert!(steps.len() <= 9, "{steps:?}");
    assert!(steps[..steps.len() - 1].iter().all(|step| step.rows == 256), "{steps:?}");
}
