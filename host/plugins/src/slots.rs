//! Instances are reserved before a request is admitted, so that none fails half-way for want of one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many instances may be alive.
#[derive(Debug, Clone)]
pub struct Slots {
    free: Arc<Semaphore>,
    total: u32,
}

impl Slots {
    pub(crate) fn new(total: u32) -> Self {
        Slots { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Reserves `count` instances, or says no at once.
    #[must_use]
    pub fn reserve(&self, count: u32) -> Option<Reservation> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(count).ok()?;
        Some(Reservation { permit })
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
}

/// Instances set aside for one request; what is left goes back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// Takes one for an instance. `None` when all are taken: the request asks for more plugins than it reserved.
    pub fn take(&mut self) -> Option<Slot> {
        self.permit.split(1).map(|permit| Slot { _permit: permit })
    }

    /// Gives back what was not taken.
    pub fn release(&mut self) {
        drop(self.permit.split(self.permit.num_permits()));
    }
}

/// The right to one instance.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
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
}
