//! The device layer against a driver without a device: `driver/cuda.c`, `driver/cublaslt.c`.
//!
//! Why: machines that run tests have no GPU. The stand-in runs what is queued in order on host
//! memory and ends the process over a dead handle, a thread without the context, or memory that
//! is not claimed. What a real driver does beyond its reference, it cannot show.
//!
//! The library must be found before the program starts, so each part runs in a process of its own:
//! the tests marked as ignored are those parts.

#![allow(unsafe_code, reason = "the stand-in is told what to do through its own functions")]

mod wheel;

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::process::Command;

use cuda::gpu::{Element, Gpu, KernelName, Mark, ProductShape, Shape};
use cuda::measure::{Sizes, copy_bandwidth, measure};
use cuda::nvidia::{Nvidia, OpenError, devices};
use kernels::{Error, Fault};

/// Builds the stand-ins into a folder, and gives it.
fn stand_ins(name: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("driver-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    for (source, library) in [("cuda.c", "libcuda.so.1"), ("cublaslt.c", "libcublasLt.so.12")] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver").join(source);
        let out = folder.join(library);
        let built = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-Wall", "-shared", "-fPIC"])
            .args(options)
            .arg(format!("-Wl,-soname,{library}"))
            .args([source.as_os_str(), "-o".as_ref(), out.as_os_str()])
            .output()
            .expect("cc is missing: run `tests/tools.sh base`");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        // The name without a version is tried first: it must not be another library.
        let plain = folder.join(library.split(".so").next().unwrap()).with_extension("so");
        if !plain.exists() {
            std::os::unix::fs::symlink(library, plain).unwrap();
        }
    }
    folder
}

/// Runs ignored tests, by name, in a process that finds the stand-ins.
fn run(folder: &Path, parts: &[&str], variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--test-threads=1"]).args(parts);
    command.env("LD_LIBRARY_PATH", folder).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.envs(variables.iter().copied());
    if let Some(wheel) = wheel::wheel() {
        command.env("HEARTH_NVRTC", wheel);
    }
    let done = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{folder:?} {variables:?}\n{out}\n{err}");
    let all = format!("{} passed; 0 failed", parts.len());
    assert!(out.contains(&all), "not all ran: {out}");
}

#[test]
fn a_working_driver() {
    let parts = [
        "part_devices",
        "part_memory_and_copies",
        "part_marks",
        "part_memory_runs_out",
        "part_kernels",
        "part_graphs",
        "part_graphs_that_fail",
        "part_faults",
        "part_threads",
        "part_products",
        "part_measures",
    ];
    run(&stand_ins("12.2", &[]), &parts, &[("FAKE_NEW", "0")]);
    run(&stand_ins("13.0", &["-DNEW"]), &parts, &[("FAKE_NEW", "1")]);
}

#[test]
fn a_driver_that_cannot_be_used() {
    let old = stand_ins("old", &[]);
    run(&old, &["part_too_old"], &[("FAKE_VERSION", "11080"), ("FAKE_FOUND", "11.8")]);
    run(&old, &["part_no_device"], &[("FAKE_DEVICES", "0")]);
    run(&old, &["part_no_device"], &[("FAKE_INIT", "100")]);
    run(&old, &["part_refuses"], &[("FAKE_INIT", "500")]);
    let partial = stand_ins("partial", &["-DPARTIAL"]);
    run(&partial, &["part_too_old"], &[("FAKE_FOUND", "12.2")]);
}

#[test]
fn no_driver() {
    // SAFETY: a system library; on most machines that run tests there is none.
    let installed = ["libcuda.so", "libcuda.so.1"]
        .iter()
        .any(|name| unsafe { libloading::Library::new(name) }.is_ok());
    assert_eq!(matches!(devices(), Err(OpenError::NoDriver)), !installed);
    assert_eq!(matches!(Nvidia::open(0), Err(OpenError::NoDriver)), !installed);
    assert_eq!(OpenError::NoDriver.to_string(), "no NVIDIA driver: libcuda.so.1 not found");
}

/// A function of a stand-in.
fn of<F: Copy>(library: &str, name: &str) -> F {
    // SAFETY: the stand-in is opened already or will be; callers name its functions' types.
    unsafe {
        let library = libloading::Library::new(library).expect("run through the other tests");
        let found = *library.get::<F>(name.as_bytes()).expect("a function of the stand-in");
        std::mem::forget(library);
        found
    }
}

/// What ran since the last call, one thing a line.
fn log() -> Vec<String> {
    let (log, clear): (extern "C" fn() -> *const c_char, extern "C" fn()) =
        (of("libcuda.so.1", "fake_log"), of("libcuda.so.1", "fake_clear"));
    // SAFETY: the stand-in's own text, copied at once.
    let text = unsafe { CStr::from_ptr(log()) }.to_str().unwrap().to_owned();
    clear();
    text.lines().map(str::to_owned).collect()
}

/// The next call of a function fails.
fn fail(function: &str, code: i32) {
    let fail: extern "C" fn(*const c_char, c_int) = of("libcuda.so.1", "fake_fail");
    fail(CString::new(function).unwrap().as_ptr(), code);
}

/// Everything was given back.
fn nothing_is_left() {
    for library in ["libcuda.so.1", "libcublasLt.so.12"] {
        let live: extern "C" fn() -> c_int = of(library, "fake_live");
        assert_eq!(live(), 0, "handles of {library}");
    }
}

const NORM: KernelName = KernelName { file: "norm.cu", name: "row_norm" };
const ONE: Shape = Shape { grid: [2, 3, 1], threads: 64, shared_bytes: 512 };

#[test]
#[ignore = "run by a_working_driver"]
fn part_devices() {
    let found = devices().unwrap();
    assert_eq!(found.len(), 1);
    let device = &found[0];
    assert_eq!((device.name.as_str(), device.capability), ("Fake 0", 80));
    assert_eq!((device.multiprocessors, device.shared_bytes_max), (108, 166_912));
    assert_eq!(device.memory_bytes, 1 << 30);
    let error = Nvidia::open(1).err().unwrap();
    assert_eq!(error.to_string(), "NVIDIA driver: there is no GPU 1: there are 1");
    let gpu = Nvidia::open(0).unwrap();
    assert_eq!(gpu.properties(), device);
    drop(gpu);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_memory_and_copies() {
    let mut gpu = Nvidia::open(0).unwrap();
    let before = gpu.free_bytes();
    let (a, b) = (gpu.claim("a", 64).unwrap(), gpu.claim("b", 64).unwrap());
    assert_eq!(gpu.free_bytes(), before - 128);
    log();
    assert!(a.is_multiple_of(256) && b.is_multiple_of(256));
    let mut host = gpu.pinned(64).unwrap();
    assert_eq!(host.bytes(), [0; 64]);
    for (i, byte) in host.bytes_mut().iter_mut().enumerate() {
        *byte = i as u8;
    }
    gpu.upload(&host, 8, 16, a);
    gpu.copy(a, b + 4, 16);
    gpu.fill(b, 4, 9);
    gpu.download(b, 20, &mut host, 40);
    gpu.upload(&host, 64, 0, a);
    gpu.synchronize().unwrap();
    let expect: Vec<u8> = [9; 4].into_iter().chain(8..24).collect();
    assert_eq!(host.bytes()[40..60], expect);
    assert_eq!(log(), ["upload 16", "copy 16", "fill 4", "download 20"]);
    gpu.release(a);
    assert_eq!(gpu.free_bytes(), before - 64);
    let nothing = gpu.claim("nothing", 0).unwrap();
    gpu.release(nothing);
    drop(gpu);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_marks() {
    let mut gpu = Nvidia::open(0).unwrap();
    let a = gpu.claim("a", 8).unwrap();
    gpu.mark(Mark(3));
    for _ in 0..6 {
        gpu.fill(a, 8, 1);
    }
    gpu.mark(Mark(4));
    gpu.wait(Mark(4)).unwrap();
    assert_eq!(gpu.elapsed_us(Mark(3), Mark(4)), 1500);
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_memory_runs_out() {
    let mut gpu = Nvidia::open(0).unwrap();
    let wanted = 1 << 29;
    let error = gpu.claim("weights", wanted).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { what: "weights", wanted });
    let error = gpu.pinned(wanted).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { what: "pinned host memory", wanted });
    // It is no fault: smaller claims are given.
    gpu.claim("less", 8).unwrap();
    gpu.synchronize().unwrap();
    fail("cuMemAlloc_v2", 500);
    let error = gpu.claim("weights", 8).unwrap_err().to_string();
    assert!(error.contains("CUDA_ERROR_NOT_FOUND while claiming memory"), "{error}");
    gpu.synchronize().unwrap_err();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_kernels() {
    let mut gpu = Nvidia::open(0).unwrap();
    log();
    let norm = gpu.kernel(NORM, 24).unwrap();
    assert_eq!(gpu.kernel(NORM, 24).unwrap(), norm);
    // All shared memory of a block, less the kernel's own: loaded once.
    assert_eq!(log(), ["row_norm: attribute 8 is 165888"]);
    let mut args = [0; 24];
    args[0] = 77;
    gpu.launch(norm, &ONE, &args);
    gpu.synchronize().unwrap();
    assert_eq!(log(), ["launch row_norm 2x3x1 64 512 first 77"]);
    let absent = KernelName { file: "norm.cu", name: "absent" };
    let error = gpu.kernel(absent, 24).unwrap_err().to_string();
    assert!(error.contains("norm.cu:absent: CUDA_ERROR_NOT_FOUND"), "{error}");
    let other = KernelName { file: "norm.cu", name: "row_add" };
    if std::env::var("FAKE_NEW").as_deref() == Ok("1") {
        let error = gpu.kernel(other, 32).unwrap_err().to_string();
        assert!(error.contains("takes 24 bytes of arguments, not 32"), "{error}");
    } else {
        gpu.kernel(other, 32).unwrap();
    }
    gpu.synchronize().unwrap();
    assert!(gpu.origins().iter().all(|(file, _)| *file == "norm.cu"));
    assert_eq!(gpu.origins().len(), 1, "a file is loaded once");
    drop(gpu);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_graphs() {
    let mut gpu = Nvidia::open(0).unwrap();
    let norm = gpu.kernel(NORM, 24).unwrap();
    let a = gpu.claim("a", 8).unwrap();
    log();
    gpu.begin_graph();
    gpu.fill(a, 8, 3);
    gpu.launch(norm, &ONE, &[0; 24]);
    let graph = gpu.end_graph().unwrap();
    assert_eq!(log(), [] as [&str; 0], "nothing ran yet");
    gpu.replay(&graph);
    gpu.fill(a, 4, 1);
    gpu.replay(&graph);
    gpu.synchronize().unwrap();
    let once = ["fill 8", "launch row_norm 2x3x1 64 512 first 0"];
    assert_eq!(log(), [once.as_slice(), &["fill 4"], &once].concat());
    gpu.begin_graph();
    let empty = gpu.end_graph().unwrap();
    // One goes before the device, one after it.
    drop(graph);
    drop(gpu);
    drop(empty);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_graphs_that_fail() {
    let mut gpu = Nvidia::open(0).unwrap();
    let a = gpu.claim("a", 8).unwrap();
    log();
    let steps = [
        "cuStreamBeginCapture_v2",
        "cuMemsetD8Async",
        "cuGraphInstantiateWithFlags",
        "cuGraphUpload",
    ];
    for step in steps {
        fail(step, 1);
        gpu.begin_graph();
        gpu.fill(a, 8, 3);
        gpu.fill(a, 8, 4);
        assert!(gpu.end_graph().is_none(), "{step}");
        assert_eq!(log(), [] as [&str; 0], "nothing runs of a graph that is none");
        gpu.synchronize().unwrap();
    }
    gpu.begin_graph();
    gpu.fill(a, 8, 3);
    drop(gpu);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_faults() {
    let mut gpu = Nvidia::open(0).unwrap();
    let norm = gpu.kernel(NORM, 24).unwrap();
    let a = gpu.claim("a", 8).unwrap();
    let mut host = gpu.pinned(8).unwrap();
    gpu.begin_graph();
    gpu.fill(a, 8, 3);
    let graph = gpu.end_graph().unwrap();
    gpu.replay(&graph);
    gpu.fill(a, 8, 3);
    gpu.launch(norm, &ONE, &[0; 24]);
    gpu.launch(norm, &ONE, &[0; 24]);
    // As a device does it: the call that waits learns of it.
    fail("cuStreamSynchronize", 700);
    let fault = gpu.synchronize().unwrap_err();
    let text = "CUDA_ERROR_ILLEGAL_ADDRESS while waiting; \
                queued last: graph of 1, fill of 8 bytes, norm.cu:row_norm x2";
    assert_eq!(fault, Fault::Lost(text.into()));
    log();
    gpu.upload(&host, 0, 8, a);
    gpu.download(a, 8, &mut host, 0);
    gpu.copy(a, a, 8);
    gpu.launch(norm, &ONE, &[0; 24]);
    gpu.replay(&graph);
    gpu.mark(Mark(0));
    gpu.begin_graph();
    assert!(gpu.end_graph().is_none());
    assert_eq!(log(), [] as [&str; 0], "nothing is queued after a fault");
    assert_eq!(gpu.wait(Mark(0)).unwrap_err(), fault, "the first error stays");
    assert_eq!(gpu.synchronize().unwrap_err(), fault);
    assert!(gpu.claim("more", 8).unwrap_err().to_string().contains("ILLEGAL_ADDRESS"));
    assert!(gpu.product(&shape(3, 4, 8)).is_none());
    assert_eq!(gpu.elapsed_us(Mark(0), Mark(0)), 0);
    gpu.release(a);
    drop(gpu);
    nothing_is_left();
    // The context went with it: the device can be opened again.
    let mut again = Nvidia::open(0).unwrap();
    again.synchronize().unwrap();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_threads() {
    let mut gpu = Nvidia::open(0).unwrap();
    let a = gpu.claim("a", 8).unwrap();
    let (gpu, graph) = std::thread::spawn(move || {
        gpu.begin_graph();
        gpu.fill(a, 8, 3);
        let graph = gpu.end_graph().unwrap();
        gpu.replay(&graph);
        gpu.synchronize().unwrap();
        (gpu, graph)
    })
    .join()
    .unwrap();
    drop(graph);
    std::thread::spawn(move || drop(gpu)).join().unwrap();
    nothing_is_left();
}

fn shape(rows: u32, outputs: u32, inputs: u32) -> ProductShape {
    ProductShape {
        rows,
        outputs,
        inputs,
        x_stride: inputs + 8,
        out_stride: outputs + 2,
        operands: Element::F32,
        out: Element::F32,
    }
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_products() {
    let mut gpu = Nvidia::open(0).unwrap();
    assert_eq!(gpu.products(), Ok("12.8.3"));
    let of = shape(3, 4, 8);
    let product = gpu.product(&of).unwrap();
    assert_eq!(gpu.product(&of), Some(product), "asked once");
    assert_eq!(gpu.product(&shape(3, 7, 8)), None, "no algorithm");
    assert_eq!(gpu.product(&ProductShape { out: Element::F8, ..of }), None);
    let (x, w) = (gpu.claim("x", 4 * 48).unwrap(), gpu.claim("w", 4 * 32).unwrap());
    let out = gpu.claim("out", 4 * 18).unwrap();
    let mut host = gpu.pinned(4 * 48).unwrap();
    let value = |i: usize| (i % 7) as f32 - 3.0;
    for (i, bytes) in host.bytes_mut().chunks_exact_mut(4).enumerate() {
        bytes.copy_from_slice(&value(i).to_le_bytes());
    }
    gpu.upload(&host, 0, 4 * 48, x);
    gpu.upload(&host, 0, 4 * 32, w);
    gpu.fill(out, 4 * 18, 0xff);
    gpu.multiply(product, x, w, out, 0.5);
    gpu.download(out, 4 * 18, &mut host, 0);
    gpu.synchronize().unwrap();
    for row in 0..3 {
        for column in 0..6 {
            let at = 4 * (row * 6 + column);
            let found = f32::from_le_bytes(host.bytes()[at..at + 4].try_into().unwrap());
            let sum: f32 = (0..8).map(|k| value(row * 16 + k) * value(column * 8 + k)).sum();
            if column < 4 {
                assert_eq!(found, 0.5 * sum, "row {row}, column {column}");
            } else {
                assert!(found.is_nan(), "between rows nothing is written");
            }
        }
    }
    drop(gpu);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_working_driver"]
fn part_measures() {
    let mut gpu = Nvidia::open(0).unwrap();
    let before = gpu.free_bytes();
    // A copy takes a quarter of a millisecond here.
    let close = |found: f64, expect: f64| assert!((found / expect - 1.0).abs() < 1e-3, "{found}");
    let sizes = Sizes { copy_bytes: 1 << 20, host_bytes: 1000, product_side: 16 };
    let measured = measure(&mut gpu, &sizes).unwrap();
    close(measured.copy_gb_s, 2.0 * f64::from(1 << 20) / 250e3);
    close(measured.upload_gb_s, 1000.0 / 250e3);
    close(measured.download_gb_s, 1000.0 / 250e3);
    // Products leave no time behind in the stand-in: the least that is counted is 1 us for 8.
    close(measured.product_tflop_s.unwrap(), 2.0 * 4096.0 * 8.0 / 1e6);
    assert!(copy_bandwidth(&mut gpu, 1 << 30).is_err());
    assert_eq!(gpu.free_bytes(), before, "all was released");
    drop(gpu);
    nothing_is_left();
}

#[test]
#[ignore = "run by a_driver_that_cannot_be_used"]
fn part_too_old() {
    let driver = std::env::var("FAKE_FOUND").unwrap();
    let expect = OpenError::TooOld { driver: driver.clone(), needed: "12.0".into() };
    assert_eq!(devices().unwrap_err(), expect);
    assert_eq!(Nvidia::open(0).err(), Some(expect.clone()));
    let text = format!("the NVIDIA driver supports CUDA {driver}; 12.0 or newer is needed");
    assert_eq!(expect.to_string(), text);
}

#[test]
#[ignore = "run by a_driver_that_cannot_be_used"]
fn part_no_device() {
    assert_eq!(devices().unwrap_err(), OpenError::NoDevice);
    assert_eq!(Nvidia::open(0).err(), Some(OpenError::NoDevice));
}

#[test]
#[ignore = "run by a_driver_that_cannot_be_used"]
fn part_refuses() {
    assert_eq!(devices().unwrap_err(), OpenError::Driver("CUDA_ERROR_NOT_FOUND".into()));
}
