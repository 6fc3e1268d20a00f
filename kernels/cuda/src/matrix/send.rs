//! A matrix's arrays, packed piece by piece into the buffers that travel to the device.

use kernels::Error;

use super::scales::Lost;
use super::size::{self, BLOCK, Sizes, TILE};
use super::{Codes, Layout, Part, Run, floats, plain, scales, tiles};
use crate::gpu::{Address, Gpu};
use crate::tensor::Kind;
use crate::upload::Upload;

/// Sends all runs and the orders of columns behind them to memory that begins at `start`.
pub(super) fn all<G: Gpu>(
    gpu: &mut G,
    upload: &mut Upload,
    (runs, orders): (&[Run<'_>], &[&[u32]]),
    cols: usize,
    start: Address,
) -> Result<Vec<Part>, Error> {
    let mut to = Sender { gpu, upload, at: start };
    let addresses: Vec<Address> = orders
        .iter()
        .map(|order| to.bytes(bytemuck::cast_slice(order)))
        .collect::<Result<_, _>>()?;
    let mut parts = Vec::with_capacity(runs.len());
    let mut first = 0;
    for run in runs {
        let sizes = Sizes::of(&run.layout, run.rows.len, cols).expect("counted before the claim");
        let begin = to.at;
        let (data, scales) = (to.at, to.at + sizes.data as Address);
        match &run.layout {
            Layout::Plain(kind) => to.plain(run, *kind)?,
            Layout::F8 { block } => to.floats(run, *block, scales)?,
            Layout::Codes(codes) => to.codes(run, codes, scales)?,
        }
        to.at = scales + sizes.scales as Address;
        let table = match &run.layout {
            Layout::Codes(Codes { table: Some(table), .. }) => {
                to.bytes(bytemuck::cast_slice(table))?
            }
            _ => 0,
        };
        let order = run.order.and_then(|order| orders.iter().position(|known| *known == order));
        parts.push(Part {
            first,
            rows: run.rows.len,
            layout: run.layout,
            data,
            scales: if sizes.scales == 0 { 0 } else { scales },
            table,
            order: order.map_or(0, |i| addresses[i]),
        });
        first += run.rows.len;
        to.at = begin + run.room().expect("counted before the claim") as Address;
    }
    Ok(parts)
}

struct Sender<'a, G: Gpu> {
    gpu: &'a mut G,
    upload: &'a mut Upload,
    /// Where the next array begins.
    at: Address,
}

impl<G: Gpu> Sender<'_, G> {
    fn send(
        &mut self,
        to: Address,
        units: (usize, usize),
        fill: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Error> {
        self.upload.send(self.gpu, to, units, fill)
    }

    /// Bytes as they are, to the next place.
    fn bytes(&mut self, bytes: &[u8]) -> Result<Address, Error> {
        let to = self.at;
        self.send(to, (bytes.len(), 4), |from, out| {
            out.copy_from_slice(&bytes[from..from + out.len()]);
        })?;
        self.at += bytes.len().next_multiple_of(size::ALIGN) as Address;
        Ok(to)
    }

    fn plain(&mut self, run: &Run<'_>, kind: Kind) -> Result<(), Error> {
        let row_bytes = run.rows.cols * kind.bytes();
        for (first, part) in run.rows.parts() {
            let to = self.at + (first * row_bytes) as Address;
            self.send(to, (part.rows * row_bytes, kind.bytes()), |from, out| {
                plain::fill(part.format, part.bytes, kind, from, out);
            })?;
        }
        Ok(())
    }

    fn floats(&mut self, run: &Run<'_>, block: usize, to: Address) -> Result<(), Error> {
        let (rows, cols) = (run.rows.len, run.rows.cols);
        self.send(self.at, (rows * cols, cols), |from, out| {
            floats::codes(&run.rows, from / cols, out);
        })?;
        self.send(to, (cols / block * rows * 4, 4), |from, out| {
            floats::scales(&run.rows, run.nan, from / 4, out);
        })
    }

    fn codes(&mut self, run: &Run<'_>, how: &Codes, to: Address) -> Result<(), Error> {
        let blocks = run.rows.len.div_ceil(BLOCK);
        let (tiles, groups) = size::of_row(how, run.rows.cols);
        let unit = tiles * TILE;
        self.send(self.at, (blocks * unit, unit), |from, out| {
            tiles::fill(&run.rows, how, from / unit, out);
        })?;
        let (unit, lost) = (groups * BLOCK * size::entries(how), Lost::none());
        self.send(to, (blocks * unit, unit), |from, out| {
            scales::fill(&run.rows, how, &lost, from / unit, out);
        })?;
        lost.check(how)
    }
}
