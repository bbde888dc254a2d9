//! Places in a model's queue: a bound for all together, and a share for each tenant (P-L5).
//!
//! A request takes its ticket before anything is composed or encoded for it, so that "full" costs nothing, and holds it until it
//! has a sequence. A tenant is refused once it holds as many tickets as are free: alone it gets half of the queue, two get a
//! third each, and whoever comes next always finds a place.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::gauges::Gauges;

/// All tickets of one model.
pub(crate) struct Tickets {
    limit: usize,
    gauges: Arc<Gauges>,
    held: Mutex<HashMap<Arc<str>, usize>>,
}

/// A place in the queue, from [`Engine::reserve`](crate::Engine::reserve). Dropping it gives the place back.
pub struct Ticket {
    tickets: Arc<Tickets>,
    tenant: Arc<str>,
}

impl Tickets {
    pub(crate) fn new(limit: usize, gauges: Arc<Gauges>) -> Arc<Self> {
        Arc::new(Tickets { limit, gauges, held: Mutex::default() })
    }

    /// A ticket, unless the queue is full or the tenant has its share.
    pub(crate) fn take(self: &Arc<Self>, tenant: &str) -> Option<Ticket> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.limit.saturating_sub(self.gauges.waiting());
        if held.get(tenant).copied().unwrap_or(0) >= free {
            return None;
        }
        Some(self.issue(&mut held, Arc::from(tenant)))
    }

    /// A ticket for one that had a sequence and lost it; never refused.
    pub(crate) fn take_again(self: &Arc<Self>, tenant: &Arc<str>) -> Ticket {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.issue(&mut held, Arc::clone(tenant))
    }

    fn issue(self: &Arc<Self>, held: &mut HashMap<Arc<str>, usize>, tenant: Arc<str>) -> Ticket {
        let count = held.entry(Arc::clone(&tenant)).or_default();
        *count = count.saturating_add(1);
        self.gauges.enter_queue();
        Ticket { tickets: Arc::clone(self), tenant }
    }
}

impl Ticket {
    /// Whose it is.
    pub(crate) fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Whether it was taken from `tickets`.
    pub(crate) fn is_of(&self, tickets: &Arc<Tickets>) -> bool {
        Arc::ptr_eq(&self.tickets, tickets)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut held = self.tickets.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.tenant);
            }
        }
        self.tickets.gauges.leave_queue();
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tickets(limit: usize) -> Arc<Tickets> {
        Tickets::new(limit, Arc::default())
    }

    /// Takes until refused.
    fn fill(tickets: &Arc<Tickets>, tenant: &str) -> Vec<Ticket> {
        std::iter::from_fn(|| tickets.take(tenant)).collect()
    }

    /// P-L5: nobody fills the queue alone, and who comes later still finds a place.
    #[test]
    fn a_tenant_gets_as_many_places_as_it_leaves_free() {
        let tickets = tickets(256);
        let noisy = fill(&tickets, "noisy");
        assert_eq!(noisy.len(), 128);
        let second = fill(&tickets, "second");
        assert_eq!(second.len(), 64);
        assert!(tickets.take("noisy").is_none());
        assert!(tickets.take("third").is_some());
        drop(noisy);
        assert_eq!(fill(&tickets, "noisy").len(), 96);
    }

    #[test]
    fn one_place_is_a_place_and_none_is_none() {
        let one = tickets(1);
        let held = fill(&one, "a");
        assert_eq!(held.len(), 1);
        assert!(one.take("b").is_none());
        drop(held);
        assert!(one.take("b").is_some());
        assert!(tickets(0).take("a").is_none());
    }

    #[test]
    fn who_lost_its_sequence_is_never_refused() {
        let tickets = tickets(2);
        let held = [tickets.take("a"), tickets.take("b")];
        assert!(held.iter().all(Option::is_some));
        let again = tickets.take_again(&Arc::from("a"));
        assert_eq!(tickets.gauges.waiting(), 3);
        drop((held, again));
        assert_eq!(tickets.gauges.waiting(), 0);
        assert!(tickets.held.lock().expect("not poisoned").is_empty(), "nobody is remembered");
    }

    proptest! {
        /// Never more than the limit, and a tenant without a ticket is refused only by a full queue.
        #[test]
        fn the_bounds_hold_in_any_order(limit in 0..12_usize, moves in proptest::collection::vec((0..4_u8, any::<bool>()), 0..80)) {
            let tickets = tickets(limit);
            let mut held: Vec<Ticket> = Vec::new();
            for (tenant, takes) in moves {
                let tenant = tenant.to_string();
                let place = held.iter().position(|ticket| **ticket.tenant() == *tenant);
                if takes {
                    let taken = tickets.take(&tenant);
                    prop_assert!(taken.is_some() || place.is_some() || held.len() == limit);
                    held.extend(taken);
                } else if let Some(place) = place {
                    held.swap_remove(place);
                }
                prop_assert!(held.len() <= limit);
                prop_assert_eq!(tickets.gauges.waiting(), held.len());
            }
        }
    }
}
