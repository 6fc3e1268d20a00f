//! Low-rank additions to matrices: `ops/low_rank.cu`.
//!
//! A pair of factors is one piece of device memory with a header in front, so that a step's list
//! of pairs is one address each. The list goes with the payload: adapters come and go, and a
//! recorded step must not know which are there.

use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};
use kernels::{Error, Fault, Kept, Precision};

use super::{Rows, kernel};
use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Kernel, Shape};
use crate::record::Record;
use crate::step::{Payload, bucket};
use crate::tensor::{Kind, Scratch, Tensor, TensorArg};
use crate::upload::Upload;

const FILE: &str = "low_rank.cu";
const THREADS: u32 = 128;
/// Greatest rank, as in the kernels: what adapters have, with a margin.
const RANK_MAX: usize = 256;
/// Rows of a block.
const ROWS: usize = 4;
/// Ranks of a block of `low_rank_down`.
const RANKS: usize = 8;
/// Outputs of a block of `low_rank_up`.
const OUTPUTS: usize = 256;
/// Entries of the shortest list of pairs.
const ROOM_MIN: usize = 8;

/// A pair of factors. Gives its memory back when it is dropped: with the next one that is loaded,
/// since steps under way may still read it.
#[derive(Debug)]
pub struct LowRank {
    address: Address,
    bytes: usize,
    rank: usize,
    cols: usize,
    outs: usize,
    unused: Arc<Mutex<Vec<Address>>>,
}

impl LowRank {
    /// Device memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for LowRank {
    fn drop(&mut self) {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner).push(self.address);
    }
}

/// The kernels, what lies between them, and pairs to be released.
pub(crate) struct Adapters {
    down: Kernel,
    up: Kernel,
    inner: Scratch,
    precision: Precision,
    unused: Arc<Mutex<Vec<Address>>>,
}

/// `struct Pair` of the kernels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    down: Address,
    up: Address,
    rank: u32,
    outs: u32,
    scale: f32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct LowRankArgs {
    x: TensorArg,
    out: TensorArg,
    inner: Address,
    adapters: Address,
    pairs: Address,
    count: Address,
    room: u32,
    first: u32,
    kind: u32,
    pad: u32,
}

/// Device memory between the kernels, in bytes.
pub(crate) fn scratch_bytes(config: &CudaConfig) -> usize {
    bucket(config.rows_max).next_multiple_of(ROWS) * RANK_MAX * size_of::<f32>()
}

impl Adapters {
    pub(crate) fn new<G: Gpu>(gpu: &mut G, config: &CudaConfig) -> Result<Self, Error> {
        Ok(Self {
            down: kernel::<LowRankArgs, G>(gpu, FILE, "low_rank_down")?,
            up: kernel::<LowRankArgs, G>(gpu, FILE, "low_rank_up")?,
            inner: Scratch::claim(gpu, "products of adapters", scratch_bytes(config))?,
            precision: config.precision,
            unused: Arc::default(),
        })
    }

    /// Factors are kept in the type that products read.
    fn kind(&self) -> Kind {
        Kind::of(Kept::Rounded, self.precision)
    }

    /// Puts a pair on the device: `down` `[rank, in]`, `up` `[out, rank]`.
    pub(crate) fn load_pair<G: Gpu>(
        &mut self,
        gpu: &mut G,
        upload: &mut Upload,
        (down, up): (&[f32], &[f32]),
        rank: usize,
        scale: f32,
    ) -> Result<LowRank, Error> {
        assert!(rank > 0 && !down.is_empty() && !up.is_empty(), "an empty low-rank addition");
        assert!(down.len().is_multiple_of(rank) && up.len().is_multiple_of(rank), "rank {rank}");
        if rank > RANK_MAX {
            return Err(Error::Unsupported(format!(
                "an adapter of rank {rank}: {RANK_MAX} is the greatest on this device"
            )));
        }
        self.release_unused(gpu)?;
        let (cols, outs, kind) = (down.len() / rank, up.len() / rank, self.kind());
        let mut packed = vec![0; size_of::<Header>()];
        let down_scale = pack(&mut packed, kind, down, (rank, cols));
        let up_at = packed.len().next_multiple_of(16);
        packed.resize(up_at, 0);
        let across: Vec<f32> =
            (0..rank).flat_map(|j| up.iter().skip(j).step_by(rank).copied()).collect();
        let up_scale = pack_pairs(&mut packed, kind, &across, outs);
        let address = gpu.claim("a low-rank addition", packed.len())?;
        let header = Header {
            down: address + size_of::<Header>() as Address,
            up: address + up_at as Address,
            rank: rank as u32,
            outs: outs as u32,
            scale: scale / (down_scale * up_scale),
            pad: 0,
        };
        packed[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        let (bytes, unused) = (packed.len(), Arc::clone(&self.unused));
        // From here on it is given back whatever happens.
        let pair = LowRank { address, bytes, rank, cols, outs, unused };
        upload.send(gpu, address, (bytes, 16), |from, part| {
            part.copy_from_slice(&packed[from..from + part.len()]);
        })?;
        upload.finish(gpu)?;
        Ok(pair)
    }

    /// Releases pairs that were dropped, once nothing queued reads them.
    fn release_unused<G: Gpu>(&mut self, gpu: &mut G) -> Result<(), Error> {
        let unused = {
            let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *unused)
        };
        if unused.is_empty() {
            return Ok(());
        }
        gpu.synchronize().map_err(|fault| match fault {
            Fault::Step(text) | Fault::Lost(text) => Error::Device(text),
        })?;
        unused.into_iter().for_each(|address| gpu.release(address));
        Ok(())
    }

    /// `out[r][first..] += pair(x[r])` for rows whose adapter has a pair.
    pub(crate) fn adapt(
        &self,
        (record, payload): (&mut Record, &mut Payload),
        rows: &Rows,
        (x, pairs): (&Tensor, &[Option<LowRank>]),
        first: usize,
        out: &Tensor,
    ) {
        let present = || pairs.iter().flatten();
        for pair in present() {
            assert_eq!(pair.cols, x.width, "inputs of a low-rank addition");
            assert!(first + pair.outs <= out.width, "outputs of a low-rank addition");
        }
        let (Some(rank), Some(outs)) =
            (present().map(|pair| pair.rank).max(), present().map(|pair| pair.outs).max())
        else {
            return;
        };
        let room = pairs.len().next_power_of_two().max(ROOM_MIN);
        let (list, entries) = payload.claim::<Address>(room, 0);
        for (entry, pair) in entries.iter_mut().zip(pairs) {
            *entry = pair.as_ref().map_or(0, |pair| pair.address);
        }
        let args = LowRankArgs {
            x: x.of(rows.rows, x.width).arg(),
            out: out.of(rows.rows, out.width).arg(),
            inner: self.inner.address,
            adapters: rows.adapters,
            pairs: list,
            count: rows.count,
            room: room as u32,
            first: first as u32,
            kind: self.kind() as u32,
            pad: 0,
        };
        let tiles = rows.rows.div_ceil(ROWS) as u32;
        let grid =
            |y: usize| Shape { grid: [tiles, y as u32, 1], threads: THREADS, shared_bytes: 0 };
        record.launch(self.down, grid(rank.div_ceil(RANKS)), &args);
        record.launch(self.up, grid(outs.div_ceil(OUTPUTS)), &args);
    }
}

/// Appends rows `[ranks, cols]` padded to 8 columns and an even number of rows. What their
/// numbers were multiplied by.
fn pack(to: &mut Vec<u8>, kind: Kind, values: &[f32], (rank, cols): (usize, usize)) -> f32 {
    let by = stretch(kind, values);
    for row in values.chunks_exact(cols) {
        put(to, kind, row, by, cols.next_multiple_of(8));
    }
    if !rank.is_multiple_of(2) {
        put(to, kind, &[], by, cols.next_multiple_of(8));
    }
    by
}

/// Appends rows padded to an even number of columns. What their numbers were multiplied by.
fn pack_pairs(to: &mut Vec<u8>, kind: Kind, values: &[f32], cols: usize) -> f32 {
    let by = stretch(kind, values);
    for row in values.chunks_exact(cols) {
        put(to, kind, row, by, cols.next_multiple_of(2));
    }
    by
}

/// A power of two. Factors are often so small that f16 would keep few of their digits: there the
/// greatest is brought to about 2^14.
fn stretch(kind: Kind, values: &[f32]) -> f32 {
    let greatest = values.iter().fold(0.0_f32, |a, x| a.max(x.abs()));
    if kind != Kind::F16 || greatest == 0.0 || !greatest.is_finite() {
        return 1.0;
    }
    // Within what keeps `scale / (down * up)` a normal number.
    let exponent = (14 - greatest.log2().ceil() as i32).clamp(-40, 40);
    2.0_f32.powi(exponent)
}

fn put(to: &mut Vec<u8>, kind: Kind, row: &[f32], by: f32, width: usize) {
    let end = to.len() + width * kind.bytes();
    for &x in row {
        match kind {
            Kind::F32 => to.extend_from_slice(&x.to_le_bytes()),
            Kind::Bf16 => to.extend_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
            Kind::F16 => to.extend_from_slice(&half::f16::from_f32(x * by).to_le_bytes()),
        }
    }
    to.resize(end, 0);
}
