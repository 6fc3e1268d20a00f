//! Times of routed products beside products of one matrix with as many weights, and of low-rank
//! additions beside the product that they add to, on one thread. Small in a test run so that they
//! cannot rot; at full size with
//! `cargo test --release -p kernels routed_speed -- --ignored --nocapture`.

use super::experts::{matrix, plain, routes_of};
use super::low_rank::Factors;
use super::{Numbers, begin, tensor};
use crate::compute::{Compute, Kept, Precision};
use crate::cpu::isa::Isa;
use crate::cpu::matrix::Matrix;
use crate::cpu::{Cpu, CpuConfig, Routes, Tensor};
use crate::format::Format;

fn cpu(rows_max: usize) -> Cpu {
    let (slots, context_max, vocab) = (1, 16, 8);
    let (threads, precision, isa) = (1, Precision::Bfloat16, Isa::detect());
    Cpu::new(CpuConfig { threads, precision, rows_max, slots, context_max, vocab, isa })
}

/// Microseconds that this thread computes in one run: others may have the processor in between.
#[cfg(unix)]
fn us(run: impl FnOnce()) -> f64 {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a place of this type.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        assert_eq!(failed, 0, "a clock of this thread");
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let start = now();
    run();
    now() - start
}

/// Microseconds of one run.
#[cfg(not(unix))]
fn us(run: impl FnOnce()) -> f64 {
    let start = std::time::Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6
}

/// A layer's experts.
#[derive(Clone, Copy)]
struct Layer {
    experts: usize,
    top_k: usize,
    out: usize,
    cols: usize,
}

/// Inputs of a routed product and of a whole one.
struct Inputs {
    x: Tensor,
    routes: Vec<Routes>,
    out: Tensor,
    whole_x: Tensor,
    whole_out: Tensor,
}

/// Best of `rounds`, interleaved: microseconds of the routed product, of a whole product with as
/// many weights and rows for each weight, and the share of the weights that is read.
///
/// `even`: all experts get as many rows.
fn routed(format: Format, layer: Layer, (rows, even): (usize, bool), rounds: usize) -> [f64; 3] {
    let Layer { experts, top_k, out, cols } = layer;
    let (mut numbers, routed) = (Numbers::new(1), rows * top_k);
    let each = routed.div_ceil(experts);
    let mut cpu = cpu(routed);
    let list: Vec<Matrix> =
        (0..experts).map(|_| matrix(&mut cpu, &mut numbers, &[(format, out)], cols)).collect();
    let whole = matrix(&mut cpu, &mut numbers, &[(format, out * experts)], cols);
    let list = cpu.load_experts(list).expect("memory");
    // Other experts each time: weights come from memory.
    let routes = (0..8)
        .map(|round| {
            let mut logits = numbers.list(rows * experts, 1.0);
            for (row, logits) in logits.chunks_mut(experts).enumerate().filter(|_| even) {
                (0..top_k).for_each(|i| logits[((round + row) * top_k + i) % experts] += 100.0);
            }
            routes_of(&mut cpu, &logits, experts, &plain(top_k))
        })
        .collect();
    let mut inputs = Inputs {
        x: tensor(&mut cpu, rows, &numbers.list(rows * cols, 1.0)),
        routes,
        out: cpu.tensor(routed, out, Kept::Exact).expect("memory"),
        whole_x: tensor(&mut cpu, each, &numbers.list(each * cols, 1.0)),
        whole_out: cpu.tensor(each, out * experts, Kept::Exact).expect("memory"),
    };
    let used = |routes: &Routes| {
        let mut used = vec![false; experts];
        (0..rows).flat_map(|row| routes.of_row(row)).for_each(|(expert, ..)| used[expert] = true);
        used.iter().filter(|&&used| used).count()
    };
    let all: usize = inputs.routes.iter().map(used).sum();
    let share = all as f64 / (inputs.routes.len() * experts) as f64;
    let (mut ours, mut best) = (vec![f64::INFINITY; inputs.routes.len()], f64::INFINITY);
    for _ in 0..rounds {
        begin(&mut cpu, rows);
        let Inputs { x, routes, out, .. } = &mut inputs;
        for (ours, routes) in ours.iter_mut().zip(routes) {
            *ours = ours.min(us(|| cpu.expert_matmul(x, &list, None, routes, true, out)));
        }
        begin(&mut cpu, each);
        let Inputs { whole_x, whole_out, .. } = &mut inputs;
        best = best.min(us(|| cpu.matmul(whole_x, &whole, None, whole_out)));
    }
    [ours.iter().sum::<f64>() / ours.len() as f64, best, share]
}

fn report_routed(layers: &[(&str, Layer)], rows: &[(usize, bool)], rounds: usize) {
    for format in [Format::Q4K, Format::Bf16] {
        for &(name, layer) in layers {
            for &(rows, even) in rows {
                let [ours, whole, share] = routed(format, layer, (rows, even), rounds);
                let weights = (layer.experts * layer.out * layer.cols) as f64;
                let bytes = weights / format.block_len() as f64 * format.block_bytes() as f64;
                let rate = |us: f64, share: f64| bytes * share / us / 1e3;
                let flops = 2.0 * (rows * layer.top_k * layer.out * layer.cols) as f64;
                println!(
                    "{format:?}, {name}, {rows} rows, even {even}: {ours:.0} us, \
                         {:.1} GB/s, {:.1} GFLOP/s; one matrix {whole:.0} us, {:.1} GB/s; {:.2}",
                    rate(ours, share),
                    flops / ours / 1e3,
                    rate(whole, 1.0),
                    rate(ours, share) / rate(whole, 1.0)
                );
            }
        }
    }
}

/// Best of `rounds`: microseconds of a product and of the addition to it. Row i has adapter
/// `i % adapters`.
fn adapted(rows: usize, width: usize, rank: usize, adapters: usize, rounds: usize) -> [f64; 2] {
    let mut numbers = Numbers::new(5);
    let mut cpu = cpu(rows);
    let w = matrix(&mut cpu, &mut numbers, &[(Format::Q4K, width)], width);
    // Several layers' worth: factors come from memory.
    let layers: u32 = if rows > adapters { 1 } else { 6 };
    let pairs: Vec<Vec<_>> = (0..layers)
        .map(|_| {
            let pair = || Factors::new(&mut Numbers::new(6), width, width, rank);
            (0..adapters).map(|_| Some(pair().load(&mut cpu))).collect()
        })
        .collect();
    let x = tensor(&mut cpu, rows, &numbers.list(rows * width, 1.0));
    let mut out = cpu.tensor(rows, width, Kept::Exact).expect("memory");
    let segments: Vec<_> = (0..rows).map(|row| (1, (row % adapters) as u32 + 1)).collect();
    super::low_rank::begin(&mut cpu, &segments);
    let mut best = [f64::INFINITY; 2];
    for _ in 0..rounds {
        best[0] = best[0].min(us(|| cpu.matmul(&x, &w, None, &mut out)));
        let time = us(|| pairs.iter().for_each(|pairs| cpu.adapt(&x, pairs, 0, &mut out)));
        best[1] = best[1].min(time / f64::from(layers));
    }
    best
}

fn report_adapted(width: usize, cases: &[(usize, usize)], rounds: usize) {
    for &(rows, adapters) in cases {
        let rank = 16;
        let [product, addition] = adapted(rows, width, rank, adapters, rounds);
        let bytes = (adapters * 2 * rank * width * 4) as f64;
        let flops = (4 * rows * rank * width) as f64;
        println!(
            "{rows} rows, {adapters} adapters of rank {rank} on {width}: {addition:.1} us, {:.1} \
             GB/s, {:.1} GFLOP/s; Q4K product {product:.0} us, so {:.1} % more",
            bytes / addition / 1e3,
            flops / addition / 1e3,
            100.0 * addition / product
        );
    }
}

#[test]
fn routed_speed_small() {
    let layer = Layer { experts: 4, top_k: 2, out: 48, cols: 256 };
    report_routed(&[("small", layer)], &[(1, true), (5, false)], 1);
    report_adapted(256, &[(3, 2), (40, 1)], 1);
}

#[test]
#[ignore = "takes minutes; prints figures"]
fn routed_speed_full() {
    // An expert of a model with 128 of them, 8 for each row; fewer here, for the memory.
    let up = Layer { experts: 32, top_k: 8, out: 1536, cols: 2048 };
    let down = Layer { out: 2048, cols: 768, ..up };
    let rows = [(1, true), (16, true), (16, false), (256, true), (256, false)];
    report_routed(&[("gate and up", up), ("down", down)], &rows, 12);
    report_adapted(4096, &[(1, 1), (16, 16), (16, 1), (512, 1), (512, 16)], 12);
}
