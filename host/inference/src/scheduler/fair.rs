//! Whose turn it is: weighted fair queueing over tenants, first come first served within one (P-L5).
//!
//! Each tenant has a pass, which grows by the rows computed for it over its weight; the lowest pass is next. A tenant that was
//! away comes back at the present pass, so that idleness saves nothing up; one that left in debt keeps it. Pure: no clock, no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Pass per row at weight 1.
const SCALE: u64 = 1_000_000;
/// Rows that a tenant may be behind another before others give way to it: replies that end by themselves let it in sooner.
const PATIENCE_ROWS: u64 = 32;

/// A queue of `T` by tenant.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    tenants: HashMap<Arc<str>, Tenant<T>>,
    /// The pass of the tenant served last.
    now: u64,
}

#[derive(Debug)]
struct Tenant<T> {
    pass: u64,
    weight: u32,
    waiting: VecDeque<T>,
    /// How many were taken out and have not ended.
    active: usize,
}

impl<T> Tenant<T> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active == 0
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        FairQueue { tenants: HashMap::new(), now: 0 }
    }

    /// Appends to a tenant's own queue. `weight` is its share from now on, at least 1.
    pub(super) fn push(&mut self, tenant: &Arc<str>, weight: u32, item: T) {
        // Whoever comes or comes back begins with those who are here: neither waiting for the past nor paid for it.
        let lowest = self.tenants.values().filter(|tenant| !tenant.is_idle()).map(|tenant| tenant.pass).min();
        let now = lowest.map_or(self.now, |lowest| self.now.max(lowest));
        let entry = self.tenants.entry(Arc::clone(tenant)).or_insert_with(|| Tenant {
            pass: now,
            weight,
            waiting: VecDeque::new(),
            active: 0,
        });
        if entry.is_idle() {
            entry.pass = entry.pass.max(now);
        }
        entry.weight = weight.max(1);
        entry.waiting.push_back(item);
    }

    /// Puts what was taken out back in front.
    pub(super) fn put_back(&mut self, tenant: &Arc<str>, item: T) {
        if let Some(entry) = self.tenants.get_mut(tenant) {
            entry.active = entry.active.saturating_sub(1);
            entry.waiting.push_front(item);
        }
    }

    /// Who is next.
    pub(super) fn peek(&self) -> Option<&T> {
        self.next().and_then(|tenant| self.tenants.get(&tenant)).and_then(|tenant| tenant.waiting.front())
    }

    /// Takes out who is next. It counts as active until [`FairQueue::end`] or [`FairQueue::put_back`].
    pub(super) fn pop(&mut self) -> Option<T> {
        let tenant = self.next()?;
        let entry = self.tenants.get_mut(&tenant)?;
        self.now = self.now.max(entry.pass);
        entry.active = entry.active.saturating_add(1);
        entry.waiting.pop_front()
    }

    /// `rows` were computed for a tenant.
    pub(super) fn charge(&mut self, tenant: &str, rows: usize) {
        if let Some(entry) = self.tenants.get_mut(tenant) {
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            entry.pass = entry.pass.saturating_add(rows.saturating_mul(SCALE) / u64::from(entry.weight.max(1)));
        }
    }

    /// One of a tenant's active ones has ended. Tenants that owe nothing are forgotten.
    pub(super) fn end(&mut self, tenant: &str) {
        if let Some(entry) = self.tenants.get_mut(tenant) {
            entry.active = entry.active.saturating_sub(1);
        }
        self.forget();
    }

    /// A tenant's pass; the lower, the sooner.
    pub(super) fn pass(&self, tenant: &str) -> u64 {
        self.tenants.get(tenant).map_or(self.now, |entry| entry.pass)
    }

    /// Whether `tenant` has got so much less than `other` that turns alone do not make up for it soon.
    pub(super) fn is_far_behind(&self, tenant: &str, other: &str) -> bool {
        let weight = self.tenants.get(tenant).map_or(1, |entry| u64::from(entry.weight.max(1)));
        self.pass(other).saturating_sub(self.pass(tenant)) > PATIENCE_ROWS * SCALE / weight
    }

    /// A tenant's part of so many sequences or cells, by weight among those who wait or are active now; at least one.
    pub(super) fn share(&self, tenant: &str, whole: usize) -> usize {
        let all: u64 = self.tenants.values().filter(|entry| !entry.is_idle()).map(|entry| u64::from(entry.weight.max(1))).sum();
        let own = self.tenants.get(tenant).map_or(1, |entry| u64::from(entry.weight.max(1)));
        let whole = u64::try_from(whole).unwrap_or(u64::MAX);
        usize::try_from(whole.saturating_mul(own) / all.max(1)).unwrap_or(usize::MAX).max(1)
    }

    /// Takes out everything waiting for which `leaves` holds.
    pub(super) fn extract(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for entry in self.tenants.values_mut() {
            // The usual case is that nobody leaves: look before moving anything.
            if entry.waiting.iter().any(&mut leaves) {
                let (gone, left): (Vec<T>, Vec<T>) = entry.waiting.drain(..).partition(|item| leaves(item));
                entry.waiting = left.into();
                taken.extend(gone);
            }
        }
        if !taken.is_empty() {
            self.forget();
        }
        taken
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.values().all(|entry| entry.waiting.is_empty())
    }

    /// Everything that waits, in no order.
    pub(super) fn items(&self) -> impl Iterator<Item = &T> {
        self.tenants.values().flat_map(|entry| &entry.waiting)
    }

    fn next(&self) -> Option<Arc<str>> {
        self.tenants
            .iter()
            .filter(|(_, entry)| !entry.waiting.is_empty())
            .min_by(|(a, one), (b, other)| (one.pass, a).cmp(&(other.pass, b)))
            .map(|(name, _)| Arc::clone(name))
    }

    fn forget(&mut self) {
        let now = self.now;
        self.tenants.retain(|_, entry| !entry.is_idle() || entry.pass > now);
        if self.tenants.values().all(Tenant::is_idle) {
            self.tenants.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    /// Serves `turns` items of one row each and counts them by tenant.
    fn serve(queue: &mut FairQueue<&'static str>, turns: usize) -> HashMap<&'static str, usize> {
        let mut counts = HashMap::new();
        for _ in 0..turns {
            let tenant = queue.pop().expect("somebody waits");
            queue.charge(tenant, 1);
            queue.end(tenant);
            *counts.entry(tenant).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        let mut queue = FairQueue::new();
        for _ in 0..1_000 {
            queue.push(&name("heavy"), 3, "heavy");
            queue.push(&name("light"), 1, "light");
        }
        let counts = serve(&mut queue, 800);
        assert!((595..=605).contains(&counts["heavy"]), "{counts:?}");
    }

    #[test]
    fn seats_are_shared_by_weight_among_those_who_are_here() {
        let mut queue = FairQueue::new();
        queue.push(&name("heavy"), 3, 1);
        assert_eq!(queue.share("heavy", 8), 8);
        queue.push(&name("light"), 1, 2);
        assert_eq!((queue.share("heavy", 8), queue.share("light", 8), queue.share("light", 2)), (6, 2, 1));
        assert!(queue.pop().is_some(), "who is served is still here");
        assert_eq!((queue.share("heavy", 8), queue.share("light", 8)), (6, 2));
    }

    #[test]
    fn who_comes_late_neither_waits_for_the_past_nor_is_paid_for_it() {
        let mut queue = FairQueue::new();
        for _ in 0..500 {
            queue.push(&name("old"), 1, "old");
        }
        serve(&mut queue, 300);
        for _ in 0..100 {
            queue.push(&name("new"), 1, "new");
        }
        let counts = serve(&mut queue, 100);
        assert!((48..=52).contains(&counts["new"]), "{counts:?}");
    }

    #[test]
    fn leaving_does_not_clear_a_debt() {
        let mut queue = FairQueue::new();
        for _ in 0..10 {
            queue.push(&name("other"), 1, "other");
        }
        queue.push(&name("debtor"), 1, "debtor");
        assert_eq!(queue.pop(), Some("debtor"), "of equals, the first by name");
        queue.charge("debtor", 5);
        queue.end("debtor");
        queue.push(&name("debtor"), 1, "debtor");
        let first_five: Vec<_> = (0..5).map(|_| *serve(&mut queue, 1).keys().next().expect("one")).collect();
        assert_eq!(first_five, ["other"; 5]);
        assert_eq!(serve(&mut queue, 1).keys().next(), Some(&"debtor"));
    }

    #[test]
    fn what_is_put_back_is_first_and_nobody_is_remembered_for_nothing() {
        let mut queue = FairQueue::new();
        queue.push(&name("a"), 1, 1);
        queue.push(&name("a"), 1, 2);
        assert_eq!(queue.pop(), Some(1));
        queue.put_back(&name("a"), 1);
        assert_eq!(queue.peek(), Some(&1));
        assert_eq!(queue.extract(|item| *item == 1), [1]);
        assert_eq!(queue.pop(), Some(2));
        assert!(queue.is_empty());
        queue.charge("a", 1_000);
        queue.end("a");
        assert!(queue.tenants.is_empty(), "debts towards nobody are forgotten");
    }

    proptest! {
        /// Nothing is lost, nothing doubled, and each tenant's own order is kept.
        #[test]
        fn every_item_comes_out_once_and_in_order(items in proptest::collection::vec((0..4_u8, 1..9_u32, 0..20_usize), 0..60)) {
            let mut queue = FairQueue::new();
            for (number, (tenant, weight, _)) in items.iter().enumerate() {
                queue.push(&name(&tenant.to_string()), *weight, (*tenant, number));
            }
            let mut out = Vec::new();
            while let Some((tenant, number)) = queue.pop() {
                queue.charge(&tenant.to_string(), items[number].2);
                queue.end(&tenant.to_string());
                out.push((tenant, number));
            }
            prop_assert_eq!(out.len(), items.len());
            for tenant in 0..4 {
                let order: Vec<_> = out.iter().filter(|(own, _)| *own == tenant).map(|(_, number)| *number).collect();
                prop_assert!(order.is_sorted());
            }
        }
    }
}
