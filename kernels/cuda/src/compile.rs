//! CUDA sources to machine code, in this process: NVRTC makes a cubin of each file.
//!
//! Why a cubin and not PTX: nothing is left to the driver's own compiler, so that what was tested
//! is what runs, and an older driver takes it. Must not know where a cubin is kept.

mod nvrtc;
pub mod recipe;
mod resources;
pub(crate) mod search;

use std::sync::OnceLock;

use nvrtc::{Nvrtc, Unit};
pub use recipe::ARCHS;
pub use resources::Resources;

use crate::sources;

/// A compiled file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// An ELF file that the driver loads.
    pub cubin: Vec<u8>,
    /// What the compiler said, warnings included.
    pub log: String,
    /// What each kernel takes, in the order of the log.
    pub resources: Vec<Resources>,
}

impl Compiled {
    pub(crate) fn of(cubin: Vec<u8>, log: String) -> Self {
        let resources = resources::parse(&log);
        Self { cubin, log, resources }
    }
}

/// The compiler that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// `12.8`.
    pub version: String,
    /// Where it was found; a bare name when the loader found it.
    pub path: String,
    /// Capabilities that it compiles for: 80, 90.
    pub archs: Vec<u32>,
}

/// Nothing was compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// No file of that name.
    #[error("no kernels in {0}")]
    NoFile(String),
    /// No compiler.
    #[error("{0}")]
    NoCompiler(String),
    /// Compilers, but none for this architecture.
    #[error("NVRTC {version} does not compile for {arch}")]
    NoArch {
        /// `sm_120`.
        arch: String,
        /// Versions that were found.
        version: String,
    },
    /// The source is wrong.
    #[error("{file} does not compile for {arch}:\n{log}")]
    Source {
        /// `norm.cu`.
        file: String,
        /// `sm_90a`.
        arch: String,
        /// What the compiler said.
        log: String,
    },
    /// The compiler failed.
    #[error("{0}")]
    Compiler(String),
}

/// Opened once: what `HEARTH_NVRTC` says later changes nothing.
fn compilers() -> &'static [Nvrtc] {
    static OPEN: OnceLock<Vec<Nvrtc>> = OnceLock::new();
    OPEN.get_or_init(Nvrtc::open_all)
}

/// Compilers at hand, best first.
///
/// # Errors
/// None is found: what to do.
pub fn library() -> Result<Vec<Compiler>, CompileError> {
    let found = compilers().iter().map(|nvrtc| Compiler {
        version: nvrtc.version.clone(),
        path: nvrtc.path.display().to_string(),
        archs: nvrtc.archs.clone(),
    });
    let found: Vec<Compiler> = found.collect();
    if found.is_empty() { Err(not_found()) } else { Ok(found) }
}

fn not_found() -> CompileError {
    let named = std::env::var("HEARTH_NVRTC").ok().filter(|value| !value.is_empty());
    CompileError::NoCompiler(match named {
        Some(path) => format!("HEARTH_NVRTC names {path}: there is no usable NVRTC"),
        None => {
            "NVRTC not found (`pip install nvidia-cuda-nvrtc-cu12==12.8.93`, or set HEARTH_NVRTC)"
                .into()
        }
    })
}

/// The compiler for an architecture: its version goes into the name under which a cubin is kept.
pub(crate) fn compiler_for(arch: &str) -> Result<&'static str, CompileError> {
    nvrtc_for(arch).map(|nvrtc| nvrtc.version.as_str())
}

fn nvrtc_for(arch: &str) -> Result<&'static Nvrtc, CompileError> {
    let all = compilers();
    let versions = || all.iter().map(|nvrtc| nvrtc.version.as_str()).collect::<Vec<_>>();
    all.iter().find(|nvrtc| nvrtc.supports(arch)).ok_or_else(|| match all {
        [] => not_found(),
        _ => CompileError::NoArch { arch: arch.into(), version: versions().join(" and ") },
    })
}

/// Compiles a file of [`sources::FILES`]: `norm.cu` for `sm_90a`. Takes seconds; any number of
/// threads may.
///
/// # Errors
/// No such file, no compiler for the architecture, or the source is wrong.
pub fn compile(file: &str, arch: &str) -> Result<Compiled, CompileError> {
    let text = sources::file(file).ok_or_else(|| CompileError::NoFile(file.into()))?;
    compile_text(file, text, sources::HEADERS, arch)
}

/// Compiles a text, with those of `headers` that it includes.
///
/// # Errors
/// No compiler for the architecture, or the source is wrong.
pub fn compile_text(
    file: &str,
    text: &str,
    headers: &[(&str, &str)],
    arch: &str,
) -> Result<Compiled, CompileError> {
    let nvrtc = nvrtc_for(arch)?;
    let target = format!("--gpu-architecture={arch}");
    let options: Vec<&str> = recipe::OPTIONS.iter().copied().chain([target.as_str()]).collect();
    let unit = Unit { name: file, text, headers: &recipe::included(text, headers) };
    let output = nvrtc.compile(&unit, &options).map_err(CompileError::Compiler)?;
    match output.cubin {
        Some(cubin) => Ok(Compiled::of(cubin, output.log)),
        None => Err(CompileError::Source { file: file.into(), arch: arch.into(), log: output.log }),
    }
}

/// Every kernel uses instructions of 8.0.
pub(crate) const CAPABILITY_MIN: u32 = 80;

/// Boards with their own memory system (Orin, its kin, Thor under its two numbers): NVIDIA's rule
/// that code runs on later minor versions leaves them out, both ways.
const OWN_CODE_ONLY: &[u32] = &[87, 88, 101, 110];

/// The architecture to use for a device of compute capability `capability` (90) when those of
/// `available` can be had (80, 90); `None`: nothing runs there.
///
/// Code runs on its own and on later minor versions of its major version; with an `a`, on its own
/// only. [`ARCHS`] come first; where they have nothing, its own plain one, or that of the first of
/// its major version.
#[must_use]
pub fn arch_for(capability: u32, available: &[u32]) -> Option<String> {
    if capability < CAPABILITY_MIN {
        return None;
    }
    let exact = OWN_CODE_ONLY.contains(&capability);
    let runs = |arch: &&&str| {
        capability_of(arch).is_some_and(|number| {
            let same = number == capability;
            let earlier = number / 10 == capability / 10 && number < capability;
            available.contains(&number) && (same || earlier && !exact && !arch.ends_with('a'))
        })
    };
    if let Some(arch) = ARCHS.iter().rfind(runs) {
        return Some((*arch).to_owned());
    }
    let first = capability / 10 * 10;
    let plain = [capability, first].into_iter().find(|n| available.contains(n))?;
    (plain == capability || !exact).then(|| format!("sm_{plain}"))
}

/// 90 of `sm_90a`.
pub(crate) fn capability_of(arch: &str) -> Option<u32> {
    arch.strip_prefix("sm_")?.trim_end_matches('a').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_of_devices() {
        const V12: &[u32] = &[50, 75, 80, 86, 87, 89, 90, 100, 101, 120];
        const V13: &[u32] = &[75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121];
        let check = |capability, available, expect: Option<&str>| {
            assert_eq!(arch_for(capability, available).as_deref(), expect, "{capability}");
        };
        for available in [V12, V13] {
            check(75, available, None);
            check(80, available, Some("sm_80"));
            check(86, available, Some("sm_86"));
            check(87, available, Some("sm_87"));
            check(89, available, Some("sm_89"));
            check(90, available, Some("sm_90a"));
            check(100, available, Some("sm_100a"));
            check(120, available, Some("sm_120"));
            check(121, available, Some("sm_120"));
            check(130, available, None);
        }
        check(88, V12, None);
        check(88, V13, Some("sm_88"));
        check(103, V12, Some("sm_100"));
        check(103, V13, Some("sm_103"));
        check(110, V12, None);
        check(110, V13, Some("sm_110"));
        // An older compiler: the nearest below.
        check(86, &[80], Some("sm_80"));
        check(120, &[80, 90], None);
    }

    #[test]
    fn a_digest_covers_what_is_included() {
        let text = "// #include \"d\"\n#include \"b\"\n  #include \"absent\"\n";
        let headers = [("a", "1"), ("b", "#include \"c\"\n"), ("c", "#include \"b\"\n"), ("d", "")];
        let names: Vec<&str> =
            recipe::included(text, &headers).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "c"]);
        let digest = |at: usize| {
            let mut changed = headers;
            changed[at].1 = "changed";
            recipe::digest("x.cu", text, &changed)
        };
        let now = recipe::digest("x.cu", text, &headers);
        assert_eq!([digest(0), digest(3)], [now.clone(), now.clone()]);
        assert!(digest(1) != now && digest(2) != now);
        assert_ne!(recipe::digest("y.cu", text, &headers), now);
        assert_ne!(recipe::digest("x.cu", "", &headers), now);
    }

    #[test]
    fn capabilities_of_names() {
        assert_eq!(capability_of("sm_90a"), Some(90));
        assert_eq!(capability_of("sm_120"), Some(120));
        assert_eq!(capability_of("compute_80"), None);
    }
}
