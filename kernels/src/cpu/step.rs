//! The step that is being computed: its tokens, segments and where each row stands.

use crate::compute::{Segment, Step};

/// Where a row of activations belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) position: u32,
}

/// The current step, in buffers claimed once.
#[derive(Debug)]
pub(crate) struct Current {
    /// `[rows]`, late tokens filled in.
    pub(crate) tokens: Vec<u32>,
    pub(crate) segments: Vec<Segment>,
    /// `[rows]`.
    pub(crate) places: Vec<Place>,
}

impl Current {
    pub(crate) fn new(rows_max: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(rows_max),
            segments: Vec::with_capacity(rows_max),
            places: Vec::with_capacity(rows_max),
        }
    }

    /// Takes a step in; `last` gives the token that a slot drew last.
    pub(crate) fn begin(&mut self, step: &Step<'_>, last: impl Fn(u32) -> u32) {
        self.tokens.clear();
        self.tokens.extend_from_slice(step.tokens);
        self.segments.clear();
        self.segments.extend_from_slice(step.segments);
        self.places.clear();
        for segment in step.segments {
            assert_eq!(segment.row as usize, self.places.len(), "segments in order of their rows");
            assert!(segment.len > 0, "an empty segment");
            assert!(!segment.late || segment.len == 1, "a late segment has one token");
            if segment.late {
                self.tokens[segment.row as usize] = last(segment.slot);
            }
            for i in 0..segment.len {
                self.places.push(Place { slot: segment.slot, position: segment.first + i });
            }
        }
        assert_eq!(self.places.len(), self.tokens.len(), "a token for each row");
    }

    /// Rows of every op of this step.
    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }
}
