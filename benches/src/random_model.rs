//! Writes a Llama of a true shape with random weights as GGUF, so that speed can be compared with
//! other engines on the very same file without a download. The values mean nothing; their size is
//! such that activations stay finite.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What most matrices are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// All matrices bf16.
    Bf16,
    /// All matrices Q8_0.
    Q8_0,
    /// Q4_K, with Q6_K where the usual "medium" mixture has it: embeddings, and attn_v and
    /// ffn_down of the first and last eighth and of every third layer between.
    Q4KM,
}

impl Mix {
    /// Name as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4KM => "q4_k_m",
        }
    }
}

/// Sizes of the model. All widths divide by 256, so that K quants apply everywhere.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Residual width.
    pub hidden: usize,
    /// MLP width.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Vocabulary.
    pub vocab: usize,
}

/// About half a billion parameters, the shape class of Qwen2.5-0.5B with divisible widths.
pub const HALF_BILLION: Shape =
    Shape { hidden: 1024, width: 4864, layers: 20, heads: 16, kv_heads: 2, vocab: 151_936 };

/// For test runs: everything the big one has, in a few hundred kilobytes.
pub const TINY: Shape =
    Shape { hidden: 256, width: 512, layers: 2, heads: 4, kv_heads: 2, vocab: 512 };

const HEAD_DIM: usize = 64;
const ALIGN: u64 = 32;

#[derive(Clone, Copy)]
enum Type {
    F32 = 0,
    Q8_0 = 8,
    Q4K = 12,
    Q6K = 14,
    Bf16 = 30,
}

impl Type {
    fn bytes(self, elements: usize) -> usize {
        match self {
            Self::F32 => elements * 4,
            Self::Bf16 => elements * 2,
            Self::Q8_0 => elements / 32 * 34,
            Self::Q4K => elements / 256 * 144,
            Self::Q6K => elements / 256 * 210,
        }
    }
}

struct Tensor {
    name: String,
    dims: Vec<usize>, // innermost first, as GGUF has them
    kind: Type,
}

/// xorshift64*: fast, and the same file for the same shape everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fill(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
    }
}

/// Writes the model to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, shape: Shape, mix: Mix) -> io::Result<()> {
    let tensors = tensors(shape, mix);
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    head.extend_from_slice(&3u32.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    let (metadata, count) = metadata(shape);
    head.extend_from_slice(&(count as u64).to_le_bytes());
    head.extend_from_slice(&metadata);
    let mut offset = 0u64;
    for tensor in &tensors {
        string(&mut head, &tensor.name);
        head.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
        for dim in &tensor.dims {
            head.extend_from_slice(&(*dim as u64).to_le_bytes());
        }
        head.extend_from_slice(&(tensor.kind as u32).to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset += (tensor.kind.bytes(tensor.dims.iter().product()) as u64).next_multiple_of(ALIGN);
    }
    head.resize(head.len().next_multiple_of(ALIGN as usize), 0);

    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&head)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for tensor in &tensors {
        data(&mut out, tensor, &mut random)?;
    }
    out.flush()
}

fn tensors(shape: Shape, mix: Mix) -> Vec<Tensor> {
    let (most, more) = match mix {
        Mix::Bf16 => (Type::Bf16, Type::Bf16),
        Mix::Q8_0 => (Type::Q8_0, Type::Q8_0),
        Mix::Q4KM => (Type::Q4K, Type::Q6K),
    };
    let mut out = Vec::new();
    let mut add = |name: String, dims: &[usize], kind| {
        out.push(Tensor { name, dims: dims.to_vec(), kind });
    };
    add("token_embd.weight".into(), &[shape.hidden, shape.vocab], more);
    add("output_norm.weight".into(), &[shape.hidden], Type::F32);
    let kv = shape.kv_heads * HEAD_DIM;
    let eighth = shape.layers / 8;
    for layer in 0..shape.layers {
        let finer = layer < eighth || layer >= shape.layers - eighth || (layer - eighth) % 3 == 2;
        let fine = if finer { more } else { most };
        let mut block = |name: &str, dims: &[usize], kind| {
            add(format!("blk.{layer}.{name}.weight"), dims, kind);
        };
        block("attn_norm", &[shape.hidden], Type::F32);
        block("attn_q", &[shape.hidden, shape.heads * HEAD_DIM], most);
        block("attn_k", &[shape.hidden, kv], most);
        block("attn_v", &[shape.hidden, kv], fine);
        block("attn_output", &[shape.heads * HEAD_DIM, shape.hidden], most);
        block("ffn_norm", &[shape.hidden], Type::F32);
        block("ffn_gate", &[shape.hidden, shape.width], most);
        block("ffn_up", &[shape.hidden, shape.width], most);
        block("ffn_down", &[shape.width, shape.hidden], fine);
    }
    out
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

fn metadata(shape: Shape) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut count = 0;
    let mut entry = |out: &mut Vec<u8>, key: &str, kind: u32, value: &[u8]| {
        string(out, key);
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(value);
        count += 1;
    };
    let text = |s: &str| {
        let mut v = Vec::new();
        string(&mut v, s);
        v
    };
    let number = |n: usize| (n as u32).to_le_bytes();
    entry(&mut out, "general.architecture", 8, &text("llama"));
    entry(&mut out, "general.name", 8, &text("random"));
    entry(&mut out, "llama.context_length", 4, &number(32_768));
    entry(&mut out, "llama.embedding_length", 4, &number(shape.hidden));
    entry(&mut out, "llama.block_count", 4, &number(shape.layers));
    entry(&mut out, "llama.feed_forward_length", 4, &number(shape.width));
    entry(&mut out, "llama.attention.head_count", 4, &number(shape.heads));
    entry(&mut out, "llama.attention.head_count_kv", 4, &number(shape.kv_heads));
    entry(&mut out, "llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes());
    entry(&mut out, "llama.rope.freq_base", 6, &10_000f32.to_le_bytes());
    entry(&mut out, "llama.rope.dimension_count", 4, &number(HEAD_DIM));
    entry(&mut out, "llama.vocab_size", 4, &number(shape.vocab));
    entry(&mut out, "tokenizer.ggml.model", 8, &text("gpt2"));
    entry(&mut out, "tokenizer.ggml.pre", 8, &text("qwen2"));
    let tokens = vocabulary(shape.vocab);
    entry(&mut out, "tokenizer.ggml.tokens", 9, &strings(&tokens));
    let mut types = Vec::new();
    types.extend_from_slice(&5u32.to_le_bytes());
    types.extend_from_slice(&(shape.vocab as u64).to_le_bytes());
    for i in 0..shape.vocab {
        let control = i + 1 == shape.vocab;
        types.extend_from_slice(&(if control { 3i32 } else { 1 }).to_le_bytes());
    }
    entry(&mut out, "tokenizer.ggml.token_type", 9, &types);
    let merges = [format!("{} {}", tokens[b'a' as usize], tokens[b'b' as usize])];
    entry(&mut out, "tokenizer.ggml.merges", 9, &strings(&merges));
    entry(&mut out, "tokenizer.ggml.eos_token_id", 4, &number(shape.vocab - 1));
    entry(&mut out, "tokenizer.ggml.bos_token_id", 4, &number(shape.vocab - 1));
    entry(&mut out, "tokenizer.ggml.add_bos_token", 7, &[0]);
    (out, count)
}

fn strings(list: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&8u32.to_le_bytes());
    out.extend_from_slice(&(list.len() as u64).to_le_bytes());
    for s in list {
        string(&mut out, s);
    }
    out
}

/// 256 byte tokens in the byte-level alphabet, one merged pair, filler, one control token.
fn vocabulary(size: usize) -> Vec<String> {
    let plain = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || b >= 174;
    let mut shifted = 0;
    let mut out: Vec<String> = (0..256u32)
        .map(|b| {
            let code = if plain(b) {
                b
            } else {
                shifted += 1;
                255 + shifted
            };
            char::from_u32(code).map(String::from).unwrap_or_default()
        })
        .collect();
    out.push("ab".into());
    out.extend((out.len()..size - 1).map(|i| format!("filler{i}")));
    out.push("<|end|>".into());
    out
}

fn data(out: &mut impl Write, tensor: &Tensor, random: &mut Random) -> io::Result<()> {
    let elements: usize = tensor.dims.iter().product();
    let row = tensor.dims[0];
    let mut buffer = vec![0u8; tensor.kind.bytes(row)];
    for _ in 0..elements / row {
        fill(&mut buffer, tensor.kind, random);
        out.write_all(&buffer)?;
    }
    let bytes = tensor.kind.bytes(elements);
    out.write_all(&[0; 32][..bytes.next_multiple_of(ALIGN as usize) - bytes])
}

/// One row of random blocks. Scales are constants that give weights a deviation of about 0.02.
fn fill(row: &mut [u8], kind: Type, random: &mut Random) {
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    match kind {
        Type::F32 => row.chunks_mut(4).for_each(|c| c.copy_from_slice(&1f32.to_le_bytes())),
        Type::Bf16 => {
            for c in row.chunks_mut(2) {
                let unit = (random.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
                c.copy_from_slice(&half::bf16::from_f32(unit * 0.07).to_le_bytes());
            }
        }
        Type::Q8_0 => {
            for block in row.chunks_mut(34) {
                random.fill(block);
                block[..2].copy_from_slice(&half(2.7e-4));
            }
        }
        Type::Q4K => {
            for block in row.chunks_mut(144) {
                random.fill(block);
                block[..2].copy_from_slice(&half(1e-4));
                block[2..4].copy_from_slice(&half(7.5e-4));
            }
        }
        Type::Q6K => {
            for block in row.chunks_mut(210) {
                random.fill(block);
                for scale in &mut block[192..208] {
                    *scale = (*scale % 17).wrapping_sub(8);
                }
                block[208..].copy_from_slice(&half(2.2e-4));
            }
        }
    }
}
