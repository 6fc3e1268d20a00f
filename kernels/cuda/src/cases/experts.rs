//! Mixtures of experts: the choice against the reference, the order of routed rows for what it
//! promises, products and sums against plain loops over the numbers that the device was given.

use kernels::reference::experts::Choice;
use kernels::{Compute, Kept, Router, RouterScore, reference};

use super::{Bench, Open, Outcome};
use crate::device::Cuda;
use crate::gpu::Gpu;
use crate::ops::experts::Routes;

mod choices;
mod products;

pub(super) fn cases<G: Gpu>(open: Open<'_, G>) -> Vec<Outcome> {
    let mut out = choices::cases(open);
    out.extend(products::cases(open));
    out
}

/// Softmax and nothing else.
fn plain(top_k: usize) -> Choice {
    Choice {
        top_k,
        score: RouterScore::Softmax,
        correction: None,
        groups: None,
        normalise: false,
        scale: 1.0,
    }
}

/// Claims routes and records their choice, in a step that is begun.
fn route<G: Gpu>(device: &mut Cuda<G>, (logits, rows): (&[f32], usize), how: &Choice) -> Routes {
    let experts = logits.len() / rows;
    let mut routes = device.routes(rows, how.top_k, experts).expect("memory");
    // What the step before left must not matter.
    for list in routes.lists(rows) {
        let bytes = list.bytes(list.rows);
        device.gpu().fill(list.address, bytes, 0xff);
    }
    let logits = device.put(rows, logits, Kept::Exact);
    let correction = how.correction.as_ref().map(|c| device.load_vector(c).expect("memory"));
    let router = Router {
        top_k: how.top_k,
        score: how.score,
        correction: correction.as_ref(),
        groups: how.groups,
        normalise: how.normalise,
        scale: how.scale,
    };
    device.begin_rows(rows);
    device.route(&logits, &router, &mut routes);
    routes
}

/// What was chosen, read from the device.
struct Chosen {
    /// `[rows, top_k]` each.
    experts: Vec<u32>,
    weights: Vec<f32>,
    places: Vec<u32>,
    /// `[rows * top_k]`.
    sources: Vec<u32>,
    /// Expert, first place, places.
    tiles: Vec<[u32; 3]>,
}

impl Chosen {
    /// Call it after the step.
    fn read<G: Gpu>(device: &mut Cuda<G>, routes: &Routes, rows: usize) -> Self {
        let lists = routes.lists(rows);
        let mut all = lists.map(|list| device.get(&list, list.rows)).into_iter();
        let mut floats = || all.next().expect("six lists");
        let bits = |x: Vec<f32>| -> Vec<u32> { x.into_iter().map(f32::to_bits).collect() };
        let (experts, weights) = (bits(floats()), floats());
        let (places, sources, tiles) = (bits(floats()), bits(floats()), bits(floats()));
        let number = (bits(floats())[0] as usize).min(tiles.len() / 4);
        let tiles = tiles.chunks(4).take(number).map(|t| [t[0], t[1], t[2]]).collect();
        Self { experts, weights, places, sources, tiles }
    }

    /// Whether every choice has its place, sorted by expert and row, and tiles cover places.
    fn in_order(&self, top_k: usize) -> bool {
        let choices = self.experts.iter().zip(&self.places).enumerate();
        let mut order: Vec<(u32, u32, u32)> =
            choices.map(|(i, (&expert, &place))| (expert, (i / top_k) as u32, place)).collect();
        order.sort_unstable();
        let placed = order
            .iter()
            .enumerate()
            .all(|(i, &(_, row, place))| place as usize == i && self.sources[i] == row);
        let expert_at = |place: u32| order[place as usize].0;
        let mut next = 0;
        let tiled = self.tiles.iter().all(|&[expert, first, places]| {
            let whole = first == next && places > 0 && (first + places) as usize <= order.len();
            next = first + places;
            whole && (first..next).all(|place| expert_at(place) == expert)
        });
        placed && tiled && next as usize == order.len()
    }
}

/// What the reference chooses for each row.
fn wanted(logits: &[f32], experts: usize, how: &Choice) -> (Vec<f32>, Vec<f32>) {
    let rows = logits.chunks(experts).map(|row| reference::experts::route(row, how));
    rows.flatten().map(|(expert, weight)| (expert as f32, weight as f32)).unzip()
}

#[cfg(test)]
mod tests {
    use crate::cases::tests::check;

    #[test]
    fn equals_the_reference() {
        check(super::cases);
    }
}
