//! Which group each run of columns belongs to, and, with act-order, in which order columns are
//! written so that each group's are neighbours.

use super::super::LoadError;
use super::super::shards::Tensor;
use super::blocks;

/// The columns of a matrix in the order in which they are written.
pub(super) struct Columns {
    /// For each written block, the group whose scale it has.
    pub(super) groups: Vec<u32>,
    /// Written column j is stored column `order[j]`; `None`: as they are stored.
    pub(super) order: Option<Vec<u32>>,
}

impl Columns {
    /// Groups of `group` columns one after the other, written in blocks of `block`.
    pub(super) fn plain(cols: usize, group: usize, block: usize) -> Self {
        let groups = (0..cols / block).map(|at| (at * block / group) as u32).collect();
        Self { groups, order: None }
    }

    /// The groups that `g_idx` names for each column.
    ///
    /// # Errors
    /// There is no such group, or the groups are not made of whole blocks.
    pub(super) fn of_index(
        g_idx: &Tensor<'_>,
        cols: usize,
        groups: usize,
        block: usize,
    ) -> Result<Self, LoadError> {
        let index: Vec<u32> = (0..cols).map(|col| blocks::word(g_idx, col)).collect();
        if let Some(col) = index.iter().position(|&group| group as usize >= groups) {
            let found = index[col] as i32;
            let problem = format!("puts column {col} into group {found}; there are {groups}");
            return Err(g_idx.wrong(problem));
        }
        let order = if index.is_sorted() {
            None
        } else {
            let mut order: Vec<u32> = (0..cols as u32).collect();
            order.sort_by_key(|&col| index[col as usize]);
            Some(order)
        };
        let group_at = |at: usize| match &order {
            None => index[at],
            Some(order) => index[order[at] as usize],
        };
        let mut of_blocks = Vec::with_capacity(cols / block);
        for first in (0..cols).step_by(block) {
            let group = group_at(first);
            if (first..first + block).any(|at| group_at(at) != group) {
                let problem = format!("has a group whose columns are no multiple of {block}");
                return Err(g_idx.wrong(problem));
            }
            of_blocks.push(group);
        }
        Ok(Self { groups: of_blocks, order })
    }

    /// The stored column that is written as number `at`.
    pub(super) fn stored(&self, at: usize) -> usize {
        self.order.as_ref().map_or(at, |order| order[at] as usize)
    }
}
