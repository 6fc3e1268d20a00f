//! Where a kernel's sums begin and go: columns of the output, 16 a panel, the last ones perhaps
//! fewer.
//!
//! k is done in stretches, so sums are carried over in the output itself; f32 in memory is f32 in
//! a register, so how k was cut does not change a bit.

use super::wide::Wide;
use crate::cpu::matrix::layout::PANEL;

/// A rectangle of the output: rows of a tile x panels.
#[derive(Clone, Copy)]
pub(super) struct Output {
    /// First row, first column.
    pub(super) start: *mut f32,
    /// From row to row, in elements.
    pub(super) stride: usize,
    /// Rows that are real; sums of others are dropped.
    pub(super) rows: usize,
    /// Columns that are real.
    pub(super) columns: usize,
    /// Times 16 columns, the last ones perhaps with fewer real columns.
    pub(super) panels: usize,
    /// Sums begin with the bias (or 0), not with what the output holds.
    pub(super) first: bool,
    /// Bias of the first column, or null.
    pub(super) bias: *const f32,
}

impl Output {
    /// Sums of a panel to start from.
    ///
    /// # Safety
    /// The rectangle is the caller's to read and write, and the bias is as long as its columns.
    #[inline(always)]
    pub(super) unsafe fn begin<S: Wide, const ROWS: usize>(
        &self,
        s: S,
        panel: usize,
    ) -> [S::F; ROWS] {
        let mut sums = [s.splat(0.0); ROWS];
        let n = PANEL.min(self.columns - panel * PANEL);
        // SAFETY: the caller's promise; `n` columns of this panel are real.
        unsafe {
            if self.first {
                if !self.bias.is_null() {
                    sums = [s.load_part(self.bias.add(panel * PANEL), n); ROWS];
                }
                return sums;
            }
            for (r, sum) in sums.iter_mut().enumerate() {
                if r < self.rows {
                    let at = self.start.add(r * self.stride + panel * PANEL);
                    *sum = if n == PANEL { s.load(at) } else { s.load_part(at, n) };
                }
            }
        }
        sums
    }

    /// Writes the sums of a panel.
    ///
    /// # Safety
    /// As [`Output::begin`].
    #[inline(always)]
    pub(super) unsafe fn end<S: Wide, const ROWS: usize>(
        &self,
        s: S,
        panel: usize,
        sums: [S::F; ROWS],
    ) {
        let n = PANEL.min(self.columns - panel * PANEL);
        for (r, sum) in sums.into_iter().enumerate() {
            if r < self.rows {
                // SAFETY: the caller's promise; row and columns are real.
                unsafe {
                    let at = self.start.add(r * self.stride + panel * PANEL);
                    if n == PANEL { s.store(at, sum) } else { s.store_part(at, sum, n) }
                }
            }
        }
    }
}
