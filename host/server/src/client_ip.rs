//! Which address a request really comes from when proxies stand in between (P-E10).
//!
//! Only what a trusted proxy appended is believed: `X-Forwarded-For` is read from the right, past trusted
//! addresses, and the first other one is the client. Whatever a client wrote to the left of that is never
//! looked at. No other header is read.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// A block of addresses, `192.0.2.0/24` or a single address (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a block like 10.0.0.0/8")]
pub struct CidrError(String);

/// The address of the client: the peer itself unless it is trusted, else the rightmost address in
/// `X-Forwarded-For` that is not trusted. If all are trusted it is the leftmost; an entry that is no address
/// ends the search at the proxy that vouched for it.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|block| block.contains(address));
    let mut client = peer.to_canonical();
    // Several header lines are one list, in their order (RFC 9110, 5.3).
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let mut entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    while is_trusted(client) {
        let Some(entry) = entries.next() else { break };
        let Some(address) = parse(entry) else { break };
        client = address;
    }
    client
}

/// Reads one entry: an address, with or without a port (some proxies add one).
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

impl Cidr {
    /// Whether the block holds this address. A mapped IPv4 address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                u64::from(network.to_bits()) >> shift == u64::from(address.to_bits()) >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                let above = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                above(network.to_bits()) == above(address.to_bits())
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CidrError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| error())?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // `parse` would take a sign.
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return Err(error()),
            Some(digits) => digits.parse().map_err(|_| error())?,
            None => longest,
        };
        if prefix > longest {
            return Err(error());
        }
        Ok(Self { network, prefix })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn forwarded(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn trusted() -> Vec<Cidr> {
        vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap(), "127.0.0.1".parse().unwrap()]
    }

    #[test]
    fn a_stranger_is_not_believed() {
        let headers = forwarded(&["1.2.3.4"]);
        assert_eq!(client_ip(ip("192.0.2.9"), &headers, &trusted()), ip("192.0.2.9"));
        assert_eq!(client_ip(ip("10.0.0.1"), &headers, &[]), ip("10.0.0.1"));
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let cases: [(&[&str], &str); 8] = [
            (&["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
            (&["1.1.1.1, 2.2.2.2, 10.9.9.9"], "2.2.2.2"),
            (&["1.1.1.1", "2.2.2.2", "10.1.1.1,10.2.2.2"], "2.2.2.2"),
            (&["10.3.3.3, 10.4.4.4"], "10.3.3.3"),
            (&["5.5.5.5, garbage, 10.4.4.4"], "10.4.4.4"),
            (&["2.2.2.2:8080"], "2.2.2.2"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["[2001:db8::2]"], "2001:db8::2"),
        ];
        for (lines, expected) in cases {
            assert_eq!(client_ip(ip("10.0.0.1"), &forwarded(lines), &trusted()), ip(expected), "{lines:?}");
        }
    }

    #[test]
    fn blocks_are_read_strictly() {
        for text in ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "10.0.0/8", "", "/8", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(ip("255.1.2.3")));
        assert!("::/0".parse::<Cidr>().unwrap().contains(ip("2001:db8::1")));
        assert!(!"::/0".parse::<Cidr>().unwrap().contains(ip("1.2.3.4")));
        assert!("10.0.0.0/8".parse::<Cidr>().unwrap().contains(ip("::ffff:10.1.2.3")));
        assert!(!"192.0.2.4/31".parse::<Cidr>().unwrap().contains(ip("192.0.2.6")));
    }

    proptest! {
        // P-E10: what a client puts to the left of the address its proxy appended changes nothing.
        #[test]
        fn a_client_cannot_choose_its_address(forged in "[0-9a-f:., \\[\\]x]{0,80}", client: u32) {
            let client = IpAddr::V4(client.into());
            prop_assume!(!trusted().iter().any(|block| block.contains(client)));
            let line = format!("{forged},{client}, 10.0.0.7");
            let headers = forwarded(&[line.as_str()]);
            prop_assert_eq!(client_ip(ip("10.0.0.1"), &headers, &trusted()), client);
            let text = client.to_string();
            let split = forwarded(&[forged.as_str(), text.as_str(), "10.0.0.7"]);
            prop_assert_eq!(client_ip(ip("10.0.0.1"), &split, &trusted()), client);
        }

        #[test]
        fn an_untrusted_peer_is_always_itself(lines in proptest::collection::vec("[ -~]{0,40}", 0..4), peer: u32) {
            let peer = IpAddr::V4(peer.into());
            prop_assume!(!trusted().iter().any(|block| block.contains(peer)));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client_ip(peer, &forwarded(&lines), &trusted()), peer);
        }
    }
}
