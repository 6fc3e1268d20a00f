//! Spreads the rows of an element-wise op over the pool when that pays.

use std::ops::Range;

use super::pool::Pool;

/// Elements below which waking the pool costs more than it saves: some 10 us of work.
const PARALLEL_FROM: usize = 32 * 1024;
/// Elements of a task at least.
const TASK: usize = 8 * 1024;

/// Calls `op` with ranges that cover `0..rows` once; a row has `width` elements.
pub(crate) fn for_rows(
    pool: &Pool,
    rows: usize,
    width: usize,
    op: &(dyn Fn(Range<usize>, usize) + Sync),
) {
    if rows * width < PARALLEL_FROM || pool.threads() == 1 {
        if rows > 0 {
            op(0..rows, 0);
        }
        return;
    }
    let rows_per_task = (TASK / width.max(1)).max(1);
    pool.run(rows.div_ceil(rows_per_task), &|task, worker| {
        let from = task * rows_per_task;
        op(from..rows.min(from + rows_per_task), worker);
    });
}
