//! Where a kernel's cubin comes from: this program's file, the cache on disk, the compiler, in
//! this order.
//!
//! Why all three: a release carries cubins for the usual cards and needs nothing installed; a card
//! that it does not know needs the compiler once; a change of a source needs no ritual. Must not
//! know the driver.

mod build;
mod cache;

use std::borrow::Cow;

pub use build::{BuildError, Built, build};
pub use cache::{Cache, Origin};

use crate::compile::{
    ARCHS, CAPABILITY_MIN, CompileError, arch_for, capability_of, compiler_for, library,
};
use crate::sources;

/// A cubin in this program's file.
struct Embedded {
    file: &'static str,
    arch: &'static str,
    nvrtc: &'static str,
    bytes: &'static [u8],
}

// Written by the build script: `static EMBEDDED: &[Embedded]`.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// A cubin for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// An ELF file.
    pub bytes: Cow<'static, [u8]>,
    /// What it was compiled for: `sm_90a`.
    pub arch: String,
    /// Version of the compiler.
    pub nvrtc: String,
    /// Where it came from.
    pub origin: Origin,
}

/// There are no kernels for a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kernels for sm_{capability}: this build has {embedded}; {cache}; {compiler}")]
pub struct NoCubin {
    capability: u32,
    embedded: String,
    cache: String,
    compiler: String,
}

/// Architectures in this program's file.
#[must_use]
pub fn embedded() -> Vec<&'static str> {
    let mut archs: Vec<&str> = EMBEDDED.iter().map(|cubin| cubin.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    archs
}

/// The cubin of a file of [`sources::FILES`] for a device of compute capability `capability` (90).
/// Compiles it when nothing is at hand: seconds.
///
/// # Errors
/// It is nowhere to be had.
pub fn find(file: &str, capability: u32) -> Result<Cubin, NoCubin> {
    find_in(file, capability, EMBEDDED, Cache::of_user().as_ref())
}

/// Makes sure that [`find`] has every file at once, by several threads: files that are nowhere to
/// be had are compiled and kept. `progress` is called with each file as it is there.
///
/// # Errors
/// One is nowhere to be had.
pub fn prepare(capability: u32, progress: &(dyn Fn(&str, &Origin) + Sync)) -> Result<(), NoCubin> {
    let files: Vec<&str> = sources::FILES.iter().map(|(file, _)| *file).collect();
    let one = |file| find(file, capability).map(|cubin| progress(file, &cubin.origin));
    build::on_threads(&files, one).map(|_| ())
}

fn find_in(
    file: &str,
    capability: u32,
    embedded: &[Embedded],
    cache: Option<&Cache>,
) -> Result<Cubin, NoCubin> {
    let numbers =
        |archs: &[&str]| archs.iter().filter_map(|a| capability_of(a)).collect::<Vec<_>>();
    let archs: Vec<&str> = embedded.iter().map(|cubin| cubin.arch).collect();
    if let Some(arch) = arch_for(capability, &numbers(&archs))
        && let Some(cubin) = embedded.iter().find(|c| c.file == file && c.arch == arch)
    {
        return Ok(Cubin {
            bytes: Cow::Borrowed(cubin.bytes),
            arch,
            nvrtc: cubin.nvrtc.into(),
            origin: Origin::Embedded,
        });
    }
    let compilers = library();
    let available = match &compilers {
        Ok(compilers) => compilers.iter().flat_map(|c| c.archs.clone()).collect(),
        // What it would be called if a compiler had made it earlier.
        Err(_) => numbers(ARCHS),
    };
    let failed = |compiler: String| no_cubin(capability, embedded, cache, compiler);
    let Some(arch) = arch_for(capability, &available) else {
        return Err(failed(match compilers {
            _ if capability < CAPABILITY_MIN => "compute capability 8.0 is the least".into(),
            Ok(compilers) => {
                let versions: Vec<&str> = compilers.iter().map(|c| c.version.as_str()).collect();
                format!("NVRTC {} compiles for none that it runs", versions.join(" and "))
            }
            Err(error) => error.to_string(),
        }));
    };
    made(file, arch, cache, compilers.err()).map_err(|error| failed(error.to_string()))
}

/// From the cache or the compiler.
fn made(
    file: &str,
    arch: String,
    cache: Option<&Cache>,
    no_compiler: Option<CompileError>,
) -> Result<Cubin, CompileError> {
    let of = |compiled: crate::compile::Compiled, arch, nvrtc, origin| Cubin {
        bytes: Cow::Owned(compiled.cubin),
        arch,
        nvrtc,
        origin,
    };
    if let Some(error) = no_compiler {
        let (compiled, nvrtc) = cache.and_then(|cache| cache.any(file, &arch)).ok_or(error)?;
        return Ok(of(compiled, arch, nvrtc, Origin::Cached));
    }
    let nvrtc = compiler_for(&arch)?.to_owned();
    let (compiled, origin) = match cache {
        Some(cache) => cache.compiled(file, &arch)?,
        None => {
            let why = "neither XDG_CACHE_HOME nor HOME is set".to_owned();
            (crate::compile::compile(file, &arch)?, Origin::Compiled(Err(why)))
        }
    };
    Ok(of(compiled, arch, nvrtc, origin))
}

fn no_cubin(
    capability: u32,
    embedded: &[Embedded],
    cache: Option<&Cache>,
    compiler: String,
) -> NoCubin {
    let mut archs: Vec<&str> = embedded.iter().map(|cubin| cubin.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    NoCubin {
        capability,
        embedded: if archs.is_empty() { "none".into() } else { archs.join(", ") },
        cache: cache.map_or_else(
            || "there is no cache without HOME".into(),
            |cache| format!("none is in {}", cache.folder().display()),
        ),
        compiler,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = sources::FILES[0].0;
    const EMBEDDED: &[Embedded] = &[
        Embedded { file: FILE, arch: "sm_80", nvrtc: "12.8", bytes: b"for 8.0" },
        Embedded { file: FILE, arch: "sm_90a", nvrtc: "12.8", bytes: b"for 9.0" },
    ];

    #[test]
    fn embedded_cubins_need_nothing_else() {
        for (capability, arch, bytes) in
            [(80, "sm_80", b"for 8.0"), (89, "sm_80", b"for 8.0"), (90, "sm_90a", b"for 9.0")]
        {
            let cubin = find_in(FILE, capability, EMBEDDED, None).unwrap();
            assert_eq!((cubin.arch.as_str(), &*cubin.bytes), (arch, bytes.as_slice()));
            assert_eq!(cubin.origin, Origin::Embedded);
        }
    }

    #[test]
    fn a_card_without_kernels_is_told_all_that_was_tried() {
        let cache = Cache::at("/nowhere/hearth/kernels".into());
        let check = |capability, embedded, cache, expect: &str| {
            let text = find_in(FILE, capability, embedded, cache).unwrap_err().to_string();
            assert!(text.starts_with(expect) && text.len() > expect.len(), "{text}");
        };
        check(
            75,
            EMBEDDED,
            Some(&cache),
            "no kernels for sm_75: this build has sm_80, sm_90a; \
             none is in /nowhere/hearth/kernels; compute capability 8.0 is the leas",
        );
        // No such card: no compiler at hand can know it.
        check(
            999,
            &[],
            None,
            "no kernels for sm_999: this build has none; there is no cache without HOME; NVRTC ",
        );
    }
}
