//! Cubins made ahead of time into a folder that a build can embed: `hearth kernels build`.
//!
//! The folder holds `norm.cu.sm_80.cubin` and so on, and a manifest that names each with its
//! digest and its sources' digest. The build script reads it ([`crate::cubins`]).

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::compile::recipe::{digest, digest_of_bytes};
use crate::compile::{CompileError, Resources, compile, compiler_for};
use crate::sources;

/// The manifest's name, and its first line.
const MANIFEST: &str = "manifest.txt";
const TITLE: &str = "hearth cubins 1";

/// Threads that compile at once: each takes some hundred megabytes.
const THREADS_MAX: usize = 8;

/// One file compiled for one architecture.
#[derive(Debug, Clone)]
pub struct Built {
    /// `norm.cu`.
    pub file: &'static str,
    /// `sm_90a`.
    pub arch: String,
    /// Version of the compiler.
    pub nvrtc: &'static str,
    /// Time that it took.
    pub seconds: f64,
    /// Bytes of the cubin.
    pub bytes: usize,
    /// What each kernel takes.
    pub resources: Vec<Resources>,
    digest: String,
}

/// Nothing usable was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file does not compile, or nothing compiles it.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Compiles every file of [`sources::FILES`] for `archs` into `out`, by several threads; `progress`
/// is called by each as it ends one. Sorted by file and architecture.
///
/// # Errors
/// The first that came up. The folder then has no manifest, and no build takes it.
pub fn build(
    archs: &[&str],
    out: &Path,
    progress: &(dyn Fn(&Built) + Sync),
) -> Result<Vec<Built>, BuildError> {
    let write = |path: PathBuf, bytes: &[u8]| {
        std::fs::write(&path, bytes).map_err(|source| BuildError::Write { path, source })
    };
    std::fs::create_dir_all(out)
        .map_err(|source| BuildError::Write { path: out.to_owned(), source })?;
    // Until all is done, what is there belongs to no manifest. None there is as well.
    let _ = std::fs::remove_file(out.join(MANIFEST));
    let jobs: Vec<(&'static str, &str)> = sources::FILES
        .iter()
        .flat_map(|(file, _)| archs.iter().map(move |arch| (*file, *arch)))
        .collect();
    let one = |(file, arch): (&'static str, &str)| -> Result<Built, BuildError> {
        let begun = Instant::now();
        let made = compile(file, arch)?;
        let built = Built {
            file,
            arch: arch.to_owned(),
            nvrtc: compiler_for(arch)?,
            seconds: begun.elapsed().as_secs_f64(),
            bytes: made.cubin.len(),
            resources: made.resources,
            digest: digest_of_bytes(&made.cubin),
        };
        write(out.join(format!("{file}.{arch}.cubin")), &made.cubin)?;
        progress(&built);
        Ok(built)
    };
    let mut built = on_threads(&jobs, one)?;
    built.sort_by(|a, b| (a.file, &a.arch).cmp(&(b.file, &b.arch)));
    write(out.join(MANIFEST), manifest(&built).as_bytes())?;
    Ok(built)
}

fn manifest(built: &[Built]) -> String {
    let mut text = format!("{TITLE}\n");
    for (file, source) in sources::FILES {
        let _ = writeln!(text, "source {file} {}", digest(file, source, sources::HEADERS));
    }
    for b in built {
        let _ = writeln!(text, "cubin {} {} {} {}", b.file, b.arch, b.nvrtc, b.digest);
    }
    text
}

/// Does every job, on a few threads, up to the first error.
pub(super) fn on_threads<J: Copy + Sync, R: Send, E: Send>(
    jobs: &[J],
    one: impl Fn(J) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Ok(Vec::new()));
    let worker = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = one(*job);
            let mut results = results.lock().expect("no thread panics while it adds a result");
            match (&mut *results, result) {
                (Ok(all), Ok(result)) => all.push(result),
                (Err(_), _) => {}
                (all, Err(error)) => {
                    *all = Err(error);
                    next.store(jobs.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(THREADS_MAX).min(jobs.len()) {
            scope.spawn(worker);
        }
    });
    results.into_inner().expect("no thread panics while it adds a result")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_do_every_job_or_report_the_error() {
        let jobs: Vec<usize> = (0..100).collect();
        let mut done = on_threads(&jobs, |job| Ok::<_, usize>(job * 2)).unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..200).step_by(2).collect::<Vec<_>>());
        let failed = on_threads(&jobs, |job| if job == 7 { Err(job) } else { Ok(()) });
        assert_eq!(failed, Err(7));
    }

    #[test]
    fn a_manifest_names_sources_and_cubins() {
        let built = Built {
            file: sources::FILES[0].0,
            arch: "sm_80".into(),
            nvrtc: "12.8",
            seconds: 1.0,
            bytes: 3,
            resources: Vec::new(),
            digest: digest_of_bytes(b"abc"),
        };
        let text = manifest(&[built]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], TITLE);
        assert_eq!(lines.len(), 1 + sources::FILES.len() + 1);
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        assert!(lines.last().unwrap().ends_with(
            "sm_80 12.8 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        ));
    }
}
