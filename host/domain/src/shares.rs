//! A bounded resource that tenants divide among themselves (P-L5).
//!
//! A tenant is refused once it would hold more than it leaves free: alone it gets half, two get a third each, and whoever comes
//! next always finds some. There is nothing to configure, and nothing lies idle for tenants that are not there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A number of units (places, instances, bytes), some of them held.
#[derive(Debug)]
pub struct Shares {
    limit: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: u64,
    by_tenant: HashMap<Arc<str>, u64>,
}

/// Units that a tenant holds. Dropping it gives them back.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    tenant: Arc<str>,
    units: u64,
}

impl Shares {
    /// `limit` units for all together.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Shares { limit, held: Mutex::default() })
    }

    /// All there are.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Those not held.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.lock().total)
    }

    /// Takes `units` for `tenant`, unless there are too few or the tenant has its share.
    #[must_use]
    pub fn take(self: &Arc<Self>, tenant: &str, units: u64) -> Option<Share> {
        self.grow(self.none(tenant), units)
    }

    /// Nothing, for a tenant whose share will grow.
    #[must_use]
    pub fn none(self: &Arc<Self>, tenant: &str) -> Share {
        Share { shares: Arc::clone(self), tenant: Arc::from(tenant), units: 0 }
    }

    fn grow(&self, mut share: Share, units: u64) -> Option<Share> {
        let mut held = self.lock();
        let own = held.by_tenant.get(&share.tenant).copied().unwrap_or(0);
        let free = self.limit.saturating_sub(held.total);
        if units > 0 && own.saturating_add(units) > free {
            drop(held);
            return None;
        }
        held.add(&share.tenant, units);
        share.units = share.units.saturating_add(units);
        Some(share)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, tenant: &Arc<str>, units: u64) {
        self.total = self.total.saturating_add(units);
        let own = self.by_tenant.entry(Arc::clone(tenant)).or_default();
        *own = own.saturating_add(units);
    }

    fn remove(&mut self, tenant: &Arc<str>, units: u64) {
        self.total = self.total.saturating_sub(units);
        if let Some(own) = self.by_tenant.get_mut(tenant) {
            *own = own.saturating_sub(units);
            if *own == 0 {
                self.by_tenant.remove(tenant);
            }
        }
    }
}

impl Share {
    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// How much it is.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.units
    }

    /// Whether it was taken from `shares`.
    #[must_use]
    pub fn is_of(&self, shares: &Arc<Shares>) -> bool {
        Arc::ptr_eq(&self.shares, shares)
    }

    /// The same share with `units` more, or nothing at all, and then all of it is given back.
    #[must_use]
    pub fn grown(self, units: u64) -> Option<Share> {
        let shares = Arc::clone(&self.shares);
        shares.grow(self, units)
    }

    /// Takes `units` off, to be held apart.
    #[must_use]
    pub fn split(&mut self, units: u64) -> Option<Share> {
        self.units = self.units.checked_sub(units)?;
        Some(Share { shares: Arc::clone(&self.shares), tenant: Arc::clone(&self.tenant), units })
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        let units = std::mem::take(&mut self.units);
        self.shares.lock().remove(&self.tenant, units);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one at a time until refused.
    fn fill(shares: &Arc<Shares>, tenant: &str) -> Vec<Share> {
        std::iter::from_fn(|| shares.take(tenant, 1)).collect()
    }

    /// P-L5: nobody takes all alone, and who comes later still finds some.
    #[test]
    fn a_tenant_gets_as_much_as_it_leaves_free() {
        let shares = Shares::new(256);
        let noisy = fill(&shares, "noisy");
        assert_eq!(noisy.len(), 128);
        let second = fill(&shares, "second");
        assert_eq!(second.len(), 64);
        assert!(shares.take("noisy", 1).is_none());
        assert!(shares.take("third", 1).is_some());
        drop(noisy);
        assert_eq!(fill(&shares, "noisy").len(), 96);
        drop(second);
        assert_eq!(shares.free(), 256);
    }

    #[test]
    fn one_unit_is_for_one_and_none_is_for_nobody() {
        let one = Shares::new(1);
        let held = one.take("a", 1);
        assert!(held.is_some() && one.take("b", 1).is_none());
        drop(held);
        assert!(one.take("b", 1).is_some());
        assert!(Shares::new(0).take("a", 1).is_none());
        let _most = one.take("a", 1);
        assert!(one.take("a", 0).is_some(), "nothing can always be had");
    }

    #[test]
    fn what_grows_is_whole_or_gone() {
        let shares = Shares::new(100);
        let share = shares.take("a", 10).and_then(|share| share.grown(40)).expect("half is left free");
        assert_eq!((share.units(), shares.free()), (50, 50));
        assert!(share.grown(1).is_none());
        assert_eq!(shares.free(), 100);
    }

    #[test]
    fn parts_come_back_one_by_one() {
        let shares = Shares::new(10);
        let mut share = shares.take("a", 4).expect("free");
        let part = share.split(3).expect("held");
        assert!(share.split(2).is_none());
        share.release();
        assert_eq!(shares.free(), 7);
        drop((share, part));
        assert_eq!(shares.free(), 10);
        assert!(shares.lock().by_tenant.is_empty(), "nobody is remembered");
    }
}
