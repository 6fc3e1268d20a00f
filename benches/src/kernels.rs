//! Matrix products on the CPU: time, weights streamed, arithmetic, and the share of what reading
//! memory allows.
//!
//! Weights are visited in turn from a set that no cache holds, as a model's layers are, so one
//! row a product (decode) measures memory and many rows (prefill) measure arithmetic.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use kernels::cpu::isa::Isa;
use kernels::cpu::matmul::{Scratch, matmul};
use kernels::cpu::matrix::Matrix;
use kernels::cpu::pool::Pool;
use kernels::{Format, MatrixPart, Precision};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads.
    pub threads: usize,
    /// Time of one cell.
    pub cell: Duration,
    /// Weights that are visited in turn, in bytes: larger than the last cache.
    pub set_bytes: usize,
    /// Matrices, rows x columns.
    pub shapes: Vec<(usize, usize)>,
    /// Rows of activations.
    pub batches: Vec<usize>,
    /// Formats of weights with the precision of their products.
    pub formats: Vec<(Format, Precision)>,
    /// Instruction set.
    pub isa: Isa,
}

impl Options {
    /// The full table on one thread.
    #[must_use]
    pub fn full() -> Self {
        use Format::{Bf16, F16, F32, Q8_0};
        let mut formats = vec![
            (F32, Precision::Float32),
            (F16, Precision::Float16),
            (Bf16, Precision::Bfloat16),
            (Bf16, Precision::Float32),
            (Q8_0, Precision::Float32),
        ];
        let quantized = Format::ALL.into_iter().filter(|f| f.is_quantized());
        formats.extend(quantized.map(|f| (f, Precision::Bfloat16)));
        Self {
            threads: 1,
            cell: Duration::from_millis(200),
            set_bytes: 192 << 20,
            shapes: vec![(1024, 1024), (4864, 896), (896, 4864), (2816, 1024), (1024, 2816)],
            batches: vec![1, 8, 16, 64, 512],
            formats,
            isa: Isa::detect(),
        }
    }

    /// Seconds at most: so that the bench cannot rot.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            cell: Duration::from_millis(1),
            set_bytes: 1 << 18,
            shapes: vec![(64, 256)],
            batches: vec![1, 16],
            ..Self::full()
        }
    }
}

/// Prints one line per format, shape and batch.
///
/// # Errors
/// `out` cannot be written.
///
/// # Panics
/// No memory for the weights.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let pool = Pool::new(options.threads);
    let read = read_rate(&pool, options.set_bytes);
    writeln!(
        out,
        "{} threads, {}; memory reads {read:.1} GB/s",
        pool.threads(),
        options.isa.name()
    )?;
    writeln!(
        out,
        "{:8} {:9} {:>11} {:>4} {:>10} {:>8} {:>9} {:>6}",
        "format", "precision", "rows x cols", "m", "us", "GB/s", "GFLOP/s", "memory"
    )?;
    for &(format, precision) in &options.formats {
        for &(rows, cols) in &options.shapes {
            if cols % format.block_len() != 0 {
                continue;
            }
            let bytes = weights(format, rows, cols);
            let part = MatrixPart { format, rows, cols, bytes: &bytes, order: None };
            let count = (options.set_bytes / bytes.len()).max(1);
            let pack = || Matrix::pack(&[part], precision, options.isa, &pool).expect("memory");
            let set: Vec<Matrix> = (0..count).map(|_| pack()).collect();
            for &m in &options.batches {
                let time = product_time(&pool, &set, m, options.cell);
                let streamed = set[0].bytes() as f64 / time / 1e9;
                let flops = 2.0 * (m * rows * cols) as f64 / time / 1e9;
                writeln!(
                    out,
                    "{:8} {:9} {:>11} {m:>4} {:>10.1} {streamed:>8.1} {flops:>9.1} {:>5.0}%",
                    format.name(),
                    format!("{precision:?}"),
                    format!("{rows}x{cols}"),
                    time * 1e6,
                    100.0 * streamed / read,
                )?;
            }
        }
    }
    Ok(())
}

/// Seconds of one product: the fastest tenth, so that other work on the machine counts little.
fn product_time(pool: &Pool, set: &[Matrix], m: usize, cell: Duration) -> f64 {
    let (rows, cols) = (set[0].rows(), set[0].cols());
    let x: Vec<f32> = (0..m * cols).map(|i| (i % 61) as f32 / 30.0 - 1.0).collect();
    let mut out = vec![0.0; m * rows];
    let mut scratch = Scratch::default();
    scratch.reserve(m, cols).expect("memory");
    let mut next = set.iter().cycle();
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || start.elapsed() < cell {
        let matrix = next.next().expect("a cycle has no end");
        let before = Instant::now();
        matmul(pool, &mut scratch, &x, m, matrix, None, &mut out);
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

/// Any codes; scales that are ordinary numbers.
fn weights(format: Format, rows: usize, cols: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Clears the high exponent bits of every half, single and bf16.
        (state & 0x3b7f_3b7f_3b7f_3b7f).to_le_bytes()
    };
    let bytes = rows * format.row_bytes(cols);
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

/// GB/s at which the pool's threads read memory.
fn read_rate(pool: &Pool, bytes: usize) -> f64 {
    let words = vec![1_u64; bytes / 8];
    let each = words.len().div_ceil(pool.threads());
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        pool.run(pool.threads(), &|task, _| {
            let part = words.chunks(each).nth(task).unwrap_or(&[]);
            let sum = part.iter().fold(0_u64, |sum, &w| sum.wrapping_add(w));
            std::hint::black_box(sum);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    bytes as f64 / best / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiny_table_is_whole() {
        let mut out = Vec::new();
        let options = Options::tiny();
        run(&options, &mut out).expect("memory");
        let lines = String::from_utf8(out).expect("text").lines().count();
        assert_eq!(lines, 2 + options.formats.len() * options.batches.len());
    }
}
