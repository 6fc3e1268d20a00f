//! What the commands for GPUs need of the engine, as text.

use std::path::Path;

use engine::cuda::tools;

use super::Target;

/// Architectures that kernels can be built for.
#[must_use]
pub fn archs() -> &'static [&'static str] {
    tools::ARCHS
}

/// Compiles all kernels into `out`; a table of what came of it.
///
/// # Errors
/// No NVRTC, or the folder cannot be written.
pub fn build_kernels(archs: &[&str], out: &Path) -> Result<String, String> {
    let progress = |built: &_| eprintln!("{}", line(built));
    let built = tools::build_kernels(archs, out, &progress).map_err(|error| error.to_string())?;
    let bytes: usize = built.iter().map(|one| one.bytes).sum();
    let spilled =
        built.iter().flat_map(|one| &one.resources).filter(|one| one.spill_store_bytes > 0).count();
    Ok(format!(
        "{} cubins for {} in {}, {} KiB, {spilled} kernels spill registers\n",
        built.len(),
        archs.join(", "),
        out.display(),
        bytes.div_ceil(1024),
    ))
}

fn line(built: &tools::Built) -> String {
    let most = built.resources.iter().map(|one| one.registers).max().unwrap_or(0);
    let (file, arch) = (built.file, &built.arch);
    format!("{file:<24}{arch:<9}{:>7} B  {most:>3} registers  {:.1} s", built.bytes, built.seconds)
}

/// What the card reaches, in lines; none on a CPU.
///
/// # Errors
/// The card failed, in words for people.
pub fn measure(target: &Target) -> Result<Vec<String>, String> {
    let Target::Gpu(card) = target else { return Ok(Vec::new()) };
    let speed = tools::measure(card)?;
    let product = match speed.product {
        Ok(rate) => format!("{rate:.0} TFLOP/s in bf16 (cuBLASLt {})", speed.library),
        Err(why) => format!("no library of products ({why}): own kernels are used"),
    };
    let driver = card.properties.driver;
    Ok(vec![
        format!("driver for CUDA {}.{}", driver / 1000, driver % 1000 / 10),
        format!("memory {:.0} GB/s within the card", speed.copy),
        format!("host {:.1} GB/s to the card, {:.1} GB/s back", speed.upload, speed.download),
        product,
    ])
}

/// Runs the kernel cases: how many passed, and a line for each that did not.
///
/// # Errors
/// There is no card or no kernels for it, or some case failed.
pub fn check_kernels(target: &Target) -> Result<String, String> {
    let Target::Gpu(card) = target else {
        return Err(format!("no kernel can be run: {target}"));
    };
    let outcomes = tools::check_kernels(card)?;
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.passed())
        .map(|one| format!("{}: error {:.2e}, limit {:.2e}", one.name, one.error, one.limit))
        .collect();
    let (all, failures) = (outcomes.len(), failed.len());
    match failures {
        0 => Ok(format!("all {all} kernel cases pass")),
        _ => Err(format!("{failures} of {all} kernel cases failed\n{}", failed.join("\n"))),
    }
}
