//! The stream that a reader takes, in its smallest pieces: a character or a special token.
//!
//! As bytes it is the stream of [`crate::grammar::watch`]: a special token is 0xFF and its id.

use crate::grammar::watch::{Markers, SPECIAL, Watch, special};

/// The smallest piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Text(char),
    Special(u32),
}

impl Unit {
    /// Calls `with` with its bytes.
    pub(super) fn bytes<T>(self, with: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Text(character) => with(character.encode_utf8(&mut [0; 4]).as_bytes()),
            Self::Special(id) => with(&special(id)),
        }
    }

    pub(super) fn character(self) -> Option<char> {
        match self {
            Self::Text(character) => Some(character),
            Self::Special(_) => None,
        }
    }

    pub(super) fn is_white(self) -> bool {
        self.character().is_some_and(|character| character.is_ascii_whitespace())
    }

    fn len(self) -> usize {
        match self {
            Self::Text(character) => character.len_utf8(),
            Self::Special(_) => 5,
        }
    }
}

/// Units held back, as bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Vec<u8>);

impl Held {
    pub(super) fn push(&mut self, unit: Unit) {
        unit.bytes(|bytes| self.0.extend_from_slice(bytes));
    }

    /// Takes back the unit that was pushed last.
    pub(super) fn pop(&mut self, unit: Unit) {
        self.0.truncate(self.0.len().saturating_sub(unit.len()));
    }

    /// Pushes a unit; whether it completes a marker.
    pub(super) fn watch(&mut self, unit: Unit, watch: &mut Watch, markers: &Markers) -> Watched {
        self.push(unit);
        // A marker ends where a unit does; a special token's id may look like text.
        let push = |bytes: &[u8]| bytes.iter().map(|b| watch.push(markers, *b)).last().flatten();
        match unit.bytes(push) {
            Some(marker) => {
                let begins = self.0.len().saturating_sub(markers.get(marker).len());
                Watched { met: Some(marker), certain: begins }
            }
            None => Watched { met: None, certain: self.0.len().saturating_sub(watch.held()) },
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text of it, from a place between two units.
    pub(super) fn text(&self, from: usize) -> String {
        Units(self.0.get(from..).unwrap_or_default()).filter_map(Unit::character).collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes all units.
    pub(super) fn take(&mut self) -> Held {
        std::mem::take(self)
    }

    /// Whether there is no special token in the first `bytes`.
    pub(super) fn is_text(&self, bytes: usize) -> bool {
        !self.0[..bytes.min(self.0.len())].contains(&SPECIAL)
    }

    /// Takes the units that lie within the first `bytes`.
    pub(super) fn take_front(&mut self, bytes: usize) -> Held {
        let mut end = 0;
        for unit in Units(&self.0) {
            if end + unit.len() > bytes {
                break;
            }
            end += unit.len();
        }
        Held(self.0.drain(..end).collect())
    }

    pub(super) fn units(&self) -> impl Iterator<Item = Unit> {
        Units(&self.0)
    }
}

/// What a unit did to a watch.
pub(super) struct Watched {
    /// The marker that it completed.
    pub(super) met: Option<usize>,
    /// So many of the held bytes are before the marker, or before what may be a marker's beginning.
    pub(super) certain: usize,
}

impl Watched {
    /// Whether the unit that was watched is a special token and part of no marker.
    pub(super) fn is_lost(&self, unit: Unit, held: &Held) -> bool {
        unit.character().is_none() && self.met.is_none() && self.certain == held.0.len()
    }
}

struct Units<'a>(&'a [u8]);

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        if let [SPECIAL, a, b, c, d, rest @ ..] = self.0 {
            self.0 = rest;
            return Some(Unit::Special(u32::from_le_bytes([*a, *b, *c, *d])));
        }
        let end =
            (1..=self.0.len().min(4)).find(|end| std::str::from_utf8(&self.0[..*end]).is_ok())?;
        let character = std::str::from_utf8(&self.0[..end]).ok()?.chars().next()?;
        self.0 = &self.0[end..];
        Some(Unit::Text(character))
    }
}
