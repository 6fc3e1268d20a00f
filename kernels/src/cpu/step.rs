//! The step that is being computed: its tokens, segments and where each row stands.

use super::slots::Slots;
use crate::compute::{Segment, Step};

/// Where a row of activations belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    pub(crate) position: u32,
    /// Tokens of the sequence that it counts as part of: the prompt, or all up to itself.
    pub(crate) sequence: u32,
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

    /// Takes a step in; the slots know the late tokens and how long prompts are.
    pub(crate) fn begin(&mut self, step: &Step<'_>, slots: &Slots) {
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
                self.tokens[segment.row as usize] = slots.last(segment.slot);
            }
            let (slot, prompt) = (segment.slot, slots.prompt_len(segment.slot));
            for position in segment.first..segment.first + segment.len {
                let sequence = prompt.max(position + 1);
                self.places.push(Place { slot, position, sequence });
            }
        }
        assert_eq!(self.places.len(), self.tokens.len(), "a token for each row");
    }

    /// Rows of every op of this step.
    pub(crate) fn rows(&self) -> usize {
        self.tokens.len()
    }
}
