//! From hidden states to one vector: poolings over positions, then what stands behind them. On
//! the host, in f32 with f64 sums: it is a thousandth of the work of the layers.
//!
//! Definitions: sentence-transformers' modules Pooling, Dense and Normalize.

/// How the hidden states of an input become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// That of the first position.
    First,
    /// That of the last.
    Last,
    /// Their mean.
    Mean,
    /// Their sum over the root of how many there are.
    MeanSqrt,
    /// Their mean, position p (from 0) with weight p + 1.
    Weighted,
    /// The largest of each element.
    Max,
}

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The number itself.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// Not below 0.
    Relu,
    /// `x * Phi(x)`.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl Activation {
    fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
            Self::Gelu => (0.5 * f64::from(x) * (1.0 + erf(f64::from(x) / 2_f64.sqrt()))) as f32,
            Self::Silu => x * sigmoid(x),
            Self::Sigmoid => sigmoid(x),
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

/// The error function by its series near 0 and its continued fraction beyond, both to more digits
/// than f32 holds (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..60 {
            term *= 2.0 * a * a / f64::from(2 * n + 1);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp() * sum
    } else {
        let fraction = (1..60).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below);
        1.0 - (-a * a).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    value.copysign(x)
}

/// What stands behind the pooling.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// `activation(weight * x + bias)`.
    Dense {
        /// `[out, in]`, row-major.
        weight: Vec<f32>,
        /// `[out]`, or empty.
        bias: Vec<f32>,
        /// Of each element.
        activation: Activation,
    },
    /// Mean 0 and variance 1, times `weight`, plus `bias`.
    LayerNorm {
        /// As long as the vector.
        weight: Vec<f32>,
        /// As long as the vector, or empty.
        bias: Vec<f32>,
        /// Added to the variance.
        eps: f32,
    },
    /// Divided by its length.
    Normalise,
}

impl Stage {
    /// Elements of the result for a vector of `size`.
    #[must_use]
    pub fn size(&self, size: usize) -> usize {
        match self {
            Self::Dense { weight, .. } => weight.len() / size.max(1),
            Self::LayerNorm { .. } | Self::Normalise => size,
        }
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Dense { weight, bias, activation } => {
                let rows = weight.chunks_exact(x.len().max(1)).enumerate();
                rows.map(|(r, row)| {
                    let products = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                    let sum: f64 = products.sum();
                    let bias = f64::from(bias.get(r).copied().unwrap_or(0.0));
                    activation.apply((sum + bias) as f32)
                })
                .collect()
            }
            Self::LayerNorm { weight, bias, eps } => {
                let count = x.len().max(1) as f64;
                let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
                let square = |&x: &f32| (f64::from(x) - mean) * (f64::from(x) - mean);
                let variance = x.iter().map(square).sum::<f64>() / count;
                let scale = 1.0 / (variance + f64::from(*eps)).sqrt();
                let each = x.iter().zip(weight).enumerate();
                each.map(|(i, (&x, &w))| {
                    let bias = bias.get(i).copied().unwrap_or(0.0);
                    ((f64::from(x) - mean) * scale) as f32 * w + bias
                })
                .collect()
            }
            Self::Normalise => {
                let length = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
                // As torch's normalize has it; only a vector of zeros is so short.
                let length = length.max(1e-12);
                x.iter().map(|&x| (f64::from(x) / length) as f32).collect()
            }
        }
    }
}

/// Takes the hidden states of one input as they come and keeps what its poolings need.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    first: Vec<f32>,
    last: Vec<f32>,
    max: Vec<f32>,
    sum: Vec<f64>,
    weighted: Vec<f64>,
    weight: f64,
    count: usize,
}

impl Gathered {
    /// The state of `position`; the first one comes first. Positions before `skip` count for
    /// [`Pooling::First`] only.
    pub(super) fn add(&mut self, how: &[Pooling], position: usize, skip: usize, row: &[f32]) {
        let wants = |pooling| how.contains(&pooling);
        if position == 0 && wants(Pooling::First) {
            self.first = row.to_vec();
        }
        if position < skip {
            return;
        }
        self.count += 1;
        if wants(Pooling::Last) {
            self.last.clear();
            self.last.extend_from_slice(row);
        }
        if wants(Pooling::Max) {
            self.max.resize(row.len(), f32::NEG_INFINITY);
            self.max.iter_mut().zip(row).for_each(|(max, &x)| *max = max.max(x));
        }
        if wants(Pooling::Mean) || wants(Pooling::MeanSqrt) {
            self.sum.resize(row.len(), 0.0);
            self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        if wants(Pooling::Weighted) {
            let weight = (position + 1) as f64;
            self.weight += weight;
            self.weighted.resize(row.len(), 0.0);
            let each = self.weighted.iter_mut().zip(row);
            each.for_each(|(sum, &x)| *sum += weight * f64::from(x));
        }
    }

    /// Whether a position's state is of use, so that others need not be read.
    pub(super) fn needs(how: &[Pooling], position: usize, len: usize) -> bool {
        how.iter().any(|pooling| match pooling {
            Pooling::First => position == 0,
            Pooling::Last => position + 1 == len,
            _ => true,
        })
    }

    /// The poolings one after the other, through the stages.
    pub(super) fn finish(self, how: &[Pooling], stages: &[Stage]) -> Vec<f32> {
        let count = self.count.max(1) as f64;
        let over = |sums: &[f64], by: f64| -> Vec<f32> {
            sums.iter().map(|sum| (sum / by) as f32).collect()
        };
        let pooled = how.iter().flat_map(|pooling| match pooling {
            Pooling::First => self.first.clone(),
            Pooling::Last => self.last.clone(),
            Pooling::Max => self.max.clone(),
            Pooling::Mean => over(&self.sum, count),
            Pooling::MeanSqrt => over(&self.sum, count.sqrt()),
            Pooling::Weighted => over(&self.weighted, self.weight.max(1e-9)),
        });
        stages.iter().fold(pooled.collect(), |vector: Vec<f32>, stage| stage.apply(&vector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three positions of two elements.
    const ROWS: [[f32; 2]; 3] = [[1.0, 6.0], [2.0, -3.0], [6.0, 0.0]];

    fn pooled(how: &[Pooling], skip: usize) -> Vec<f32> {
        let mut gathered = Gathered::default();
        for (position, row) in ROWS.iter().enumerate() {
            if Gathered::needs(how, position, ROWS.len()) {
                gathered.add(how, position, skip, row);
            }
        }
        gathered.finish(how, &[])
    }

    #[test]
    fn poolings() {
        let check = |how: &[Pooling], skip: usize, expect: &[f32]| {
            let found = pooled(how, skip);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 4.0 * f32::EPSILON * b.abs();
            let same = found.len() == expect.len() && found.iter().zip(expect).all(near);
            assert!(same, "{how:?} behind {skip}: {found:?}, wanted {expect:?}");
        };
        check(&[Pooling::First], 0, &[1.0, 6.0]);
        check(&[Pooling::First], 1, &[1.0, 6.0]);
        check(&[Pooling::Last], 0, &[6.0, 0.0]);
        check(&[Pooling::Max], 0, &[6.0, 6.0]);
        check(&[Pooling::Max], 1, &[6.0, 0.0]);
        check(&[Pooling::Mean], 0, &[3.0, 1.0]);
        check(&[Pooling::Mean], 1, &[4.0, -1.5]);
        let root = 3_f32.sqrt();
        check(&[Pooling::MeanSqrt], 0, &[9.0 / root, 3.0 / root]);
        check(&[Pooling::Weighted], 0, &[23.0 / 6.0, 0.0]);
        check(&[Pooling::Weighted], 2, &[6.0, 0.0]);
        check(&[Pooling::First, Pooling::Mean], 0, &[1.0, 6.0, 3.0, 1.0]);
    }

    #[test]
    fn stages() {
        let dense = |activation| Stage::Dense {
            weight: vec![1.0, 0.0, 0.5, -1.0, 0.0, 0.0],
            bias: vec![0.0, 1.0, -2.0],
            activation,
        };
        assert_eq!(dense(Activation::Identity).apply(&[3.0, 4.0]), [3.0, -1.5, -2.0]);
        assert_eq!(dense(Activation::Relu).apply(&[3.0, 4.0]), [3.0, 0.0, 0.0]);
        assert_eq!(dense(Activation::Tanh).size(2), 3);
        assert_eq!(Stage::Normalise.apply(&[3.0, -4.0]), [0.6, -0.8]);
        assert_eq!(Stage::Normalise.apply(&[0.0, 0.0]), [0.0, 0.0]);
        let norm = Stage::LayerNorm { weight: vec![2.0, 1.0], bias: vec![0.0, 3.0], eps: 0.0 };
        assert_eq!(norm.apply(&[5.0, 1.0]), [2.0, 2.0]);
    }

    #[test]
    fn functions() {
        let check = |f: Activation, x: f32, expect: f32| {
            let found = f.apply(x);
            assert!((found - expect).abs() < 1e-6, "{f:?}({x}) = {found}, wanted {expect}");
        };
        check(Activation::Sigmoid, 0.0, 0.5);
        check(Activation::Sigmoid, 2.0, 0.880_797_1);
        check(Activation::Silu, 2.0, 1.761_594_2);
        check(Activation::Gelu, 1.0, 0.841_344_8);
        check(Activation::Gelu, -0.5, -0.154_268_77);
        check(Activation::Gelu, 4.0, 3.999_873_3);
        check(Activation::Gelu, -4.0, -0.000_126_685);
        check(Activation::Tanh, 0.5, 0.462_117_16);
    }
}
