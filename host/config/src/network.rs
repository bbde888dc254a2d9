//! An address range, written as an address or in CIDR notation (RFC 4632, RFC 4291 section 2.3).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::text::{Malformed, text_type};

/// A range of IP addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    /// In bits, 0 to 32 or 128.
    prefix: u8,
}

impl Network {
    /// Whether `ip` lies in the range. An IPv4 address in its IPv6 form (`::ffff:10.0.0.1`, what a dual-stack socket
    /// reports) counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => ip.to_bits() & mask_v4(self.prefix) == network.to_bits(),
            (IpAddr::V6(network), IpAddr::V6(ip)) => ip.to_bits() & mask_v6(self.prefix) == network.to_bits(),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = Malformed;

    /// Refuses bits behind the prefix (`10.0.0.1/8`): which of the two was meant cannot be known.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| Self::MALFORMED)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse::<u8>().map_err(|_| Self::MALFORMED)?,
            None => longest,
        };
        let is_clean = match address {
            IpAddr::V4(ip) => ip.to_bits() & !mask_v4(prefix) == 0,
            IpAddr::V6(ip) => ip.to_bits() & !mask_v6(prefix) == 0 && ip.to_ipv4_mapped().is_none(),
        };
        if prefix > longest || !is_clean {
            return Err(Self::MALFORMED);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

text_type!(
    Network,
    "ip-network",
    "an IP address or range",
    "write an address (`192.0.2.7`) or a range whose bits behind the prefix are zero (`10.0.0.0/8`, `fd00::/8`)"
);

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let private = network("10.0.0.0/8");
        assert!(private.contains("10.255.0.1".parse().unwrap()));
        assert!(private.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!private.contains("11.0.0.1".parse().unwrap()));
        assert!(!private.contains("fd00::1".parse().unwrap()));
        assert!(network("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        assert!(network("fd00::/8").contains("fdff::1".parse().unwrap()));
        assert!(network("192.0.2.7").contains("192.0.2.7".parse().unwrap()));
        assert!(!network("192.0.2.7").contains("192.0.2.8".parse().unwrap()));
        assert_eq!(network("192.0.2.7").to_string(), "192.0.2.7/32");
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "::1/129", "10.0.0.0/", "10.0.0.0/x", "localhost", "::ffff:10.0.0.0/104"] {
            assert!(bad.parse::<Network>().is_err(), "{bad:?}");
        }
    }
}
