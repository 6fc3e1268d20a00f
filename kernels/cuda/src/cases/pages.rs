//! A KV cache's pool as the host sees it: for cases that fill it themselves or look into it.

use std::sync::OnceLock;

use half::{bf16, f16};
use kernels::{CacheElement, CacheShape, CacheValues, Grant};

use crate::device::Cuda;
use crate::gpu::Gpu;
use crate::ops::cache::Cache;

const PAGE: usize = 16;

/// The numbers of e4m3fn that are not negative, by their bits: four bits of exponent, three of
/// mantissa. The last one, 0x7f, is a NaN.
fn f8_values() -> &'static [f32] {
    static VALUES: OnceLock<Vec<f32>> = OnceLock::new();
    VALUES.get_or_init(|| {
        let value = |bits: u8| {
            let (exponent, mantissa) = (i32::from(bits >> 3), f32::from(bits & 7));
            match exponent {
                0 => mantissa * 2f32.powi(-9),
                _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
            }
        };
        (0..0x7f).map(value).collect()
    })
}

/// Bits of the e4m3fn that is nearest to `x`, of two the even one; 448 for what is greater.
fn f8_bits(x: f32) -> u8 {
    let values = f8_values();
    // The first that is not smaller.
    let above = values.partition_point(|&value| value < x.abs()).min(values.len() - 1);
    let below = above.saturating_sub(1);
    let distance = |i: usize| ((x.abs() - values[i]).abs(), i % 2);
    let nearest = if distance(below) < distance(above) { below } else { above };
    nearest as u8 | if x.is_sign_negative() { 0x80 } else { 0 }
}

/// Bytes of `x` as an element of a cache.
fn bytes_of(element: CacheElement, x: f32) -> Vec<u8> {
    match element {
        CacheElement::F32 => x.to_le_bytes().to_vec(),
        CacheElement::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        CacheElement::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        CacheElement::F8E4M3 => vec![f8_bits(x)],
    }
}

/// The number that such bytes are.
fn value_of(element: CacheElement, bytes: &[u8]) -> f32 {
    match (element, bytes) {
        (CacheElement::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (CacheElement::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
        (CacheElement::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        (CacheElement::F8E4M3, &[bits]) => {
            let value = f8_values().get(usize::from(bits & 0x7f)).copied().unwrap_or(f32::NAN);
            if bits & 0x80 == 0 { value } else { -value }
        }
        _ => unreachable!("bytes of one element"),
    }
}

/// The value that a cache keeps of `x`.
pub(super) fn kept(element: CacheElement, x: f32) -> f32 {
    value_of(element, &bytes_of(element, x))
}

/// All bytes of a pool; those that were not put are NaN in every format.
pub(super) struct Pages {
    shape: CacheShape,
    bytes: Vec<u8>,
}

impl Pages {
    pub(super) fn new(shape: CacheShape) -> Self {
        Self { shape, bytes: vec![0xff; shape.pages * shape.page_bytes()] }
    }

    /// First byte of the key or value of a position of `page`, and how many.
    fn place(&self, [layer, page, half, head]: [usize; 4], position: usize) -> (usize, usize) {
        let shape = &self.shape;
        let halves = if shape.values == CacheValues::Own { 2 } else { 1 };
        let row = shape.head_dim * shape.element.bytes();
        let block = ((page * shape.layers + layer) * halves + half) * shape.kv_heads + head;
        ((block * PAGE + position % PAGE) * row, row)
    }

    /// Writes a key (half 0) or a value.
    pub(super) fn put(&mut self, place: [usize; 4], position: usize, values: &[f32]) {
        let (at, len) = self.place(place, position);
        let element = self.shape.element;
        let bytes: Vec<u8> = values.iter().flat_map(|&x| bytes_of(element, x)).collect();
        assert_eq!(bytes.len(), len, "elements of a key");
        self.bytes[at..at + len].copy_from_slice(&bytes);
    }

    /// Reads one.
    pub(super) fn get(&self, place: [usize; 4], position: usize) -> Vec<f32> {
        let (at, len) = self.place(place, position);
        let element = self.shape.element;
        let elements = self.bytes[at..at + len].chunks(element.bytes());
        elements.map(|bytes| value_of(element, bytes)).collect()
    }

    /// Whether a key or value is as it was at first.
    pub(super) fn untouched(&self, place: [usize; 4], position: usize) -> bool {
        let (at, len) = self.place(place, position);
        self.bytes[at..at + len].iter().all(|&byte| byte == 0xff)
    }

    /// Makes the pool on the device the same.
    pub(super) fn send<G: Gpu>(&self, device: &mut Cuda<G>, cache: &Cache) {
        let (at, bytes) = cache.pool();
        assert_eq!(bytes, self.bytes.len(), "bytes of a pool");
        let gpu = device.gpu();
        let mut pinned = gpu.pinned(bytes).expect("memory");
        pinned.bytes_mut().copy_from_slice(&self.bytes);
        gpu.upload(&pinned, 0, bytes, at);
        gpu.synchronize().expect("no fault");
    }

    /// Reads the pool on the device.
    pub(super) fn fetch<G: Gpu>(&mut self, device: &mut Cuda<G>, cache: &Cache) {
        let (at, bytes) = cache.pool();
        let gpu = device.gpu();
        let mut pinned = gpu.pinned(bytes).expect("memory");
        gpu.download(at, bytes, &mut pinned, 0);
        gpu.synchronize().expect("no fault");
        self.bytes.copy_from_slice(pinned.bytes());
    }
}

/// The page of entry `index` of a slot's table: backwards, the slots mixed.
pub(super) fn page_of(shape: &CacheShape, slot: usize, index: usize) -> usize {
    shape.pages - 1 - (index * shape.slots + slot)
}

/// Grants for the whole tables of all slots; the pool has as many pages.
pub(super) fn grants(shape: &CacheShape) -> Vec<Grant> {
    assert_eq!(shape.pages, shape.slots * shape.pages_per_slot, "{shape:?}");
    let one = |slot: usize, index: usize| Grant {
        slot: slot as u32,
        index: index as u32,
        page: page_of(shape, slot, index) as u32,
    };
    let slots = 0..shape.slots;
    slots.flat_map(|slot| (0..shape.pages_per_slot).map(move |index| one(slot, index))).collect()
}

/// Runs a table on emulated devices.
#[cfg(test)]
pub(super) fn check(
    table: impl Fn(super::Open<'_, crate::emulator::Emulator>) -> Vec<super::Outcome>,
    device: impl Fn(u64) -> crate::emulator::Emulator,
) {
    let mut seed = 0;
    let outcomes = table(&mut |config| {
        seed += 1;
        Cuda::new(device(seed), config).expect("a device")
    });
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
    assert!(!outcomes.is_empty() && failed.is_empty(), "{failed:#?}");
}
