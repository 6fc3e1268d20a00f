//! A step's work as plain data: recorded while ops are called, then queued as a whole.
//!
//! Why recorded: what a step needs from the host goes up in one copy before anything runs, and a
//! step that is, launch by launch and byte by byte, one seen before is replayed as a graph. So
//! graphs need no word in the ops or in the model: what varies from step to step lies in the
//! step's payload, at the same addresses each time.

use bytemuck::Pod;

use crate::gpu::{Address, Gpu, Kernel, Product, Shape};

/// One piece of queued work.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    /// Its arguments end at `args` in the record's bytes; they begin where the one before ends.
    Launch {
        kernel: Kernel,
        shape: Shape,
        args: usize,
    },
    Multiply {
        product: Product,
        x: Address,
        w: Address,
        out: Address,
        scale: f32,
    },
    Fill {
        at: Address,
        bytes: usize,
        value: u8,
    },
}

/// Work in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    work: Vec<Work>,
    args: Vec<u8>,
}

impl Record {
    /// Forgets the work, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.work.clear();
        self.args.clear();
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// A kernel over a grid; nothing when the grid is empty.
    pub(crate) fn launch<A: Pod>(&mut self, kernel: Kernel, shape: Shape, args: &A) {
        if shape.grid.contains(&0) {
            return;
        }
        self.args.extend_from_slice(bytemuck::bytes_of(args));
        self.work.push(Work::Launch { kernel, shape, args: self.args.len() });
    }

    /// A product of the vendor's library.
    pub(crate) fn multiply(&mut self, product: Product, [x, w, out]: [Address; 3], scale: f32) {
        self.work.push(Work::Multiply { product, x, w, out, scale });
    }

    /// Sets bytes.
    pub(crate) fn fill(&mut self, at: Address, bytes: usize, value: u8) {
        self.work.push(Work::Fill { at, bytes, value });
    }

    /// Queues everything.
    pub(crate) fn queue(&self, gpu: &mut impl Gpu) {
        let mut from = 0;
        for work in &self.work {
            match *work {
                Work::Launch { kernel, ref shape, args } => {
                    gpu.launch(kernel, shape, &self.args[from..args]);
                    from = args;
                }
                Work::Multiply { product, x, w, out, scale } => {
                    gpu.multiply(product, x, w, out, scale);
                }
                Work::Fill { at, bytes, value } => gpu.fill(at, bytes, value),
            }
        }
    }
}

/// Graphs kept at most: more shapes of a step than any mix of buckets has.
const GRAPHS_MAX: usize = 96;
/// A step is worth a graph when it comes again.
const SEEN_FOR_GRAPH: u32 = 2;

/// Steps that were seen, and their graphs.
pub(crate) struct Graphs<G: Gpu> {
    seen: Vec<Seen<G>>,
    clock: u64,
    enabled: bool,
}

struct Seen<G: Gpu> {
    record: Record,
    times: u32,
    used: u64,
    /// `Some(None)`: the device could not make one.
    graph: Option<Option<G::Graph>>,
}

impl<G: Gpu> Graphs<G> {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { seen: Vec::new(), clock: 0, enabled }
    }

    /// Queues the record: as a graph when there is one. A graph is made behind work that is
    /// queued already, so the device is busy meanwhile.
    pub(crate) fn queue(&mut self, gpu: &mut G, record: &Record) {
        if !self.enabled {
            return record.queue(gpu);
        }
        self.clock += 1;
        let found = self.seen.iter_mut().find(|seen| seen.record == *record);
        let Some(seen) = found else {
            self.remember(record);
            return record.queue(gpu);
        };
        (seen.times, seen.used) = (seen.times + 1, self.clock);
        if let Some(Some(graph)) = &seen.graph {
            return gpu.replay(graph);
        }
        record.queue(gpu);
        if seen.graph.is_none() && seen.times >= SEEN_FOR_GRAPH {
            gpu.begin_graph();
            record.queue(gpu);
            seen.graph = Some(gpu.end_graph());
        }
    }

    /// Graphs that exist.
    pub(crate) fn len(&self) -> usize {
        self.seen.iter().filter(|seen| matches!(seen.graph, Some(Some(_)))).count()
    }

    /// The least recently used makes room.
    fn remember(&mut self, record: &Record) {
        if self.seen.len() == GRAPHS_MAX {
            let oldest = (0..GRAPHS_MAX).min_by_key(|&i| self.seen[i].used).expect("some");
            self.seen.swap_remove(oldest);
        }
        let (times, used) = (1, self.clock);
        self.seen.push(Seen { record: record.clone(), times, used, graph: None });
    }
}
