//! Places in a model's queue: a bound for all together, and a share for each tenant (P-L5).
//!
//! A request takes its ticket before anything is composed or encoded for it, so that "full" costs nothing, and holds it until it
//! has a sequence.

use std::sync::Arc;

use tollgate_domain::{Share, Shares};

use crate::gauges::Gauges;

/// All tickets of one model.
pub(crate) struct Tickets {
    places: Arc<Shares>,
    gauges: Arc<Gauges>,
}

/// A place in the queue, from [`Engine::reserve`](crate::Engine::reserve). Dropping it gives the place back.
#[derive(Debug)]
pub struct Ticket {
    place: Share,
    gauges: Arc<Gauges>,
}

impl Tickets {
    pub(crate) fn new(limit: usize, gauges: Arc<Gauges>) -> Arc<Self> {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        Arc::new(Tickets { places: Shares::new(limit), gauges })
    }

    /// A ticket, unless the queue is full or the tenant has its share.
    pub(crate) fn take(&self, tenant: &str) -> Option<Ticket> {
        self.places.take(tenant, 1).map(|place| self.ticket(place))
    }

    /// A ticket for one that had a sequence and lost it: it was let in once, and takes nobody's place.
    pub(crate) fn take_again(&self, tenant: &Arc<str>) -> Ticket {
        self.ticket(self.places.none(tenant))
    }

    fn ticket(&self, place: Share) -> Ticket {
        self.gauges.enter_queue();
        Ticket { place, gauges: Arc::clone(&self.gauges) }
    }
}

impl Ticket {
    /// Whose it is.
    pub(crate) fn tenant(&self) -> &Arc<str> {
        self.place.tenant()
    }

    /// Whether it was taken from `tickets`.
    pub(crate) fn is_of(&self, tickets: &Tickets) -> bool {
        self.place.is_of(&tickets.places)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gauges.leave_queue();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_counted() {
        let tickets = Tickets::new(2, Arc::default());
        let held = [tickets.take("a"), tickets.take("b")];
        assert!(held.iter().all(Option::is_some));
        let again = tickets.take_again(&Arc::from("a"));
        assert_eq!(tickets.gauges.waiting(), 3);
        drop((held, again));
        assert_eq!(tickets.gauges.waiting(), 0);
    }
}
