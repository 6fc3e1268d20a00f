//! A GPU for tests: kernels run on the CPU, thread by thread.
//!
//! Why: a machine without a GPU still tests what the kernels compute and how the backend queues
//! them. Work is kept until somebody waits, so a host buffer that is rewritten too early, or a
//! missing wait, shows. Faults are reported as a GPU's are: every wait from then on fails. How long
//! anything takes says nothing about a GPU.

mod library;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::{Error, Fault};

use crate::gpu::{
    Address, Gpu, Kernel, KernelName, MARKS, Mark, Pinned, Product, ProductShape, Properties, Shape,
};
use crate::sources;
use library::{Entry, Launch, Object, State, runtime};
use memory::Memory;

/// Bytes of device memory, unless a test says otherwise.
const MEMORY_BYTES: u64 = 8 << 30;

/// One piece of queued work.
#[derive(Debug, Clone)]
enum Work {
    Upload { from: *const u8, bytes: usize, to: Address },
    Download { from: Address, bytes: usize, to: *mut u8 },
    Copy { from: Address, to: Address, bytes: usize },
    Fill { at: Address, bytes: usize, value: u8 },
    Launch { kernel: Kernel, shape: Shape, args: Vec<u8> },
    Replay(Arc<[Work]>),
    Release(Address),
    Mark(Mark),
}

/// Recorded work.
#[derive(Debug, Clone)]
pub struct EmulatedGraph(Arc<[Work]>);

/// A kernel that was asked for.
struct Loaded {
    name: KernelName,
    entry: Entry,
}

/// A GPU that is not there.
pub struct Emulator {
    properties: Properties,
    state: *mut State,
    memory: Memory,
    pinned: Vec<*mut [u8]>,
    objects: HashMap<&'static str, Object>,
    kernels: Vec<Loaded>,
    queue: VecDeque<Work>,
    recording: Option<Vec<Work>>,
    /// Time spent on work by now, and at each mark.
    busy: Duration,
    marks: [Duration; MARKS],
    lost: Option<String>,
    launches: u64,
    replays: u64,
    /// Launches left until one fails.
    fails_in: Option<u64>,
}

// SAFETY: the state and the addresses in queued work are this emulator's own; the runtime binds
// a state to a thread only while a launch runs.
unsafe impl Send for Emulator {}

impl Drop for Emulator {
    fn drop(&mut self) {
        // SAFETY: made by `new` of the same runtime, used nowhere else.
        unsafe { (runtime().free)(self.state) };
        for room in &self.pinned {
            // SAFETY: it was a box in `pinned`, and no `Pinned` outlives its device.
            drop(unsafe { Box::from_raw(*room) });
        }
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("properties", &self.properties)
            .field("queued", &self.queue.len())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Emulator {
    /// A small Ampere card. `seed` chooses every order that CUDA leaves open.
    ///
    /// # Panics
    /// There is no g++.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(80, 4, seed)
    }

    /// A card of a compute capability (major times ten plus minor) and so many multiprocessors.
    ///
    /// # Panics
    /// There is no g++.
    #[must_use]
    pub fn with(capability: u32, multiprocessors: u32, seed: u64) -> Self {
        // SAFETY: `new` has no conditions.
        let state = unsafe { (runtime().new)(seed) };
        assert!(!state.is_null(), "no memory for an emulated GPU");
        let shared_bytes_max = match capability {
            80 | 87 => 163 << 10,
            86 | 89 | 120.. => 99 << 10,
            90..120 => 227 << 10,
            75 => 64 << 10,
            _ => 48 << 10,
        };
        Self {
            properties: Properties {
                name: format!("emulated sm_{capability} with {multiprocessors} multiprocessors"),
                capability,
                multiprocessors,
                memory_bytes: MEMORY_BYTES,
                shared_bytes_max,
                driver: 0,
            },
            state,
            memory: Memory::default(),
            pinned: Vec::new(),
            objects: HashMap::new(),
            kernels: Vec::new(),
            queue: VecDeque::new(),
            recording: None,
            busy: Duration::ZERO,
            marks: [Duration::ZERO; MARKS],
            lost: None,
            launches: 0,
            replays: 0,
            fails_in: None,
        }
    }

    /// The same with `bytes` bytes of device memory.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.properties.memory_bytes = bytes;
        self
    }

    /// The `n`-th launch that runs from now, 1 the next one, fails, and with it the device.
    ///
    /// # Panics
    /// `n` is 0.
    pub fn fail_at(&mut self, n: u64) {
        assert!(n > 0, "launches are counted from 1");
        self.fails_in = Some(n);
    }

    /// Calls of [`Gpu::launch`] that were queued: those recorded in a graph are not.
    #[must_use]
    pub fn launches(&self) -> u64 {
        self.launches
    }

    /// Calls of [`Gpu::replay`].
    #[must_use]
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Finds a kernel in a file whose text is given.
    fn kernel_in(&mut self, name: KernelName, text: &str, args: usize) -> Result<Kernel, Error> {
        if let Some(at) = self.kernels.iter().position(|k| k.name == name) {
            return Ok(Kernel(at as u32));
        }
        let object = self.objects.entry(name.file).or_insert_with(|| Object::load(name.file, text));
        let entry = object.entry(name.name).ok_or_else(|| {
            Error::Unsupported(format!("kernel {} of {}: not defined", name.name, name.file))
        })?;
        let KernelName { file, name: kernel } = name;
        assert_eq!(args, entry.args_bytes, "bytes of the arguments of {kernel} in {file}");
        self.kernels.push(Loaded { name, entry });
        Ok(Kernel((self.kernels.len() - 1) as u32))
    }

    fn push(&mut self, work: Work) {
        match &mut self.recording {
            Some(recorded) => recorded.push(work),
            None => self.queue.push_back(work),
        }
    }

    /// Checks a range of device memory where the caller's name is still on the stack.
    fn expect(&self, at: Address, bytes: usize) {
        let inside = self.memory.holds(at, bytes);
        assert!(inside, "{bytes} bytes at {at:#x}: {}", self.memory.describe(at));
    }

    /// Runs the queue until `mark` was passed as often as it is queued, or all of it.
    fn run(&mut self, until: Option<Mark>) -> Result<(), Fault> {
        let last = |mark| self.queue.iter().rposition(|w| matches!(w, Work::Mark(m) if *m == mark));
        let count = match until {
            Some(mark) => last(mark).map_or(0, |at| at + 1),
            None => self.queue.len(),
        };
        for _ in 0..count {
            let work = self.queue.pop_front().expect("counted");
            let started = Instant::now();
            let done = if self.lost.is_none() { self.execute(&work) } else { Ok(()) };
            self.busy += started.elapsed();
            if let Err(message) = done {
                self.lost = Some(message);
            }
        }
        if until.is_none() && self.lost.is_none() {
            self.lost = self.memory.check(true).err();
        }
        self.lost.as_ref().map_or(Ok(()), |message| Err(Fault::Lost(message.clone())))
    }

    fn execute(&mut self, work: &Work) -> Result<(), String> {
        let inside = |at: Address, bytes: usize| {
            let inside = self.memory.holds(at, bytes);
            inside.then_some(at as *mut u8).ok_or_else(|| {
                format!("{bytes} bytes at {at:#x} are not claimed: {}", self.memory.describe(at))
            })
        };
        // SAFETY: device addresses are checked here; host addresses were checked against their
        // `Pinned`, which lives as long as this.
        unsafe {
            match work {
                Work::Upload { from, bytes, to } => inside(*to, *bytes)?.copy_from(*from, *bytes),
                Work::Download { from, bytes, to } => to.copy_from(inside(*from, *bytes)?, *bytes),
                Work::Copy { from, to, bytes } => {
                    inside(*to, *bytes)?.copy_from(inside(*from, *bytes)?, *bytes);
                }
                Work::Fill { at, bytes, value } => inside(*at, *bytes)?.write_bytes(*value, *bytes),
                Work::Launch { kernel, shape, args } => {
                    self.execute_launch(*kernel, shape, args)?;
                }
                Work::Replay(all) => all.iter().try_for_each(|work| self.execute(work))?,
                Work::Release(at) => self.memory.release(*at)?,
                Work::Mark(mark) => self.marks[mark.0] = self.busy,
            }
        }
        Ok(())
    }

    fn execute_launch(&mut self, kernel: Kernel, shape: &Shape, args: &[u8]) -> Result<(), String> {
        let Loaded { name, entry } = &self.kernels[kernel.0 as usize];
        if let Some(left) = &mut self.fails_in {
            *left -= 1;
            if *left == 0 {
                return Err(format!("kernel {}: failed because the test asked for it", name.name));
            }
        }
        let Shape { grid, threads, shared_bytes } = *shape;
        let launch = Launch { grid, threads, shared_bytes };
        // SAFETY: the kernel's own library gave `run`, and `launch` checked the arguments' size.
        let failed = unsafe { (entry.run)(self.state, &raw const launch, args.as_ptr().cast()) };
        if failed == 0 {
            return self.memory.check(false).map_err(|what| format!("kernel {} {what}", name.name));
        }
        // SAFETY: the state is this emulator's.
        let (message, address) =
            unsafe { (library::failure(self.state), (runtime().fault_address)(self.state)) };
        Err(match address {
            0 => message,
            at => format!("{message}: {}", self.memory.describe(at)),
        })
    }
}

impl Gpu for Emulator {
    type Graph = EmulatedGraph;

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_bytes(&self) -> u64 {
        self.properties.memory_bytes - self.memory.claimed()
    }

    fn claim(&mut self, what: &'static str, bytes: usize) -> Result<Address, Error> {
        if bytes as u64 > self.free_bytes() {
            // Memory that is given back counts once the queue has run. A fault shows at a wait.
            let _ = self.run(None);
        }
        let fits = bytes as u64 <= self.free_bytes();
        let at = if fits { self.memory.claim(what, bytes) } else { None };
        at.ok_or(Error::OutOfMemory { what, wanted: bytes })
    }

    fn release(&mut self, at: Address) {
        assert!(self.recording.is_none(), "memory is not released in a graph");
        self.expect(at, 0);
        self.push(Work::Release(at));
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned, Error> {
        let room = Box::into_raw(vec![0xff; bytes].into_boxed_slice());
        self.pinned.push(room);
        // SAFETY: it is freed with this emulator, and only the `Pinned` refers to it until then.
        Ok(unsafe { Pinned::new(room.cast(), bytes) })
    }

    fn kernel(&mut self, name: KernelName, args_bytes: usize) -> Result<Kernel, Error> {
        let text = sources::file(name.file)
            .ok_or_else(|| Error::Unsupported(format!("{}: no such file", name.file)))?;
        self.kernel_in(name, text, args_bytes)
    }

    fn product(&mut self, _shape: &ProductShape) -> Option<Product> {
        None
    }

    fn upload(&mut self, from: &Pinned, at: usize, bytes: usize, to: Address) {
        let from = from.bytes()[at..at + bytes].as_ptr();
        self.expect(to, bytes);
        self.push(Work::Upload { from, bytes, to });
    }

    fn download(&mut self, from: Address, bytes: usize, to: &mut Pinned, at: usize) {
        let to = to.bytes_mut()[at..at + bytes].as_mut_ptr();
        self.expect(from, bytes);
        self.push(Work::Download { from, bytes, to });
    }

    fn copy(&mut self, from: Address, to: Address, bytes: usize) {
        self.expect(from, bytes);
        self.expect(to, bytes);
        self.push(Work::Copy { from, to, bytes });
    }

    fn fill(&mut self, at: Address, bytes: usize, value: u8) {
        self.expect(at, bytes);
        self.push(Work::Fill { at, bytes, value });
    }

    fn launch(&mut self, kernel: Kernel, shape: &Shape, args: &[u8]) {
        let Loaded { name, entry } = &self.kernels[kernel.0 as usize];
        let name = name.name;
        assert_eq!(args.len(), entry.args_bytes, "bytes of the arguments of {name}");
        let most = entry.threads_max;
        assert!((1..=most).contains(&shape.threads), "{name}: {shape:?}, at most {most} threads");
        let [x, y, z] = shape.grid;
        let fits = x.min(y).min(z) > 0 && x < 1 << 31 && y.max(z) < 1 << 16;
        assert!(fits, "{name}: {shape:?} is no grid");
        let shared = self.properties.shared_bytes_max;
        assert!(shape.shared_bytes <= shared, "{name}: {shape:?}, at most {shared} shared bytes");
        self.launches += u64::from(self.recording.is_none());
        self.push(Work::Launch { kernel, shape: *shape, args: args.to_vec() });
    }

    fn multiply(&mut self, _: Product, _: Address, _: Address, _: Address, _: f32) {
        unreachable!("`product` gives none");
    }

    fn begin_graph(&mut self) {
        assert!(self.recording.is_none(), "a graph is being recorded");
        self.recording = Some(Vec::new());
    }

    fn end_graph(&mut self) -> Option<EmulatedGraph> {
        let recorded = self.recording.take().expect("no graph is being recorded");
        Some(EmulatedGraph(recorded.into()))
    }

    fn replay(&mut self, graph: &EmulatedGraph) {
        self.replays += 1;
        self.push(Work::Replay(graph.0.clone()));
    }

    fn mark(&mut self, mark: Mark) {
        assert!(self.recording.is_none(), "marks are not recorded in a graph");
        assert!(mark.0 < MARKS, "there are {MARKS} marks");
        self.push(Work::Mark(mark));
    }

    fn wait(&mut self, mark: Mark) -> Result<(), Fault> {
        assert!(self.recording.is_none(), "nobody waits in a graph");
        self.run(Some(mark))
    }

    fn elapsed_us(&mut self, from: Mark, to: Mark) -> u64 {
        let elapsed = self.marks[to.0].saturating_sub(self.marks[from.0]);
        u64::try_from(elapsed.as_micros()).expect("no test runs that long")
    }

    fn synchronize(&mut self) -> Result<(), Fault> {
        assert!(self.recording.is_none(), "nobody waits in a graph");
        self.run(None)
    }
}
