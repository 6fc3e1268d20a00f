//! What one step works on.

/// A stretch of one slot's positions that is computed in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The slot whose block table and history it uses.
    pub slot: u32,
    /// Position of its first token.
    pub first: u32,
    /// Tokens, at least 1.
    pub len: u32,
    /// Its first row in the step's activations.
    pub row: u32,
    /// Its (single) token is the one that this slot drew in the step before.
    pub late: bool,
    /// The low-rank adapter of its slot, from 1; 0 is none. See [`crate::Compute::adapt`].
    pub adapter: u32,
}

/// Entry `index` of a slot's block table becomes `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The slot.
    pub slot: u32,
    /// Place in its table.
    pub index: u32,
    /// Page number.
    pub page: u32,
}

/// What one step works on. `tokens.len()` is the number of activation rows of every op until the
/// next `begin`.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// `[rows]` input ids, segment after segment.
    pub tokens: &'a [u32],
    /// `[segments]`, in the order of their rows.
    pub segments: &'a [Segment],
    /// Block table entries added before this step.
    pub grants: &'a [Grant],
}
