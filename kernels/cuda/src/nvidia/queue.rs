//! The calls of [`Gpu`]: each checks its range, queues one thing and reports nothing.
//!
//! Why errors are only kept: a caller queues hundreds of kernels a step and waits once. An error
//! while a graph is recorded costs the graph only: nothing has run.

use cudarc::driver::result::{self, DriverError, event, graph as graphs, stream};
use kernels::{Error, Fault};

use super::graph::Recording;
use super::trail::Entry;
use super::{Graph, Nvidia};
use crate::gpu::{
    Address, Gpu, Kernel, KernelName, Mark, Pinned, Product, ProductShape, Properties, Shape,
};

impl Nvidia {
    /// Whether anything can be queued or recorded.
    fn takes(&mut self) -> bool {
        if self.fault.is_some() || matches!(self.recording, Recording::Failed { .. }) {
            return false;
        }
        match self.bind() {
            Ok(()) => true,
            Err(error) => {
                let text = self.driver.text(error);
                self.fail(&text, "binding the context");
                false
            }
        }
    }

    /// Notes what was queued, and how that went.
    fn queued(&mut self, entry: Entry, result: Result<(), DriverError>) {
        let result = result.map_err(|error| self.driver.text(error));
        self.noted(entry, result);
    }

    fn noted(&mut self, entry: Entry, result: Result<(), String>) {
        match result {
            Ok(()) => match &mut self.recording {
                Recording::Yes { count } => *count += 1,
                _ => self.trail.push(entry),
            },
            Err(_) if matches!(self.recording, Recording::Yes { .. }) => {
                self.recording = Recording::Failed { begun: true };
            }
            Err(text) => self.fail(&text, &format!("queueing {entry}")),
        }
    }

    /// What was waited for, or the first error.
    fn waited(&mut self, result: Result<(), DriverError>) -> Result<(), Fault> {
        if let Err(error) = result {
            let text = self.driver.text(error);
            self.fail(&text, "waiting");
        }
        self.whole()
    }
}

impl Gpu for Nvidia {
    type Graph = Graph;

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_bytes(&self) -> u64 {
        let free = self.bind().and_then(|()| result::mem_get_info());
        // A device that does not answer has nothing to give.
        free.map_or(0, |(free, _)| free as u64)
    }

    fn claim(&mut self, what: &'static str, bytes: usize) -> Result<Address, Error> {
        self.claim_bytes(what, bytes)
    }

    fn release(&mut self, at: Address) {
        self.give_back(at);
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned, Error> {
        self.claim_pinned(bytes)
    }

    fn kernel(&mut self, name: KernelName, args_bytes: usize) -> Result<Kernel, Error> {
        self.find_kernel(name, args_bytes)
    }

    fn product(&mut self, shape: &ProductShape) -> Option<Product> {
        if self.fault.is_some() || self.bind().is_err() {
            return None;
        }
        self.products.as_mut().ok()?.ask(shape)
    }

    fn upload(&mut self, from: &Pinned, at: usize, bytes: usize, to: Address) {
        let from = &from.bytes()[at..at + bytes];
        if bytes > 0 && self.takes() {
            // SAFETY: the caller leaves the pinned bytes alone until the copy has run, and names
            // device memory that it claimed.
            let done = unsafe { result::memcpy_htod_async(to, from, self.stream) };
            self.queued(Entry::Upload(bytes), done);
        }
    }

    fn download(&mut self, from: Address, bytes: usize, to: &mut Pinned, at: usize) {
        let to = &mut to.bytes_mut()[at..at + bytes];
        if bytes > 0 && self.takes() {
            // SAFETY: as in `upload`.
            let done = unsafe { result::memcpy_dtoh_async(to, from, self.stream) };
            self.queued(Entry::Download(bytes), done);
        }
    }

    fn copy(&mut self, from: Address, to: Address, bytes: usize) {
        if bytes > 0 && self.takes() {
            // SAFETY: the caller names device memory that it claimed.
            let done = unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) };
            self.queued(Entry::Copy(bytes), done);
        }
    }

    fn fill(&mut self, at: Address, bytes: usize, value: u8) {
        if bytes > 0 && self.takes() {
            // SAFETY: the caller names device memory that it claimed.
            let done = unsafe { result::memset_d8_async(at, value, bytes, self.stream) };
            self.queued(Entry::Fill(bytes), done);
        }
    }

    fn launch(&mut self, kernel: Kernel, shape: &Shape, args: &[u8]) {
        let loaded = &self.kernels[kernel.0 as usize];
        let (name, function) = (loaded.name, loaded.function);
        assert_eq!(args.len(), loaded.args_bytes, "arguments of {name:?}");
        if !self.takes() {
            return;
        }
        let [x, y, z] = shape.grid;
        let mut parameters = [args.as_ptr().cast_mut().cast()];
        // SAFETY: the function belongs to a loaded module and takes one parameter of this size,
        // which the driver copies during the call. Addresses in it are the caller's.
        let done = unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (shape.threads, 1, 1),
                shape.shared_bytes,
                self.stream,
                &mut parameters,
            )
        };
        self.queued(Entry::Launch(name), done);
    }

    fn multiply(&mut self, product: Product, x: Address, w: Address, out: Address, scale: f32) {
        if !self.takes() {
            return;
        }
        let Ok(products) = &self.products else { panic!("no product was given out") };
        let entry = Entry::Product(products.shape(product));
        let stream = self.stream.cast();
        // SAFETY: the stream and the library belong to the bound context; the caller names
        // matrices of the product's shape.
        let done = unsafe { products.queue(product, (x, w, out), scale, stream) };
        self.noted(entry, done);
    }

    fn begin_graph(&mut self) {
        self.begin_recording();
    }

    fn end_graph(&mut self) -> Option<Graph> {
        self.end_recording()
    }

    fn replay(&mut self, graph: &Graph) {
        assert!(self.recording == Recording::No, "graphs do not nest");
        let Some(&(ready, count)) = self.graphs.get(&graph.number) else {
            panic!("a graph of another device");
        };
        if self.takes() {
            // SAFETY: the graph is destroyed only once its owner is gone.
            let done = unsafe { graphs::launch(ready, self.stream) };
            self.queued(Entry::Graph(count), done);
        }
    }

    fn mark(&mut self, mark: Mark) {
        assert!(self.recording == Recording::No, "a graph has no marks");
        if self.takes() {
            // SAFETY: marks and the stream live as long as `self`.
            let done = unsafe { event::record(self.marks[mark.0], self.stream) };
            if let Err(error) = done {
                let text = self.driver.text(error);
                self.fail(&text, "marking");
            }
        }
    }

    fn wait(&mut self, mark: Mark) -> Result<(), Fault> {
        self.whole()?;
        // SAFETY: marks live as long as `self`.
        let done = self.bind().and_then(|()| unsafe { event::synchronize(self.marks[mark.0]) });
        self.waited(done)
    }

    fn elapsed_us(&mut self, from: Mark, to: Mark) -> u64 {
        if !self.takes() {
            return 0;
        }
        // SAFETY: marks live as long as `self`.
        let elapsed = unsafe { self.driver.elapsed_ms(self.marks[from.0], self.marks[to.0]) };
        match elapsed {
            Ok(milliseconds) => (f64::from(milliseconds) * 1e3).round() as u64,
            Err(text) => {
                self.fail(&text, "reading marks");
                0
            }
        }
    }

    fn synchronize(&mut self) -> Result<(), Fault> {
        self.whole()?;
        // SAFETY: the stream lives as long as `self`.
        let done = self.bind().and_then(|()| unsafe { stream::synchronize(self.stream) });
        self.waited(done)
    }
}
