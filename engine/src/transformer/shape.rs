//! Which activations a model needs: one list, from which the memory plan counts and the
//! transformer claims, so that the two cannot disagree.

use crate::spec::{AttentionSpec, DenseSpec, ExpertsSpec, MlpSpec, ModelSpec};

/// Rows and width of one activation tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// The activations of an MLP between its projections. MLPs of one shape share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MlpShape {
    /// Width between the projections.
    pub(super) width: usize,
    pub(super) gated: bool,
    /// Rows for each row of a step: 1, or as many as experts are chosen.
    pub(super) copies: usize,
}

impl MlpShape {
    pub(super) fn dense(dense: &DenseSpec) -> Self {
        Self { width: dense.width, gated: dense.gated, copies: 1 }
    }

    pub(super) fn experts(experts: &ExpertsSpec) -> Self {
        Self { width: experts.width, gated: true, copies: experts.top_k }
    }

    /// Of the shared expert.
    pub(super) fn shared(width: usize) -> Self {
        Self { width, gated: true, copies: 1 }
    }

    /// What the first projection writes and what the second reads.
    pub(super) fn claims(self, tokens: usize) -> [Claim; 2] {
        let rows = tokens * self.copies;
        let wide = if self.gated { 2 * self.width } else { self.width };
        [Claim { rows, width: wide }, Claim { rows, width: self.width }]
    }
}

/// Experts of one shape share their routing too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoutesShape {
    pub(super) experts: usize,
    pub(super) top_k: usize,
}

/// The activations of the attention block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttentionShape {
    Grouped {
        /// Queries, keys and values.
        qkv: usize,
        attended: usize,
    },
    Latent {
        /// Compressed queries; 0 where they are not compressed.
        low: usize,
        queries: usize,
        /// Latent and rotated key.
        kv: usize,
        /// Queries against the latent.
        absorbed: usize,
        /// Sums of latents.
        latents: usize,
        attended: usize,
    },
}

impl AttentionShape {
    pub(super) fn of(how: &AttentionSpec) -> Self {
        let attended = how.out_width();
        match &how.latent {
            None => Self::Grouped { qkv: (how.heads + 2 * how.kv_heads) * how.head_dim, attended },
            Some(latent) => Self::Latent {
                low: latent.query_rank.unwrap_or(0),
                queries: how.heads * (latent.plain + latent.rotated),
                kv: latent.latent + latent.rotated,
                absorbed: how.heads * (latent.latent + latent.rotated),
                latents: how.heads * latent.latent,
                attended,
            },
        }
    }

    fn width(self) -> usize {
        match self {
            Self::Grouped { qkv, attended } => qkv + attended,
            Self::Latent { low, queries, kv, absorbed, latents, attended } => {
                2 * low + queries + kv + absorbed + latents + attended
            }
        }
    }
}

/// Everything that a step needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shapes {
    pub(super) hidden: usize,
    pub(super) attention: AttentionShape,
    pub(super) mlps: Vec<MlpShape>,
    pub(super) routes: Vec<RoutesShape>,
    /// Some layer has a shared expert.
    pub(super) shared: bool,
    /// Some layer has a norm behind its blocks.
    pub(super) behind: bool,
    /// `2 * pairs` of each rope.
    pub(super) ropes: Vec<usize>,
}

impl Shapes {
    pub(super) fn of(spec: &ModelSpec) -> Self {
        let mut shapes = Self {
            hidden: spec.hidden,
            attention: AttentionShape::of(&spec.layers[0].attention),
            mlps: Vec::new(),
            routes: Vec::new(),
            shared: false,
            behind: spec.layers.iter().any(|layer| layer.order.behind()),
            ropes: spec.ropes.iter().map(|rope| 2 * rope.inv_freq.len()).collect(),
        };
        for layer in &spec.layers {
            match &layer.mlp {
                MlpSpec::Dense(dense) => add(&mut shapes.mlps, MlpShape::dense(dense)),
                MlpSpec::Experts(experts) => {
                    add(&mut shapes.mlps, MlpShape::experts(experts));
                    if let Some(shared) = experts.shared {
                        add(&mut shapes.mlps, MlpShape::shared(shared.width));
                        shapes.shared = true;
                    }
                    let routes = RoutesShape { experts: experts.count, top_k: experts.top_k };
                    add(&mut shapes.routes, routes);
                }
            }
        }
        shapes
    }

    /// Elements of all activations for steps of `tokens` tokens.
    pub(super) fn elements(&self, tokens: usize) -> Elements {
        let extra = usize::from(self.behind) + usize::from(self.shared);
        let mut rounded = tokens * ((2 + extra) * self.hidden + self.attention.width());
        let mut exact = tokens * (self.hidden + self.ropes.iter().sum::<usize>());
        for mlp in &self.mlps {
            rounded +=
                mlp.claims(tokens).map(|claim| claim.rows * claim.width).iter().sum::<usize>();
        }
        for routes in &self.routes {
            // Scores; what the experts give; who goes where: some words per choice.
            exact += tokens * routes.experts;
            rounded += tokens * routes.top_k * self.hidden;
            exact += tokens * routes.top_k * 4;
        }
        if self.shared {
            rounded += tokens;
        }
        Elements { exact, rounded }
    }

    /// The widest input of a product.
    pub(super) fn width_max(&self) -> usize {
        let attention = match self.attention {
            AttentionShape::Grouped { attended, .. } => attended,
            AttentionShape::Latent { low, queries, latents, attended, .. } => {
                low.max(queries).max(latents).max(attended)
            }
        };
        self.mlps.iter().map(|mlp| mlp.width).fold(self.hidden.max(attention), usize::max)
    }

    /// What attention writes: heads times the elements of a value.
    pub(super) fn attended(&self) -> usize {
        match self.attention {
            AttentionShape::Grouped { attended, .. } => attended,
            AttentionShape::Latent { latents, .. } => latents,
        }
    }
}

/// Elements of activations, by what they are for; see [`kernels::Kept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elements {
    /// f32 everywhere.
    pub exact: usize,
    /// f32, or 16 bits where the device keeps so many.
    pub rounded: usize,
}

fn add<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if !list.contains(&one) {
        list.push(one);
    }
}

/// Where in a list of shapes one stands.
pub(super) fn place<T: PartialEq>(list: &[T], one: &T) -> usize {
    list.iter().position(|known| known == one).expect("every layer's shapes are listed")
}
