//! Parameters of MLPs and of the routing to experts.

/// The function inside an MLP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * normal_cdf(x)`, by the error function.
    Gelu,
    /// Gelu by its tanh approximation.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2`.
    ReluSquared,
    /// Gated only (gpt-oss): `(clamp(up, -limit, limit) + 1) * g * sigmoid(alpha * g)` with
    /// `g = min(gate, limit)`.
    Clamped {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// Bound of both inputs.
        limit: f32,
    },
}

/// How scores of experts become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterScore {
    /// Softmax over all experts, in f32.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
}

/// Experts are chosen from the best groups only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterGroups {
    /// Groups of neighbouring experts, of equal size.
    pub count: usize,
    /// Groups that are kept.
    pub kept: usize,
    /// A group's score is the sum of its two best (DeepSeek V3), not its best (V2).
    pub two_best: bool,
}

/// How rows choose their experts.
#[derive(Debug)]
pub struct Router<'a, V> {
    /// Experts per row.
    pub top_k: usize,
    /// From logits to scores.
    pub score: RouterScore,
    /// `[experts]`, added to the scores for choosing only.
    pub correction: Option<&'a V>,
    /// Restriction to groups; experts of other groups cannot be chosen.
    pub groups: Option<RouterGroups>,
    /// Chosen scores are divided by their sum.
    pub normalise: bool,
    /// Multiplies the weights at the end.
    pub scale: f32,
}
