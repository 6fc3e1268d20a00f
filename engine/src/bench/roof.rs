//! What a step must do at least: bytes to read, products to compute. Divided by what the device
//! can do at its best, that is the time no implementation beats.

use cuda::measure::{Sizes, measure};
use cuda::nvidia::Nvidia;
use kernels::Format;

use crate::model::ModelFiles;
use crate::plan::Plan;
use crate::spec::{ExpertsSpec, LayerSpec, MlpSpec, ModelSpec, Need, Role};
use crate::weights::LoadError;

/// What the device does at its best, measured on it; `None`: unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Ceilings {
    /// GB/s of a copy in its memory, reads and writes counted.
    pub copy_gb_s: Option<f64>,
    /// GB/s of a copy from the host's memory.
    pub upload_gb_s: Option<f64>,
    /// TFLOP/s of the vendor's bf16 product.
    pub product_tflops: Option<f64>,
}

/// Measures GPU `ordinal` beside a model that lies on it idle.
///
/// # Errors
/// There is no room for it beside the model, or the device failed.
///
/// # Panics
/// Measuring panicked.
pub fn ceilings(ordinal: u32) -> Result<Ceilings, String> {
    let measured = || {
        let mut gpu = Nvidia::open(ordinal).map_err(|error| error.to_string())?;
        let found = measure(&mut gpu, &Sizes::default()).map_err(|error| error.to_string())?;
        Ok(Ceilings {
            copy_gb_s: Some(found.copy_gb_s),
            upload_gb_s: Some(found.upload_gb_s),
            product_tflops: found.product_tflop_s,
        })
    };
    // A thread of its own: the model's thread keeps its binding to the device.
    let measured = std::thread::scope(|scope| scope.spawn(measured).join());
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What steps of a model must do.
pub(super) struct Work {
    /// Bytes of weights that every step reads.
    dense_bytes: f64,
    /// Of each layer with experts: bytes of one expert, how many there are, how many a row uses.
    experts: Vec<(f64, f64, f64)>,
    /// Of each layer: its window, bytes of a position in the cache, operations for a position
    /// that is attended to.
    layers: Vec<(f64, f64, f64)>,
    /// Weights that a token of a prompt is multiplied with.
    linear: f64,
}

impl Work {
    /// `weight_bytes` are the device's for the whole model.
    ///
    /// # Errors
    /// A tensor is missing.
    pub(super) fn of(
        files: &ModelFiles,
        plan: &Plan,
        weight_bytes: usize,
    ) -> Result<Self, LoadError> {
        let spec = &files.spec;
        // A step reads some rows of an embedding table, all of a head.
        let tied = spec.head.is_some_and(|head| head.tied);
        let (mut unread, mut expert_bytes) = (0.0, vec![0.0; spec.layers.len()]);
        for need in spec.tensors() {
            let unread_role = matches!(
                need.role,
                Role::PositionEmbedding | Role::TypeEmbedding | Role::Embedding
            );
            if !unread_role && !matches!(need.role, Role::Expert(..)) {
                continue;
            }
            let format = files.weights.look(need.role, need.rows, need.cols)?.format;
            let bytes = device_bytes(&need, format, plan);
            match need.role {
                Role::Expert(layer, ..) => expert_bytes[layer] += bytes,
                Role::Embedding if tied => {}
                _ => unread += bytes,
            }
        }
        let mixed: f64 = expert_bytes.iter().sum();
        let experts = spec.layers.iter().zip(expert_bytes).filter_map(|(layer, bytes)| {
            let how = experts_of(layer)?;
            let count = how.count as f64;
            Some((bytes / count, count, how.top_k as f64))
        });
        let cache = plan.cache.page_bytes() as f64 / plan.cache.page_tokens as f64;
        let per_layer = cache / spec.layers.len() as f64;
        let layers = spec.layers.iter().map(|layer| {
            let attention = &layer.attention;
            let window = attention.window.map_or(f64::INFINITY, f64::from);
            // A product and a sum for each element of a key, and of a value.
            let dims = attention.heads * attention.head_dim + attention.out_width();
            (window, per_layer, 2.0 * dims as f64)
        });
        Ok(Self {
            dense_bytes: (weight_bytes as f64 - unread - mixed).max(0.0),
            experts: experts.collect(),
            layers: layers.collect(),
            linear: linear(spec),
        })
    }

    /// Bytes that a decode step of `rows` rows reads whose contexts are `context` long on
    /// average. Of experts: those that the rows choose if every choice is equally likely.
    pub(super) fn step_bytes(&self, rows: usize, context: f64) -> f64 {
        let experts = self.experts.iter().map(|&(bytes, count, top_k)| {
            bytes * count * (1.0 - (1.0 - top_k / count).powi(rows as i32))
        });
        let cache = self.layers.iter().map(|&(window, bytes, _)| context.min(window) * bytes);
        self.dense_bytes + experts.sum::<f64>() + rows as f64 * cache.sum::<f64>()
    }

    /// Operations of a prompt of `tokens` tokens, an addition and a multiplication counted as
    /// two. The head is left out: it runs for one of them.
    pub(super) fn prompt_flop(&self, tokens: usize) -> f64 {
        let n = tokens as f64;
        let attention = self.layers.iter().map(|&(window, _, flop)| {
            // Each position attends to those before it and itself, as far as the window reaches.
            let inside = n.min(window);
            let pairs = inside * (inside + 1.0) / 2.0 + (n - inside) * inside;
            pairs * flop
        });
        2.0 * self.linear * n + attention.sum::<f64>()
    }
}

fn device_bytes(need: &Need, format: Format, plan: &Plan) -> f64 {
    let bytes = match plan.gpu {
        true => crate::cuda::weight_bytes(need, format, plan.precision),
        false => kernels::cpu::matrix::packed_bytes(format, need.rows, need.cols) as u64,
    };
    bytes as f64
}

fn experts_of(layer: &LayerSpec) -> Option<&ExpertsSpec> {
    match &layer.mlp {
        MlpSpec::Experts(experts) => Some(experts),
        MlpSpec::Dense(_) => None,
    }
}

fn linear(spec: &ModelSpec) -> f64 {
    let weights = spec.tensors().into_iter().map(|need| {
        let all = (need.rows * need.cols) as f64;
        match need.role {
            role if role.is_vector() => 0.0,
            Role::Layer(..) => all,
            Role::Expert(layer, ..) => {
                let share = experts_of(&spec.layers[layer]);
                share.map_or(0.0, |how| all * how.top_k as f64 / how.count as f64)
            }
            _ => 0.0,
        }
    });
    weights.sum()
}

#[cfg(test)]
mod tests {
    use super::super::random::{Stored, random_model};
    use super::*;
    use crate::model::Dtype;
    use crate::plan::PlanOptions;

    #[test]
    fn work_of_the_tiny_shape_is_what_arithmetic_says() {
        let files = random_model("tiny", Stored::Bf16).unwrap();
        let options = PlanOptions {
            dtype: Dtype::Auto,
            threads: 1,
            context: Some(256),
            cache_bytes: None,
            cache_element: None,
            rows_max: 4,
            step_tokens_max: 64,
        };
        let plan = crate::plan::plan(&files, &options, 1 << 30).unwrap();
        let table = kernels::cpu::matrix::packed_bytes(Format::Bf16, 4096, 256);
        let work = Work::of(&files, &plan, 10 * table).unwrap();
        // Without the table; two layers, 2 heads of 64, keys and values of 2 bytes.
        let cache = 2.0 * 2.0 * 2.0 * 64.0 * 2.0;
        assert_eq!(work.step_bytes(3, 100.0), 9.0 * table as f64 + 3.0 * 100.0 * cache);
        // q and out 256 x 256, k and v 128 x 256, three of 512 x 256.
        let linear = 2.0 * 256.0 * (2.0 * 256.0 + 2.0 * 128.0 + 3.0 * 512.0);
        let pairs = 10.0 * 11.0 / 2.0;
        let flop = 2.0 * linear * 10.0 + pairs * 2.0 * 2.0 * 512.0;
        assert_eq!(work.prompt_flop(10), flop);
    }
}
