//! The driver library: is it there, is it new enough, what devices are there, what went wrong.
//!
//! Why probes first: the binding opens the library and finds each function at its first call, and
//! panics where that fails. Here the library and every function used are looked for before any
//! call, so that a machine without a GPU gets one plain line. Must not know contexts or memory.

use std::ffi::{CStr, c_char};
use std::panic::catch_unwind;

use cudarc::driver::result::{self, DriverError, device};
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute, CUevent, CUfunction};

use super::OpenError;
use crate::gpu::Properties;

/// CUDA 12.0: the oldest driver that takes the cubins (made by a CUDA 12 compiler).
pub(crate) const DRIVER_MIN: u32 = 12000;

/// Every function of the driver that is called, as the library exports it.
const FUNCTIONS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

type Elapsed = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> u32;
type ParameterInfo = unsafe extern "C" fn(CUfunction, usize, *mut usize, *mut usize) -> u32;
type ErrorName = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// The library, initialized, and functions of it that its binding does not reach safely.
#[derive(Clone, Copy)]
pub(crate) struct Driver {
    /// Major times 1000 plus minor times ten.
    pub(crate) version: u32,
    elapsed: Elapsed,
    parameter_info: Option<ParameterInfo>,
    error_name: ErrorName,
}

impl Driver {
    /// Opens and initializes the library.
    ///
    /// # Errors
    /// There is none, it is too old, or it finds no device.
    pub(crate) fn start() -> Result<Self, OpenError> {
        // SAFETY: opening libcuda runs its constructors; it is the system's own.
        if !unsafe { sys::is_culib_present() } {
            return Err(OpenError::NoDriver);
        }
        // What the probes overlook comes as a panic of the binding: here it is a plain error.
        catch_unwind(Self::initialize)
            .unwrap_or_else(|_| Err(OpenError::Driver("libcuda.so.1 cannot be used".into())))
    }

    fn initialize() -> Result<Self, OpenError> {
        if function::<Elapsed>("cuDriverGetVersion").is_none() {
            return Err(OpenError::Driver("libcuda.so.1 is not the CUDA driver".into()));
        }
        let mut version = 0;
        // SAFETY: `version` outlives the call, which is allowed before initialization.
        let found = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
        let version = if found.is_ok() { version.unsigned_abs() } else { 0 };
        let missing = FUNCTIONS.iter().any(|name| function::<Elapsed>(name).is_none());
        if version < DRIVER_MIN || missing {
            return Err(OpenError::TooOld { driver: dotted(version), needed: dotted(DRIVER_MIN) });
        }
        let gone = || OpenError::Driver("libcuda.so.1 has no clock of events".into());
        // The binding calls the first name, which drivers have from 12.8 on; the second is the
        // same for events of one context and kept by all.
        let elapsed = function::<Elapsed>("cuEventElapsedTime_v2")
            .or_else(|| function::<Elapsed>("cuEventElapsedTime"))
            .ok_or_else(gone)?;
        let driver = Self {
            version,
            elapsed,
            // From 12.4 on.
            parameter_info: function("cuFuncGetParamInfo"),
            error_name: function("cuGetErrorName").ok_or_else(gone)?,
        };
        match result::init() {
            Ok(()) => Ok(driver),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => {
                Err(OpenError::NoDevice)
            }
            Err(error) => Err(OpenError::Driver(driver.text(error))),
        }
    }

    /// Devices there are: at least one.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn count(&self) -> Result<u32, OpenError> {
        let count = device::get_count().map_err(|e| OpenError::Driver(self.text(e)))?;
        match u32::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(OpenError::NoDevice),
        }
    }

    /// What a device is.
    ///
    /// # Errors
    /// The driver does not say.
    pub(crate) fn properties(&self, of: CUdevice) -> Result<Properties, OpenError> {
        self.ask(of).map_err(|e| OpenError::Driver(self.text(e)))
    }

    fn ask(&self, of: CUdevice) -> Result<Properties, DriverError> {
        use CUdevice_attribute as Attribute;
        let attribute = |which| {
            // SAFETY: `of` came from the driver.
            let value = unsafe { device::get_attribute(of, which) }?;
            Ok(value.unsigned_abs())
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Properties {
            name: device::get_name(of)?,
            capability: major * 10 + minor,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            // SAFETY: `of` came from the driver.
            memory_bytes: unsafe { device::total_mem(of) }? as u64,
            shared_bytes_max: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            driver: self.version,
        })
    }

    /// An error's name, `CUDA_ERROR_ILLEGAL_ADDRESS`. From the driver, since a newer one has
    /// errors that the binding has no name for.
    pub(crate) fn text(&self, error: DriverError) -> String {
        self.code_text(error.0 as u32)
    }

    fn code_text(&self, code: u32) -> String {
        let mut name = std::ptr::null();
        // SAFETY: `name` outlives the call.
        let found = unsafe { (self.error_name)(code, &raw mut name) };
        if found != 0 || name.is_null() {
            return format!("CUDA error {code}");
        }
        // SAFETY: the driver gives a text of its own that lives as long as the library.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    /// Milliseconds between two recorded events of the current context.
    ///
    /// # Errors
    /// The error's name.
    ///
    /// # Safety
    /// Both are events that were not destroyed.
    pub(crate) unsafe fn elapsed_ms(&self, from: CUevent, to: CUevent) -> Result<f32, String> {
        let mut milliseconds = 0.0;
        // SAFETY: as the caller promises.
        match unsafe { (self.elapsed)(&raw mut milliseconds, from, to) } {
            0 => Ok(milliseconds),
            code => Err(self.code_text(code)),
        }
    }

    /// Bytes of a kernel's only parameter; `None` where the driver cannot say.
    ///
    /// # Safety
    /// `kernel` belongs to a loaded module.
    pub(crate) unsafe fn parameter_bytes(&self, kernel: CUfunction) -> Option<usize> {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: as the caller promises; both places outlive the call.
        let code = unsafe { (self.parameter_info?)(kernel, 0, &raw mut offset, &raw mut bytes) };
        (code == 0).then_some(bytes)
    }
}

/// A function of the library by the name it exports.
fn function<F: Copy>(name: &str) -> Option<F> {
    // SAFETY: the library was found present. The caller names the type that the driver documents,
    // or only asks whether there is one.
    unsafe { sys::culib().get::<F>(name.as_bytes()).ok().map(|found| *found) }
}

/// 12080 as 12.8.
pub(crate) fn dotted(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
