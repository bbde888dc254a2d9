//! What lost its place is put back rather than computed again, within a bound, and nobody can tell.

use tollgate_backend::Memory;

use super::alike::{essence, request};
use super::*;

/// One place for two: the first stalls and loses it to the second.
fn displaced(settings: &Settings, limits: Limits) -> (Bench, Heard) {
    let mut bench = Bench::limited(Settings { max_sequences: 1, ..settings.clone() }, limits);
    let mut stalled = bench.submit(&Ask { buffer: 4_096, ..ask("count 300") });
    bench.run();
    let mut other = bench.submit(&Ask { tenant: "bob", ..ask("say hi") });
    bench.run();
    assert_eq!(listen(&mut other).text(), "hi");
    let mut heard = Heard::default();
    while heard.end.is_none() {
        let more = listen(&mut stalled);
        assert!(!more.pieces.is_empty() || more.end.is_some(), "it goes on");
        heard.pieces.extend(more.pieces);
        heard.end = more.end;
        bench.run();
    }
    (bench, heard)
}

#[test]
fn what_was_computed_is_put_back_where_it_can_be_kept() {
    let whole = Bench::new(Settings::default()).hear(&ask("count 300"));
    let without = Settings { state: false, ..Settings::default() };
    let cases = [
        (Settings::default(), LIMITS, true),
        (without, LIMITS, false),
        (Settings::default(), Limits { aside_bytes: 100, ..LIMITS }, false),
        (Settings::default(), Limits { deterministic: true, ..LIMITS }, false),
    ];
    for (settings, limits, is_kept) in cases {
        let (bench, heard) = displaced(&settings, limits);
        assert_eq!(heard.pieces, whole.pieces);
        assert_eq!(heard.finish().usage.completion, whole.finish().usage.completion);
        assert_eq!(bench.gauges.restored_tokens() > 0, is_kept, "{limits:?}");
        assert!(bench.gauges.preemptions() > 0 && bench.is_at_rest());
    }
}

/// P-A9: what was kept for one is found by nobody else, whoever asks for the same.
#[test]
fn what_is_kept_is_its_own_requests_alone() {
    let mut bench = Bench::new(Settings { max_sequences: 1, ..Settings::default() });
    let stalled = bench.submit(&Ask { buffer: 4_096, ..ask("count 300") });
    bench.run();
    for tenant in ["bob", "ann"] {
        let heard = bench.hear(&Ask { tenant, ..ask("count 300") });
        assert_eq!(heard.finish().usage.cached, 0, "{tenant}");
    }
    assert_eq!(bench.gauges.restored_tokens(), 0);
    drop(stalled);
    bench.run();
    assert!(bench.is_at_rest());
}

/// P-M13: with too little memory for all of them, replies are those alone, whether all, some or none is put back.
#[test]
fn replies_are_those_alone_however_much_is_kept() {
    const REQUESTS: u64 = 600;
    let mut alone = Bench::with(Settings::default(), false);
    let expected: Vec<Heard> = (0..REQUESTS).map(|number| essence(alone.hear(&request(number)))).collect();
    for (aside_bytes, copies_share) in [(1 << 20, true), (1 << 20, false), (600, true), (0, true)] {
        let settings = Settings { max_sequences: 16, context_tokens: 700, step_rows: 64, copies_share, ..Settings::default() };
        let mut together = Bench::limited(settings, Limits { aside_bytes, ..LIMITS });
        let mut replies: Vec<Generation> = Vec::new();
        let mut passers_by: Vec<Generation> = Vec::new();
        for number in 0..REQUESTS {
            if number % 20 == 0 {
                passers_by.clear();
                passers_by.push(together.submit(&ask("forever")));
            }
            replies.push(together.submit(&request(number)));
            for _ in 0..number % 3 {
                together.step();
            }
        }
        drop(passers_by);
        together.run();
        for (reply, expected) in replies.iter_mut().zip(&expected) {
            assert_eq!(&essence(listen(reply)), expected);
        }
        assert!(together.gauges.preemptions() > 0, "{aside_bytes} bytes");
        assert_eq!(together.gauges.restored_tokens() > 0, aside_bytes > 0, "{aside_bytes} bytes");
        assert!(together.probe.steps().iter().all(|step| step.cells <= 700));
        assert!(together.is_at_rest());
    }
}

#[test]
fn a_model_keeps_a_part_of_its_cache_and_never_more_than_64_mib() {
    let of = |cache| most_bytes(Memory { cache, ..Memory::default() });
    assert_eq!((of(0), of(8_000), of(1 << 40)), (0, 1_000, 64 << 20));
}
