//! The emulator against plain loops, against other conversions, and against deliberate mistakes.

mod numbers;
mod queue;

use bytemuck::{Pod, Zeroable};
use kernels::Fault;

use super::Emulator;
use crate::gpu::{Address, Gpu, Kernel, KernelName, Shape};

const PROBE: &str = include_str!("../../emulator/probe.cu");

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Args {
    input: Address,
    output: Address,
    count: u32,
    mode: u32,
}

/// Blocks, threads and dynamic shared bytes.
fn shape(grid: [u32; 3], threads: u32, shared_bytes: u32) -> Shape {
    Shape { grid, threads, shared_bytes }
}

fn probe(gpu: &mut Emulator, name: &'static str) -> Kernel {
    gpu.kernel_in(KernelName { file: "probe.cu", name }, PROBE, size_of::<Args>()).expect("a probe")
}

/// Claims memory that holds `words`.
fn uploaded(gpu: &mut Emulator, what: &'static str, words: &[u32]) -> Address {
    let bytes = size_of_val(words);
    let at = gpu.claim(what, bytes).expect("memory");
    let mut room = gpu.pinned(bytes).expect("memory");
    room.bytes_mut().copy_from_slice(bytemuck::cast_slice(words));
    gpu.upload(&room, 0, bytes, at);
    at
}

/// The words at an address, once everything queued has run.
fn downloaded(gpu: &mut Emulator, at: Address, count: usize) -> Result<Vec<u32>, Fault> {
    let mut room = gpu.pinned(4 * count).expect("memory");
    gpu.download(at, 4 * count, &mut room, 0);
    gpu.synchronize()?;
    Ok(room.bytes().chunks_exact(4).map(bytemuck::pod_read_unaligned).collect())
}

/// Runs one probe on `input` and gives back its output, which starts as `output`.
fn run(
    gpu: &mut Emulator,
    name: &'static str,
    how: Shape,
    (count, mode): (u32, u32),
    input: &[u32],
    output: &[u32],
) -> Result<Vec<u32>, Fault> {
    let kernel = probe(gpu, name);
    let args = Args {
        input: uploaded(gpu, "input", input),
        output: uploaded(gpu, "output", output),
        count,
        mode,
    };
    gpu.launch(kernel, &how, bytemuck::bytes_of(&args));
    downloaded(gpu, args.output, output.len())
}

#[test]
#[should_panic(expected = "broken.cu:2:")]
fn what_the_compiler_says_is_shown() {
    let name = KernelName { file: "broken.cu", name: "x" };
    let _ = Emulator::new(1).kernel_in(name, "#include \"device.cuh\"\nnonsense", 0);
}

#[test]
fn lanes_exchange_what_cuda_says() {
    let one = shape([1, 1, 1], 32, 0);
    let got = run(&mut Emulator::new(1), "lanes", one, (0, 0), &[0], &[0; 256]).expect("it runs");
    for lane in 0..32_u32 {
        let of = |lane: u32| 100 + lane;
        let want = [
            of(7),
            of(lane ^ 5),
            of(if lane < 3 { lane } else { lane - 3 }),
            of(if lane > 28 { lane } else { lane + 3 }),
            of(lane / 4 * 4 + 3),
            (0..32).filter(|l| l % 3 == 0).map(|l| 1 << l).sum(),
            3,
            of(lane ^ 1) * 1000 + (lane ^ 1),
        ];
        for (kind, want) in want.into_iter().enumerate() {
            assert_eq!(got[kind * 32 + lane as usize], want, "kind {kind}, lane {lane}");
        }
    }
}

#[test]
fn ldmatrix_spreads_rows_and_columns() {
    // Element (i, j) of matrix m is m * 64 + i * 8 + j.
    let halves: Vec<u16> = (0..256).collect();
    let input: Vec<u32> = bytemuck::cast_slice(&halves).to_vec();
    let how = shape([1, 1, 1], 32, 512);
    for mode in 0..2 {
        let got = run(&mut Emulator::new(1), "matrices", how, (0, mode), &input, &[0; 128]);
        let got = got.expect("it runs");
        for (at, word) in got.into_iter().enumerate() {
            let (m, g, t) = (at as u32 / 32, at as u32 % 32 / 4, at as u32 % 4);
            let element = |i: u32, j: u32| m * 64 + if mode == 0 { i * 8 + j } else { j * 8 + i };
            assert_eq!(word, element(g, 2 * t) | element(g, 2 * t + 1) << 16, "{mode}, {at}");
        }
    }
}

#[test]
fn a_forgotten_wait_shows() {
    let input: Vec<u32> = (0..128).collect();
    let how = shape([1, 1, 1], 32, 512);
    let of = |mode| run(&mut Emulator::new(3), "matrices", how, (0, mode), &input, &[0; 128]);
    assert_ne!(of(2).expect("it runs"), of(0).expect("it runs"));
}

/// Whether a probe gives `want` for each of 20 seeds.
fn seeds(name: &'static str, how: Shape, choice: (u32, u32), want: &[u32]) -> usize {
    let input: Vec<u32> = (0..1024).collect();
    let output = vec![0; want.len()];
    let right = |seed| {
        run(&mut Emulator::new(seed), name, how, choice, &input, &output).expect("it runs") == want
    };
    (0..20).filter(|seed| right(*seed)).count()
}

#[test]
fn a_forgotten_barrier_shows_for_some_seed() {
    let want: Vec<u32> = (0..128).map(|i| (i + 32) % 128).collect();
    let how = shape([1, 1, 1], 128, 0);
    assert_eq!(seeds("neighbours", how, (0, 0), &want), 20);
    assert!(seeds("neighbours", how, (0, 1), &want) < 20);
}

#[test]
fn mistakes_of_a_pipeline_show_for_some_seed() {
    let want: Vec<u32> = (1..=1024).collect();
    let how = shape([1, 1, 1], 64, 0);
    assert_eq!(seeds("stages", how, (4, 0), &want), 20);
    assert!(seeds("stages", how, (4, 1), &want) < 20, "a group too few is waited for");
    assert!(seeds("stages", how, (4, 2), &want) < 20, "a stage is filled while others read it");
}

/// (mode, count, what the fault says)
const MISTAKES: &[(u32, u32, &str)] = &[
    (1, 0, "__syncthreads"),
    (2, 0, "thread 5"),
    (3, 0, "thread"),
    (4, 0, "a shuffle"),
    (5, 0, "divergent warp"),
    (6, 64, "thread 5: a misaligned access, an index outside of its array"),
    (7, 0, "thread 5: a misaligned access"),
    (8, 0, "a division by zero, at probe.cu:"),
    (9, 64, "0 bytes behind the end of `output` (256 bytes)"),
    (10, 0x8000_0000, "thread 5: accesses address"),
    (
        11,
        128,
        "thread 5: accesses 0 bytes behind the end of its 128 bytes of dynamic shared memory",
    ),
    (12, 0, "thread 5: __trap"),
    (13, 0, "a shuffle with lane mask 0x0000ffff"),
    (14, 0, "thread 5: cp.async to what is not shared memory"),
];

#[test]
fn mistakes_end_the_launch_and_are_named() {
    let how = shape([2, 1, 1], 64, 128);
    for (mode, count, says) in MISTAKES {
        for seed in 0..5 {
            let mut gpu = Emulator::new(seed);
            let got = run(&mut gpu, "mistakes", how, (*count, *mode), &[0; 64], &[0; 64]);
            let Err(Fault::Lost(message)) = got else { panic!("mode {mode}: {got:?}") };
            let place = "kernel mistakes, block (1, 0, 0), thread ";
            assert!(message.starts_with(place) || *mode == 13, "mode {mode}: {message}");
            assert!(message.contains(says), "mode {mode}: {message}");
            assert_eq!(gpu.synchronize(), Err(Fault::Lost(message)), "the device stays lost");
        }
    }
}

#[test]
fn a_warp_that_is_not_whole_is_refused() {
    let part = shape([1, 1, 1], 16, 0);
    let got = run(&mut Emulator::new(1), "lanes", part, (0, 0), &[0], &[0; 256]);
    let Err(Fault::Lost(message)) = got else { panic!("{got:?}") };
    assert!(message.contains("a shuffle of a warp whose lane 16 has ended"), "{message}");
}

#[test]
fn writes_near_a_claim_are_found() {
    let how = shape([2, 1, 1], 64, 128);
    let small = run(&mut Emulator::new(1), "mistakes", how, (15, 9), &[0; 64], &[0; 15]);
    let Err(Fault::Lost(message)) = small else { panic!("{small:?}") };
    assert_eq!(message, "kernel mistakes writes behind `output` (60 bytes)");
    let front = run(&mut Emulator::new(1), "mistakes", how, (u32::MAX, 9), &[0; 64], &[0; 64]);
    assert!(front.is_err(), "{front:?}");
}

#[test]
fn shared_memory_is_poisoned_for_each_block() {
    let how = shape([5, 1, 1], 32, 128);
    let got = run(&mut Emulator::new(1), "leftovers", how, (0, 0), &[0], &[0; 5]);
    assert_eq!(got.expect("it runs"), [32; 5]);
}

#[test]
fn blocks_run_once_each_in_an_order_of_the_seed() {
    let ran = |seed| {
        let how = shape([3, 5, 2], 1, 0);
        let got = run(&mut Emulator::new(seed), "order", how, (0, 0), &[0], &[0; 31]);
        got.expect("it runs")[1..].to_vec()
    };
    let (first, second) = (ran(1), ran(2));
    assert_ne!(first, second);
    assert_eq!(first, ran(1), "a seed replays");
    for mut order in [first, second] {
        order.sort_unstable();
        assert_eq!(order, (0..30).collect::<Vec<u32>>());
    }
}
