//! Finds markers in a stream of bytes, whatever pieces it comes in.
//!
//! Text and special tokens share one stream: a special token is the byte 0xFF, which no UTF-8
//! text holds, and its id in four bytes. So a marker may be text, a token, or both, and text that
//! only looks like a token is never taken for one. Each byte advances one Knuth-Morris-Pratt state
//! per marker.

use crate::stop::borders;

/// Stands before a special token's id.
pub(crate) const SPECIAL: u8 = 0xFF;

/// The bytes that stand for a special token.
pub(crate) fn special(id: u32) -> [u8; 5] {
    let [a, b, c, d] = id.to_le_bytes();
    [SPECIAL, a, b, c, d]
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Markers {
    list: Vec<Marker>,
    /// They count only at the very start, behind white space.
    at_start: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Marker {
    bytes: Vec<u8>,
    /// See [`borders`].
    border: Vec<usize>,
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Watch {
    /// Bytes matched, per marker.
    matched: Vec<usize>,
    /// Only white space so far.
    fresh: bool,
    /// Nothing can match any more.
    over: bool,
}

impl Markers {
    /// Empty markers never match.
    pub(crate) fn new(list: impl IntoIterator<Item = Vec<u8>>, at_start: bool) -> Self {
        let list = list.into_iter().filter(|bytes| !bytes.is_empty()).map(Marker::new).collect();
        Self { list, at_start }
    }

    /// A stream's start.
    pub(crate) fn watch(&self) -> Watch {
        Watch { matched: vec![0; self.list.len()], fresh: true, over: self.list.is_empty() }
    }

    pub(crate) fn get(&self, at: usize) -> &[u8] {
        &self.list[at].bytes
    }

    /// What would complete a marker from here, unless nothing of it stands yet.
    pub(crate) fn rests<'a>(&'a self, watch: &'a Watch) -> impl Iterator<Item = &'a [u8]> {
        let open = self.list.iter().zip(&watch.matched).filter(|_| !watch.over);
        open.filter(|(_, matched)| **matched > 0).map(|(marker, n)| &marker.bytes[*n..])
    }

    /// The markers that may begin here.
    pub(crate) fn whole<'a>(&'a self, watch: &Watch) -> impl Iterator<Item = &'a [u8]> {
        let open = !watch.over && (!self.at_start || watch.fresh);
        self.list.iter().filter(move |_| open).map(|marker| &marker.bytes[..])
    }
}

impl Marker {
    fn new(bytes: Vec<u8>) -> Self {
        let border = borders(&bytes);
        Self { bytes, border }
    }
}

impl Watch {
    /// Takes a byte; the marker that it completes, the longest where there are several.
    pub(crate) fn push(&mut self, markers: &Markers, byte: u8) -> Option<usize> {
        if self.over {
            return None;
        }
        let begins = !markers.at_start || self.fresh;
        let mut met: Option<usize> = None;
        for (at, (marker, matched)) in markers.list.iter().zip(&mut self.matched).enumerate() {
            while *matched > 0 && marker.bytes[*matched] != byte {
                // Further in, a marker that counts at the start only cannot begin anew.
                *matched = if markers.at_start { 0 } else { marker.border[*matched] };
                if markers.at_start {
                    break;
                }
            }
            let may = *matched > 0 || begins;
            if may && marker.bytes[*matched] == byte {
                *matched += 1;
            } else {
                *matched = 0;
            }
            if *matched == marker.bytes.len() {
                let longer = |other: usize| markers.list[other].bytes.len() < marker.bytes.len();
                if met.is_none_or(longer) {
                    met = Some(at);
                }
                *matched = marker.border[*matched];
            }
        }
        self.fresh &= byte.is_ascii_whitespace();
        self.over = markers.at_start && !self.fresh && self.matched.iter().all(|n| *n == 0);
        met
    }

    /// Bytes at the end of the stream that may begin a marker.
    pub(crate) fn held(&self) -> usize {
        self.matched.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (index of the last byte, marker) of all matches.
    fn check(markers: &[&str], at_start: bool, text: &str, expect: &[(usize, usize)]) {
        let list = markers.iter().map(|m| m.as_bytes().to_vec());
        let markers = Markers::new(list, at_start);
        let mut watch = markers.watch();
        let found: Vec<_> = text
            .bytes()
            .enumerate()
            .filter_map(|(at, byte)| watch.push(&markers, byte).map(|marker| (at, marker)))
            .collect();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn markers_are_found_anywhere() {
        check(&["<a>"], false, "x<<a><a", &[(4, 0)]);
        check(&["aab"], false, "aaab", &[(3, 0)]);
        check(&["<a>", "<a>["], false, "<a>[", &[(2, 0), (3, 1)]);
        check(&["b", "ab"], false, "ab", &[(1, 1)]);
    }

    #[test]
    fn markers_are_found_at_the_start_only() {
        check(&["{\"n"], true, " \n{\"n", &[(4, 0)]);
        check(&["{\"n"], true, "x{\"n", &[]);
        check(&["aab"], true, "aaab", &[]);
        check(&["[f(", "[g("], true, "[g(", &[(2, 1)]);
    }

    #[test]
    fn what_may_begin_a_marker_is_held() {
        let markers = Markers::new([b"<tool>".to_vec()], false);
        let mut watch = markers.watch();
        for byte in *b"a <to" {
            watch.push(&markers, byte);
        }
        assert_eq!(watch.held(), 3);
        assert_eq!(markers.rests(&watch).collect::<Vec<_>>(), [b"ol>"]);
        watch.push(&markers, b'x');
        assert_eq!(watch.held(), 0);
    }
}
