//! From a file in the system's cache to a model that is ready, beside reading the same file into
//! fresh memory, and the memory that it takes on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::engine::model::Dtype;
use ::engine::plan::PlanOptions;
use anyhow::Context;
use serde_json::{Value, json};

use crate::random_model::{HALF_BILLION, Mix, Shape, TINY};
use crate::record::median;

/// What is measured.
pub struct Options {
    /// Where the random models are written and kept.
    pub folder: PathBuf,
    /// Rounds; the median of each figure is reported.
    pub rounds: usize,
    /// A few hundred kilobytes instead of a gigabyte.
    pub tiny: bool,
    /// Mixes measured.
    pub mixes: Vec<Mix>,
}

/// Layers that make a file of about a gigabyte.
fn shape(mix: Mix) -> Shape {
    let layers = match mix {
        Mix::Bf16 => 20,
        Mix::Q8_0 => 46,
        Mix::Q4KM => 88,
    };
    Shape { layers, ..HALF_BILLION }
}

/// Loads all mixes and prints a table.
///
/// # Errors
/// A model cannot be written or loaded.
pub fn run(options: &Options) -> anyhow::Result<Value> {
    println!(
        "{:<8} {:>8} {:>8} {:>8} {:>10} {:>7} {:>8}",
        "weights", "file MB", "read s", "open s", "weights s", "ratio", "over %"
    );
    let mut out = serde_json::Map::new();
    for &mix in &options.mixes {
        let shape = if options.tiny { TINY } else { shape(mix) };
        let size = if options.tiny { "tiny-load" } else { "load" };
        let path = options.folder.join(format!("{size}-{}.gguf", mix.name()));
        if !path.exists() {
            fs::create_dir_all(&options.folder)?;
            crate::random_model::write(&path, shape, mix)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        // Warms the cache.
        let bytes = fs::read(&path)?.len();
        let (mut reads, mut opens, mut weights, mut over) = (vec![], vec![], vec![], vec![]);
        for _ in 0..options.rounds {
            let start = Instant::now();
            drop(std::hint::black_box(fs::read(&path)?));
            reads.push(start.elapsed().as_secs_f64());
            let load = load(&path)?;
            opens.push(load.open_s);
            weights.push(load.weights_s);
            over.push(load.over_bytes / bytes as f64);
        }
        let [read, open, weights, over] =
            [&mut reads, &mut opens, &mut weights, &mut over].map(|figures| median(figures));
        let (ratio, megabytes) = (weights / read, bytes as f64 / 1e6);
        println!(
            "{:<8} {megabytes:>8.0} {read:>8.3} {open:>8.3} {weights:>10.3} {ratio:>7.2} {:>8.1}",
            mix.name(),
            100.0 * over
        );
        let figures = json!({
            "file_bytes": bytes, "read_s": read, "open_s": open, "weights_s": weights,
            "weights_to_read": ratio, "peak_over_kept": over,
        });
        out.insert(mix.name().into(), figures);
    }
    Ok(Value::Object(out))
}

/// One start of a model.
struct Load {
    /// Headers, checks and the tokenizer.
    open_s: f64,
    /// From then on until it could run.
    weights_s: f64,
    /// Highest resident memory on the way beyond what stays.
    over_bytes: f64,
}

fn load(path: &Path) -> anyhow::Result<Load> {
    // Resets the highest resident size (proc(5)); where that is not allowed it only reads high.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let start = Instant::now();
    let files = ::engine::open(path)?;
    let open_s = start.elapsed().as_secs_f64();
    let options = PlanOptions {
        dtype: Dtype::Auto,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        context: Some(256),
        cache_bytes: Some(64 << 20),
        cache_element: None,
        rows_max: 1,
        step_tokens_max: 16,
    };
    let plan = ::engine::plan::plan(&files, &options, ::engine::plan::memory_available())?;
    let start = Instant::now();
    let runner = ::engine::start_cpu(&files, &plan)?;
    let weights_s = start.elapsed().as_secs_f64();
    drop(files);
    let (kept, peak) = (status("VmRSS:"), status("VmHWM:"));
    drop(runner);
    Ok(Load { open_s, weights_s, over_bytes: (peak - kept) * 1024.0 })
}

/// A size of this process in kilobytes; 0 where the system does not say.
fn status(field: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0.0)
}
