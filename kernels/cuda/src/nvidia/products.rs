//! Dense products on cuBLASLt, where that library is installed.
//!
//! Why this library and not cuBLAS: it takes the stream and the workspace with each call, so a
//! product can be recorded in a graph, and it multiplies 8-bit floats. It is asked once for each
//! shape and its first answer is kept. The answers are not raced against each other: the winner
//! would differ from one start to the next, and with it the last bits of what a model says.
//!
//! The library thinks in columns. A row-major `[r, c]` is its column-major `[c, r]`, so
//! `out = x * w^T` is computed as `out^T = (w^T)^T * x^T`: w is its first operand, transposed.

use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::catch_unwind;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as Attribute};
use cudarc::cublaslt::sys::{cublasComputeType_t, cublasLtMatmulPreferenceAttributes_t as Wish};
use cudarc::cublaslt::sys::{cublasLtMatrixLayout_t as Layout, cudaDataType_t as Type};

use crate::compile::search;
use crate::gpu::{Address, Element, Product, ProductShape};

/// Shapes remembered. A server asks for some row counts of some dozen matrices.
const SHAPES_MAX: usize = 1 << 16;

/// Addresses that the library is told to expect; more wins nothing, its widest load is this wide.
const ALIGNMENT: u32 = 16;

/// Every function of the library that is called.
const FUNCTIONS: &[&str] = &[
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtGetVersion",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];

/// The library, and what it answered.
pub(crate) struct Products {
    handle: sys::cublasLtHandle_t,
    /// `13.0.2`.
    pub(crate) version: String,
    capability: u32,
    workspace: Address,
    workspace_bytes: usize,
    made: Vec<Made>,
    known: HashMap<ProductShape, Option<Product>>,
}

/// One product, ready to be queued.
struct Made {
    shape: ProductShape,
    how: Descriptions,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// The library's descriptions of an operation and its matrices, destroyed together.
struct Descriptions {
    operation: sys::cublasLtMatmulDesc_t,
    w: Layout,
    x: Layout,
    out: Layout,
}

/// Bytes of workspace that a device's algorithms want at most.
pub(crate) fn workspace_bytes(capability: u32) -> usize {
    if capability == 90 { 64 << 20 } else { 32 << 20 }
}

impl Products {
    /// Opens the library for the current context. `workspace` has [`workspace_bytes`] for
    /// `capability` and stays the caller's; it must outlive `self`.
    ///
    /// # Errors
    /// Why there are no products.
    pub(crate) fn open(capability: u32, workspace: Address) -> Result<Self, String> {
        if !present() {
            return Err("cuBLASLt not found".into());
        }
        catch_unwind(|| Self::start(capability, workspace))
            .unwrap_or_else(|_| Err("cuBLASLt cannot be used".into()))
    }

    fn start(capability: u32, workspace: Address) -> Result<Self, String> {
        // SAFETY: the library was found present; only the presence of names is asked.
        let there = |name: &&&str| unsafe {
            sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()).is_err()
        };
        if let Some(missing) = FUNCTIONS.iter().find(there) {
            return Err(format!("cuBLASLt is too old: it lacks {missing}"));
        }
        // SAFETY: takes nothing.
        let version = unsafe { sys::cublasLtGetVersion() };
        // Major times 10000 plus minor times 100 plus patch.
        let version = format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
        let handle = lt::create_handle()
            .map_err(|error| format!("cuBLASLt {version} does not start: {error}"))?;
        Ok(Self {
            handle,
            version,
            capability,
            workspace,
            workspace_bytes: workspace_bytes(capability),
            made: Vec::new(),
            known: HashMap::new(),
        })
    }

    /// Asks for a product; the first answer is kept.
    pub(crate) fn ask(&mut self, shape: &ProductShape) -> Option<Product> {
        if let Some(answer) = self.known.get(shape) {
            return *answer;
        }
        if self.known.len() >= SHAPES_MAX {
            return None;
        }
        let answer = self.make(shape).map(|made| {
            self.made.push(made);
            Product(u32::try_from(self.made.len() - 1).expect("at most SHAPES_MAX"))
        });
        self.known.insert(*shape, answer);
        answer
    }

    fn make(&self, shape: &ProductShape) -> Option<Made> {
        if !computable(shape, self.capability) {
            return None;
        }
        let how = Descriptions::of(shape).ok()?;
        let wishes = Wishes::of(shape, self.workspace_bytes).ok()?;
        // SAFETY: everything was made just now and lives until after the call; beta is 0, so the
        // added matrix has the layout of the result.
        let answer = unsafe {
            lt::get_matmul_algo_heuristic(
                self.handle,
                how.operation,
                how.w,
                how.x,
                how.out,
                how.out,
                wishes.0,
            )
        };
        Some(Made { shape: *shape, how, algorithm: answer.ok()?.algo })
    }

    /// The shape of a product.
    pub(crate) fn shape(&self, product: Product) -> ProductShape {
        self.made[product.0 as usize].shape
    }

    /// Queues `out = scale * x * w^T`.
    ///
    /// # Errors
    /// The library's error.
    ///
    /// # Panics
    /// An address is aligned worse than the rows of its matrix are.
    ///
    /// # Safety
    /// The addresses hold matrices of the product's shape; the stream is of the context in which
    /// the library was opened.
    pub(crate) unsafe fn queue(
        &self,
        product: Product,
        (x, w, out): (Address, Address, Address),
        scale: f32,
        stream: sys::cudaStream_t,
    ) -> Result<(), String> {
        let Made { shape, how, algorithm } = &self.made[product.0 as usize];
        for (address, alignment) in [x, w, out].into_iter().zip(alignments(shape)) {
            assert!(address.is_multiple_of(u64::from(alignment)), "{address:#x} of {shape:?}");
        }
        let none = 0.0f32;
        // SAFETY: as the caller promises; the two scalars are read during the call.
        let queued = unsafe {
            lt::matmul(
                self.handle,
                how.operation,
                (&raw const scale).cast(),
                (&raw const none).cast(),
                w as *const c_void,
                how.w,
                x as *const c_void,
                how.x,
                out as *const c_void,
                how.out,
                out as *mut c_void,
                how.out,
                algorithm,
                self.workspace as *mut c_void,
                self.workspace_bytes,
                stream,
            )
        };
        queued.map_err(|error| error.to_string())
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        self.made.clear();
        // SAFETY: the handle is this value's own. An error leaves nothing to be done.
        let _ = unsafe { lt::destroy_handle(self.handle) };
    }
}

/// Finds the library, first where the loader looks, then where packages put it.
fn present() -> bool {
    // SAFETY: opening the library runs its constructors; it is NVIDIA's own.
    if unsafe { sys::is_culib_present() } {
        return true;
    }
    // Opened by path and kept open, it is found under its short name.
    search::open(&search::CUBLASLT).is_some_and(|found| {
        std::mem::forget(found);
        // SAFETY: as above.
        unsafe { sys::is_culib_present() }
    })
}

/// Whether the library has such products at all.
fn computable(shape: &ProductShape, capability: u32) -> bool {
    let ProductShape { rows, outputs, inputs, x_stride, out_stride, operands, out } = *shape;
    if rows == 0 || outputs == 0 || inputs == 0 || x_stride < inputs || out_stride < outputs {
        return false;
    }
    match operands {
        Element::F32 => out == Element::F32,
        Element::Bf16 => matches!(out, Element::Bf16 | Element::F32),
        Element::F16 => matches!(out, Element::F16 | Element::F32),
        // The library wants 16-byte rows and sides of its 8-bit operands.
        Element::F8 => {
            capability >= 89
                && out != Element::F8
                && [inputs, outputs, x_stride, out_stride].iter().all(|n| n.is_multiple_of(16))
        }
    }
}

/// Alignment of the first elements of x, w and out: as far as every row has it too, since a
/// matrix may begin at any row of a larger one.
fn alignments(shape: &ProductShape) -> [u32; 3] {
    let of = |stride: u32, element: Element| {
        let bytes = u64::from(stride) * bytes_of(element);
        (1 << bytes.trailing_zeros().min(ALIGNMENT.trailing_zeros())) as u32
    };
    [
        of(shape.x_stride, shape.operands),
        of(shape.inputs, shape.operands),
        of(shape.out_stride, shape.out),
    ]
}

fn bytes_of(element: Element) -> u64 {
    match element {
        Element::F32 => 4,
        Element::Bf16 | Element::F16 => 2,
        Element::F8 => 1,
    }
}

fn type_of(element: Element) -> Type {
    match element {
        Element::F32 => Type::CUDA_R_32F,
        Element::Bf16 => Type::CUDA_R_16BF,
        Element::F16 => Type::CUDA_R_16F,
        Element::F8 => Type::CUDA_R_8F_E4M3,
    }
}

impl Descriptions {
    fn of(shape: &ProductShape) -> Result<Self, lt::CublasError> {
        let mut made = Self {
            operation: std::ptr::null_mut(),
            w: std::ptr::null_mut(),
            x: std::ptr::null_mut(),
            out: std::ptr::null_mut(),
        };
        // Sums in f32, and f32 operands as they are: not rounded to TF32.
        let sums = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        made.operation = lt::create_matmul_desc(sums, Type::CUDA_R_32F)?;
        let transposed = 1i32;
        // SAFETY: the description was made just now; the attribute is an i32 (cublasOperation_t).
        unsafe {
            lt::set_matmul_desc_attribute(
                made.operation,
                Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of::<i32>(),
            )?;
        }
        // "Fast accumulation" of 8-bit floats stays off, as it is by default: it would keep sums
        // in fewer bits than f32 over the whole of a row.
        let of = |element, columns: u32, rows: u32, stride: u32| {
            let stride = i64::from(stride);
            lt::create_matrix_layout(type_of(element), columns.into(), rows.into(), stride)
        };
        made.w = of(shape.operands, shape.inputs, shape.outputs, shape.inputs)?;
        made.x = of(shape.operands, shape.inputs, shape.rows, shape.x_stride)?;
        made.out = of(shape.out, shape.outputs, shape.rows, shape.out_stride)?;
        Ok(made)
    }
}

impl Drop for Descriptions {
    fn drop(&mut self) {
        for layout in [self.w, self.x, self.out] {
            if !layout.is_null() {
                // SAFETY: made by the library, destroyed once. An error leaves nothing to be done.
                let _ = unsafe { lt::destroy_matrix_layout(layout) };
            }
        }
        if !self.operation.is_null() {
            // SAFETY: as above.
            let _ = unsafe { lt::destroy_matmul_desc(self.operation) };
        }
    }
}

/// What is asked of an algorithm.
struct Wishes(sys::cublasLtMatmulPreference_t);

impl Wishes {
    fn of(shape: &ProductShape, workspace_bytes: usize) -> Result<Self, lt::CublasError> {
        let wishes = Self(lt::create_matmul_pref()?);
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes as u64)?;
        // Sums over parts of a row are added in f32, never in the type of the result.
        let in_f32 = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, in_f32)?;
        let [x, w, out] = alignments(shape);
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, w)?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x)?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out)?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out)?;
        Ok(wishes)
    }

    fn set<T: Copy>(&self, wish: Wish, value: T) -> Result<(), lt::CublasError> {
        // SAFETY: the library copies `value`; a wrong size it refuses.
        unsafe {
            lt::set_matmul_pref_attribute(self.0, wish, (&raw const value).cast(), size_of::<T>())
        }
    }
}

impl Drop for Wishes {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once. An error leaves nothing to be done.
        let _ = unsafe { lt::destroy_matmul_pref(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(operands: Element, out: Element) -> ProductShape {
        ProductShape {
            rows: 3,
            outputs: 64,
            inputs: 32,
            x_stride: 32,
            out_stride: 64,
            operands,
            out,
        }
    }

    #[test]
    fn types_and_shapes() {
        let check = |shape, capability, expect| {
            assert_eq!(computable(&shape, capability), expect, "{shape:?} on {capability}");
        };
        use Element::{Bf16, F8, F16, F32};
        check(shape(Bf16, Bf16), 80, true);
        check(shape(Bf16, F32), 80, true);
        check(shape(Bf16, F16), 80, false);
        check(shape(F16, F16), 80, true);
        check(shape(F32, F32), 80, true);
        check(shape(F32, Bf16), 80, false);
        check(shape(F8, Bf16), 86, false);
        check(shape(F8, Bf16), 89, true);
        check(shape(F8, F8), 90, false);
        check(ProductShape { outputs: 60, ..shape(F8, F32) }, 90, false);
        check(ProductShape { inputs: 24, ..shape(F8, F32) }, 90, false);
        check(ProductShape { rows: 0, ..shape(Bf16, F32) }, 90, false);
        check(ProductShape { x_stride: 31, ..shape(Bf16, F32) }, 90, false);
    }

    #[test]
    fn rows_set_the_alignment() {
        let even = shape(Element::Bf16, Element::F32);
        assert_eq!(alignments(&even), [16, 16, 16]);
        let odd = ProductShape { x_stride: 33, out_stride: 65, ..even };
        assert_eq!(alignments(&odd), [2, 16, 4]);
    }
}
