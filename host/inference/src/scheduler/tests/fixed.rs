//! Deterministic models: batches that depend on their own sequence alone.

use super::*;

const CHUNK: usize = 64;

fn fixed(settings: Settings) -> Bench {
    Bench::limited(settings, Limits { deterministic: true, ..LIMITS })
}

fn long(number: usize, bytes: usize) -> Ask {
    let parameters = Parameters { temperature: Some(1.0), logprobs: Some(2), seed: Some(7), ..Parameters::default() };
    Ask { parameters, ..ask(format!("random 30 {number} {}", "x".repeat(bytes))) }
}

/// No batch has rows of two sequences, and prompts are cut at the same places whatever else is decoded.
#[test]
fn batches_are_cut_the_same_under_any_load() {
    let mut bench = fixed(Settings { max_sequences: 8, ..Settings::default() });
    let mut replies: Vec<Generation> = Vec::new();
    for number in 0..60 {
        replies.push(bench.submit(&long(number, number * 7 % 300)));
        for _ in 0..number % 5 {
            bench.step();
        }
    }
    bench.run();
    assert!(replies.iter_mut().all(|reply| listen(reply).finish().reason == FinishReason::Stop));
    for step in bench.probe.steps() {
        let at = usize::try_from(step.position).expect("small");
        assert_eq!(step.sequences, 1);
        assert!(step.rows == 1 || (at.is_multiple_of(CHUNK) && step.rows <= CHUNK), "{step:?}");
        // A shorter chunk is the last of its prompt.
        assert!(step.rows == CHUNK || step.rows == 1 || step.sampled == 1, "{step:?}");
    }
}

/// What is found in the cache ends where this prompt's own batches do.
#[test]
fn prefixes_are_found_in_whole_chunks() {
    let mut bench = fixed(Settings::default());
    let first = bench.hear(&long(1, 200));
    assert_eq!(first.finish().usage.cached, 0);
    let again = bench.hear(&long(1, 200));
    let usage = again.finish().usage;
    assert_eq!(usize::try_from(usage.cached).expect("small"), usage.prompt as usize / CHUNK * CHUNK);
    assert_eq!((&again.pieces, &again.logprobs), (&first.pieces, &first.logprobs));
    // The reply that followed is in no chunk of a prompt, so that nothing of it is found.
    let longer = bench.hear(&long(1, 201));
    assert_eq!(longer.finish().usage.cached, usage.cached);
    assert_eq!(bench.hear(&ask("say hi")).finish().usage.cached, 0);
}

/// A request that loses its place is computed again in the batches that it had.
#[test]
fn a_second_time_has_the_same_batches() {
    let mut bench = fixed(Settings { max_sequences: 1, ..Settings::default() });
    let mut stalled = bench.submit(&Ask { buffer: 4_096, ..ask(format!("say {}", "x".repeat(130))) });
    bench.run();
    let mut other = bench.submit(&ask("say hi"));
    bench.run();
    assert_eq!(listen(&mut other).text(), "hi");
    let before = bench.probe.steps().len();
    assert!(!listen(&mut stalled).pieces.is_empty());
    bench.run();
    let steps = bench.probe.steps().split_off(before);
    assert_eq!(bench.gauges.preemptions(), 1);
    let rows: Vec<usize> = steps.iter().take(5).map(|step| step.rows).collect();
    assert!(rows[..2] == [CHUNK, CHUNK] && (2..CHUNK).contains(&rows[2]) && rows[3..] == [1, 1], "{rows:?}");
}

/// A reply is in no chunk: when it is computed again, what another prompt has of the same words does not count.
#[test]
fn nothing_of_a_reply_is_looked_for() {
    let mut bench = fixed(Settings::default());
    let _reply = bench.submit(&ask("say hi"));
    let mut sequence = bench.scheduler.queue.pop().expect("it waits");
    let prompt = sequence.tokens.len();
    assert_eq!((sequence.findable(true).len(), sequence.findable(false).len()), (prompt - 1, prompt - 1));
    sequence.tokens.extend([1, 2, 3]);
    assert_eq!((sequence.findable(true).len(), sequence.findable(false).len()), (prompt, prompt + 2));
}
