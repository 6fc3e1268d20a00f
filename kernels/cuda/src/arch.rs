//! The one table in which kernel variants are chosen by device.

use crate::gpu::Properties;

/// What the kernels ask of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arch {
    /// Products of 8-bit floats on tensor cores.
    pub f8_products: bool,
    /// Rows up to which 16-bit weights are multiplied by the kernel for few rows rather than by
    /// the vendor's library: it reads weights once, at the speed of memory.
    pub few_rows_plain: usize,
    /// Rows up to which quantized weights are multiplied as they are; more are multiplied with
    /// weights expanded to 16 bits in passing.
    pub few_rows_codes: usize,
    /// Blocks that fill the device: decode attention is split until there are as many.
    pub blocks_wanted: usize,
}

/// By least compute capability, newest first.
const TABLE: &[(u32, Arch)] = &[
    (100, Arch { f8_products: true, few_rows_plain: 16, few_rows_codes: 128, blocks_wanted: 2 }),
    (90, Arch { f8_products: true, few_rows_plain: 16, few_rows_codes: 128, blocks_wanted: 2 }),
    (89, Arch { f8_products: true, few_rows_plain: 16, few_rows_codes: 64, blocks_wanted: 2 }),
    (80, Arch { f8_products: false, few_rows_plain: 16, few_rows_codes: 64, blocks_wanted: 2 }),
];

impl Arch {
    /// Of a device; `None` when it is older than the kernels.
    #[must_use]
    pub fn of(device: &Properties) -> Option<Self> {
        let (_, arch) = TABLE.iter().find(|(least, _)| device.capability >= *least)?;
        // The table counts blocks per multiprocessor.
        let blocks_wanted = arch.blocks_wanted * device.multiprocessors as usize;
        Some(Self { blocks_wanted, ..*arch })
    }
}
