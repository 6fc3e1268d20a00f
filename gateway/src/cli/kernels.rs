//! `hearth kernels build`: compiles the GPU kernels ahead, on a machine that needs no GPU.

use std::path::PathBuf;

use super::exit::{self, Outcome};
use crate::wiring::gpu;

/// Flags of `hearth kernels`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Compile all kernels with NVRTC into a folder
    Build(BuildArgs),
}

/// Flags of `hearth kernels build`.
#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// Architectures, separated by commas [default: all that are known]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    arch: Vec<String>,
    /// Where the compiled kernels go; a build with HEARTH_CUBINS set to it takes them in
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Compiles.
///
/// # Errors
/// An unknown architecture, no NVRTC, or a folder that cannot be written.
pub fn run(args: &Args) -> Outcome {
    let What::Build(BuildArgs { arch, out }) = &args.what;
    let known = gpu::archs();
    if let Some(wrong) = arch.iter().find(|arch| !known.contains(&arch.as_str())) {
        let known = known.join(", ");
        return Err(exit::usage(format!("--arch {wrong}: there is {known}")));
    }
    let archs: Vec<&str> =
        if arch.is_empty() { known.to_vec() } else { arch.iter().map(String::as_str).collect() };
    let lines = gpu::build_kernels(&archs, out).map_err(exit::environment)?;
    exit::print(&lines)
}
