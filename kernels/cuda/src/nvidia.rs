//! [`Gpu`] on a card: contexts, memory, kernels and graphs of NVIDIA's driver.
//!
//! Why the driver's own calls and not a layer above: one thread queues everything on one stream,
//! so no lock, no reference count and no event stands between a call and the driver. After the
//! first error the device takes nothing more; the error is kept and every wait returns it. Must
//! not know ops or models.

mod driver;
mod graph;
mod products;
mod queue;
mod trail;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::thread::ThreadId;

use cudarc::driver::result::{self, DriverError, ctx, device, event, module, primary_ctx, stream};
use cudarc::driver::sys::{
    CUcontext, CUdevice, CUevent, CUevent_flags, CUfunction, CUfunction_attribute as Attribute,
    CUgraphExec, CUmodule, CUresult, CUstream,
};
use kernels::{Error, Fault};

use crate::cubins::{self, Cubin, Origin};
use crate::gpu::{Address, Gpu, Kernel, KernelName, MARKS, Pinned, Properties};
use driver::Driver;
pub use graph::Graph;
use graph::{Recording, Retired};
use products::Products;
use trail::Trail;

/// There is no GPU to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The driver is not installed.
    #[error("no NVIDIA driver: libcuda.so.1 not found")]
    NoDriver,
    /// The driver is older than the kernels need.
    #[error("the NVIDIA driver supports CUDA {driver}; {needed} or newer is needed")]
    TooOld {
        /// The CUDA version that it supports.
        driver: String,
        /// The least that works.
        needed: String,
    },
    /// The driver works but has no device, or none is visible to this process.
    #[error("the NVIDIA driver finds no GPU")]
    NoDevice,
    /// The driver refused.
    #[error("NVIDIA driver: {0}")]
    Driver(String),
}

/// What devices there are, in the driver's order.
///
/// # Errors
/// No driver, or no device.
pub fn devices() -> Result<Vec<Properties>, OpenError> {
    let driver = Driver::start()?;
    (0..driver.count()?).map(|ordinal| driver.properties(find(&driver, ordinal)?)).collect()
}

fn find(driver: &Driver, ordinal: u32) -> Result<CUdevice, OpenError> {
    let count = driver.count()?;
    if ordinal >= count {
        return Err(OpenError::Driver(format!("there is no GPU {ordinal}: there are {count}")));
    }
    device::get(ordinal.cast_signed()).map_err(|e| OpenError::Driver(driver.text(e)))
}

/// A loaded kernel.
struct Loaded {
    name: KernelName,
    function: CUfunction,
    args_bytes: usize,
}

/// A card, with everything that was claimed on it. Dropping it waits for the queue and gives
/// everything back.
///
/// A product should be queued once before it is recorded in a graph: the library may load its
/// code at the first call.
pub struct Nvidia {
    driver: Driver,
    properties: Properties,
    device: CUdevice,
    context: CUcontext,
    /// The thread to which the context is bound.
    bound: Cell<Option<ThreadId>>,
    stream: CUstream,
    marks: Vec<CUevent>,
    /// Claims by address, with their sizes in bytes.
    claims: BTreeMap<Address, usize>,
    pinned: Vec<*mut c_void>,
    modules: HashMap<&'static str, CUmodule>,
    origins: Vec<(&'static str, Origin)>,
    kernels: Vec<Loaded>,
    products: Result<Products, String>,
    /// By number, with how many things each queues.
    graphs: HashMap<u64, (CUgraphExec, usize)>,
    retired: Retired,
    recording: Recording,
    trail: Trail,
    fault: Option<String>,
}

// SAFETY: the driver's handles may be used from any thread to which the context is bound, and
// every call binds it first. `&Nvidia` is never shared: it is not `Sync`.
unsafe impl Send for Nvidia {}

impl Nvidia {
    /// Opens device `ordinal` and binds it to the calling thread.
    ///
    /// # Errors
    /// No driver, no such device, or the driver refuses.
    pub fn open(ordinal: u32) -> Result<Self, OpenError> {
        let driver = Driver::start()?;
        let device = find(&driver, ordinal)?;
        let properties = driver.properties(device)?;
        // SAFETY: the device came from the driver.
        let context = unsafe { primary_ctx::retain(device) }
            .map_err(|e| OpenError::Driver(driver.text(e)))?;
        // From here on dropping it gives back what it has so far.
        let mut opened = Self {
            driver,
            properties,
            device,
            context,
            bound: Cell::new(None),
            stream: std::ptr::null_mut(),
            marks: Vec::new(),
            claims: BTreeMap::new(),
            pinned: Vec::new(),
            modules: HashMap::new(),
            origins: Vec::new(),
            kernels: Vec::new(),
            products: Err("not asked for".into()),
            graphs: HashMap::new(),
            retired: Retired::default(),
            recording: Recording::No,
            trail: Trail::default(),
            fault: None,
        };
        opened.set_up().map_err(|e| OpenError::Driver(driver.text(e)))?;
        opened.open_products();
        Ok(opened)
    }

    fn set_up(&mut self) -> Result<(), DriverError> {
        // SAFETY: the context was retained and is released in `drop` only.
        unsafe { ctx::set_current(self.context) }?;
        self.bound.set(Some(std::thread::current().id()));
        // Beside other streams of the process, not behind them.
        self.stream = stream::create(stream::StreamKind::NonBlocking)?;
        for _ in 0..MARKS {
            // With times. Waiting spins: a sleeping thread is woken later than a token takes.
            self.marks.push(event::create(CUevent_flags::CU_EVENT_DEFAULT)?);
        }
        Ok(())
    }

    /// The workspace is claimed at once, before weights and cache take all there is.
    fn open_products(&mut self) {
        let capability = self.properties.capability;
        self.products = match self.claim("products", products::workspace_bytes(capability)) {
            Ok(workspace) => {
                let opened = Products::open(capability, workspace);
                if opened.is_err() {
                    self.release(workspace);
                }
                opened
            }
            Err(error) => Err(error.to_string()),
        };
    }

    /// Version of the vendor's library of products, or why it is not used.
    ///
    /// # Errors
    /// It is not found, or does not work with this driver.
    pub fn products(&self) -> Result<&str, &str> {
        match &self.products {
            Ok(products) => Ok(&products.version),
            Err(why) => Err(why),
        }
    }

    /// Where the kernels that were loaded came from, by file.
    pub fn origins(&self) -> &[(&'static str, Origin)] {
        &self.origins
    }

    /// Binds the context to the calling thread.
    fn bind(&self) -> Result<(), DriverError> {
        let here = std::thread::current().id();
        if self.bound.get() != Some(here) {
            // SAFETY: the context was retained and is released in `drop` only.
            unsafe { ctx::set_current(self.context) }?;
            self.bound.set(Some(here));
        }
        Ok(())
    }

    /// Keeps the first error, with what was done when it showed and what was queued before.
    fn fail(&mut self, error: &str, doing: &str) {
        if self.fault.is_none() {
            let text = format!("{error} while {doing}; queued last: {}", self.trail.text());
            self.fault = Some(text);
        }
    }

    /// `Err` once anything failed.
    fn whole(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), |text| Err(Fault::Lost(text)))
    }

    /// What setting up says when the device failed earlier, or fails now.
    fn refused(&mut self, error: DriverError, doing: &str) -> Error {
        let text = self.driver.text(error);
        self.fail(&text, doing);
        Error::Unsupported(format!("{text} while {doing}"))
    }

    /// Before setting up anything: the device works and records no graph.
    fn ready(&mut self, doing: &str) -> Result<(), Error> {
        assert!(matches!(self.recording, Recording::No), "{doing} while a graph is recorded");
        if let Some(text) = &self.fault {
            return Err(Error::Unsupported(text.clone()));
        }
        self.bind().map_err(|e| self.refused(e, doing))
    }

    fn load(&mut self, file: &'static str) -> Result<CUmodule, Error> {
        if let Some(module) = self.modules.get(file) {
            return Ok(*module);
        }
        let found = cubins::find(file, self.properties.capability)
            .map_err(|e| Error::Unsupported(e.to_string()))?;
        // The driver reads it as an ELF file in memory, 8-byte aligned.
        let mut image = vec![0u64; found.bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut image)[..found.bytes.len()].copy_from_slice(&found.bytes);
        // SAFETY: a whole ELF file: its origin was checked, or it was compiled just now.
        match unsafe { module::load_data(image.as_ptr().cast()) } {
            Ok(module) => {
                self.modules.insert(file, module);
                self.origins.push((file, found.origin));
                Ok(module)
            }
            Err(error) => {
                let (error, driver) = (self.driver.text(error), self.properties.driver);
                let Cubin { arch, nvrtc, .. } = found;
                Err(Error::Unsupported(format!(
                    "{error}: the driver, for CUDA {}, does not load {file} for {arch}, compiled \
                     by NVRTC {nvrtc}; NVRTC must not be of a later major version",
                    driver::dotted(driver)
                )))
            }
        }
    }

    /// Allows a kernel all of the device's shared memory that its own variables leave.
    fn allow_shared(&self, function: CUfunction) -> Result<(), DriverError> {
        use result::function::{get_function_attribute, set_function_attribute};
        // SAFETY: the function belongs to a loaded module.
        unsafe {
            let own =
                get_function_attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
            let left = self.properties.shared_bytes_max.cast_signed() - own;
            let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            set_function_attribute(function, which, left.max(0))
        }
    }

    fn find_kernel(&mut self, name: KernelName, args_bytes: usize) -> Result<Kernel, Error> {
        if let Some(at) = self.kernels.iter().position(|loaded| loaded.name == name) {
            assert_eq!(self.kernels[at].args_bytes, args_bytes, "{name:?}");
            return Ok(Kernel(at as u32));
        }
        self.ready("loading kernels")?;
        let module = self.load(name.file)?;
        let wrong = |why: String| Error::Unsupported(format!("{}:{}: {why}", name.file, name.name));
        let symbol = std::ffi::CString::new(name.name).expect("kernel names have no NUL");
        // SAFETY: the module was loaded and is unloaded in `drop` only.
        let function = unsafe { module::get_function(module, symbol) }
            .map_err(|e| wrong(self.driver.text(e)))?;
        // SAFETY: the function belongs to a loaded module.
        if let Some(takes) = unsafe { self.driver.parameter_bytes(function) }
            && takes != args_bytes
        {
            return Err(wrong(format!("takes {takes} bytes of arguments, not {args_bytes}")));
        }
        self.allow_shared(function).map_err(|e| self.refused(e, "loading kernels"))?;
        self.kernels.push(Loaded { name, function, args_bytes });
        Ok(Kernel((self.kernels.len() - 1) as u32))
    }

    fn claim_bytes(&mut self, what: &'static str, bytes: usize) -> Result<Address, Error> {
        self.ready("claiming memory")?;
        // The driver aligns to 256 bytes or more, and gives none for 0.
        // SAFETY: nothing else refers to what it gives.
        match unsafe { result::malloc_sync(bytes.max(1)) } {
            Ok(at) => {
                assert!(at.is_multiple_of(256), "the driver aligns to 256 bytes");
                self.claims.insert(at, bytes);
                Ok(at)
            }
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { what, wanted: bytes })
            }
            Err(error) => Err(self.refused(error, "claiming memory")),
        }
    }

    fn claim_pinned(&mut self, bytes: usize) -> Result<Pinned, Error> {
        self.ready("claiming host memory")?;
        // SAFETY: nothing else refers to what it gives.
        match unsafe { result::malloc_host(bytes.max(1), 0) } {
            Ok(at) => {
                self.pinned.push(at);
                let at = at.cast::<u8>();
                // SAFETY: `bytes` were given at `at`; zeroed, they can be read. They are given
                // back in `drop` only.
                Ok(unsafe {
                    at.write_bytes(0, bytes);
                    Pinned::new(at, bytes)
                })
            }
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { what: "pinned host memory", wanted: bytes })
            }
            Err(error) => Err(self.refused(error, "claiming host memory")),
        }
    }

    fn give_back(&mut self, at: Address) {
        assert!(matches!(self.recording, Recording::No), "release while a graph is recorded");
        assert!(self.claims.remove(&at).is_some(), "{at:#x} was not claimed");
        // SAFETY: the stream lives; what was queued is done with the memory after the first call,
        // or never runs. The claim was removed, so it is freed once.
        let freed = self.bind().and_then(|()| unsafe {
            let idle = stream::synchronize(self.stream);
            result::memory_free(at).and(idle)
        });
        if let Err(error) = freed {
            let text = self.driver.text(error);
            self.fail(&text, "giving memory back");
        }
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // Errors are left: after a fault every call fails, and releasing the context frees all.
        // SAFETY: each handle was made by the driver and is destroyed once, users before used.
        unsafe {
            let _ = self.bind();
            self.abandon_recording();
            if !self.stream.is_null() {
                let _ = stream::synchronize(self.stream);
            }
            for (_, (graph, _)) in self.graphs.drain() {
                let _ = result::graph::exec_destroy(graph);
            }
            self.products = Err("closed".into());
            for (_, module) in self.modules.drain() {
                let _ = module::unload(module);
            }
            for mark in self.marks.drain(..) {
                let _ = event::destroy(mark);
            }
            for (at, _) in std::mem::take(&mut self.claims) {
                let _ = result::memory_free(at);
            }
            for at in self.pinned.drain(..) {
                let _ = result::free_host(at);
            }
            if !self.stream.is_null() {
                let _ = stream::destroy(self.stream);
            }
            let _ = ctx::set_current(std::ptr::null_mut());
            let _ = primary_ctx::release(self.device);
        }
    }
}
