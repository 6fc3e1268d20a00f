//! Networks that requests come from.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `10.0.0.0/8`, `2001:db8::/32`, or one address. IPv4 addresses that are written as IPv6
/// (`::ffff:10.0.0.1`, as a socket that takes both shows them) are IPv4 here, so a network of
/// IPv6 never holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// Its first address.
    first: IpAddr,
    /// Leading bits that all its addresses share.
    bits: u8,
}

/// A network that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotNetwork {
    /// No address, or a length that no address has.
    #[error("`{0}` is not a network; write 10.0.0.0/8, 2001:db8::/32 or an address")]
    Form(String),
    /// An address inside a network in place of the network's own.
    #[error("`{0}` has bits set behind its length; the network is {1}")]
    HostBits(String, Network),
}

/// Bits by which IPv4 addresses are longer when written as IPv6.
const MAPPED_BITS: u8 = 96;

impl Network {
    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let past = 32 - u32::from(self.bits);
                (first.to_bits() ^ address.to_bits()).checked_shr(past).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let past = 128 - u32::from(self.bits);
                (first.to_bits() ^ address.to_bits()).checked_shr(past).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The network of this length that an address lies in.
    fn around(address: IpAddr, bits: u8) -> Self {
        let first = match address {
            IpAddr::V4(address) => {
                let past = 32 - u32::from(bits);
                let mask = u32::MAX.checked_shl(past).unwrap_or(0);
                IpAddr::V4((address.to_bits() & mask).into())
            }
            IpAddr::V6(address) => {
                let past = 128 - u32::from(bits);
                let mask = u128::MAX.checked_shl(past).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Self { first, bits }
    }
}

const fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = NotNetwork;

    fn from_str(text: &str) -> Result<Self, NotNetwork> {
        let shown = || text.chars().take(64).collect::<String>();
        let wrong = || NotNetwork::Form(shown());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let mut bits = match length {
            None => bits_of(written),
            // Read and written again: `+8` and `08` are read as numbers, too.
            Some(length) => {
                let bits: u8 = length.parse().map_err(|_| wrong())?;
                let plain = bits.to_string() == length && bits <= bits_of(written);
                plain.then_some(bits).ok_or_else(wrong)?
            }
        };
        let mut address = written;
        if written.is_ipv6() && written.to_canonical().is_ipv4() && bits >= MAPPED_BITS {
            address = written.to_canonical();
            bits -= MAPPED_BITS;
        }
        let network = Self::around(address, bits);
        if network.first != address {
            return Err(NotNetwork::HostBits(shown(), network));
        }
        Ok(network)
    }
}

/// As it is read; one address without a length.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == bits_of(self.first) {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect(network);
        network.contains(address.parse().expect(address))
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            ("192.168.7.0/25", "192.168.7.127", "192.168.7.128"),
            ("192.168.7.4", "192.168.7.4", "192.168.7.5"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "::ffff:10.0.0.1"),
            ("::/0", "::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
        ] {
            assert!(holds(network, inside), "{inside} in {network}");
            assert!(!holds(network, outside), "{outside} not in {network}");
        }
    }

    #[test]
    fn networks_are_written_as_they_are_read() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            let network: Network = text.parse().expect(text);
            assert_eq!(network.to_string(), shown);
            let json = serde_json::to_string(&network).expect("text");
            assert_eq!(serde_json::from_str::<Network>(&json).expect(&json), network);
        }
        let inside = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert!(inside.contains("the network is 10.0.0.0/8"), "{inside}");
        let inside = "2001:db8::1/32".parse::<Network>().unwrap_err().to_string();
        assert!(inside.contains("the network is 2001:db8::/32"), "{inside}");
        let wrong = [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "10.0.0.0/8/8",
            " 10.0.0.1",
            "fe80::1%eth0",
            "localhost",
            "10.0.0.0/-1",
        ];
        for text in wrong {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
