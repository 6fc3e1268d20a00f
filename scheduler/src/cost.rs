//! What a step will cost, learned from the steps before it:
//! `t = a + b * prefill tokens + c * rows + d * context + e * drafts`.
//!
//! Least squares with forgetting: decayed sums of products are kept, and the coefficients are
//! improved from them by a few sweeps of coordinate descent per step, each coefficient held at or
//! above zero. Solving under the bound, rather than clamping a free solution, keeps the
//! others right when steps look alike and one coefficient cannot be told from another. A step far
//! off the prediction (a clock change, a page fault) counts with less weight; when such steps go
//! on, the scale of what is normal follows and the model with it.
//!
//! It knows numbers only. The same observations give the same coefficients on every machine:
//! there is nothing here but IEEE additions, multiplications and divisions.

use crate::stats::CostCoefficients;
use crate::types::Micros;

/// Weight of the past from one step to the next: about a hundred steps are remembered.
const FORGET: f64 = 0.99;

/// Sweeps per observation. The solution moves little from step to step.
const SWEEPS: usize = 4;

/// Pulls coefficients towards zero (a draft's towards that of a prompt token) as strongly as this
/// many observations: enough to settle what the data leave open, too little to bias what they say.
const RIDGE: f64 = 1e-3;

/// Deviations (in units of the usual one) above which a step counts less.
const OUTLIER: f64 = 4.0;

/// Units that bring all features near one.
const UNITS: [f64; N] = [1.0, 1e3, 1e2, 1e5, 1e1];

/// Features: the step itself, prefill tokens, rows, context, drafts.
const N: usize = 5;

/// Places of those that are asked for alone.
const PREFILL: usize = 1;
const DRAFTS: usize = 4;

/// Prompt tokens of a first step, when nothing is known.
const FIRST_PREFILL: usize = 256;

/// How much larger than the largest prompt part ever measured the next one may be.
const GROWTH: usize = 2;

/// What a step consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Positions in rows of more than one known token.
    pub(crate) prefill: usize,
    /// Rows.
    pub(crate) rows: usize,
    /// Positions that the rows attend to, each row's last position counted.
    pub(crate) context: usize,
    /// Positions of drafts.
    pub(crate) drafts: usize,
}

impl Load {
    /// Adds a row of `len` positions behind `computed`.
    pub(crate) fn add(&mut self, computed: u32, len: u32) {
        self.rows += 1;
        self.context += (computed + len) as usize;
        self.prefill += if len > 1 { len as usize } else { 0 };
    }

    /// Adds drafts to a row of one.
    pub(crate) fn draft(&mut self, drafts: u32) {
        self.context += drafts as usize;
        self.drafts += drafts as usize;
    }

    /// Makes a row longer.
    pub(crate) fn lengthen(&mut self, from: u32, to: u32) {
        let more = (to - from) as usize;
        self.context += more;
        self.prefill += if from == 1 && more > 0 { to as usize } else { more };
    }
}

/// The fit.
#[derive(Debug, Clone)]
pub(crate) struct CostModel {
    /// Decayed sums of feature products.
    products: [[f64; N]; N],
    /// Decayed sums of feature times duration.
    moments: [f64; N],
    coefficients: [f64; N],
    /// Usual distance of a step from its prediction.
    deviation: f64,
    steps: u64,
    prefill_max: usize,
}

impl CostModel {
    pub(crate) fn new() -> Self {
        Self {
            products: [[0.0; N]; N],
            moments: [0.0; N],
            coefficients: [0.0; N],
            deviation: 0.0,
            steps: 0,
            prefill_max: 0,
        }
    }

    /// Predicted duration in microseconds.
    pub(crate) fn predict(&self, load: &Load) -> f64 {
        let x = features(load);
        (0..N).map(|i| self.coefficients[i] * x[i]).sum()
    }

    /// Prompt tokens that fit beside `load` (its own prefill not counted) so that the step takes
    /// no longer than `target`. May be 0; the caller knows the least and the most.
    pub(crate) fn prefill_budget(&self, load: &Load, target: Micros) -> usize {
        let ramp = FIRST_PREFILL.max(self.prefill_max * GROWTH);
        let room = target as f64 - self.predict(&Load { prefill: 0, ..*load });
        let per_token = self.per(PREFILL);
        if room <= 0.0 {
            0
        } else if per_token * (ramp as f64) < room {
            ramp
        } else {
            (room / per_token) as usize
        }
    }

    /// What a further row costs by being there and by the context that it attends to, in prompt
    /// tokens of the same cost.
    pub(crate) fn row_in_tokens(&self, context: u32) -> usize {
        let row = Load { rows: 1, context: context as usize, ..Load::default() };
        let own = self.predict(&row) - self.coefficients[0];
        let per_token = self.per(PREFILL);
        if per_token > 0.0 { (own / per_token) as usize } else { 0 }
    }

    /// What a draft costs in microseconds: a prompt token's cost where none was measured of late,
    /// which is what a position costs where the others of its step pay for reading the weights.
    pub(crate) fn draft_us(&self) -> f64 {
        self.per(DRAFTS)
    }

    fn per(&self, feature: usize) -> f64 {
        self.coefficients[feature] / UNITS[feature]
    }

    /// Learns from a step.
    pub(crate) fn observe(&mut self, load: &Load, elapsed: Micros) {
        let elapsed = elapsed as f64;
        self.prefill_max = self.prefill_max.max(load.prefill);
        let off = (elapsed - self.predict(load)).abs();
        let bound = OUTLIER * self.deviation;
        let weight = if self.steps >= 16 && off > bound { (bound / off).max(1e-3) } else { 1.0 };
        let normal = if self.steps >= 16 { off.min(bound.max(1.0)) } else { off };
        self.deviation += (normal - self.deviation) / (self.steps.min(31) + 1) as f64;
        self.steps += 1;

        let x = features(load);
        for i in 0..N {
            for j in 0..N {
                self.products[i][j] = self.products[i][j] * FORGET + weight * x[i] * x[j];
            }
            self.moments[i] = self.moments[i] * FORGET + weight * x[i] * elapsed;
        }
        self.solve();
    }

    fn solve(&mut self) {
        for _ in 0..SWEEPS {
            for i in 0..N {
                let others: f64 = (0..N)
                    .filter(|&j| j != i)
                    .map(|j| self.products[i][j] * self.coefficients[j])
                    .sum();
                let pull = if i == DRAFTS { self.per(PREFILL) * UNITS[DRAFTS] } else { 0.0 };
                let best =
                    (self.moments[i] - others + RIDGE * pull) / (self.products[i][i] + RIDGE);
                self.coefficients[i] = best.max(0.0);
            }
        }
    }

    pub(crate) fn coefficients(&self) -> CostCoefficients {
        CostCoefficients {
            step_us: self.per(0),
            prefill_token_us: self.per(PREFILL),
            row_us: self.per(2),
            context_kilotoken_us: self.per(3) * 1000.0,
            draft_us: self.per(DRAFTS),
        }
    }
}

fn features(load: &Load) -> [f64; N] {
    let Load { prefill, rows, context, drafts } = *load;
    let amounts = [1, prefill, rows, context, drafts];
    std::array::from_fn(|i| amounts[i] as f64 / UNITS[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noise(u64);

    impl Noise {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % bound
        }
    }

    fn truth(load: &Load) -> u64 {
        let Load { prefill, rows, context, drafts } = *load;
        let positions = 10 * prefill as u64 + 30 * rows as u64 + 25 * drafts as u64;
        2000 + positions + context as u64 / 100
    }

    fn load(noise: &mut Noise) -> Load {
        let rows = 1 + noise.below(200) as usize;
        let prefill = if noise.below(3) == 0 { noise.below(2000) as usize } else { 0 };
        let drafts = if noise.below(4) == 0 { noise.below(100) as usize } else { 0 };
        Load { prefill, rows, context: rows * noise.below(4000) as usize, drafts }
    }

    fn trained(outliers: bool) -> CostModel {
        let (mut noise, mut model) = (Noise(7), CostModel::new());
        for step in 0..2000 {
            let load = load(&mut noise);
            let mut elapsed = truth(&load) + noise.below(200);
            if outliers && step % 50 == 17 {
                elapsed *= 20;
            }
            model.observe(&load, elapsed);
        }
        model
    }

    #[test]
    fn the_truth_is_found_even_among_outliers() {
        for outliers in [false, true] {
            let (mut noise, model) = (Noise(99), trained(outliers));
            for _ in 0..100 {
                let load = load(&mut noise);
                let (is, should) = (model.predict(&load), truth(&load) as f64);
                assert!((is - should).abs() < 0.1 * should, "{is} for {should}, {load:?}");
            }
        }
    }

    #[test]
    fn coefficients_are_never_negative_and_budgets_keep_the_target() {
        let model = trained(false);
        let c = model.coefficients();
        assert!(c.step_us >= 0.0 && c.row_us >= 0.0 && c.context_kilotoken_us >= 0.0);
        let decode = Load { prefill: 0, rows: 100, context: 100_000, drafts: 0 };
        let budget = model.prefill_budget(&decode, 20_000);
        let took = truth(&Load { prefill: budget, ..decode });
        assert!((17_000..23_000).contains(&took), "{budget} tokens take {took}");
        assert_eq!(model.prefill_budget(&decode, 3000), 0, "decode alone takes longer");
    }

    #[test]
    fn steps_that_look_alike_do_not_break_the_fit() {
        let mut model = CostModel::new();
        let same = Load { prefill: 0, rows: 8, context: 4096, drafts: 0 };
        for _ in 0..500 {
            model.observe(&same, 5000);
        }
        assert!((model.predict(&same) - 5000.0).abs() < 50.0);
    }

    #[test]
    fn a_draft_costs_what_was_measured_or_what_a_prompt_token_does() {
        let mut model = trained(false);
        assert!((model.draft_us() - 25.0).abs() < 8.0, "{}", model.draft_us());
        let mut noise = Noise(3);
        for _ in 0..2500 {
            let load = Load { drafts: 0, ..load(&mut noise) };
            model.observe(&load, truth(&load) + noise.below(200));
        }
        assert!((model.draft_us() - 10.0).abs() < 5.0, "long ago: {}", model.draft_us());
    }

    #[test]
    fn a_slower_device_is_noticed() {
        let (mut noise, mut model) = (Noise(5), trained(false));
        for _ in 0..400 {
            let load = load(&mut noise);
            model.observe(&load, truth(&load) * 3);
        }
        let typical = Load { prefill: 500, rows: 100, context: 200_000, drafts: 0 };
        let (is, should) = (model.predict(&typical), 3.0 * truth(&typical) as f64);
        assert!((is - should).abs() < 0.2 * should, "{is} for {should}");
    }

    #[test]
    fn the_first_steps_grow_slowly() {
        let mut model = CostModel::new();
        assert_eq!(model.prefill_budget(&Load::default(), 50_000), FIRST_PREFILL);
        model.observe(&Load { prefill: 256, rows: 1, context: 256, drafts: 0 }, 100);
        assert_eq!(model.prefill_budget(&Load::default(), 50_000), 512);
    }
}
