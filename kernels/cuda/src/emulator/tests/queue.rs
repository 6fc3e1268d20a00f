//! Work that is queued, recorded, replayed and waited for.

use kernels::{Error, Fault};

use super::{Args, downloaded, probe, run, shape, uploaded};
use crate::emulator::Emulator;
use crate::gpu::{Gpu, KernelName, Mark, Shape};

const ROOM: usize = 256;

fn add_one(gpu: &mut Emulator, at: u64) {
    let kernel = probe(gpu, "add_one");
    let args = Args { input: at, output: at, count: ROOM as u32 / 4, mode: 0 };
    gpu.launch(kernel, &shape([1, 1, 1], 256, 0), bytemuck::bytes_of(&args));
}

#[test]
fn an_upload_reads_its_buffer_when_it_runs() {
    let mut gpu = Emulator::new(1);
    let at = gpu.claim("words", ROOM).expect("memory");
    let mut room = gpu.pinned(ROOM).expect("memory");
    room.bytes_mut().fill(1);
    gpu.upload(&room, 0, ROOM, at);
    room.bytes_mut().fill(2);
    assert_eq!(downloaded(&mut gpu, at, ROOM / 4), Ok(vec![0x0202_0202; ROOM / 4]));
}

#[test]
fn unwritten_memory_is_nan() {
    let mut gpu = Emulator::new(1);
    let at = gpu.claim("words", 4).expect("memory");
    assert_eq!(at % 256, 0);
    assert_eq!(downloaded(&mut gpu, at, 1), Ok(vec![u32::MAX]));
}

#[test]
fn a_wait_runs_up_to_its_mark() {
    let mut gpu = Emulator::new(1);
    let at = uploaded(&mut gpu, "words", &[0; ROOM / 4]);
    let mut room = gpu.pinned(ROOM).expect("memory");
    gpu.download(at, ROOM, &mut room, 0);
    gpu.mark(Mark(3));
    gpu.fill(at, ROOM, 7);
    gpu.download(at, ROOM, &mut room, 0);
    assert_eq!(room.bytes(), [0xff; ROOM], "nothing runs before a wait");
    gpu.wait(Mark(3)).expect("no fault");
    assert_eq!(room.bytes(), [0; ROOM]);
    gpu.wait(Mark(3)).expect("a mark that was passed");
    assert_eq!(room.bytes(), [0; ROOM]);
    gpu.synchronize().expect("no fault");
    assert_eq!(room.bytes(), [7; ROOM]);
}

#[test]
fn graphs_repeat_what_was_recorded() {
    let mut gpu = Emulator::new(1);
    let at = uploaded(&mut gpu, "words", &[5; ROOM / 4]);
    let copied = gpu.claim("copied", ROOM).expect("memory");
    gpu.begin_graph();
    add_one(&mut gpu, at);
    gpu.copy(at, copied, ROOM);
    let graph = gpu.end_graph().expect("a graph");
    assert_eq!(downloaded(&mut gpu, at, 1), Ok(vec![5]), "recorded, not queued");
    for _ in 0..3 {
        gpu.replay(&graph);
    }
    add_one(&mut gpu, at);
    assert_eq!(downloaded(&mut gpu, at, ROOM / 4), Ok(vec![9; ROOM / 4]));
    assert_eq!(downloaded(&mut gpu, copied, ROOM / 4), Ok(vec![8; ROOM / 4]));
    assert_eq!((gpu.launches(), gpu.replays()), (1, 3));
}

#[test]
fn memory_is_counted_and_given_back_in_turn() {
    let mut gpu = Emulator::new(1).with_memory(1000);
    let at = gpu.claim("words", 600).expect("memory");
    assert_eq!(gpu.free_bytes(), 400);
    let refused = gpu.claim("more", 500);
    assert!(matches!(refused, Err(Error::OutOfMemory { what: "more", wanted: 500 })));
    gpu.fill(at, 600, 1);
    gpu.release(at);
    let again = gpu.claim("more", 500).expect("what is queued to be released counts");
    assert_eq!(gpu.free_bytes(), 500);
    gpu.release(again);
    gpu.synchronize().expect("no fault");
    assert_eq!(gpu.free_bytes(), 1000);
}

#[test]
fn a_failed_launch_loses_the_device() {
    let mut gpu = Emulator::new(1);
    let at = uploaded(&mut gpu, "words", &[0; ROOM / 4]);
    gpu.fail_at(3);
    add_one(&mut gpu, at);
    add_one(&mut gpu, at);
    assert_eq!(downloaded(&mut gpu, at, 1), Ok(vec![2]));
    add_one(&mut gpu, at);
    gpu.mark(Mark(0));
    let Err(Fault::Lost(message)) = gpu.wait(Mark(0)) else { panic!("it must fail") };
    assert_eq!(message, "kernel add_one: failed because the test asked for it");
    add_one(&mut gpu, at);
    assert_eq!(gpu.synchronize(), Err(Fault::Lost(message)));
}

#[test]
fn a_kernel_that_is_not_there_is_refused() {
    let mut gpu = Emulator::new(1);
    let mut ask = |file, name| gpu.kernel(KernelName { file, name }, 8);
    assert!(matches!(ask("no_such.cu", "x"), Err(Error::Unsupported(_))));
    assert!(matches!(ask("norm.cu", "no_such"), Err(Error::Unsupported(_))));
}

#[test]
#[should_panic(expected = "at most 128 threads")]
fn more_threads_than_declared_are_refused() {
    let _ = run(&mut Emulator::new(1), "neighbours", shape([1, 1, 1], 129, 0), (0, 0), &[0], &[0]);
}

#[test]
#[should_panic(expected = "is no grid")]
fn an_empty_grid_is_refused() {
    let _ = run(&mut Emulator::new(1), "neighbours", shape([0, 1, 1], 128, 0), (0, 0), &[0], &[0]);
}

#[test]
#[should_panic(expected = "byte 4 of `words` (256 bytes)")]
fn a_copy_beyond_a_claim_is_refused() {
    let mut gpu = Emulator::new(1);
    let at = gpu.claim("words", ROOM).expect("memory");
    gpu.fill(at + 4, ROOM, 0);
}

#[test]
#[should_panic(expected = "bytes of the arguments of order")]
fn arguments_of_another_size_are_refused() {
    let mut gpu = Emulator::new(1);
    let kernel = probe(&mut gpu, "order");
    gpu.launch(kernel, &Shape { grid: [1; 3], threads: 1, shared_bytes: 0 }, &[0; 16]);
}

/// What tests of whole models spend their time on. Bounds are far above what was measured
/// (0.7 us and 14 ns): they guard against a fiber switch through the kernel and the like.
#[test]
fn products_and_switches_are_cheap() {
    let timed = |name, count: u32, size| {
        let mut gpu = Emulator::new(1);
        let output = vec![0; 128];
        gpu.mark(Mark(0));
        let got = run(&mut gpu, name, shape([1, 1, 1], 32, 0), (count, 0), &[0; 192], &output);
        got.expect("it runs");
        gpu.mark(Mark(1));
        gpu.synchronize().expect("no fault");
        gpu.elapsed_us(Mark(0), Mark(1)) as f64 / f64::from(count * size)
    };
    let mma = timed("product_bf16", 20_000, 1);
    let switch = timed("shuffles", 20_000, 32);
    println!("{mma:.3} us for an mma of a warp, {:.1} ns for a switch", switch * 1000.0);
    assert!(mma < 20.0 && switch < 0.5, "{mma} us, {switch} us");
}
