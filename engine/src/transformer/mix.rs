//! The block after attention: one MLP for all rows, or experts chosen for each.

use kernels::{Activation, Compute, Router};

use super::linear::Linear;
use crate::spec::{ExpertsSpec, MlpSpec, ModelSpec};

/// Weights of the block.
pub(super) enum Mix<C: Compute> {
    Dense(Mlp<C>),
    Experts(Box<Experts<C>>),
}

/// `down(f(first(x)))`; `first` is gate and up in one, or up alone.
pub(super) struct Mlp<C: Compute> {
    pub(super) first: Linear<C>,
    pub(super) down: Linear<C>,
    /// Its activations in [`MixWork::mlps`].
    pub(super) work: usize,
}

/// Router, experts and the shared expert.
pub(super) struct Experts<C: Compute> {
    pub(super) router: Linear<C>,
    pub(super) correction: Option<C::Vector>,
    pub(super) gate_up: C::Experts,
    /// `[experts * 2 width]`.
    pub(super) gate_up_bias: Option<C::Vector>,
    pub(super) down: C::Experts,
    /// `[experts * hidden]`.
    pub(super) down_bias: Option<C::Vector>,
    pub(super) shared: Option<Mlp<C>>,
    pub(super) switch: Option<Linear<C>>,
    /// Their activations in [`MixWork::mlps`] and [`MixWork::routes`].
    pub(super) work: usize,
    pub(super) routes: usize,
}

/// Activations of the block.
pub(super) struct MixWork<C: Compute> {
    /// By [`super::shape::MlpShape`]: what the first projection writes and the second reads.
    pub(super) mlps: Vec<[C::Tensor; 2]>,
    /// By [`super::shape::RoutesShape`].
    pub(super) routes: Vec<RoutesWork<C>>,
    /// What the shared expert gives, and its switch.
    pub(super) shared: Option<[C::Tensor; 2]>,
}

/// Where rows go, and what comes back.
pub(super) struct RoutesWork<C: Compute> {
    pub(super) scores: C::Tensor,
    pub(super) routes: C::Routes,
    /// `[rows * top_k, hidden]`.
    pub(super) given: C::Tensor,
}

impl<C: Compute> Mix<C> {
    pub(super) fn bytes(&self, compute: &C) -> usize {
        match self {
            Self::Dense(mlp) => mlp.bytes(compute),
            Self::Experts(experts) => experts.bytes(compute),
        }
    }

    pub(super) fn linears(&mut self) -> impl Iterator<Item = &mut Linear<C>> {
        let (dense, router, shared, switch) = match self {
            Self::Dense(mlp) => (Some(mlp), None, None, None),
            Self::Experts(experts) => {
                let Experts { router, shared, switch, .. } = &mut **experts;
                (None, Some(router), shared.as_mut(), switch.as_mut())
            }
        };
        let mlps = dense.into_iter().chain(shared);
        mlps.flat_map(|mlp| [&mut mlp.first, &mut mlp.down]).chain(router).chain(switch)
    }

    pub(super) fn run(
        &self,
        compute: &mut C,
        spec: &ModelSpec,
        index: usize,
        input: &C::Tensor,
        work: &mut MixWork<C>,
        delta: &mut C::Tensor,
    ) {
        match (self, &spec.layers[index].mlp) {
            (Self::Dense(mlp), MlpSpec::Dense(how)) => {
                let inner = &mut work.mlps[mlp.work];
                mlp.run(compute, (how.activation, how.gated), input, inner, delta);
            }
            (Self::Experts(experts), MlpSpec::Experts(how)) => {
                experts.run(compute, how, input, work, delta);
            }
            _ => unreachable!("weights follow the spec"),
        }
    }
}

impl<C: Compute> Mlp<C> {
    fn bytes(&self, compute: &C) -> usize {
        self.first.bytes(compute) + self.down.bytes(compute)
    }

    fn run(
        &self,
        compute: &mut C,
        (activation, gated): (Activation, bool),
        input: &C::Tensor,
        [wide, narrow]: &mut [C::Tensor; 2],
        out: &mut C::Tensor,
    ) {
        self.first.apply(compute, input, wide);
        compute.activate(wide, activation, gated, 1, narrow);
        self.down.apply(compute, narrow, out);
    }
}

impl<C: Compute> Experts<C> {
    fn bytes(&self, compute: &C) -> usize {
        let experts = compute.experts_bytes(&self.gate_up) + compute.experts_bytes(&self.down);
        let linears = self.router.bytes(compute)
            + self.switch.as_ref().map_or(0, |switch| switch.bytes(compute));
        experts + linears + self.shared.as_ref().map_or(0, |shared| shared.bytes(compute))
    }

    fn run(
        &self,
        compute: &mut C,
        how: &ExpertsSpec,
        input: &C::Tensor,
        work: &mut MixWork<C>,
        delta: &mut C::Tensor,
    ) {
        let MixWork { mlps, routes, shared } = work;
        let RoutesWork { scores, routes, given } = &mut routes[self.routes];
        self.router.apply(compute, input, scores);
        let router = Router {
            top_k: how.top_k,
            score: how.router.score,
            correction: self.correction.as_ref(),
            groups: how.router.groups,
            normalise: how.router.normalise,
            scale: how.router.scale,
        };
        compute.route(scores, &router, routes);
        let [wide, narrow] = &mut mlps[self.work];
        let bias = self.gate_up_bias.as_ref();
        compute.expert_matmul(input, &self.gate_up, bias, routes, true, wide);
        compute.activate(wide, how.activation, true, how.top_k, narrow);
        let bias = self.down_bias.as_ref();
        compute.expert_matmul(narrow, &self.down, bias, routes, false, given);
        compute.combine(given, routes, delta);
        if let (Some(mlp), Some([out, gate])) = (&self.shared, shared) {
            mlp.run(compute, (how.activation, true), input, &mut mlps[mlp.work], out);
            if let Some(switch) = &self.switch {
                switch.apply(compute, input, gate);
                compute.gate_rows(out, gate);
            }
            compute.add(delta, out, 1.0);
        }
    }
}
