//! Every kernel compiles for every architecture, and the hot ones keep everything in registers.
//!
//! Needs NVIDIA's compiler and no GPU. Registers of each kernel are printed, and written to
//! `registers.txt` in the target's `tmp`; results are kept there, so that only what changed is
//! compiled again.

#![allow(unsafe_code, reason = "naming the compiler sets a variable")]

mod wheel;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::time::Instant;

use cuda::compile::{ARCHS, CompileError, Compiled, Resources, compile, compile_text, library};
use cuda::cubins::{Cache, Origin};
use cuda::sources::{FILES, SPILLING, WITH_STACK};

/// The machine that runs tests may have no more cores, and each compilation takes memory.
const THREADS: usize = 2;

/// What a file's kernels take, by file and architecture; or the compiler's words.
type Results = BTreeMap<(&'static str, &'static str), Result<Compiled, String>>;

#[test]
fn every_kernel_for_every_architecture() {
    let version = compiler();
    let begun = Instant::now();
    let results = compile_all();
    let table = table(&results);
    println!("NVRTC {version}, {:.0} s\n{table}", begun.elapsed().as_secs_f64());
    std::fs::write(folder("registers.txt"), table).unwrap();
    let mut wrong = errors(&results);
    wrong.extend(warnings(&results));
    wrong.extend(spills(&results));
    wrong.extend(missing(&results));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const TEXT: &str = r#"
#include "own.cuh"
struct Args { unsigned long long out; unsigned count; };
static int twice(int x) { return 2 * x; }
extern "C" __global__ void small(const __grid_constant__ Args a) {
  __shared__ float room[SIZE];
  room[threadIdx.x] = twice(threadIdx.x);
  __syncthreads();
  if (threadIdx.x < a.count) ((float*)a.out)[threadIdx.x] = room[SIZE - 1 - threadIdx.x];
}
extern "C" __global__ void on_the_stack(const __grid_constant__ Args a) {
  float local[64];
  for (unsigned i = 0; i < 64; i++) local[i] = ((float*)a.out)[i];
  for (unsigned i = 0; i < a.count; i++) local[(i * 7) % 64] += local[(i + a.count) % 64];
  ((float*)a.out)[threadIdx.x] = local[threadIdx.x % 64];
}
extern "C" __global__ void __launch_bounds__(1024) crowded(const __grid_constant__ Args a) {
  volatile float* out = (float*)a.out;
  float local[128];
#pragma unroll
  for (int i = 0; i < 128; i++) local[i] = out[i];
#pragma unroll
  for (int i = 127; i >= 0; i--) out[i] = local[i];
}
"#;

#[test]
fn the_log_tells_what_kernels_take() {
    compiler();
    let headers = [("own.cuh", "#define SIZE 256\n")];
    for arch in ARCHS {
        let made = compile_text("own.cu", TEXT, &headers, arch).unwrap();
        assert_eq!(made.cubin[..4], *b"\x7fELF", "{arch}");
        let find = |name: &str| made.resources.iter().find(|r| r.kernel == name).unwrap();
        let (small, stacked) = (find("small"), find("on_the_stack"));
        assert_eq!((small.shared_bytes, small.stack_bytes), (1024, 0), "{arch} {}", made.log);
        assert!((1..=64).contains(&small.registers), "{arch} {}", made.log);
        let crowded = find("crowded");
        assert!(crowded.registers <= 64, "{arch} {}", made.log);
        assert!(crowded.spill_store_bytes > 0 && crowded.spill_load_bytes > 0, "{}", made.log);
        assert_eq!((stacked.shared_bytes, stacked.stack_bytes), (0, 256), "{arch}");
    }
}

#[test]
fn a_wrong_source_says_where() {
    let version = compiler();
    let headers = [("own.cuh", "#define SIZE unknown\n")];
    let error = compile_text("own.cu", TEXT, &headers, "sm_80").unwrap_err().to_string();
    assert!(error.starts_with("own.cu does not compile for sm_80:\nown.cu(6): error:"), "{error}");
    let error = compile_text("own.cu", TEXT, &headers, "sm_35").unwrap_err();
    assert!(matches!(error, CompileError::NoArch { .. }), "{error}, NVRTC {version}");
    let error = compile("absent.cu", "sm_80").unwrap_err();
    assert_eq!(error, CompileError::NoFile("absent.cu".into()));
}

#[test]
fn a_cubin_is_compiled_once() {
    compiler();
    let at = folder("once");
    let _ = std::fs::remove_dir_all(&at);
    let cache = Cache::at(at.clone());
    assert_eq!(cache.any("norm.cu", "sm_80"), None);
    let (first, origin) = cache.compiled("norm.cu", "sm_80").unwrap();
    assert_eq!(origin, Origin::Compiled(Ok(())));
    let (second, origin) = cache.compiled("norm.cu", "sm_80").unwrap();
    assert_eq!((&second, origin), (&first, Origin::Cached));
    assert_eq!(cache.any("norm.cu", "sm_80").map(|(made, _)| made), Some(first.clone()));
    assert_eq!(cache.any("norm.cu", "sm_86"), None);
    let file = at.read_dir().unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (third, origin) = cache.compiled("norm.cu", "sm_80").unwrap();
    // The log tells times, which differ.
    assert_eq!((&third.cubin, origin), (&first.cubin, Origin::Compiled(Ok(()))));
    // A folder that cannot be written costs time, not the cubin.
    let blocked = Cache::at(file.join("below-a-file"));
    let (fourth, origin) = blocked.compiled("norm.cu", "sm_80").unwrap();
    assert_eq!(fourth.cubin, first.cubin);
    assert!(matches!(&origin, Origin::Compiled(Err(why)) if why.contains("below-a-file")));
}

/// Version of the compiler: of the wheel that `tests/tools.sh nvrtc` installs, unless the variable
/// names another. Every test calls this first.
fn compiler() -> String {
    static NAMED: Once = Once::new();
    NAMED.call_once(|| {
        if let Some(folder) = wheel::wheel() {
            // SAFETY: nothing outside of Rust reads variables before this returns.
            unsafe { std::env::set_var("HEARTH_NVRTC", folder) };
        }
    });
    let found = library().expect("run `make test` or `tests/tools.sh nvrtc`");
    found[0].version.clone()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn compile_all() -> Results {
    let cache = Cache::at(folder("cubins"));
    let jobs: Vec<_> =
        FILES.iter().flat_map(|(f, _)| ARCHS.iter().map(move |a| (*f, *a))).collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(&(file, arch)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let made = cache.compiled(file, arch);
                    let made = made.map(|(compiled, _)| compiled).map_err(|e| e.to_string());
                    results.lock().expect("no thread panics").insert((file, arch), made);
                }
            });
        }
    });
    results.into_inner().expect("no thread panics")
}

fn kernels(made: &Result<Compiled, String>) -> impl Iterator<Item = &Resources> {
    made.iter().flat_map(|compiled| &compiled.resources)
}

/// Kernels down, architectures across; registers, and what was spilled.
fn table(results: &Results) -> String {
    let mut rows: BTreeMap<(&str, &str), BTreeMap<&str, String>> = BTreeMap::new();
    for ((file, arch), made) in results {
        for r in kernels(made) {
            let spilled = r.spill_store_bytes + r.spill_load_bytes;
            let cell = match (spilled, r.stack_bytes) {
                (0, 0) => format!("{}", r.registers),
                (spilled, stack) => format!("{} s{spilled} f{stack}", r.registers),
            };
            rows.entry((file, &r.kernel)).or_default().insert(arch, cell);
        }
    }
    let mut text = format!("{:<56}", "registers (s: bytes spilled, f: stack frame)");
    for arch in ARCHS {
        let _ = write!(text, "{arch:>16}");
    }
    for ((file, kernel), cells) in rows {
        let _ = write!(text, "\n{:<56}", format!("{file} {kernel}"));
        for arch in ARCHS {
            let _ = write!(text, "{:>16}", cells.get(arch).map_or("-", String::as_str));
        }
    }
    text
}

/// Files that do not compile: the words for the first architecture of each, the others by name.
fn errors(results: &Results) -> Vec<String> {
    let mut files: BTreeMap<&str, Vec<(&str, &String)>> = BTreeMap::new();
    for ((file, arch), made) in results {
        if let Err(words) = made {
            files.entry(file).or_default().push((arch, words));
        }
    }
    let archs = |all: &[(&str, &String)]| all.iter().map(|(a, _)| *a).collect::<Vec<_>>().join(" ");
    files.values().map(|all| format!("{}(not for: {})", all[0].1, archs(all))).collect()
}

/// What the compiler or the assembler warned of.
fn warnings(results: &Results) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    for ((file, arch), made) in results {
        let lines = made.iter().flat_map(|compiled| compiled.log.lines());
        let warned = lines.filter(|line| line.contains("warning"));
        wrong.extend(warned.map(|line| format!("{file} for {arch}: {line}")));
    }
    wrong.into_iter().collect()
}

/// Kernels that do not keep everything in registers and are not known for it.
fn spills(results: &Results) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((file, arch), made) in results {
        for r in kernels(made) {
            let spilled = r.spill_store_bytes.max(r.spill_load_bytes);
            let known =
                SPILLING.iter().find(|(kernel, on, _)| (*kernel, *on) == (&*r.kernel, arch));
            let allowed = known.map_or(0, |(_, _, bytes)| *bytes);
            let stack = r.stack_bytes > spilled && !WITH_STACK.contains(&&*r.kernel);
            if spilled > allowed || stack {
                wrong.push(format!(
                    "{file} {} on {arch}: stack frame {}, spill stores {}, spill loads {} bytes",
                    r.kernel, r.stack_bytes, r.spill_store_bytes, r.spill_load_bytes
                ));
            }
        }
    }
    wrong
}

/// Kernels named above, or whole files, that the compiler did not report: then nothing was tested.
fn missing(results: &Results) -> Vec<String> {
    let seen: BTreeSet<&str> = results.values().flat_map(kernels).map(|r| &*r.kernel).collect();
    let named = SPILLING.iter().map(|(kernel, ..)| kernel).chain(WITH_STACK);
    let hot = named.filter(|kernel| !seen.contains(**kernel));
    let empty = results.iter().filter(|(_, made)| made.is_ok() && kernels(made).next().is_none());
    hot.map(|kernel| format!("no kernel {kernel} was compiled"))
        .chain(empty.map(|((file, arch), _)| format!("{file} has no kernel on {arch}")))
        .collect()
}
