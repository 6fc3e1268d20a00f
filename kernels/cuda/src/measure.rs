//! What a device does at its best: bandwidths of copies, rate of the vendor's products. `doctor`
//! prints them, and benches divide by them.
//!
//! Medians of repeats, timed by the device's own clock between two marks; nothing else may use the
//! device meanwhile. Must not know what the figures are compared with.

use kernels::{Error, Fault};

use crate::gpu::{Address, Element, Gpu, Mark, Pinned, ProductShape};

/// What is copied and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a copy within the device.
    pub copy_bytes: usize,
    /// Bytes of a copy from and to the host.
    pub host_bytes: usize,
    /// Rows, outputs and inputs of the product.
    pub product_side: u32,
}

impl Default for Sizes {
    /// Far more than any cache holds; a product large enough for a device's full rate.
    fn default() -> Self {
        Self { copy_bytes: 256 << 20, host_bytes: 32 << 20, product_side: 8192 }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Copy within the device, reads and writes counted.
    pub copy_gb_s: f64,
    /// From pinned host memory.
    pub upload_gb_s: f64,
    /// To pinned host memory.
    pub download_gb_s: f64,
    /// bf16 product of the vendor's library; `None` without it.
    pub product_tflop_s: Option<f64>,
}

/// Timed repeats; their median counts.
const REPEATS: usize = 7;

/// Copies or products between two marks: the time is then far above its unit, a microsecond.
const TIMES: usize = 8;

const BEGIN: Mark = Mark(0);
const END: Mark = Mark(1);

/// Nothing was measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// There was no memory for it.
    #[error(transparent)]
    Memory(#[from] Error),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] Fault),
}

/// Measures everything. The host memory that it claims stays with the device.
///
/// # Errors
/// No memory, or the device failed.
pub fn measure(gpu: &mut impl Gpu, sizes: &Sizes) -> Result<Measured, MeasureError> {
    let mut host = gpu.pinned(sizes.host_bytes)?;
    Ok(Measured {
        copy_gb_s: copy_bandwidth(gpu, sizes.copy_bytes)?,
        upload_gb_s: upload_bandwidth(gpu, &host)?,
        download_gb_s: download_bandwidth(gpu, &mut host)?,
        product_tflop_s: product_rate(gpu, sizes.product_side, &mut host)?,
    })
}

/// GB/s of a copy of `bytes` within the device, counting what is read and what is written.
///
/// # Errors
/// No memory for two times `bytes`, or the device failed.
pub fn copy_bandwidth(gpu: &mut impl Gpu, bytes: usize) -> Result<f64, MeasureError> {
    with_memory(gpu, [bytes, bytes], |gpu, [from, to]| {
        gpu.fill(from, bytes, 1);
        let us = median_us(gpu, |gpu| gpu.copy(from, to, bytes))?;
        Ok(gigabytes_per_second(2 * bytes, us))
    })
}

/// GB/s of a copy of all of `host` to the device.
///
/// # Errors
/// No memory, or the device failed.
pub fn upload_bandwidth(gpu: &mut impl Gpu, host: &Pinned) -> Result<f64, MeasureError> {
    let bytes = host.bytes().len();
    with_memory(gpu, [bytes], |gpu, [to]| {
        let us = median_us(gpu, |gpu| gpu.upload(host, 0, bytes, to))?;
        Ok(gigabytes_per_second(bytes, us))
    })
}

/// GB/s of a copy from the device to all of `host`.
///
/// # Errors
/// No memory, or the device failed.
pub fn download_bandwidth(gpu: &mut impl Gpu, host: &mut Pinned) -> Result<f64, MeasureError> {
    let bytes = host.bytes().len();
    with_memory(gpu, [bytes], |gpu, [from]| {
        gpu.fill(from, bytes, 1);
        let us = median_us(gpu, |gpu| gpu.download(from, bytes, host, 0))?;
        Ok(gigabytes_per_second(bytes, us))
    })
}

/// TFLOP/s of the vendor's bf16 product of `[side, side]` by `[side, side]`, counting an addition
/// and a multiplication for each pair; `None` without the library. `host` carries the operands:
/// random numbers, since a device that multiplies zeros draws less power and runs faster.
///
/// # Errors
/// No memory, or the device failed.
///
/// # Panics
/// `host` is empty.
pub fn product_rate(
    gpu: &mut impl Gpu,
    side: u32,
    host: &mut Pinned,
) -> Result<Option<f64>, MeasureError> {
    let shape = ProductShape {
        rows: side,
        outputs: side,
        inputs: side,
        x_stride: side,
        out_stride: side,
        operands: Element::Bf16,
        out: Element::Bf16,
    };
    let Some(product) = gpu.product(&shape) else { return Ok(None) };
    let bytes = 2 * (side as usize) * (side as usize);
    fill_random(host.bytes_mut());
    with_memory(gpu, [bytes; 3], |gpu, [x, w, out]| {
        for operand in [x, w] {
            scatter(gpu, host, operand, bytes);
        }
        let us = median_us(gpu, |gpu| gpu.multiply(product, x, w, out, 1.0))?;
        let flop = 2.0 * f64::from(side).powi(3);
        Ok(Some(flop / us / 1e6))
    })
}

/// bf16 numbers of both signs, 1/8 to 2 in size, from a fixed seed (xorshift, Marsaglia 2003).
fn fill_random(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for pair in bytes.chunks_exact_mut(2) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Sign, one of four exponents, seven bits of mantissa.
        let sign = (state >> 40 & 1) << 15;
        let exponent = (124 + (state >> 32 & 3)) << 7;
        pair.copy_from_slice(&((sign | exponent | (state >> 20 & 0x7f)) as u16).to_le_bytes());
    }
}

/// Fills device memory with repeats of what the host holds.
fn scatter(gpu: &mut impl Gpu, host: &Pinned, to: Address, bytes: usize) {
    let part = host.bytes().len();
    for at in (0..bytes).step_by(part) {
        gpu.upload(host, 0, part.min(bytes - at), to + at as u64);
    }
}

/// Claims memory, measures, and releases it on every way out.
fn with_memory<G: Gpu, R, const N: usize>(
    gpu: &mut G,
    sizes: [usize; N],
    measure: impl FnOnce(&mut G, [Address; N]) -> Result<R, MeasureError>,
) -> Result<R, MeasureError> {
    let mut claimed = [0; N];
    for (i, bytes) in sizes.into_iter().enumerate() {
        match gpu.claim("a measurement", bytes) {
            Ok(at) => claimed[i] = at,
            Err(error) => {
                claimed[..i].iter().for_each(|at| gpu.release(*at));
                return Err(error.into());
            }
        }
    }
    let measured = measure(gpu, claimed);
    claimed.into_iter().for_each(|at| gpu.release(at));
    measured
}

/// Median time of one, in microseconds; never 0.
fn median_us<G: Gpu>(gpu: &mut G, mut once: impl FnMut(&mut G)) -> Result<f64, Fault> {
    // The first may load code and wake the memory's clock.
    once(gpu);
    gpu.synchronize()?;
    let mut times = [0.0; REPEATS];
    for time in &mut times {
        gpu.mark(BEGIN);
        for _ in 0..TIMES {
            once(gpu);
        }
        gpu.mark(END);
        gpu.wait(END)?;
        *time = gpu.elapsed_us(BEGIN, END).max(1) as f64 / TIMES as f64;
    }
    // An error of reading the marks shows here, not as a figure.
    gpu.synchronize()?;
    times.sort_by(f64::total_cmp);
    Ok(times[REPEATS / 2])
}

fn gigabytes_per_second(bytes: usize, us: f64) -> f64 {
    bytes as f64 / us / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_numbers() {
        let mut bytes = vec![0; 4096];
        fill_random(&mut bytes);
        let values: Vec<f32> = bytes
            .chunks_exact(2)
            .map(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32())
            .collect();
        assert!(values.iter().all(|v| (0.125..2.0).contains(&v.abs())));
        let negative = values.iter().filter(|v| **v < 0.0).count();
        assert!((900..1150).contains(&negative), "{negative} of 2048");
    }

    #[test]
    fn units() {
        assert!((gigabytes_per_second(3_000_000, 1.0) - 3000.0).abs() < 1e-9);
    }
}
