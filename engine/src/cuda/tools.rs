//! What an operator asks of a card: what it is, what it reaches, whether the kernels are right on
//! it, and kernels built ahead for cards that are not here.

use std::path::Path;

use cuda::cases::{self, Outcome};
use cuda::cubins::{self, BuildError};
use cuda::gpu::Gpu;
use cuda::nvidia::{Nvidia, OpenError};
use cuda::{Cuda, measure};

use super::Card;

/// Architectures that kernels are built for ahead, and one file built for one of them.
pub use cuda::{compile::ARCHS, cubins::Built};

/// Bytes copied within the device: far above its caches.
const COPY_BYTES: usize = 1 << 30;
/// Bytes copied to and from the device.
const HOST_BYTES: usize = 256 << 20;
/// Rows and columns of the measured product.
const SIDE: u32 = 8192;

/// What a card reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// GB/s of a copy within the device, read and written bytes counted.
    pub copy: f64,
    /// GB/s from pinned host memory.
    pub upload: f64,
    /// GB/s to pinned host memory.
    pub download: f64,
    /// TFLOP/s of a bf16 product; the reason where there is no library for it.
    pub product: Result<f64, String>,
    /// Version of that library.
    pub library: String,
}

/// Measures a card.
///
/// # Errors
/// It is not there, has too little free memory, or failed; in words for people.
pub fn measure(card: &Card) -> Result<Speed, String> {
    let mut gpu = Nvidia::open(card.ordinal).map_err(|error: OpenError| error.to_string())?;
    let library = gpu.products().map(str::to_owned).map_err(str::to_owned);
    let text = |error: measure::MeasureError| error.to_string();
    let mut host = gpu.pinned(HOST_BYTES).map_err(|error| error.to_string())?;
    let copy = measure::copy_bandwidth(&mut gpu, COPY_BYTES).map_err(text)?;
    let upload = measure::upload_bandwidth(&mut gpu, &host).map_err(text)?;
    let download = measure::download_bandwidth(&mut gpu, &mut host).map_err(text)?;
    let rate = measure::product_rate(&mut gpu, SIDE, &mut host).map_err(text)?;
    let product = rate.ok_or_else(|| match &library {
        Ok(version) => format!("cuBLASLt {version} has no such product"),
        Err(why) => why.clone(),
    });
    Ok(Speed { copy, upload, download, product, library: library.unwrap_or_default() })
}

/// Runs every kernel case on a card.
///
/// # Errors
/// It is not there, or there are no kernels for it.
pub fn check_kernels(card: &Card) -> Result<Vec<Outcome>, String> {
    let ordinal = card.ordinal;
    card.prepare(&|_, _| {}).map_err(|error| error.to_string())?;
    // Once before the table, whose devices are taken for granted: this one reports.
    let gpu = Nvidia::open(ordinal).map_err(|error| error.to_string())?;
    drop(Cuda::new(gpu, cases::small()).map_err(|error| error.to_string())?);
    Ok(cases::all(&mut |config| {
        let gpu = Nvidia::open(ordinal).unwrap_or_else(|error| panic!("{error}"));
        Cuda::new(gpu, config).unwrap_or_else(|error| panic!("{error}"))
    }))
}

/// Compiles all kernels for `archs` into `out`; `progress` gets a line for each.
///
/// # Errors
/// No compiler, a file that cannot be written.
pub fn build_kernels(
    archs: &[&str],
    out: &Path,
    progress: &(dyn Fn(&Built) + Sync),
) -> Result<Vec<Built>, BuildError> {
    cubins::build(archs, out, progress)
}
