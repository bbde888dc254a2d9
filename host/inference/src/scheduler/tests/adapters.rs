//! Adapters: every request gets exactly its own, whatever else runs, and nobody waits for another's (P-M13).

use std::collections::BTreeSet;
use std::path::Path;

use tollgate_backend::AdapterId;

use super::*;

/// Adapters of these words, loaded on a bench.
fn load<const COUNT: usize>(bench: &mut Bench, words: [&str; COUNT]) -> [Adapter; COUNT] {
    let directory = tempfile::tempdir().expect("a directory");
    words.map(|word| {
        let path = directory.path().join("word");
        std::fs::write(&path, word).expect("written");
        Adapter::unheard(bench.scheduler.load_adapter(&path, 1.0).expect("loaded"))
    })
}

fn with(adapter: Option<&Adapter>, command: impl Into<String>) -> Ask {
    Ask { adapter: adapter.cloned(), ..ask(command) }
}

fn usage(bench: &mut Bench, ask: &Ask) -> (u32, u32) {
    let usage = bench.hear(ask).finish().usage;
    (usage.prompt, usage.cached)
}

/// The backend fails a step in which a sequence goes on with another adapter than it began with.
#[test]
fn a_step_has_one_adapter_and_a_reply_has_its_own() {
    for limits in [LIMITS, Limits { deterministic: true, ..LIMITS }] {
        let mut bench = Bench::limited(Settings { max_sequences: 6, ..Settings::default() }, limits);
        let [one, other] = load(&mut bench, ["a-", "b-"]);
        let kinds = [(None, ""), (Some(&one), "a-"), (Some(&other), "b-")];
        let mut replies = Vec::new();
        for number in 0..60_usize {
            let (adapter, word) = kinds[number * 7 % 3];
            let spoken = (0..=number % 9).map(|at| format!("{word}w{at}")).collect::<Vec<_>>().join(" ");
            let asked = (0..=number % 9).map(|at| format!("w{at}")).collect::<Vec<_>>().join(" ");
            replies.push((bench.submit(&with(adapter, format!("say {asked}"))), spoken));
            for _ in 0..number % 4 {
                bench.step();
            }
        }
        bench.run();
        for (reply, spoken) in &mut replies {
            let heard = listen(reply);
            assert_eq!((heard.text(), heard.finish().reason), (spoken.clone(), FinishReason::Stop));
        }
        let used = bench.probe.steps().iter().map(|step| step.adapter).collect::<BTreeSet<_>>();
        assert_eq!(used, BTreeSet::from([None, Some(one.id()), Some(other.id())]));
        assert!(bench.is_at_rest());
    }
}

/// P-M13: with little memory, so that many lose their place and get it back, a reply is what it is alone.
#[test]
fn a_thousand_replies_are_those_alone() {
    let small = || Settings { max_sequences: 8, context_tokens: 500, step_rows: 64, ..Settings::default() };
    let command = |number: usize| format!("count {}", 5 + number * 13 % 30);
    let mut together = Bench::new(small());
    let adapters = load(&mut together, ["x", "yy", "zzz"]);
    let adapter_of = |number: usize| adapters.get(number * 5 % 4);
    let mut alone = Bench::new(Settings::default());
    load(&mut alone, ["x", "yy", "zzz"]);
    let mut replies = Vec::new();
    for number in 0..1_000 {
        let expected = alone.hear(&with(adapter_of(number), command(number)));
        replies.push((together.submit(&with(adapter_of(number), command(number))), expected));
        for _ in 0..number % 23 {
            together.step();
        }
    }
    together.run();
    for (reply, expected) in &mut replies {
        let heard = listen(reply);
        assert_eq!((heard.text(), heard.finish().reason), (expected.text(), expected.finish().reason));
    }
    assert!(together.gauges.preemptions() > 0);
    assert!(together.is_at_rest());
}

/// What one adapter computed is no other's, nor the model's, neither idle nor live.
#[test]
fn a_prefix_is_its_adapters_own() {
    let mut bench = Bench::new(Settings::default());
    let [one, other] = load(&mut bench, ["a-", "b-"]);
    let words = "say something long enough to be worth it";
    for adapter in [None, Some(&one), Some(&other)] {
        let (prompt, none) = usage(&mut bench, &with(adapter, words));
        assert_eq!(none, 0, "{adapter:?}");
        assert_eq!(usage(&mut bench, &with(adapter, words)), (prompt, prompt - 1), "{adapter:?}");
    }
    let mut live = bench.submit(&with(Some(&one), "forever and a day"));
    for _ in 0..5 {
        bench.step();
    }
    assert!(!listen(&mut live).pieces.is_empty());
    let mut second = bench.submit(&with(Some(&other), "forever and a day"));
    bench.step();
    bench.step();
    drop(live);
    assert!(!listen(&mut second).text().is_empty());
    let begun = second.usage();
    assert!(begun.cached < begun.prompt / 2, "no more than what all prompts of this adapter begin with: {begun:?}");
}

/// One with an adapter of its own gets on as fast as each of many without, and they as fast as it.
#[test]
fn nobody_waits_for_anothers_adapter() {
    let mut bench = Bench::new(Settings { max_sequences: 16, ..Settings::default() });
    let [one, other] = load(&mut bench, ["a-", "b-"]);
    let mut many: Vec<Generation> = (0..12).map(|_| bench.submit(&ask("forever"))).collect();
    let mut few = [bench.submit(&with(Some(&one), "forever")), bench.submit(&with(Some(&other), "forever"))];
    for _ in 0..40 {
        bench.step();
    }
    many.iter_mut().chain(&mut few).for_each(|reply| drop(listen(reply)));
    let before = few.each_ref().map(|reply| reply.usage().completion);
    let before_many = many[0].usage().completion;
    for _ in 0..300 {
        bench.step();
    }
    for (reply, before) in few.iter().zip(before) {
        assert!((95..=105).contains(&(reply.usage().completion - before)), "{:?}", reply.usage());
    }
    for reply in &many {
        assert!((95..=105).contains(&(reply.usage().completion - before_many)), "{:?}", reply.usage());
    }
}

/// A long prompt of one adapter is read beside the streams of another, as it would be beside those of its own.
#[test]
fn a_prompt_with_another_adapter_does_not_hold_streams_up() {
    let settings = Settings { token_us: 10_000, prefill_us_per_token: 100, virtual_time: true, ..Settings::default() };
    let mut bench = Bench::new(settings);
    let [one] = load(&mut bench, ["a-"]);
    let mut stream = bench.submit(&ask("forever"));
    for _ in 0..50 {
        bench.step();
    }
    drop(listen(&mut stream));
    let mut reader = bench.submit(&with(Some(&one), format!("say {}", "x".repeat(3_000))));
    let mut steps = bench.probe.steps().len();
    while listen(&mut reader).pieces.is_empty() {
        assert_eq!(bench.step(), Progress::Worked);
        steps += 1;
        assert!(steps < 600, "it is read in the end");
        drop(listen(&mut stream));
    }
    let rows = bench.probe.steps().iter().filter(|step| step.adapter.is_some()).map(|step| step.rows).collect::<Vec<_>>();
    assert!(rows.iter().all(|rows| *rows <= 64), "never more than the pace allows: {rows:?}");
    assert!(rows.len() > 40, "{}", rows.len());
}

/// An adapter that is dropped takes what it computed with it; others keep theirs.
#[test]
fn a_dropped_adapter_leaves_nothing_behind() {
    let mut bench = Bench::new(Settings::default());
    let [one, other] = load(&mut bench, ["a-", "b-"]);
    for adapter in [&one, &other] {
        bench.hear(&with(Some(adapter), "say something"));
    }
    let cells = bench.probe.cells();
    bench.scheduler.drop_adapter(one.id());
    assert_eq!((bench.probe.cells(), bench.probe.adapters()), (cells / 2, 1));
    let (prompt, cached) = usage(&mut bench, &with(Some(&other), "say something"));
    assert_eq!(cached, prompt - 1);
    let heard = bench.hear(&with(Some(&one), "say something"));
    assert!(matches!(heard.error(), GenerateError::Backend(why) if why.contains("no adapter")), "{heard:?}");
    assert!(bench.scheduler.load_adapter(Path::new("missing"), 1.0).is_err());
    assert_eq!(other.id(), AdapterId(2));
    assert!(bench.is_at_rest());
}
