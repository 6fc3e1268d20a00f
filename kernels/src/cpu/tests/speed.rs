//! Times of attention and sampling: small in a test run so that they cannot rot; at full size with
//! `cargo test --release -p kernels speed -- --ignored --nocapture --test-threads 1`.

use std::time::Instant;

use super::{Numbers, begin, cpu, isas, plain_sampler, tensor};
use crate::compute::{
    Attention, CacheElement, CacheShape, Compute, Drawn, Grant, SampleRow, Sampler, Segment, Step,
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

/// Attention of `rows` last positions of a context: 32 heads, 8 kv heads of 128, one layer.
fn attention(isa: Isa, threads: usize, element: CacheElement, context: usize, rows: usize) -> f64 {
    let (heads, kv_heads, head_dim) = (32, 8, 128);
    let mut cpu = cpu(isa, threads, rows, 8);
    let pages = context.div_ceil(16);
    let shape = CacheShape {
        layers: 1,
        pages,
        page_tokens: 16,
        kv_heads,
        head_dim,
        element,
        slots: 1,
        pages_per_slot: pages,
    };
    let mut cache = cpu.cache(shape).expect("memory");
    let grants: Vec<Grant> =
        (0..pages as u32).map(|page| Grant { slot: 0, index: page, page }).collect();
    let width = (heads + 2 * kv_heads) * head_dim;
    let qkv = tensor(&mut cpu, rows, &Numbers::new(1).list(rows * width, 0.1));
    let mut out = cpu.tensor(rows, heads * head_dim).expect("memory");
    let (first, len) = ((context - rows) as u32, rows as u32);
    let segments = [Segment { slot: 0, first, len, row: 0, late: false }];
    let tokens = vec![0; rows];
    cpu.begin(Step { tokens: &tokens, segments: &segments, grants: &grants }, &mut cache);
    // Pages that were never written are one page of zeros to the processor.
    let numbers = Numbers::new(2).list(kv_heads * head_dim, 0.1);
    for position in 0..context as u32 {
        for (head, x) in numbers.chunks(head_dim).enumerate() {
            let writer = cache.writer();
            // SAFETY: nothing runs beside this.
            with_element!(element, T => unsafe {
                writer.put::<T>(0, (0, position), head, x, x);
            });
        }
    }
    let how = Attention { heads, kv_heads, head_dim, scale: 0.088, window: None, soft_cap: None };
    best_us(15, || cpu.attention(&qkv, &how, &cache, 0, &mut out))
}

fn sampling(cpu: &mut Cpu, logits: &[f32], sampler: &Sampler, logprobs: Option<u32>) -> f64 {
    cpu.start_slot(0, &[1], 1, sampler);
    let mut x = tensor(cpu, 1, logits);
    let mut drawn = Drawn::default();
    let mut position = 0;
    best_us(20, || {
        begin(cpu, 1);
        position += 1;
        cpu.sample(&mut x, &[SampleRow { slot: 0, position, logprobs }]);
        cpu.end();
        cpu.collect(&mut drawn).expect("no fault");
    })
}

fn samplers() -> Vec<(&'static str, Sampler)> {
    let on = plain_sampler();
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
            for (name, sampler) in samplers() {
                let us = sampling(&mut cpu, &logits, &sampler, None);
                println!("{:20} {shape:7} {name:22} {us:9.1} us", isa.name());
            }
            let us = sampling(&mut cpu, &logits, &samplers()[0].1, Some(20));
            println!("{:20} {shape:7} {:22} {us:9.1} us", isa.name(), "greedy, 20 logprobs");
        }
        for element in [CacheElement::F32, CacheElement::Bf16, CacheElement::F16] {
            for threads in [1, 2] {
                for &context in contexts {
                    for &rows in rows {
                        let us = attention(isa, threads, element, context, rows);
                        // Two products of 2 flops for each head, dimension and pair of positions.
                        let pairs = rows as f64 * (context as f64 - (rows - 1) as f64 / 2.0);
                        let gflops = pairs * 32.0 * 128.0 * 4.0 / us / 1e3;
                        let bytes = (context * 8 * 128 * 2 * element.bytes()) as f64;
                        println!(
                            "{:20} {element:?} {threads} threads, {rows:4} rows of {context:5}: \
                             {us:10.1} us, {gflops:7.1} GFLOP/s, {:6.1} GB/s",
                            isa.name(),
                            bytes / us / 1e3
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn speed_small() {
    report(600, &[48], &[1, 20]);
}

#[test]
#[ignore = "takes a minute; prints figures"]
fn speed_full() {
    report(151_936, &[1024, 8192], &[1, 64]);
}
