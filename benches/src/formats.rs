//! Every quantized format of GGUF beside ggml's product of the same shape: one thread, CPU time,
//! the two programs in turn.
//!
//! With one row both visit weights that no cache holds, so the product measures memory; with 512
//! it measures arithmetic. Weights are random bytes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use kernels::cpu::isa::Isa;
use kernels::cpu::matmul::{Scratch, matmul};
use kernels::cpu::matrix::Matrix;
use kernels::cpu::pool::Pool;
use kernels::{Format, Group, MatrixPart, Precision};
use serde_json::{Value, json};

use crate::record::{cpu_seconds, median};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows and columns of the weights.
    pub shape: (usize, usize),
    /// Rows of activations.
    pub batches: Vec<usize>,
    /// Rounds; the median ratio is reported.
    pub rounds: usize,
    /// CPU time of one cell of a round in milliseconds.
    pub cell_ms: u32,
    /// Weights that are visited in turn, in bytes: larger than the last cache.
    pub set_bytes: usize,
    /// Only these, or all.
    pub formats: Vec<Format>,
}

impl Options {
    /// The full table.
    #[must_use]
    pub fn full() -> Self {
        Self {
            shape: (4096, 4096),
            batches: vec![1, 512],
            rounds: 5,
            cell_ms: 150,
            set_bytes: 192 << 20,
            formats: Format::ALL.into_iter().filter(|&f| f.is_quantized() && one_of(f)).collect(),
        }
    }

    /// A second at most: so that the bench cannot rot.
    #[must_use]
    pub fn tiny() -> Self {
        let full = Self::full();
        Self { shape: (64, 256), rounds: 1, cell_ms: 1, set_bytes: 1 << 16, ..full }
    }
}

/// Only one of the groups that a name stands for.
fn one_of(format: Format) -> bool {
    !matches!(format, Format::F8E4M3(Group::G32 | Group::G64))
}

/// ggml in a process of its own, as `benches/peers/ggml_mul_mat.c` makes it.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(bin: &Path, options: &Options) -> anyhow::Result<Self> {
        let program = bin.join("ggml_mul_mat");
        let (rows, cols) = options.shape;
        let mut child = Command::new(&program)
            .args([rows, cols, options.set_bytes].map(|n| n.to_string()))
            .env("LD_LIBRARY_PATH", bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let input = child.stdin.take().context("no pipe")?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, input, output })
    }

    /// Seconds of a product; `None` where it has no such type.
    fn time(&mut self, format: Format, m: usize, ms: u32) -> anyhow::Result<Option<f64>> {
        writeln!(self.input, "{} {m} {ms}", format.name())?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let seconds: f64 = line.trim().parse().context("the peer ended")?;
        Ok(Some(seconds).filter(|&seconds| seconds > 0.0))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a table and returns it.
///
/// # Errors
/// The peer does not run, or there is no memory for the weights.
pub fn run(options: &Options, bin: Option<&Path>) -> anyhow::Result<Value> {
    let mut peer = bin.map(|bin| Peer::start(bin, options)).transpose()?;
    let (rows, cols) = options.shape;
    let mut out = Vec::new();
    println!("{rows} x {cols}, one thread, {}", Isa::detect().name());
    println!(
        "{:8} {:>4} {:>10} {:>7} {:>8} {:>7}",
        "format", "m", "us", "GB/s", "GFLOP/s", "ratio"
    );
    for &format in &options.formats {
        if cols % format.block_len() != 0 {
            continue;
        }
        let set = weights(options, format)?;
        for &m in &options.batches {
            let (mut ours, mut ratios) = (Vec::new(), Vec::new());
            for _ in 0..options.rounds {
                let own = product_time(&set, m, options.cell_ms)?;
                ours.push(own);
                if let Some(peer) = &mut peer
                    && let Some(theirs) = peer.time(format, m, options.cell_ms)?
                {
                    ratios.push(theirs / own);
                }
            }
            let seconds = median(&mut ours);
            let ratio = (!ratios.is_empty()).then(|| median(&mut ratios));
            let stored = (rows * format.row_bytes(cols)) as f64 / seconds / 1e9;
            let gflops = 2.0 * (m * rows * cols) as f64 / seconds / 1e9;
            let shown = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let name = format.name();
            println!(
                "{name:8} {m:>4} {:>10.1} {stored:>7.1} {gflops:>8.1} {shown:>7}",
                seconds * 1e6
            );
            let growth = set[0].bytes() as f64 / (rows * format.row_bytes(cols)) as f64;
            out.push(json!({
                "format": name,
                "m": m,
                "us": seconds * 1e6,
                "file_gb_per_s": stored,
                "gflop_per_s": gflops,
                "packed_over_file": growth,
                "speed_over_ggml": ratio,
            }));
        }
    }
    Ok(json!({ "rows": rows, "cols": cols, "threads": 1, "rounds": options.rounds, "cells": out }))
}

/// As many matrices as fill the set.
fn weights(options: &Options, format: Format) -> anyhow::Result<Vec<Matrix>> {
    let (rows, cols) = options.shape;
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols)).map(|_| next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        // Where scales are f32 and codes are floats, numbers as models have them: hardly any are
        // so small that a processor takes longer over them.
        if scales_are_f32(format) {
            block[3] = 0x3b;
        }
        if matches!(format, Format::F8E4M3(_)) {
            block[4..].iter_mut().for_each(|code| *code = *code & 0xb7 | 8);
        }
    }
    let part = MatrixPart { format, rows, cols, bytes: &bytes, order: None };
    let pack = || Matrix::pack(&[part], Precision::Bfloat16, Isa::detect(), &Pool::new(1));
    let count = (options.set_bytes / bytes.len()).max(1);
    Ok((0..count).map(|_| pack()).collect::<Result<_, _>>()?)
}

fn scales_are_f32(format: Format) -> bool {
    use Format::{F8E4M3, Fp4, Nf4, U2, U3, U4, U8};
    matches!(format, U2(_) | U3(_) | U4(_) | U8(_) | F8E4M3(_) | Nf4 | Fp4)
}

/// CPU seconds of one product: the median pass over the whole set, or of single products where
/// one is long enough by itself.
fn product_time(set: &[Matrix], m: usize, cell_ms: u32) -> anyhow::Result<f64> {
    let (rows, cols) = (set[0].rows(), set[0].cols());
    let set = if m > 64 { &set[..1] } else { set };
    let x: Vec<f32> = (0..m * cols).map(|i| (i % 61) as f32 / 30.0 - 1.0).collect();
    let mut out = vec![0.0; m * rows];
    let mut scratch = Scratch::default();
    scratch.reserve(m, cols)?;
    let pool = Pool::new(1);
    let mut times = Vec::new();
    let start = cpu_seconds();
    while times.len() < 3 || cpu_seconds() - start < f64::from(cell_ms) / 1e3 {
        let before = cpu_seconds();
        for matrix in set {
            matmul(&pool, &mut scratch, &x, m, matrix, None, &mut out);
        }
        times.push((cpu_seconds() - before) / set.len() as f64);
    }
    Ok(median(&mut times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiny_table_is_whole() {
        let options = Options::tiny();
        let table = run(&options, None).expect("memory");
        let cells = table["cells"].as_array().expect("cells").len();
        assert_eq!(cells, options.formats.len() * options.batches.len());
    }
}
