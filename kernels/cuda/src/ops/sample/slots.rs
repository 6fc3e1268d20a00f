//! What is kept of slots on the device: samplers with their lists, the token drawn last, and counts
//! of tokens for slots with a penalty; and how a slot starts: `ops/slots.cu`. It knows no draws.

use bytemuck::{Pod, Zeroable};
use kernels::{Error, Sampler};

use crate::device::CudaConfig;
use crate::gpu::{Address, Gpu, Kernel};
use crate::ops::{blocks, kernel};
use crate::record::Record;
use crate::step::Payload;

const FILE: &str = "slots.cu";
const THREADS: u32 = 256;
/// Entries of a slot's bias, of its bans: `BIAS_MAX` and `BANNED_MAX` of slots.cuh. A request has
/// no more.
const BIAS_MAX: usize = 4096;
const BANNED_MAX: usize = 64;
/// Lists of a payload are aligned to this.
const ALIGN: usize = 16;

/// `struct Sampler` of slots.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SamplerArg {
    seed: u64,
    temperature: f32,
    sharpness: f32,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    repetition: f32,
    presence: f32,
    frequency: f32,
    top_k: u32,
    bias: u32,
    banned: u32,
    banned_until: u32,
    penalized: u32,
    pad: u32,
}

/// `struct Bias` of slots.cuh.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Bias {
    token: u32,
    value: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct StartArgs {
    sampler: SamplerArg,
    sampler_at: Address,
    last_at: Address,
    bias_from: Address,
    bias_to: Address,
    banned_from: Address,
    banned_to: Address,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CountArgs {
    tokens: Address,
    counts: Address,
    count: u32,
    prompt: u32,
    vocab: u32,
    pad: u32,
}

/// Counts from one slot to the next: kernels read eight at a time.
fn counts_stride(vocab: usize) -> usize {
    vocab.next_multiple_of(8)
}

/// Bytes of each list for all slots: samplers, last tokens, bias, bans, counts.
fn parts(config: &CudaConfig) -> [usize; 5] {
    let bias = BIAS_MAX * size_of::<Bias>();
    let counts = 2 * counts_stride(config.vocab);
    [size_of::<SamplerArg>(), 4, bias, 4 * BANNED_MAX, counts]
        .map(|each| (each * config.slots).next_multiple_of(256))
}

/// Device memory of all slots.
pub(super) fn bytes(config: &CudaConfig) -> usize {
    parts(config).iter().sum()
}

fn penalized(sampler: &Sampler) -> bool {
    sampler.repetition_penalty != 1.0
        || sampler.presence_penalty != 0.0
        || sampler.frequency_penalty != 0.0
}

/// Payload that a start takes, alignment included.
pub(super) fn start_bytes(tokens: &[u32], sampler: &Sampler) -> usize {
    let tokens = if penalized(sampler) { tokens.len() } else { 0 };
    lists_bytes(sampler.logit_bias.len(), sampler.banned.len(), tokens)
}

/// The most that a start takes.
pub(super) fn start_bytes_max(config: &CudaConfig) -> usize {
    lists_bytes(BIAS_MAX, BANNED_MAX, config.context_max)
}

fn lists_bytes(bias: usize, banned: usize, tokens: usize) -> usize {
    let lists = [bias * size_of::<Bias>(), 4 * banned, 4 * tokens];
    // The first may have to be aligned.
    lists.iter().map(|bytes| bytes.next_multiple_of(ALIGN)).sum::<usize>() + ALIGN
}

/// What the host knows of a slot.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    started: bool,
    prompt_len: u32,
    /// The last step that drew from it.
    drew_in: u64,
}

/// All slots.
pub(super) struct Slots {
    start: Kernel,
    count: Kernel,
    slots: Vec<Slot>,
    vocab: usize,
    pub(super) samplers: Address,
    pub(super) last: Address,
    pub(super) bias: Address,
    pub(super) banned: Address,
    pub(super) counts: Address,
}

impl Slots {
    pub(super) fn new<G: Gpu>(gpu: &mut G, config: &CudaConfig) -> Result<Self, Error> {
        let [samplers, last, bias, banned, counts] = parts(config);
        let last_at = gpu.claim("last tokens of slots", last)?;
        gpu.fill(last_at, last, 0);
        Ok(Self {
            start: kernel::<StartArgs, G>(gpu, FILE, "slot_start")?,
            count: kernel::<CountArgs, G>(gpu, FILE, "slot_count")?,
            slots: vec![Slot::default(); config.slots],
            vocab: config.vocab,
            samplers: gpu.claim("samplers of slots", samplers)?,
            last: last_at,
            bias: gpu.claim("logit bias of slots", bias)?,
            banned: gpu.claim("bans of slots", banned)?,
            counts: gpu.claim("token counts of slots", counts)?,
        })
    }

    pub(super) fn counts_stride(&self) -> usize {
        counts_stride(self.vocab)
    }

    /// Tokens of a slot's prompt; 0 for a slot that was not started.
    pub(super) fn prompt_len(&self, slot: u32) -> u32 {
        self.slots[slot as usize].prompt_len
    }

    /// A slot starts, before the step's own work.
    pub(super) fn start(
        &mut self,
        (record, payload): (&mut Record, &mut Payload),
        slot: u32,
        tokens: &[u32],
        prompt_len: u32,
        sampler: &Sampler,
    ) {
        self.slots[slot as usize] = Slot { started: true, prompt_len, drew_in: 0 };
        let (bias_from, biased) = put_bias(payload, &sampler.logit_bias);
        let (banned_from, banned) = put_banned(payload, &sampler.banned);
        let of = |list: Address, bytes: usize| list + u64::from(slot) * bytes as Address;
        let args = StartArgs {
            sampler: SamplerArg {
                seed: sampler.seed,
                temperature: sampler.temperature,
                // A temperature near 0 would make this infinite, and 0 * inf a NaN.
                sharpness: (1.0 / sampler.temperature).min(f32::MAX),
                top_p: sampler.top_p,
                min_p: sampler.min_p,
                typical_p: sampler.typical_p,
                repetition: sampler.repetition_penalty,
                presence: sampler.presence_penalty,
                frequency: sampler.frequency_penalty,
                top_k: sampler.top_k,
                bias: biased,
                banned,
                banned_until: sampler.banned_until,
                penalized: u32::from(penalized(sampler)),
                pad: 0,
            },
            sampler_at: of(self.samplers, size_of::<SamplerArg>()),
            last_at: of(self.last, 4),
            bias_from,
            bias_to: of(self.bias, BIAS_MAX * size_of::<Bias>()),
            banned_from,
            banned_to: of(self.banned, 4 * BANNED_MAX),
        };
        record.launch(self.start, blocks(1, THREADS), &args);
        if penalized(sampler) {
            let stride = 2 * self.counts_stride();
            let counts = of(self.counts, stride);
            record.fill(counts, stride, 0);
            let args = CountArgs {
                tokens: payload.list(tokens, tokens.len(), 0),
                counts,
                count: tokens.len() as u32,
                prompt: prompt_len,
                vocab: self.vocab as u32,
                pad: 0,
            };
            let grid = tokens.len().div_ceil(THREADS as usize);
            record.launch(self.count, blocks(grid, THREADS), &args);
        }
    }

    /// A slot is given back. What the device keeps of it is overwritten by the next start.
    pub(super) fn end(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::default();
    }

    /// A draw from a slot in the step with this number, from 1.
    pub(super) fn draws(&mut self, slot: u32, step: u64) {
        let state = &mut self.slots[slot as usize];
        assert!(state.started, "a draw from slot {slot}, which was not started");
        // The rows of a step are drawn at once: the token of one could not count for the other.
        assert!(state.drew_in < step, "slot {slot} draws twice in a step");
        state.drew_in = step;
    }
}

/// By token, because entries of one token are added up by one thread, in their order.
fn put_bias(payload: &mut Payload, bias: &[(u32, f32)]) -> (Address, u32) {
    assert!(bias.len() <= BIAS_MAX, "{} entries of logit bias", bias.len());
    let (address, list) = payload.claim(bias.len(), Bias { token: 0, value: 0.0 });
    for (entry, &(token, value)) in list.iter_mut().zip(bias) {
        *entry = Bias { token, value };
    }
    list.sort_by_key(|entry| entry.token);
    (address, bias.len() as u32)
}

/// Each once, because what a ban overwrites is kept per entry.
fn put_banned(payload: &mut Payload, banned: &[u32]) -> (Address, u32) {
    assert!(banned.len() <= BANNED_MAX, "{} banned tokens", banned.len());
    let (address, list) = payload.claim(banned.len(), 0_u32);
    let mut n = 0;
    for &token in banned {
        if !list[..n].contains(&token) {
            list[n] = token;
            n += 1;
        }
    }
    (address, n as u32)
}
