//! How many connections may be open, in all and per address.
//!
//! A permit is taken at accept and given back when the connection's task ends, however it ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gauges::Gauges;

/// Bits of an IPv6 address that are left to one customer; all of them count as one address.
const IPV6_HOST_BITS: u32 = 64;

/// The connection caps of one listener.
#[derive(Debug)]
pub(crate) struct Caps {
    total: usize,
    per_address: usize,
    open: Mutex<Open>,
    gauges: Arc<Gauges>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The right to keep one connection open.
#[derive(Debug)]
pub(crate) struct Permit {
    caps: Arc<Caps>,
    address: IpAddr,
}

impl Caps {
    pub(crate) fn new(total: usize, per_address: usize, gauges: Arc<Gauges>) -> Arc<Self> {
        Arc::new(Self { total, per_address, open: Mutex::default(), gauges })
    }

    /// Counts a connection in, or says no.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Permit> {
        let address = counted_as(peer);
        let admitted = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let of_address = open.by_address.get(&address).copied().unwrap_or(0);
            let free = open.total < self.total && of_address < self.per_address;
            if free {
                open.total += 1;
                open.by_address.insert(address, of_address + 1);
            }
            free
        };
        if admitted {
            self.gauges.connection_opened();
            Some(Permit { caps: Arc::clone(self), address })
        } else {
            self.gauges.connection_refused();
            None
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut open = self.caps.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.total = open.total.saturating_sub(1);
            if let Entry::Occupied(mut entry) = open.by_address.entry(self.address) {
                *entry.get_mut() -= 1;
                // The map holds open addresses only, or it would grow with everybody who ever came by.
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
        self.caps.gauges.connection_closed();
    }
}

/// The address a peer is counted under.
fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = (address.to_bits() >> IPV6_HOST_BITS) << IPV6_HOST_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_to_its_share_and_gets_it_back() {
        // P-E1: per-IP cap.
        let caps = Caps::new(10, 2, Arc::default());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = caps.admit(address).unwrap();
        let second = caps.admit(address).unwrap();
        assert!(caps.admit(address).is_none());
        assert!(caps.admit("192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        assert!(caps.admit(address).is_some());
        drop(second);
        assert_eq!(caps.gauges.refused(), 1);
        assert_eq!(caps.gauges.connections(), 0);
        assert!(caps.open.lock().unwrap().by_address.is_empty());
    }

    #[test]
    fn the_total_holds_over_all_addresses() {
        let caps = Caps::new(1, 5, Arc::default());
        let first = caps.admit("192.0.2.1".parse().unwrap());
        assert!(first.is_some());
        assert!(caps.admit("192.0.2.2".parse().unwrap()).is_none());
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let caps = Caps::new(10, 1, Arc::default());
        let first = caps.admit("2001:db8::1".parse().unwrap());
        assert!(first.is_some());
        assert!(caps.admit("2001:db8::2".parse().unwrap()).is_none());
        assert!(caps.admit("2001:db8:0:1::1".parse().unwrap()).is_some());
    }

    #[test]
    fn a_mapped_address_counts_as_the_address_it_maps() {
        let caps = Caps::new(10, 1, Arc::default());
        let first = caps.admit("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some());
        assert!(caps.admit("192.0.2.1".parse().unwrap()).is_none());
    }
}
