//! Cells and prefixes: who keeps what, who may find it, and what happens when there is too little.

use super::*;

fn small(context_tokens: u32) -> Settings {
    Settings { context_tokens, ..Settings::default() }
}

/// A pool with room for two serves six: all finish, and nobody can tell.
#[test]
fn six_share_the_room_of_two() {
    let asks: Vec<Ask> = (0..6)
        .map(|number| Ask {
            parameters: Parameters { temperature: Some(1.0), seed: Some(number), ..Parameters::default() },
            ..ask(format!("random 100 {number}"))
        })
        .collect();
    let alone: Vec<String> = asks.iter().map(|ask| Bench::new(Settings::default()).hear(ask).text()).collect();
    let mut bench = Bench::new(small(270));
    let mut replies: Vec<Generation> = asks.iter().map(|ask| bench.submit(ask)).collect();
    bench.run();
    for (reply, alone) in replies.iter_mut().zip(&alone) {
        let heard = listen(reply);
        assert_eq!((&heard.text(), heard.finish().reason), (alone, FinishReason::Stop));
        assert_eq!(heard.finish().usage.completion, 100);
    }
    assert!(bench.gauges.preemptions() > 0);
    assert!(bench.probe.steps().iter().all(|step| step.cells <= 270));
    assert!(bench.is_at_rest());
}

/// P-A9: the same words are found by the same tenant, and by no other.
#[test]
fn a_prefix_is_found_by_its_own_tenant_alone() {
    for prefix_copy in [true, false] {
        let mut bench = Bench::new(Settings { prefix_copy, ..Settings::default() });
        let cached = |bench: &mut Bench, tenant| {
            let usage = bench.hear(&Ask { tenant, ..ask("say something long enough to be worth it") }).finish().usage;
            (usage.prompt - usage.cached, usage.cached)
        };
        let (fresh, none) = cached(&mut bench, "ann");
        assert!(none == 0 && fresh > 40);
        assert_eq!(cached(&mut bench, "ann"), (1, fresh - 1), "all but the token that the reply starts from");
        assert_eq!(cached(&mut bench, "bob"), (fresh, 0));
        assert_eq!(cached(&mut bench, "ann"), (1, fresh - 1));
        assert_eq!(bench.gauges.cached_tokens(), u64::from(2 * (fresh - 1)));
    }
}

#[test]
fn a_live_prefix_is_shared_and_survives_its_source() {
    let mut bench = Bench::new(Settings::default());
    let live = bench.submit(&ask("forever"));
    for _ in 0..5 {
        bench.step();
    }
    let before = bench.probe.cells();
    let mut second =
        bench.submit(&Ask { parameters: Parameters { max_tokens: Some(9), ..Parameters::default() }, ..ask("forever") });
    bench.step();
    assert!(bench.probe.cells() <= before + 3, "one cell for each, and the last of the prompt");
    drop(live);
    bench.run();
    let heard = listen(&mut second);
    assert_eq!(heard.finish().usage.cached, heard.finish().usage.prompt - 1);
    assert_eq!(heard.finish().reason, FinishReason::Length);
}

/// What cannot share counts in full: it waits for the room that it needs, and nobody is sent back for it.
#[test]
fn a_copy_that_does_not_share_is_counted_whole() {
    let second = Ask { parameters: Parameters { max_tokens: Some(9), ..Parameters::default() }, ..ask("count 9") };
    let alone = Bench::new(Settings::default()).hear(&second);
    let prompt = alone.finish().usage.prompt;
    for (context_tokens, is_room) in [(4 * prompt + 200, true), (2 * prompt - 2, false)] {
        let mut bench = Bench::new(Settings { copies_share: false, ..small(context_tokens) });
        let mut first = bench.submit(&second);
        bench.step();
        let before = bench.probe.cells();
        let mut copy = bench.submit(&second);
        bench.step();
        let grown = bench.probe.cells().saturating_sub(before);
        assert_eq!(grown > to_usize(prompt) / 2, is_room, "{grown} cells more");
        bench.run();
        for reply in [&mut first, &mut copy] {
            assert_eq!(listen(reply).text(), alone.text());
        }
        assert_eq!(bench.gauges.preemptions(), 0);
        assert!(bench.is_at_rest());
    }
}

#[test]
fn without_the_cache_nothing_is_kept() {
    let mut bench = Bench::with(Settings::default(), false);
    for _ in 0..2 {
        assert_eq!(bench.hear(&ask("say something")).finish().usage.cached, 0);
        assert_eq!(bench.probe.cells(), 0);
    }
}

/// A backend that can only drop whole sequences reuses a prefix if the next prompt continues all of it.
#[test]
fn what_cannot_be_cut_is_used_whole_or_not_at_all() {
    let mut bench = Bench::new(Settings { prefix_copy: false, partial_remove: false, ..Settings::default() });
    assert_eq!(bench.hear(&ask("say one")).finish().usage.cached, 0);
    assert_eq!(bench.hear(&ask("say one")).finish().usage.cached, 0);
    assert!(bench.is_at_rest());
}

#[test]
fn idle_prefixes_make_room_for_what_is_asked() {
    let mut bench = Bench::new(small(400));
    for number in 0..40 {
        let heard = bench.hear(&ask(format!("random 60 {number}")));
        assert_eq!(heard.finish().usage.completion, 60, "request {number}");
    }
    assert_eq!(bench.gauges.preemptions(), 0);
    assert!(bench.probe.cells() > 0);
}

#[test]
fn a_context_that_is_full_ends_the_reply() {
    let mut bench = Bench::new(small(120));
    let heard = bench.hear(&ask("forever"));
    let usage = heard.finish().usage;
    assert_eq!((heard.finish().reason, usage.total()), (FinishReason::Length, 120));
}
