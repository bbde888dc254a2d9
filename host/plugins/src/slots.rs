//! Instances are reserved before a request is admitted, so that none fails half-way for want of one.
//!
//! An eighth of them is kept from routes, so that replies under way never keep anybody from being known; the rest is divided among
//! the tenants (P-L5).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_domain::{Share, Shares};

/// One instance in so many is for authenticators only.
const APART: u32 = 8;

/// How many instances may be alive.
#[derive(Debug, Clone)]
pub struct Slots {
    free: Arc<Semaphore>,
    /// Those that routes may take.
    routes: Arc<Shares>,
    total: u32,
}

impl Slots {
    pub(crate) fn new(total: u32) -> Self {
        let routes = Shares::new(u64::from(total.saturating_sub(total / APART)));
        Slots { free: Arc::new(Semaphore::new(total as usize)), routes, total }
    }

    /// Reserves `count` instances to find out who asks, or says no at once.
    #[must_use]
    pub fn reserve(&self, count: u32) -> Option<Reservation> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(count).ok()?;
        Some(Reservation { permit, share: None })
    }

    /// Reserves `count` instances for a route's plugins, or says no at once: there are none, or `tenant` has its share.
    #[must_use]
    pub fn reserve_for(&self, tenant: &str, count: u32) -> Option<Reservation> {
        let share = self.routes.take(tenant, u64::from(count))?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(count).ok()?;
        Some(Reservation { permit, share: Some(share) })
    }

    /// Counts `slot` as `tenant`'s, if it is nobody's yet; false if the tenant has its share.
    pub(crate) fn charge(&self, slot: &mut Slot, tenant: &str) -> bool {
        if slot.share.is_none() {
            slot.share = self.routes.take(tenant, 1);
        }
        slot.share.is_some()
    }

    /// Instances not reserved.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// All there are.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The most that one request may take for its route.
    #[must_use]
    pub fn for_routes(&self) -> u32 {
        u32::try_from(self.routes.limit()).unwrap_or(u32::MAX)
    }
}

/// Instances set aside for one request; what is left goes back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    share: Option<Share>,
}

impl Reservation {
    /// Takes one for an instance. `None` when all are taken: the request asks for more plugins than it reserved.
    pub fn take(&mut self) -> Option<Slot> {
        let permit = self.permit.split(1)?;
        let share = self.share.as_mut().and_then(|share| share.split(1));
        Some(Slot { _permit: permit, share })
    }

    /// Gives back what was not taken.
    pub fn release(&mut self) {
        drop(self.permit.split(self.permit.num_permits()));
        if let Some(share) = &mut self.share {
            share.release();
        }
    }
}

/// The right to one instance.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    share: Option<Share>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_there_and_comes_back() {
        let slots = Slots::new(4);
        let mut reservation = slots.reserve(3).expect("4 are free");
        assert!(slots.reserve(2).is_none(), "full means no, at once");
        let taken = reservation.take().expect("reserved");
        reservation.release();
        assert_eq!(slots.free(), 3);
        assert!(reservation.take().is_none());
        drop((reservation, taken));
        assert_eq!(slots.free(), 4);
    }

    #[test]
    fn what_was_taken_to_find_out_can_be_charged_once() {
        let slots = Slots::new(8);
        let mut taken = (0..5).filter_map(|_| slots.reserve(1)?.take()).collect::<Vec<_>>();
        let charged = taken.iter_mut().map(|slot| slots.charge(slot, "noisy")).filter(|charged| *charged).count();
        assert_eq!(charged, 4, "as many as are left of the seven for routes");
        assert!(slots.charge(&mut taken[0], "noisy"), "it is already");
        assert!(slots.charge(&mut taken[4], "other"));
        drop(taken);
        assert_eq!(slots.routes.free(), 7);
    }

    /// P-L5: replies of one tenant, or of all, leave room for others to be known.
    #[test]
    fn routes_leave_room_for_authenticators_and_for_each_other() {
        let slots = Slots::new(256);
        let fill = |tenant: &str| std::iter::from_fn(|| slots.reserve_for(tenant, 2)).collect::<Vec<_>>();
        let noisy = fill("noisy");
        assert_eq!(noisy.len(), 56, "half of 224");
        assert!(slots.reserve_for("other", 5).is_some());
        let others = (0..40).map(|number| fill(&number.to_string())).collect::<Vec<_>>();
        assert!(slots.reserve_for("late", 1).is_none());
        assert!(slots.reserve(32).is_some(), "an eighth is apart");
        drop((noisy, others));
        let mut reservation = slots.reserve_for("noisy", 3).expect("all came back");
        let slot = reservation.take();
        reservation.release();
        drop(slot);
        assert_eq!((slots.free(), slots.routes.free()), (256, 224));
    }
}
