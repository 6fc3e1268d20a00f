//! What the backend needs of a GPU: memory, one queue that runs in order, kernels, graphs.
//!
//! Why a seam: the same backend, with the same kernels, runs on a card ([`crate::nvidia`]) and,
//! in tests, on a CPU that executes the kernels thread by thread (`emulator`). Everything queued
//! runs in the order of the calls; nothing returns a result before [`Gpu::wait`]. A device fault
//! makes every later wait fail: calls that queue do not report.

use kernels::{Error, Fault};

/// An address in device memory.
pub type Address = u64;

/// What a device is. Kernel variants are chosen from it in [`crate::arch`] and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// As the driver names it.
    pub name: String,
    /// Compute capability, major times ten plus minor: 90 is Hopper.
    pub capability: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory_bytes: u64,
    /// Bytes of shared memory that one block can have.
    pub shared_bytes_max: u32,
    /// Driver version, major times 1000 plus minor times ten: 12080 is 12.8. 0: no driver.
    pub driver: u32,
}

/// A kernel by its file under `ops/` and its name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelName {
    /// `norm.cu`.
    pub file: &'static str,
    /// Its `extern "C"` name.
    pub name: &'static str,
}

/// A loaded kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel(pub u32);

/// How a kernel is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// Element types of dense products on the device's own library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    Bf16,
    /// 2 bytes.
    F16,
    /// 1 byte, e4m3fn.
    F8,
}

/// A dense product of the vendor's library: `out[r][o] = sum_k x[r][k] * w[o][k]`, all
/// row-major, sums in f32. Only shapes and types: what is chosen for it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProductShape {
    /// Rows of x and out.
    pub rows: u32,
    /// Rows of w, columns of out.
    pub outputs: u32,
    /// Columns of x and w.
    pub inputs: u32,
    /// Elements from one row of x to the next.
    pub x_stride: u32,
    /// Elements from one row of out to the next.
    pub out_stride: u32,
    /// Type of x and w.
    pub operands: Element,
    /// Type of out.
    pub out: Element,
}

/// A product that the library has been asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product(pub u32);

/// Host memory that the device reads and writes by itself. Who writes into it makes sure that no
/// queued copy still reads it: the backend keeps a ring of them and waits.
#[derive(Debug)]
pub struct Pinned {
    at: *mut u8,
    len: usize,
}

// SAFETY: an allocation that nothing else refers to.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Wraps `len` bytes at `at`.
    ///
    /// # Safety
    /// They live as long as the device that gave them, and nothing else refers to them.
    pub unsafe fn new(at: *mut u8, len: usize) -> Self {
        Self { at, len }
    }

    /// Zeroed host memory that is never given back, for stand-ins of devices.
    #[must_use]
    pub fn leaked(bytes: usize) -> Self {
        let room = vec![0; bytes].leak();
        Self { at: room.as_mut_ptr(), len: bytes }
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` was promised as much.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// All bytes, to write.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `new` was promised as much.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.at
    }
}

/// A place in the queue that can be waited for, one of a fixed few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub usize);

/// Marks that a device has.
pub const MARKS: usize = 16;

/// A GPU, owned and called by one thread.
pub trait Gpu {
    /// Recorded work that is queued as one.
    type Graph;

    /// What it is.
    fn properties(&self) -> &Properties;

    /// Bytes of device memory that are free.
    fn free_bytes(&self) -> u64;

    /// Claims device memory, aligned to 256 bytes, its contents unknown.
    ///
    /// # Errors
    /// It has no more.
    fn claim(&mut self, what: &'static str, bytes: usize) -> Result<Address, Error>;

    /// Gives claimed memory back once everything queued has run.
    fn release(&mut self, at: Address);

    /// Claims host memory for copies; it lives as long as the device.
    ///
    /// # Errors
    /// It has no more.
    fn pinned(&mut self, bytes: usize) -> Result<Pinned, Error>;

    /// Finds a kernel whose one parameter is a struct of `args_bytes` bytes.
    ///
    /// # Errors
    /// Nothing compiled for this device, and nothing to compile it with.
    fn kernel(&mut self, name: KernelName, args_bytes: usize) -> Result<Kernel, Error>;

    /// Asks the vendor's library for a product; `None` where there is no such library, or it
    /// cannot compute this.
    fn product(&mut self, shape: &ProductShape) -> Option<Product>;

    /// Queues a copy of `from[at..at + bytes]` to the device.
    fn upload(&mut self, from: &Pinned, at: usize, bytes: usize, to: Address);

    /// Queues a copy to `to[at..at + bytes]`.
    fn download(&mut self, from: Address, bytes: usize, to: &mut Pinned, at: usize);

    /// Queues a copy within the device.
    fn copy(&mut self, from: Address, to: Address, bytes: usize);

    /// Queues setting bytes.
    fn fill(&mut self, at: Address, bytes: usize, value: u8);

    /// Queues a kernel. `args` are the bytes of its parameter.
    fn launch(&mut self, kernel: Kernel, shape: &Shape, args: &[u8]);

    /// Queues a product: `out = scale * x * w^T`.
    fn multiply(&mut self, product: Product, x: Address, w: Address, out: Address, scale: f32);

    /// From here to [`Gpu::end_graph`] work is recorded instead of queued.
    fn begin_graph(&mut self);

    /// Ends the recording; `None` when the device cannot make a graph of it.
    fn end_graph(&mut self) -> Option<Self::Graph>;

    /// Queues recorded work.
    fn replay(&mut self, graph: &Self::Graph);

    /// Marks the end of what is queued by now.
    fn mark(&mut self, mark: Mark);

    /// Waits until the device has come to a mark.
    ///
    /// # Errors
    /// The device failed.
    fn wait(&mut self, mark: Mark) -> Result<(), Fault>;

    /// Microseconds between two marks that were waited for.
    fn elapsed_us(&mut self, from: Mark, to: Mark) -> u64;

    /// Waits for everything queued.
    ///
    /// # Errors
    /// The device failed.
    fn synchronize(&mut self) -> Result<(), Fault>;
}
