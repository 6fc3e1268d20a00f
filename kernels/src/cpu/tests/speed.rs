//! Times of attention, row ops and sampling: small in a test run so that they cannot rot; at full
//! size with `cargo test --release -p kernels --lib tests::speed -- --ignored --nocapture`.

use std::time::Instant;

use super::{Numbers, begin, cpu, isas, segment, tensor};
use crate::compute::{
    Activation, Attention, CacheElement, CacheShape, CacheValues, Compute, Drawn, Grant, Kept,
    Norm, NormKind, SampleRow, Sampler, Step, mask_words,
};
use crate::cpu::Cpu;
use crate::cpu::cache::with_element;
use crate::cpu::isa::Isa;

/// Best of some runs in microseconds; fewer when they take long.
fn best_us(runs: usize, mut run: impl FnMut()) -> f64 {
    let (mut best, mut all) = (f64::INFINITY, 0.0);
    for _ in 0..runs {
        let start = Instant::now();
        run();
        let us = start.elapsed().as_secs_f64() * 1e6;
        (best, all) = (us.min(best), all + us);
        if all > 500e3 {
            break;
        }
    }
    best
}

/// Sizes of one layer's attention.
#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    values: CacheValues,
}

/// 32 heads on 8 kv heads of 128.
const GROUPED: Shape = Shape { heads: 32, kv_heads: 8, head_dim: 128, values: CacheValues::Own };

/// Latent attention as in DeepSeek's models.
fn latent(heads: usize) -> Shape {
    Shape { heads, kv_heads: 1, head_dim: 576, values: CacheValues::InKeys { dim: 512 } }
}

/// Attention of `rows` last positions of a context.
fn attention(
    isa: Isa,
    threads: usize,
    shape: Shape,
    element: CacheElement,
    (context, rows): (usize, usize),
) -> f64 {
    let Shape { heads, kv_heads, head_dim, values } = shape;
    let mut cpu = cpu(isa, threads, rows, 8);
    let pages = context.div_ceil(16);
    let shape = CacheShape {
        layers: 1,
        pages,
        page_tokens: 16,
        kv_heads,
        head_dim,
        values,
        element,
        slots: 1,
        pages_per_slot: pages,
    };
    let mut cache = cpu.cache(shape).expect("memory");
    let grants: Vec<Grant> =
        (0..pages as u32).map(|page| Grant { slot: 0, index: page, page }).collect();
    let width = heads * head_dim;
    let q = tensor(&mut cpu, rows, &Numbers::new(1).list(rows * width, 0.1));
    let mut out = cpu.tensor(rows, heads * shape.value_dim(), Kept::Exact).expect("memory");
    let segments = [segment(0, (context - rows) as u32, rows as u32, 0)];
    let tokens = vec![0; rows];
    cpu.begin(Step { tokens: &tokens, segments: &segments, grants: &grants }, &mut cache);
    // Pages that were never written are one page of zeros to the processor.
    let numbers = Numbers::new(2).list(kv_heads * head_dim, 0.1);
    for position in 0..context as u32 {
        for (head, x) in numbers.chunks(head_dim).enumerate() {
            let writer = cache.writer();
            let value = if values == CacheValues::Own { x } else { &[] };
            // SAFETY: nothing runs beside this.
            with_element!(element, T => unsafe {
                writer.put::<T>(0, (0, position), head, x, value);
            });
        }
    }
    let how = Attention {
        heads,
        kv_heads,
        head_dim,
        scale: 0.088,
        causal: true,
        window: None,
        soft_cap: None,
        sinks: None,
    };
    best_us(15, || cpu.attention(&q, &how, &cache, 0, &mut out))
}

/// Of a row under the mask, if there is one.
fn sampling(
    cpu: &mut Cpu,
    logits: &[f32],
    sampler: &Sampler,
    logprobs: Option<u32>,
    masks: &[u32],
) -> f64 {
    cpu.start_slot(0, &[1], 1, sampler);
    let mut x = tensor(cpu, 1, logits);
    let mut drawn = Drawn::default();
    let mut position = 0;
    best_us(20, || {
        begin(cpu, 1);
        position += 1;
        let mask = (!masks.is_empty()).then_some(0);
        cpu.sample(&mut x, &[SampleRow { slot: 0, position, draft: None, logprobs, mask }], masks);
        cpu.end();
        cpu.collect(&mut drawn).expect("no fault");
    })
}

fn samplers() -> Vec<(&'static str, Sampler)> {
    let on = Sampler::plain();
    vec![
        ("greedy", Sampler { temperature: 0.0, ..on.clone() }),
        ("plain", on.clone()),
        ("top_k 40", Sampler { top_k: 40, ..on.clone() }),
        ("top_p 0.9", Sampler { top_p: 0.9, ..on.clone() }),
        ("top_p 0.95, top_k 50", Sampler { top_p: 0.95, top_k: 50, ..on.clone() }),
        ("min_p 0.05", Sampler { min_p: 0.05, ..on.clone() }),
        ("typical_p 0.9", Sampler { typical_p: 0.9, ..on }),
    ]
}

fn report(vocab: usize, contexts: &[usize], rows: &[usize]) {
    for isa in isas() {
        for (spread, shape) in [(2.5, "peaked"), (0.5, "flat")] {
            let logits = Numbers::new(1).list(vocab, spread);
            let mut cpu = cpu(isa, 1, 4, vocab);
            // One token of 97.
            let tokens = |word: usize| (32 * word..32 * word + 32).enumerate();
            let bit = |(i, token): (usize, usize)| u32::from(token.is_multiple_of(97)) << i;
            let few = (0..mask_words(vocab)).map(|word| tokens(word).map(bit).sum());
            let few: Vec<u32> = few.collect();
            for (name, sampler) in samplers() {
                let us = sampling(&mut cpu, &logits, &sampler, None, &[]);
                let masked = sampling(&mut cpu, &logits, &sampler, None, &few);
                let isa = isa.name();
                println!("{isa:20} {shape:7} {name:22} {us:9.1} us, {masked:9.1} us masked");
            }
            let us = sampling(&mut cpu, &logits, &samplers()[0].1, Some(20), &[]);
            println!("{:20} {shape:7} {:22} {us:9.1} us", isa.name(), "greedy, 20 logprobs");
        }
        rows_report(isa, rows);
        attention_report(isa, contexts, rows);
    }
}

fn attention_report(isa: Isa, contexts: &[usize], rows: &[usize]) {
    use CacheElement::{Bf16, F16, F32};
    for (name, shape, element) in [
        ("grouped", GROUPED, F32),
        ("grouped", GROUPED, Bf16),
        ("grouped", GROUPED, F16),
        ("latent 16", latent(16), Bf16),
        ("latent 128", latent(128), Bf16),
    ] {
        let Shape { heads, kv_heads, head_dim, values } = shape;
        let value_dim = if let CacheValues::InKeys { dim } = values { dim } else { head_dim };
        let kept = kv_heads * head_dim * if values == CacheValues::Own { 2 } else { 1 };
        for threads in [1, 2] {
            for &context in contexts {
                for &rows in rows {
                    let us = attention(isa, threads, shape, element, (context, rows));
                    // Two products of 2 flops for each head, dimension and pair of positions.
                    let pairs = rows as f64 * (context as f64 - (rows - 1) as f64 / 2.0);
                    let gflops = pairs * (heads * (head_dim + value_dim) * 2) as f64 / us / 1e3;
                    let bytes = (context * kept * element.bytes()) as f64;
                    println!(
                        "{:20} {name:10} {element:?} {threads} threads, {rows:4} rows of \
                         {context:5}: {us:10.1} us, {gflops:7.1} GFLOP/s, {:6.1} GB/s",
                        isa.name(),
                        bytes / us / 1e3
                    );
                }
            }
        }
    }
}

/// Norms and activations of rows of 4096 on one thread.
fn rows_report(isa: Isa, rows: &[usize]) {
    let width = 4096;
    for &rows in rows {
        let mut cpu = cpu(isa, 1, rows, 8);
        let x = tensor(&mut cpu, rows, &Numbers::new(1).list(rows * width, 1.0));
        let delta = tensor(&mut cpu, rows, &Numbers::new(2).list(rows * width, 0.01));
        let gate_up = tensor(&mut cpu, rows, &Numbers::new(3).list(rows * 2 * width, 1.0));
        let mut residual = tensor(&mut cpu, rows, &Numbers::new(4).list(rows * width, 1.0));
        let weight = cpu.load_vector(&vec![1.0; width]).expect("memory");
        let mut out = cpu.tensor(rows, width, Kept::Exact).expect("memory");
        begin(&mut cpu, rows);
        let print = |name: &str, us: f64| {
            println!("{:20} {name:30} {rows:4} rows: {us:9.1} us", isa.name());
        };
        for kind in [NormKind::Rms, NormKind::Layer] {
            let how = Norm { kind, weight: &weight, bias: None, eps: 1e-6 };
            print(&format!("{kind:?} norm"), best_us(200, || cpu.norm(&x, &how, &mut out)));
            let us = best_us(200, || cpu.add_norm(&mut residual, &delta, 1.0, &how, &mut out));
            print(&format!("sum and {kind:?} norm"), us);
        }
        use Activation::{Gelu, GeluTanh, Silu};
        for f in [Silu, Gelu, GeluTanh] {
            let us = best_us(200, || cpu.activate(&gate_up, f, true, 1, &mut out));
            print(&format!("gated {f:?}"), us);
        }
    }
}

#[test]
fn speed_small() {
    report(600, &[48], &[1, 20]);
}

#[test]
#[ignore = "takes some minutes; prints figures"]
fn speed_full() {
    report(151_936, &[1024, 8192], &[1, 64]);
}
