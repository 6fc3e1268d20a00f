//! A GPU that does nothing: addresses without memory behind them, launches that are counted. What
//! is left of a step then is the host's work for a real one, less the driver's.

use cuda::gpu::{
    Address, Gpu, Kernel, KernelName, Mark, Pinned, Product, ProductShape, Properties, Shape,
};
use kernels::{Error, Fault};

/// The device.
pub(crate) struct NullGpu {
    properties: Properties,
    next: Address,
    kernels: u32,
    recording: bool,
    /// Kernels and copies queued one by one.
    pub(crate) launches: u64,
    /// Graphs queued.
    pub(crate) replays: u64,
}

impl Default for NullGpu {
    fn default() -> Self {
        Self {
            properties: Properties {
                name: "null".to_owned(),
                capability: 90,
                multiprocessors: 132,
                memory_bytes: 80 << 30,
                shared_bytes_max: 227 << 10,
                driver: 0,
            },
            next: 1 << 20,
            kernels: 0,
            recording: false,
            launches: 0,
            replays: 0,
        }
    }
}

impl Gpu for NullGpu {
    type Graph = ();

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_bytes(&self) -> u64 {
        self.properties.memory_bytes
    }

    fn claim(&mut self, _: &'static str, bytes: usize) -> Result<Address, Error> {
        let at = self.next;
        self.next += bytes.next_multiple_of(256) as Address;
        Ok(at)
    }

    fn release(&mut self, _: Address) {}

    fn pinned(&mut self, bytes: usize) -> Result<Pinned, Error> {
        Ok(Pinned::leaked(bytes))
    }

    fn kernel(&mut self, _: KernelName, _: usize) -> Result<Kernel, Error> {
        self.kernels += 1;
        Ok(Kernel(self.kernels))
    }

    fn product(&mut self, _: &ProductShape) -> Option<Product> {
        Some(Product(0))
    }

    fn upload(&mut self, _: &Pinned, _: usize, _: usize, _: Address) {
        self.launches += 1;
    }

    fn download(&mut self, _: Address, _: usize, _: &mut Pinned, _: usize) {
        self.launches += 1;
    }

    fn copy(&mut self, _: Address, _: Address, _: usize) {
        self.launches += 1;
    }

    fn fill(&mut self, _: Address, _: usize, _: u8) {
        self.launches += 1;
    }

    fn launch(&mut self, _: Kernel, _: &Shape, _: &[u8]) {
        self.launches += u64::from(!self.recording);
    }

    fn multiply(&mut self, _: Product, _: Address, _: Address, _: Address, _: f32) {
        self.launches += u64::from(!self.recording);
    }

    fn begin_graph(&mut self) {
        self.recording = true;
    }

    fn end_graph(&mut self) -> Option<()> {
        self.recording = false;
        Some(())
    }

    fn replay(&mut self, (): &()) {
        self.replays += 1;
    }

    fn mark(&mut self, _: Mark) {}

    fn wait(&mut self, _: Mark) -> Result<(), Fault> {
        Ok(())
    }

    fn elapsed_us(&mut self, _: Mark, _: Mark) -> u64 {
        0
    }

    fn synchronize(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}
