//! Which models to unload so that another one fits: a pure function, held against brute force in its tests.

/// A model that may be unloaded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate<K> {
    /// Which.
    pub(crate) key: K,
    /// Bytes that its going frees; more than 0.
    pub(crate) bytes: u64,
    /// What its going costs: milliseconds of loading it again, times how much it is used. Finite, 0 or more.
    pub(crate) cost: f64,
}

/// Candidates that are weighed exactly; of more, those that cost most for each byte are left out.
const MAX_EXACT: usize = 16;

/// The candidates that free at least `need` bytes at the least cost together; of equal ones, those that free the fewest bytes.
/// `None` where all of them together do not suffice.
pub(crate) fn choose<K: Copy>(candidates: &[Candidate<K>], need: u64) -> Option<Vec<K>> {
    if need == 0 {
        return Some(Vec::new());
    }
    let mut sorted = candidates.to_vec();
    // Cheap bytes first: the search then finds good answers early, and cuts off the rest.
    sorted.sort_by(|a, b| per_byte(a).total_cmp(&per_byte(b)).then(b.bytes.cmp(&a.bytes)));
    let enough = |list: &[Candidate<K>]| list.iter().fold(0_u64, |sum, candidate| sum.saturating_add(candidate.bytes)) >= need;
    if !enough(&sorted) {
        return None;
    }
    if sorted.len() > MAX_EXACT && sorted.get(..MAX_EXACT).is_some_and(enough) {
        sorted.truncate(MAX_EXACT);
    } else if sorted.len() > MAX_EXACT {
        // So many small ones that even the cheap ones together do not suffice: take them in order.
        let mut freed = 0_u64;
        let taken = sorted.iter().take_while(|candidate| {
            let is_short = freed < need;
            freed = freed.saturating_add(candidate.bytes);
            is_short
        });
        return Some(taken.map(|candidate| candidate.key).collect());
    }
    let mut search = Search { candidates: &sorted, best: None, taken: Vec::new() };
    search.go(0, need, 0.0, 0);
    search.best.map(|best| best.keys)
}

fn per_byte<K>(candidate: &Candidate<K>) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "an order, not an account")]
    let bytes = candidate.bytes.max(1) as f64;
    candidate.cost / bytes
}

struct Search<'a, K> {
    candidates: &'a [Candidate<K>],
    best: Option<Best<K>>,
    taken: Vec<K>,
}

struct Best<K> {
    keys: Vec<K>,
    cost: f64,
    bytes: u64,
}

impl<K: Copy> Search<'_, K> {
    /// Takes or leaves the candidate at `at`; `need` bytes are still missing.
    fn go(&mut self, at: usize, need: u64, cost: f64, bytes: u64) {
        let is_worse = |best: &Best<K>| cost > best.cost || (cost >= best.cost && bytes >= best.bytes);
        if self.best.as_ref().is_some_and(is_worse) {
            return;
        }
        if need == 0 {
            self.best = Some(Best { keys: self.taken.clone(), cost, bytes });
            return;
        }
        let rest = self.candidates.get(at..).unwrap_or_default();
        let Some(next) = rest.first() else { return };
        if rest.iter().fold(0_u64, |sum, candidate| sum.saturating_add(candidate.bytes)) < need {
            return;
        }
        // What is sorted by cost for each byte cannot fill the rest for less than this.
        #[allow(clippy::cast_precision_loss, reason = "a bound with room for rounding")]
        let bound = cost + per_byte(next) * need as f64 * (1.0 - 1e-9);
        if self.best.as_ref().is_some_and(|best| bound > best.cost) {
            return;
        }
        self.taken.push(next.key);
        self.go(at + 1, need.saturating_sub(next.bytes), cost + next.cost, bytes.saturating_add(next.bytes));
        self.taken.pop();
        self.go(at + 1, need, cost, bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every subset: the least cost, and with it the fewest bytes.
    fn oracle(candidates: &[Candidate<usize>], need: u64) -> Option<(f64, u64)> {
        let subsets = (0_u32..1 << candidates.len()).filter_map(|mask| {
            let taken = candidates.iter().filter(|candidate| mask >> candidate.key & 1 == 1);
            let (bytes, cost) = taken.fold((0, 0.0), |(bytes, cost), one| (bytes + one.bytes, cost + one.cost));
            (bytes >= need).then_some((cost, bytes))
        });
        subsets.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
    }

    fn candidates(most: usize) -> impl Strategy<Value = Vec<Candidate<usize>>> {
        let one = (1_u64..400, 0_u32..50);
        proptest::collection::vec(one, 0..most).prop_map(|list| {
            let numbered = list.into_iter().enumerate();
            // Whole costs add up without rounding, so that the two can be compared exactly.
            numbered.map(|(key, (bytes, cost))| Candidate { key, bytes, cost: f64::from(cost) }).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_is_as_good_as_brute_force(list in candidates(11), need in 0_u64..2_500) {
            let chosen = choose(&list, need);
            let found = chosen.map(|keys| {
                let taken = keys.iter().map(|key| list[*key]);
                taken.fold((0.0, 0), |(cost, bytes), one| (cost + one.cost, bytes + one.bytes))
            });
            prop_assert_eq!(found, oracle(&list, need));
        }

        #[test]
        fn many_candidates_free_enough_and_each_once(list in candidates(60), need in 0_u64..12_000) {
            let all = list.iter().map(|one| one.bytes).sum::<u64>();
            match choose(&list, need) {
                None => prop_assert!(all < need),
                Some(mut keys) => {
                    prop_assert!(keys.iter().map(|key| list[*key].bytes).sum::<u64>() >= need);
                    let count = keys.len();
                    keys.sort_unstable();
                    keys.dedup();
                    prop_assert_eq!(keys.len(), count);
                }
            }
        }
    }

    #[test]
    fn a_small_idle_model_does_not_push_out_the_one_that_is_in_use() {
        let chat = Candidate { key: "chat", bytes: 4_000, cost: 8_000.0 * 50.0 };
        let embedder = Candidate { key: "embedder", bytes: 40, cost: 100.0 };
        let old = Candidate { key: "old", bytes: 900, cost: 2_000.0 };
        assert_eq!(choose(&[chat, embedder, old], 600), Some(vec!["old"]));
        assert_eq!(choose(&[chat, embedder], 5_000), None);
    }
}
