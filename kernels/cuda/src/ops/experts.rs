//! Mixtures of experts: `ops/route.cu`, `ops/expert_matmul.cu`, `ops/combine.cu`.
//!
//! Between `route` and `combine` rows stand sorted by expert, and are multiplied in tiles: some
//! rows of one expert. How many tiles there are only the device knows; grids are made for as many
//! as there can be.

use bytemuck::{Pod, Zeroable};
use kernels::{Error, Precision, Router, RouterScore};

use super::{Rows, kernel};
use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Kernel, Shape};
use crate::record::Record;
use crate::tensor::{Kind, Tensor, TensorArg, Vector};

mod matrices;
mod products;

pub(crate) use matrices::Experts;
pub(crate) use products::Call;

/// What one warp of `route_choose` keeps in registers.
const EXPERTS_MAX: usize = 512;
/// Choices of a row: one a lane.
const TOP_K_MAX: usize = 32;
/// Threads and rows of a block of `route_choose`.
const CHOOSE: (u32, usize) = (128, 4);
/// Threads and warps of `route_sort`.
const SORT: (u32, usize) = (1024, 32);
/// Threads of `combine`, and elements of a thread of its wide variant.
const COMBINE: (usize, usize) = (128, 8);
/// Rows of a tile, and up to how many rows an expert gets on average it is taken: larger tiles
/// read weights less often, but multiply them by rows that are not there.
const TILES: [(usize, usize); 2] = [(8, 16), (64, usize::MAX)];

/// Which rows go to which experts, with what weight.
#[derive(Debug)]
pub struct Routes {
    rows: usize,
    top_k: usize,
    experts: usize,
    /// Rows of a tile, as routed last.
    tile: usize,
    /// u32 `[rows, top_k]`: experts, best first.
    chosen: Address,
    /// f32 `[rows, top_k]`.
    weights: Address,
    /// u32 `[rows, top_k]`: where the row stands for this expert, sorted by expert.
    places: Address,
    /// u32 `[rows * top_k]`: the row that stands there.
    sources: Address,
    /// `[tiles]`: expert, first place, places, 0; each u32.
    tiles: Address,
    /// u32: how many tiles.
    number: Address,
    /// u32: rows of the step that was routed last.
    count: Address,
}

impl Routes {
    /// Claims routes for steps of up to `rows` rows.
    ///
    /// # Errors
    /// More experts, or more of them per row, than the kernels take; or no memory.
    pub(crate) fn new<G: Gpu>(
        gpu: &mut G,
        rows: usize,
        top_k: usize,
        experts: usize,
    ) -> Result<Self, Error> {
        assert!(0 < top_k && top_k <= experts, "{top_k} of {experts} experts");
        if experts > EXPERTS_MAX || top_k > TOP_K_MAX {
            return Err(Error::Unsupported(format!(
                "{top_k} of {experts} experts: {TOP_K_MAX} of {EXPERTS_MAX} is the most"
            )));
        }
        let routed = rows * top_k;
        let list = (4 * routed).next_multiple_of(16);
        let tiles = 16 * tiles_max(routed, experts, TILES[0].0);
        let address = gpu.claim("routes", 4 * list + tiles + 16)?;
        let at = |i: usize| address + (i * list) as Address;
        Ok(Self {
            rows,
            top_k,
            experts,
            tile: TILES[0].0,
            chosen: at(0),
            weights: at(1),
            places: at(2),
            sources: at(3),
            tiles: at(4),
            number: at(4) + tiles as Address,
            count: 0,
        })
    }

    /// What was chosen for `rows` rows, as tensors that can be read: experts, weights and places
    /// `[rows, top_k]`, sources `[rows * top_k]`, tiles `[tiles, 4]` and their number. All but
    /// weights are the bits of u32.
    pub(crate) fn lists(&self, rows: usize) -> [Tensor; 6] {
        let list = |address, rows, width| Tensor { address, rows, width, kind: Kind::F32 };
        [
            list(self.chosen, rows, self.top_k),
            list(self.weights, rows, self.top_k),
            list(self.places, rows, self.top_k),
            list(self.sources, rows * self.top_k, 1),
            list(self.tiles, self.tiles_max(rows), 4),
            list(self.number, 1, 1),
        ]
    }

    /// Tiles at most for a step of so many rows.
    fn tiles_max(&self, rows: usize) -> usize {
        tiles_max(rows * self.top_k, self.experts, self.tile)
    }
}

/// Every expert with a row has one tile that is not full at most.
fn tiles_max(routed: usize, experts: usize, tile: usize) -> usize {
    experts.min(routed) + routed / tile
}

/// Device memory that is claimed at set-up, in bytes: none, routes hold what ops need.
pub(crate) fn scratch_bytes(_config: &CudaConfig) -> usize {
    0
}

/// The kernels.
pub(crate) struct Mixture {
    precision: Precision,
    choose: Kernel,
    sort: Kernel,
    combine: [Kernel; 2],
    products: products::Products,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ChooseArgs {
    logits: TensorArg,
    count: Address,
    correction: Address,
    chosen: Address,
    weights: Address,
    rows: u32,
    experts: u32,
    top_k: u32,
    sigmoid: u32,
    groups: u32,
    groups_kept: u32,
    two_best: u32,
    normalise: u32,
    scale: f32,
    pad: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SortArgs {
    count: Address,
    chosen: Address,
    places: Address,
    sources: Address,
    tiles: Address,
    number: Address,
    rows: u32,
    experts: u32,
    top_k: u32,
    tile: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CombineArgs {
    x: TensorArg,
    out: TensorArg,
    count: Address,
    places: Address,
    weights: Address,
    top_k: u32,
    pad: u32,
}

impl Mixture {
    pub(crate) fn new<G: Gpu>(gpu: &mut G, config: &CudaConfig) -> Result<Self, Error> {
        Ok(Self {
            precision: config.precision,
            choose: kernel::<ChooseArgs, G>(gpu, "route.cu", "route_choose")?,
            sort: kernel::<SortArgs, G>(gpu, "route.cu", "route_sort")?,
            combine: [
                kernel::<CombineArgs, G>(gpu, "combine.cu", "combine_any")?,
                kernel::<CombineArgs, G>(gpu, "combine.cu", "combine_wide")?,
            ],
            products: products::Products::load(gpu, config.precision)?,
        })
    }

    /// Every row of `logits` chooses its experts.
    pub(crate) fn route(
        &self,
        record: &mut Record,
        rows: &Rows,
        logits: &Tensor,
        how: &Router<'_, Vector>,
        routes: &mut Routes,
    ) {
        let Routes { experts, top_k, .. } = *routes;
        check(how, experts, top_k);
        assert!(rows.rows <= routes.rows, "more rows than the routes claimed");
        routes.count = rows.count;
        routes.tile = tile(self.precision, rows.rows * top_k, experts);
        let groups = how.groups;
        let args = ChooseArgs {
            logits: logits.of(rows.rows, experts).arg(),
            count: rows.count,
            correction: how.correction.map_or(0, |correction| correction.address),
            chosen: routes.chosen,
            weights: routes.weights,
            rows: rows.rows as u32,
            experts: experts as u32,
            top_k: top_k as u32,
            sigmoid: u32::from(how.score == RouterScore::Sigmoid),
            groups: groups.map_or(0, |groups| groups.count as u32),
            groups_kept: groups.map_or(0, |groups| groups.kept as u32),
            two_best: u32::from(groups.is_some_and(|groups| groups.two_best)),
            normalise: u32::from(how.normalise),
            scale: how.scale,
            pad: 0,
        };
        let (threads, rows_each) = CHOOSE;
        record.launch(self.choose, super::blocks(rows.rows.div_ceil(rows_each), threads), &args);
        let args = SortArgs {
            count: rows.count,
            chosen: routes.chosen,
            places: routes.places,
            sources: routes.sources,
            tiles: routes.tiles,
            number: routes.number,
            rows: rows.rows as u32,
            experts: experts as u32,
            top_k: top_k as u32,
            tile: routes.tile as u32,
        };
        let (threads, warps) = SORT;
        let shared_bytes = (4 * warps * experts) as u32;
        record.launch(self.sort, Shape { grid: [1; 3], threads, shared_bytes }, &args);
    }

    /// Products of routed rows with their experts' matrices.
    pub(crate) fn matmul(&self, record: &mut Record, rows: usize, call: &Call<'_>) {
        self.products.matmul(record, rows, call);
    }

    /// `out[r]` = the weighted sum of what row r's experts gave.
    pub(crate) fn combine(
        &self,
        record: &mut Record,
        rows: usize,
        x: &Tensor,
        routes: &Routes,
        out: &Tensor,
    ) {
        let width = out.width;
        let args = CombineArgs {
            x: x.of(rows * routes.top_k, width).arg(),
            out: out.of(rows, width).arg(),
            count: routes.count,
            places: routes.places,
            weights: routes.weights,
            top_k: routes.top_k as u32,
            pad: 0,
        };
        let (threads, each) = COMBINE;
        let wide = width.is_multiple_of(each);
        let pieces = if wide { width / each } else { width }.div_ceil(threads);
        let grid = [rows as u32, pieces as u32, 1];
        let shape = Shape { grid, threads: threads as u32, shared_bytes: 0 };
        record.launch(self.combine[usize::from(wide)], shape, &args);
    }
}

/// Rows of a tile for so many choices.
fn tile(precision: Precision, routed: usize, experts: usize) -> usize {
    if precision == Precision::Float32 {
        // CUDA cores take eight rows at a time.
        return TILES[0].0;
    }
    let average = routed.div_ceil(experts);
    let fitting = TILES.iter().find(|(_, up_to)| average <= *up_to);
    fitting.map_or(TILES[0].0, |(tile, _)| *tile)
}

fn check(how: &Router<'_, Vector>, experts: usize, top_k: usize) {
    assert_eq!(how.top_k, top_k, "experts per row");
    assert!(how.correction.is_none_or(|c| c.len == experts), "a correction for each expert");
    if let Some(groups) = how.groups {
        let count = groups.count;
        assert!(count > 0 && experts.is_multiple_of(count), "{count} groups of equal size");
        assert!(groups.kept <= count, "{} of {count} groups", groups.kept);
        assert!(groups.kept * (experts / count) >= top_k, "too few groups to choose from");
    }
}
