//! Where a request comes from, when proxies stand between: what they say in `X-Forwarded-For` or
//! `Forwarded` (RFC 7239) counts, and what anybody else writes there does not.
//!
//! Each proxy adds the address that it sees at the end. From there leftwards proxies that are
//! trusted are passed over; the first other address is the client's, and what stands left of it
//! the client may have made up.

use std::net::{IpAddr, SocketAddr};

use govern::policy::Network;
use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What trusted proxies say cannot be made out, so nobody knows where the request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unclear {
    #[error("the header 'x-forwarded-for' cannot be read")]
    ForwardedFor,
    #[error("the header 'forwarded' cannot be read")]
    Forwarded,
    /// A proxy writes one of them; the other came through it as its client wrote it.
    #[error("the headers 'x-forwarded-for' and 'forwarded' name two clients")]
    Contradiction,
}

/// The address that a request comes from.
///
/// # Errors
/// A trusted proxy's headers say nothing that can be understood.
pub(super) fn source(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[Network],
) -> Result<IpAddr, Unclear> {
    let peer = peer.to_canonical();
    let trusts = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !trusts(peer) {
        return Ok(peer);
    }
    let plain = client(lines(headers, &X_FORWARDED_FOR), &trusts, Some)
        .map_err(|()| Unclear::ForwardedFor)?;
    let full =
        client(lines(headers, &FORWARDED), &trusts, seen_by).map_err(|()| Unclear::Forwarded)?;
    match (plain, full) {
        (Some(one), Some(other)) if one != other => Err(Unclear::Contradiction),
        (Some(found), _) | (None, Some(found)) => Ok(found),
        (None, None) => Ok(peer),
    }
}

/// Elements of a header from the last one to the first; `None` in place of what is no text.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Option<&'a str>> {
    let values: Vec<_> = headers.get_all(name).iter().collect();
    let texts = values.into_iter().rev().map(|value| value.to_str().ok());
    texts.flat_map(|text| {
        let parts: Vec<_> = match text {
            Some(text) => text.rsplit(',').map(Some).collect(),
            None => vec![None],
        };
        parts
    })
}

/// The last address that is nobody's whom we trust; the first one where all are trusted; `None`
/// where there is none at all.
fn client<'a>(
    elements: impl Iterator<Item = Option<&'a str>>,
    trusts: &impl Fn(IpAddr) -> bool,
    inside: impl Fn(&'a str) -> Option<&'a str>,
) -> Result<Option<IpAddr>, ()> {
    let mut farthest = None;
    for element in elements {
        let found = element.map(str::trim).and_then(&inside).and_then(address).ok_or(())?;
        farthest = Some(found);
        if !trusts(found) {
            break;
        }
    }
    Ok(farthest)
}

/// The value of `for` in `for=192.0.2.7;proto=https`.
fn seen_by(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

/// `192.0.2.7`, `192.0.2.7:1234`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:1234`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, lines: &[(&'static str, &str)], expect: Result<&str, Unclear>) {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "::1"].map(|text| text.parse().expect("a network")).to_vec();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        let expect = expect.map(|text| text.parse().expect("an address"));
        let found = source(peer.parse().expect("an address"), &headers, &trusted);
        assert_eq!(found, expect, "{peer} {lines:?}");
    }

    const X: &str = "x-forwarded-for";
    const F: &str = "forwarded";

    #[test]
    fn strangers_are_not_believed() {
        check("192.0.2.1", &[(X, "198.51.100.7")], Ok("192.0.2.1"));
        check("192.0.2.1", &[(F, "for=198.51.100.7"), (X, "rubbish")], Ok("192.0.2.1"));
        check("::ffff:192.0.2.1", &[(X, "10.0.0.9")], Ok("192.0.2.1"));
        check("::2", &[(X, "10.0.0.9")], Ok("::2"));
    }

    #[test]
    fn proxies_are_believed_as_far_as_they_are_trusted() {
        for peer in ["10.0.0.1", "::ffff:10.0.0.1", "::1"] {
            check(peer, &[(X, "198.51.100.7")], Ok("198.51.100.7"));
        }
        check("10.0.0.1", &[], Ok("10.0.0.1"));
        check("10.0.0.1", &[(X, "198.51.100.7, 10.0.0.2")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(X, "10.0.0.3, 10.0.0.2")], Ok("10.0.0.3"));
        for value in ["198.51.100.7:4711", "2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:4711"] {
            let bare = if value.contains("db8") { "2001:db8::7" } else { "198.51.100.7" };
            check("10.0.0.1", &[(X, value)], Ok(bare));
            let quoted = format!("proto=https; For=\"{value}\";by=10.0.0.1");
            check("10.0.0.1", &[(F, &quoted)], Ok(bare));
        }
    }

    /// What a client writes itself stands left of what the proxy adds.
    #[test]
    fn clients_smuggle_nothing_in() {
        check("10.0.0.1", &[(X, "10.0.0.9, 198.51.100.7")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(X, "203.0.113.1, 198.51.100.7, 10.0.0.2")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(X, "203.0.113.1"), (X, "198.51.100.7")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(X, "rubbish, 198.51.100.7")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(F, "for=203.0.113.1, for=198.51.100.7")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(F, "for=\"203.0.113.1,for=198.51.100.7")], Ok("198.51.100.7"));
        check("10.0.0.1", &[(X, "198.51.100.7"), (F, "for=198.51.100.7")], Ok("198.51.100.7"));
        let two = [(X, "198.51.100.7"), (F, "for=203.0.113.1")];
        check("10.0.0.1", &two, Err(Unclear::Contradiction));
        for value in ["unknown", "", "198.51.100.7,", "198.51.100.7 203.0.113.1", "10.0.0.256"] {
            check("10.0.0.1", &[(X, value)], Err(Unclear::ForwardedFor));
        }
        for value in ["for=_hidden", "proto=https", "for=unknown", "for=198.51.100.7,proto=https"] {
            check("10.0.0.1", &[(F, value)], Err(Unclear::Forwarded));
        }
    }
}
