//! The emulator with a library of dense products, computed by plain loops: what is asked of it and
//! what becomes of its results is tested without a card. It is as strict about alignment.

use kernels::{Error, Fault};

use crate::emulator::Emulator;
use crate::gpu::{
    Address, Element, Gpu, Kernel, KernelName, Mark, Pinned, Product, ProductShape, Properties,
    Shape,
};

use super::{Format, Group, numbers_of};

/// The emulator and the shapes that it was asked for.
pub(super) struct WithLibrary {
    gpu: Emulator,
    shapes: Vec<ProductShape>,
    /// What codes of e4m3fn stand for.
    f8: Vec<f32>,
    products: usize,
    f8_products: usize,
}

impl WithLibrary {
    pub(super) fn new(gpu: Emulator) -> Self {
        let block = |half: u8| -> Vec<u8> {
            1.0_f32.to_le_bytes().into_iter().chain((0..128).map(|code| code | half)).collect()
        };
        let half = |half| numbers_of(Format::F8E4M3(Group::G128), &block(half), 128);
        let f8 = [half(0), half(128)].concat();
        Self { gpu, shapes: Vec::new(), f8, products: 0, f8_products: 0 }
    }

    /// Products that were queued.
    pub(super) fn products(&self) -> usize {
        self.products
    }

    /// Those of e4m3.
    pub(super) fn f8_products(&self) -> usize {
        self.f8_products
    }

    /// Elements of a matrix in device memory, whose rows begin `stride` elements apart.
    fn rows(&self, at: Address, [rows, cols, stride]: [u32; 3], element: Element) -> Vec<Vec<f32>> {
        let bytes = bytes_of(element);
        let number = |i: usize| -> f32 {
            let at = (at as usize + i * bytes) as *const u8;
            // SAFETY: device memory of the emulator is the host's, aligned as `multiply` checked;
            // its queue is empty, so nobody writes.
            unsafe {
                match element {
                    Element::F32 => at.cast::<f32>().read(),
                    Element::Bf16 => at.cast::<half::bf16>().read().to_f32(),
                    Element::F16 => at.cast::<half::f16>().read().to_f32(),
                    Element::F8 => self.f8[usize::from(at.read())],
                }
            }
        };
        let row = |row| (0..cols).map(|c| number((row * stride + c) as usize)).collect();
        (0..rows).map(row).collect()
    }
}

fn bytes_of(element: Element) -> usize {
    match element {
        Element::F32 => 4,
        Element::Bf16 | Element::F16 => 2,
        Element::F8 => 1,
    }
}

impl Gpu for WithLibrary {
    type Graph = <Emulator as Gpu>::Graph;

    fn properties(&self) -> &Properties {
        self.gpu.properties()
    }

    fn free_bytes(&self) -> u64 {
        self.gpu.free_bytes()
    }

    fn claim(&mut self, what: &'static str, bytes: usize) -> Result<Address, Error> {
        self.gpu.claim(what, bytes)
    }

    fn release(&mut self, at: Address) {
        self.gpu.release(at);
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned, Error> {
        self.gpu.pinned(bytes)
    }

    fn kernel(&mut self, name: KernelName, args_bytes: usize) -> Result<Kernel, Error> {
        self.gpu.kernel(name, args_bytes)
    }

    fn product(&mut self, shape: &ProductShape) -> Option<Product> {
        let &ProductShape { outputs, inputs, x_stride, out_stride, operands, out, .. } = shape;
        let sixteens = [outputs, inputs, x_stride, out_stride].iter().all(|n| n % 16 == 0);
        let computable = match operands {
            Element::F8 => sixteens,
            Element::F32 => out == Element::F32,
            Element::Bf16 | Element::F16 => out == operands || out == Element::F32,
        };
        if !computable {
            return None;
        }
        self.shapes.push(*shape);
        Some(Product((self.shapes.len() - 1) as u32))
    }

    fn upload(&mut self, from: &Pinned, at: usize, bytes: usize, to: Address) {
        self.gpu.upload(from, at, bytes, to);
    }

    fn download(&mut self, from: Address, bytes: usize, to: &mut Pinned, at: usize) {
        self.gpu.download(from, bytes, to, at);
    }

    fn copy(&mut self, from: Address, to: Address, bytes: usize) {
        self.gpu.copy(from, to, bytes);
    }

    fn fill(&mut self, at: Address, bytes: usize, value: u8) {
        self.gpu.fill(at, bytes, value);
    }

    fn launch(&mut self, kernel: Kernel, shape: &Shape, args: &[u8]) {
        self.gpu.launch(kernel, shape, args);
    }

    fn multiply(&mut self, product: Product, x: Address, w: Address, out: Address, scale: f32) {
        let shape = self.shapes[product.0 as usize];
        let ProductShape { rows, outputs, inputs, x_stride, out_stride, .. } = shape;
        let of = [(x, x_stride, shape.operands), (w, inputs, shape.operands)];
        for (address, stride, element) in of.into_iter().chain([(out, out_stride, shape.out)]) {
            let row = stride as usize * bytes_of(element);
            let least = row.trailing_zeros().min(4);
            assert!(address.trailing_zeros() >= least, "{address:#x} of {shape:?}");
        }
        self.gpu.synchronize().expect("no fault");
        self.products += 1;
        self.f8_products += usize::from(shape.operands == Element::F8);
        let x = self.rows(x, [rows, inputs, x_stride], shape.operands);
        let w = self.rows(w, [outputs, inputs, inputs], shape.operands);
        for (r, x) in x.iter().enumerate() {
            for (o, w) in w.iter().enumerate() {
                let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let value = scale * sum as f32;
                let at = (r * out_stride as usize + o) * bytes_of(shape.out) + out as usize;
                // SAFETY: as in `rows`.
                unsafe {
                    match shape.out {
                        Element::F32 => (at as *mut f32).write(value),
                        Element::Bf16 => {
                            (at as *mut half::bf16).write(half::bf16::from_f32(value));
                        }
                        Element::F16 => (at as *mut half::f16).write(half::f16::from_f32(value)),
                        Element::F8 => unreachable!("results have 16 bits or more"),
                    }
                }
            }
        }
    }

    fn begin_graph(&mut self) {
        self.gpu.begin_graph();
    }

    fn end_graph(&mut self) -> Option<Self::Graph> {
        self.gpu.end_graph()
    }

    fn replay(&mut self, graph: &Self::Graph) {
        self.gpu.replay(graph);
    }

    fn mark(&mut self, mark: Mark) {
        self.gpu.mark(mark);
    }

    fn wait(&mut self, mark: Mark) -> Result<(), Fault> {
        self.gpu.wait(mark)
    }

    fn elapsed_us(&mut self, from: Mark, to: Mark) -> u64 {
        self.gpu.elapsed_us(from, to)
    }

    fn synchronize(&mut self) -> Result<(), Fault> {
        self.gpu.synchronize()
    }
}
