//! Rows of a file, of neighbouring parts that lie alike on the device.

use kernels::{Format, MatrixPart};

use super::size::BLOCK;

/// A row as its file keeps it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
}

impl<'a> Row<'a> {
    pub(super) fn blocks(self) -> std::slice::ChunksExact<'a, u8> {
        self.bytes.chunks_exact(self.format.block_bytes())
    }
}

/// The rows of a tile; `None` beyond the last.
pub(super) type RowBlock<'a> = [Option<Row<'a>>; BLOCK];

/// Neighbouring parts. Their shapes were checked.
#[derive(Debug, Clone)]
pub(super) struct Rows<'a> {
    parts: Vec<(usize, MatrixPart<'a>)>,
    /// Rows of all.
    pub(super) len: usize,
    pub(super) cols: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(cols: usize) -> Self {
        Self { parts: Vec::new(), len: 0, cols }
    }

    pub(super) fn push(&mut self, part: MatrixPart<'a>) {
        self.parts.push((self.len, part));
        self.len += part.rows;
    }

    /// Parts with the row that is their first.
    pub(super) fn parts(&self) -> &[(usize, MatrixPart<'a>)] {
        &self.parts
    }

    /// Bytes of all rows in their files.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.bytes.len()).sum()
    }

    /// `None` beyond the last.
    pub(super) fn get(&self, row: usize) -> Option<Row<'a>> {
        let (first, part) = self.parts.iter().rfind(|(first, _)| *first <= row)?;
        let (row, bytes) = (row - first, part.format.row_bytes(part.cols));
        let bytes = (row < part.rows).then(|| &part.bytes[row * bytes..][..bytes])?;
        Some(Row { format: part.format, bytes })
    }

    /// Row block `block`.
    pub(super) fn block(&self, block: usize) -> RowBlock<'a> {
        std::array::from_fn(|r| self.get(block * BLOCK + r))
    }
}
