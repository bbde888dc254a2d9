//! Who gets how many rows of a step. A pure decision over numbers.
//!
//! Whoever lacks one token gets its row first: nobody's stream waits for somebody's prompt. What is left goes to prompts, to each
//! tenant by its weight, so that a short one is not behind a long one; what a tenant cannot use goes to the next. How much that may
//! be beside streams, and when short prompts go first, is the pace's to say ([`super::pace`]).

use tollgate_backend::AdapterId;

use super::pace::Allowance;

/// What a running sequence asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a> {
    /// Its place in the list of running ones.
    pub(super) index: usize,
    /// Tokens to be decoded.
    pub(super) remaining: usize,
    /// Whether they were few from the beginning.
    pub(super) is_short: bool,
    pub(super) tenant: &'a str,
    pub(super) weight: u32,
    /// Its tenant's pass: the lower, the sooner.
    pub(super) pass: u64,
    /// Within a tenant, the first to come.
    pub(super) arrived: u64,
}

/// What it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) index: usize,
    /// At least 1.
    pub(super) rows: usize,
}

/// The adapter whose turn it is: the next after `last`, round about; no adapter counts as one. So whatever the numbers, each
/// sequence gets on as fast as every other, and a step has the rows of one adapter.
pub(super) fn next_turn(adapters: impl Iterator<Item = Option<AdapterId>> + Clone, last: Option<AdapterId>) -> Option<AdapterId> {
    let after = adapters.clone().filter(|adapter| *adapter > last).min();
    after.or_else(|| adapters.min()).flatten()
}

/// The most sequences with one adapter, or without, that lack one token; `sequences` are adapters and tokens that are lacking.
pub(super) fn most_streams(sequences: impl Iterator<Item = (Option<AdapterId>, usize)> + Clone) -> usize {
    let streams = sequences.filter(|(_, remaining)| *remaining == 1).map(|(adapter, _)| adapter);
    let of_same = |adapter: Option<AdapterId>| streams.clone().filter(|other| *other == adapter).count();
    streams.clone().map(of_same).max().unwrap_or(0)
}

/// How many sequences lack one token.
pub(super) fn streams<'a>(needs: impl Iterator<Item = Need<'a>>) -> usize {
    needs.filter(|need| need.remaining == 1).count()
}

/// Whether a short prompt is among them.
pub(super) fn has_short<'a>(mut needs: impl Iterator<Item = Need<'a>>) -> bool {
    needs.any(|need| need.is_short && need.remaining > 1)
}

/// Shares out `budget` rows into `chunks`, to prompts what is allowed of them, and returns how many go to streams. With streams
/// alone nothing is allocated.
pub(super) fn share<'a>(
    needs: impl Iterator<Item = Need<'a>> + Clone,
    budget: usize,
    prompts: Allowance,
    chunks: &mut Vec<Chunk>,
) -> usize {
    chunks.clear();
    let single = needs.clone().filter(|need| need.remaining == 1);
    chunks.extend(single.clone().map(|need| Chunk { index: need.index, rows: 1 }));
    if chunks.len() > budget {
        let mut single: Vec<_> = single.collect();
        single.sort_unstable_by_key(|need| (need.pass, need.arrived));
        chunks.clear();
        chunks.extend(single.iter().take(budget).map(|need| Chunk { index: need.index, rows: 1 }));
    }
    let streams = chunks.len();
    let left = (budget - streams).min(prompts.rows);
    if left > 0 {
        let mut prompts: Vec<_> = needs.filter(|need| need.remaining > 1 && (need.is_short || !prompts.is_burst)).collect();
        prompts.sort_unstable_by_key(|need| (need.pass, need.arrived));
        chunks.extend(share_prompts(&prompts, left));
    }
    streams
}

/// Batches of one sequence each, whose rows depend on that sequence alone (`remaining` is its next batch): every stream's, and one
/// chunk of the prompt whose turn it is.
pub(super) fn take_turns<'a>(needs: impl Iterator<Item = Need<'a>> + Clone, chunks: &mut Vec<Chunk>) {
    chunks.clear();
    let prompt = needs.clone().filter(|need| need.remaining > 1).min_by_key(|need| (need.pass, need.arrived));
    let streams = needs.filter(|need| need.remaining == 1);
    chunks.extend(streams.chain(prompt).map(|need| Chunk { index: need.index, rows: need.remaining }));
}

fn share_prompts(prompts: &[Need<'_>], mut left: usize) -> impl Iterator<Item = Chunk> {
    let mut quotas = quotas(prompts, left);
    let mut chunks: Vec<Chunk> = prompts.iter().map(|need| Chunk { index: need.index, rows: 0 }).collect();
    for (chunk, need) in chunks.iter_mut().zip(prompts) {
        if let Some((_, quota)) = quotas.iter_mut().find(|(tenant, _)| *tenant == need.tenant) {
            chunk.rows = need.remaining.min(*quota).min(left);
            *quota -= chunk.rows;
            left -= chunk.rows;
        }
    }
    for (chunk, need) in chunks.iter_mut().zip(prompts) {
        let more = (need.remaining - chunk.rows).min(left);
        chunk.rows += more;
        left -= more;
    }
    chunks.into_iter().filter(|chunk| chunk.rows > 0)
}

/// Each tenant's part of `rows`, at least one.
fn quotas<'a>(prompts: &[Need<'a>], rows: usize) -> Vec<(&'a str, usize)> {
    let mut weights: Vec<(&str, u32)> = Vec::new();
    for need in prompts {
        if !weights.iter().any(|(tenant, _)| *tenant == need.tenant) {
            weights.push((need.tenant, need.weight));
        }
    }
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let rows = u64::try_from(rows).unwrap_or(u64::MAX);
    let part = |weight: u32| rows.saturating_mul(u64::from(weight)).checked_div(total).unwrap_or(0).max(1);
    weights.into_iter().map(|(tenant, weight)| (tenant, usize::try_from(part(weight)).unwrap_or(usize::MAX))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need(index: usize, remaining: usize, tenant: &str) -> Need<'_> {
        Need {
            index,
            remaining,
            is_short: remaining < 40,
            tenant,
            weight: 1,
            pass: 0,
            arrived: u64::try_from(index).expect("small"),
        }
    }

    fn share(needs: &[Need<'_>], budget: usize) -> Vec<Chunk> {
        share_some(needs, budget, budget)
    }

    fn share_some(needs: &[Need<'_>], budget: usize, prompt_rows: usize) -> Vec<Chunk> {
        let mut chunks = vec![Chunk { index: 99, rows: 99 }];
        let prompts = Allowance { rows: prompt_rows, is_burst: false };
        let streams = super::share(needs.iter().copied(), budget, prompts, &mut chunks);
        assert!(chunks.iter().take(streams).all(|chunk| chunk.rows == 1));
        chunks
    }

    fn rows(chunks: &[Chunk], index: usize) -> usize {
        chunks.iter().filter(|chunk| chunk.index == index).map(|chunk| chunk.rows).sum()
    }

    #[test]
    fn streams_come_before_prompts() {
        let chunks = share(&[need(0, 1_000, "a"), need(1, 1, "a"), need(2, 1, "b")], 10);
        assert_eq!(chunks, [(1, 1), (2, 1), (0, 8)].map(|(index, rows)| Chunk { index, rows }));
    }

    /// P-L5: a long prompt of one tenant does not hold up the short ones of others.
    #[test]
    fn prompts_share_by_tenant_and_by_weight() {
        let mut long = need(0, 10_000, "noisy");
        let chunks = share(&[long, need(1, 10_000, "noisy"), need(2, 30, "quiet")], 100);
        assert_eq!((rows(&chunks, 0), rows(&chunks, 1), rows(&chunks, 2)), (70, 0, 30));
        long.weight = 3;
        let chunks = share(&[long, need(2, 10_000, "quiet")], 100);
        assert_eq!((rows(&chunks, 0), rows(&chunks, 2)), (75, 25));
    }

    #[test]
    fn a_lower_pass_goes_first_where_not_all_fit() {
        let late = Need { pass: 9, ..need(0, 1, "a") };
        assert_eq!(share(&[late, need(1, 1, "b")], 1), [Chunk { index: 1, rows: 1 }]);
    }

    #[test]
    fn prompts_get_what_the_pace_allows_and_streams_all_that_they_need() {
        let needs = [need(0, 1_000, "a"), need(1, 1, "a"), need(2, 1, "b"), need(3, 50, "b")];
        let chunks = share_some(&needs, 100, 6);
        assert_eq!([0, 1, 2, 3].map(|index| rows(&chunks, index)), [3, 1, 1, 3]);
        assert_eq!(share_some(&needs, 100, 0).len(), 2);
    }

    #[test]
    fn a_burst_is_for_short_prompts() {
        let needs = [need(0, 1_000, "a"), need(1, 1, "a"), need(2, 30, "a"), need(3, 20, "b")];
        assert!(has_short(needs.into_iter()) && !has_short(needs.into_iter().take(2)));
        let mut chunks = Vec::new();
        assert_eq!(super::share(needs.into_iter(), 100, Allowance { rows: 40, is_burst: true }, &mut chunks), 1);
        assert_eq!([0, 1, 2, 3].map(|index| rows(&chunks, index)), [0, 1, 20, 20]);
    }

    #[test]
    fn adapters_take_turns_round_about() {
        let [first, second, third] = [None, Some(AdapterId(3)), Some(AdapterId(7))];
        let running = [third, first, third, second, first];
        let next = |last| next_turn(running.into_iter(), last);
        assert_eq!([next(first), next(second), next(third)], [second, third, first]);
        // Who was last may have left.
        assert_eq!([next(Some(AdapterId(5))), next(Some(AdapterId(9)))], [third, first]);
        assert_eq!(next_turn([third; 2].into_iter(), third), third);
        assert_eq!(next_turn([None; 2].into_iter(), None), None);
        assert_eq!(next_turn(std::iter::empty(), third), None);
        assert_eq!(most_streams([(first, 1), (third, 1), (first, 5), (third, 1), (second, 9)].into_iter()), 2);
        assert_eq!(most_streams([(second, 9)].into_iter()), 0);
    }

    #[test]
    fn batches_of_one_take_turns() {
        let late = Need { pass: 9, ..need(0, 64, "a") };
        let mut chunks = Vec::new();
        take_turns([late, need(1, 1, "a"), need(2, 13, "b"), need(3, 0, "b")].into_iter(), &mut chunks);
        assert_eq!(chunks, [(1, 1), (2, 13)].map(|(index, rows)| Chunk { index, rows }));
    }

    proptest! {
        #[test]
        fn the_budget_is_used_up_and_never_passed(
            wants in proptest::collection::vec((0_usize..50, 0_u8..4, 1_u32..1_000, 0_u64..5), 0..20),
            budget in 1_usize..200,
            prompt_rows in 0_usize..200,
        ) {
            let tenants: Vec<String> = wants.iter().map(|(_, tenant, ..)| tenant.to_string()).collect();
            let needs = wants.iter().zip(&tenants).enumerate().map(|(index, ((remaining, _, weight, pass), tenant))| Need {
                weight: *weight,
                pass: *pass,
                ..need(index, *remaining, tenant)
            });
            let needs: Vec<Need<'_>> = needs.collect();
            let chunks = share_some(&needs, budget, prompt_rows);
            let wanted: usize = wants.iter().map(|(remaining, ..)| remaining).sum();
            let streams = streams(needs.iter().copied());
            let of_prompts = (wanted - streams).min(prompt_rows).min(budget.saturating_sub(streams));
            prop_assert_eq!(chunks.iter().map(|chunk| chunk.rows).sum::<usize>(), streams.min(budget) + of_prompts);
            for chunk in &chunks {
                prop_assert!(chunk.rows >= 1 && chunk.rows <= wants[chunk.index].0);
                prop_assert_eq!(chunks.iter().filter(|other| other.index == chunk.index).count(), 1);
            }
        }
    }
}
