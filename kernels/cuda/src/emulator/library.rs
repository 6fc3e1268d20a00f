//! Kernel files as shared objects: compiled by g++ into a cache, loaded, called.
//!
//! Why compiled at run time: the kernels' own text is the input, as it is for NVRTC, so what the
//! tests run is what a GPU gets. An object is named by a hash of everything that went into it and
//! appears under that name whole, because several test processes build at once. This module knows
//! no queue and no memory of a device.

use std::ffi::{CStr, c_char, c_void};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};
use sha2::{Digest, Sha256};

use crate::sources;

/// What stands in for the compiler's own names, and the runtime under it.
const RUNTIME: &[(&str, &str)] = &[
    ("cuda_cpu.h", include_str!("../../emulator/cuda_cpu.h")),
    ("fiber.h", include_str!("../../emulator/fiber.h")),
    ("runtime.cpp", include_str!("../../emulator/runtime.cpp")),
    ("runtime.h", include_str!("../../emulator/runtime.h")),
    ("tensor.h", include_str!("../../emulator/tensor.h")),
];
/// Types are punned as device compilers allow it. Products and sums stay apart, so that results
/// are the same on every CPU. `-g1` names the line of a fault.
const COMMON: &str = "-std=c++17 -march=native -ffp-contract=off -fno-math-errno -g1 \
    -fno-strict-aliasing -fPIC -shared -fvisibility=hidden -fno-gnu-unique -fno-exceptions";
/// Misaligned accesses, indices outside of arrays, shifts by too much and divisions by zero end the
/// launch. Calls stay calls, so that a fault in the runtime names the line that called it.
const KERNEL: &str = "-O2 -DEMULATOR -fno-optimize-sibling-calls \
    -fsanitize=alignment,bounds,shift-exponent,integer-divide-by-zero \
    -fsanitize-undefined-trap-on-error";
/// Variables that are read before they are set hold noise: from GCC 12.
const NOISE: &str = " -ftrivial-auto-var-init=pattern";
/// Objects that nobody has used for so long are removed.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

unsafe extern "C" {
    safe fn getuid() -> u32;
}

/// What the runtime calls the state of one emulated GPU.
pub(super) type State = c_void;

/// Twin of `emu::Launch` in runtime.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch {
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
}

/// The runtime's functions.
pub(super) struct Runtime {
    pub(super) new: unsafe extern "C" fn(u64) -> *mut State,
    pub(super) free: unsafe extern "C" fn(*mut State),
    pub(super) message: unsafe extern "C" fn(*const State) -> *const c_char,
    pub(super) fault_address: unsafe extern "C" fn(*const State) -> u64,
    fault_place: unsafe extern "C" fn(*const State, *mut u64) -> *const c_char,
    pub(super) map: unsafe extern "C" fn(u64) -> *mut u8,
    pub(super) unmap: unsafe extern "C" fn(*mut u8, u64),
}

/// One kernel of a loaded file.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) args_bytes: usize,
    pub(super) threads_max: u32,
    pub(super) run: unsafe extern "C" fn(*mut State, *const Launch, *const c_void) -> i32,
}

/// A loaded file.
pub(super) struct Object(Library);

impl Object {
    /// Compiles a kernel file, if that was not done before, and loads it.
    pub(super) fn load(name: &str, text: &str) -> Self {
        runtime();
        let noise = if compiler_version() >= 12 { NOISE } else { "" };
        let path = built(name, text, &format!("{KERNEL}{noise}"));
        // SAFETY: built from our sources; its initialisers do nothing.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        Self(library.unwrap_or_else(|e| panic!("loading {name}: {e}")))
    }

    /// A kernel by its name.
    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        let number = |suffix: &str| {
            // SAFETY: `KERNEL` in cuda_cpu.h defines such functions with this type.
            let get = unsafe {
                self.0.get::<extern "C" fn() -> u32>(format!("{name}_{suffix}").as_bytes()).ok()?
            };
            Some(get())
        };
        let (args, threads_max) = (number("args")?, number("threads")?);
        // SAFETY: as above.
        let run = unsafe { *self.0.get(format!("{name}_run").as_bytes()).ok()? };
        Some(Entry { args_bytes: args as usize, threads_max, run })
    }
}

/// The runtime, loaded once and for good: fault handlers lie in it.
pub(super) fn runtime() -> &'static Runtime {
    static LOADED: OnceLock<Runtime> = OnceLock::new();
    LOADED.get_or_init(|| {
        let text = RUNTIME.iter().find(|(name, _)| *name == "runtime.cpp").expect("listed").1;
        let path = built("runtime.cpp", text, "-O3");
        // SAFETY: built from our sources; its initialisers do nothing. Global, because kernel
        // files are resolved against it.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.unwrap_or_else(|e| panic!("loading the runtime: {e}"));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: runtime.cpp defines it with the type of the field.
                unsafe { *library.get($name).expect("the runtime exports it") }
            };
        }
        let runtime = Runtime {
            new: function!(b"emu_new"),
            free: function!(b"emu_free"),
            message: function!(b"emu_message"),
            fault_address: function!(b"emu_fault_address"),
            fault_place: function!(b"emu_fault_place"),
            map: function!(b"emu_map"),
            unmap: function!(b"emu_unmap"),
        };
        std::mem::forget(library);
        runtime
    })
}

/// What the last failed launch of `state` reports, with the line where one is known.
///
/// # Safety
/// `state` comes from `Runtime::new`.
pub(super) unsafe fn failure(state: *const State) -> String {
    let runtime = runtime();
    let mut offset = 0;
    // SAFETY: the caller's promise; both strings live as long as the state and the libraries.
    unsafe {
        let message = CStr::from_ptr((runtime.message)(state)).to_string_lossy().into_owned();
        let place = (runtime.fault_place)(state, &raw mut offset);
        if place.is_null() {
            return message;
        }
        let object = CStr::from_ptr(place).to_string_lossy();
        let line = line_of(&object, offset).unwrap_or_else(|| format!("{object}+{offset:#x}"));
        format!("{message}, at {line}")
    }
}

/// The source line of an instruction, where binutils are installed.
fn line_of(object: &str, offset: u64) -> Option<String> {
    let offset = format!("{offset:#x}");
    let out = Command::new("addr2line").args(["-i", "-e", object, &offset]).output().ok()?;
    // From the innermost function that was inlined to the outermost.
    let text = String::from_utf8_lossy(&out.stdout);
    let mut lines = text.lines().map(|line| line.rsplit('/').next().unwrap_or(line));
    lines.find(|line| line.contains(".cu:") || line.contains(".cuh:")).map(str::to_owned)
}

/// The compiler's version and the CPU that it compiles for, as one text.
fn compiler() -> &'static str {
    static ANSWER: OnceLock<String> = OnceLock::new();
    ANSWER.get_or_init(|| {
        let out = Command::new("g++")
            .args(["-march=native", "-E", "-dM", "-x", "c++", "/dev/null"])
            .output()
            .unwrap_or_else(|e| {
                panic!("the emulated GPU needs g++ ({e}): install it, as `make test` does")
            });
        assert!(out.status.success(), "g++ -march=native fails");
        String::from_utf8_lossy(&out.stdout).into_owned()
    })
}

/// The major version of GCC.
fn compiler_version() -> u32 {
    let mut macros = compiler().lines();
    let version = macros.find_map(|line| line.strip_prefix("#define __GNUC__ "));
    version.and_then(|version| version.parse().ok()).expect("g++ defines its version")
}

/// A folder for objects that nobody else can write into.
fn folder() -> PathBuf {
    let uid = getuid();
    let folder = std::env::temp_dir().join(format!("hearth-emulator-{uid}"));
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => panic!("{}: {e}", folder.display()),
        _ => {}
    }
    let found = fs::symlink_metadata(&folder).expect("it exists");
    let own = found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0;
    assert!(own, "{} must be a folder that only its owner can reach", folder.display());
    folder
}

/// The path of the object of a file with `text`, which is compiled if it is not there.
fn built(name: &str, text: &str, flags: &str) -> PathBuf {
    let mut hash = Sha256::new();
    let headers = RUNTIME.iter().chain(sources::HEADERS);
    for part in [compiler(), COMMON, flags, name, text]
        .into_iter()
        .chain(headers.clone().flat_map(|(name, text)| [*name, *text]))
    {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let key: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = folder();
    let object = folder.join(format!("{key}.so"));
    if object.exists() {
        let used = File::open(&object).and_then(|file| file.set_modified(SystemTime::now()));
        used.expect("our file can be touched");
        return object;
    }
    // Who comes while it is being built waits here instead of building it too.
    let lock = File::create(folder.join(format!("{key}.lock"))).expect("the folder is writable");
    lock.lock().expect("files can be locked");
    if !object.exists() {
        remove_old(&folder);
        let work = folder.join(format!("{key}.{}", std::process::id()));
        fs::create_dir_all(&work).expect("the folder is writable");
        for (name, text) in headers.chain(&[(name, text)]) {
            fs::write(work.join(name), text).expect("the folder is writable");
        }
        let done = compile(&work, name, flags);
        if done.is_ok() {
            fs::rename(work.join("object.so"), &object).expect("one folder, one file system");
        }
        fs::remove_dir_all(&work).expect("it is ours");
        done.unwrap_or_else(|said| panic!("g++ cannot compile {name}:\n{said}"));
    }
    object
}

/// Compiles to `object.so` in `work`; an error is what the compiler says.
fn compile(work: &Path, name: &str, flags: &str) -> Result<(), String> {
    let mut command = Command::new("g++");
    command.args(COMMON.split_whitespace()).args(flags.split_whitespace()).current_dir(work);
    if name.ends_with(".cu") {
        command.args(["-include", "cuda_cpu.h", "-x", "c++"]);
    }
    let out = command.arg(name).args(["-o", "object.so"]).output().expect("g++ ran before");
    let said = || String::from_utf8_lossy(&out.stderr).into_owned();
    if out.status.success() { Ok(()) } else { Err(said()) }
}

/// Removes what was last used long ago. Another process may be faster: errors mean that it is gone.
fn remove_old(folder: &Path) {
    for entry in fs::read_dir(folder).expect("it exists").flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}
