//! NVIDIA's runtime compiler, opened by path.
//!
//! Why the ten functions are bound here and not by a crate: a crate's binding picks the file by
//! short name, so that a variable could not name another, and it panics where a function is
//! missing. Numbers stay numbers: a newer library may return codes that an enum has no name for.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;

use super::search::{self, Found};

type Program = *mut c_void;
type Texts = *const *const c_char;

/// The library's functions.
struct Functions {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        Texts,
        Texts,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, Texts) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// An open compiler.
pub(crate) struct Nvrtc {
    functions: Functions,
    /// `12.8`.
    pub(crate) version: String,
    /// Where it was found.
    pub(crate) path: PathBuf,
    /// Architectures that it compiles for: 80, 90.
    pub(crate) archs: Vec<u32>,
    /// Stays open.
    _found: Found,
}

/// Text to compile, by name.
pub(crate) struct Unit<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

/// What comes of a compilation: the cubin, or nothing where the source is wrong; and the log.
pub(crate) struct Output {
    pub(crate) cubin: Option<Vec<u8>>,
    pub(crate) log: String,
}

impl Nvrtc {
    /// Every compiler that is found, best first.
    pub(crate) fn open_all() -> Vec<Self> {
        search::open_all(&search::NVRTC).into_iter().filter_map(Self::of).collect()
    }

    fn of(found: Found) -> Option<Self> {
        let library = &found.library;
        // SAFETY: the types are those that the library documents.
        unsafe {
            let functions = Functions {
                create: *library.get(b"nvrtcCreateProgram").ok()?,
                compile: *library.get(b"nvrtcCompileProgram").ok()?,
                destroy: *library.get(b"nvrtcDestroyProgram").ok()?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize").ok()?,
                cubin: *library.get(b"nvrtcGetCUBIN").ok()?,
                log_size: *library.get(b"nvrtcGetProgramLogSize").ok()?,
                log: *library.get(b"nvrtcGetProgramLog").ok()?,
                error: *library.get(b"nvrtcGetErrorString").ok()?,
            };
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
                *library.get(b"nvrtcVersion").ok()?;
            let count: unsafe extern "C" fn(*mut c_int) -> c_int =
                *library.get(b"nvrtcGetNumSupportedArchs").ok()?;
            let list: unsafe extern "C" fn(*mut c_int) -> c_int =
                *library.get(b"nvrtcGetSupportedArchs").ok()?;
            let (mut major, mut minor, mut archs) = (0, 0, 0);
            if version(&raw mut major, &raw mut minor) != 0 || count(&raw mut archs) != 0 {
                return None;
            }
            let mut supported = vec![0; usize::try_from(archs).ok()?];
            if list(supported.as_mut_ptr()) != 0 {
                return None;
            }
            Some(Self {
                functions,
                version: format!("{major}.{minor}"),
                path: found.path.clone(),
                archs: supported.into_iter().map(c_int::unsigned_abs).collect(),
                _found: found,
            })
        }
    }

    /// Whether it compiles for an architecture: `sm_90a`.
    pub(crate) fn supports(&self, arch: &str) -> bool {
        super::capability_of(arch).is_some_and(|number| self.archs.contains(&number))
    }

    /// Compiles. Any number of threads may.
    ///
    /// # Errors
    /// The library fails otherwise than over the source.
    pub(crate) fn compile(&self, unit: &Unit<'_>, options: &[&str]) -> Result<Output, String> {
        let text = |of: &str| CString::new(of).map_err(|_| format!("{}: a NUL byte", unit.name));
        let (source, name) = (text(unit.text)?, text(unit.name)?);
        let names = unit.headers.iter().map(|h| text(h.0)).collect::<Result<Vec<_>, _>>()?;
        let headers = unit.headers.iter().map(|h| text(h.1)).collect::<Result<Vec<_>, _>>()?;
        let options = options.iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (names, headers) = (pointers(&names), pointers(&headers));
        let mut program = std::ptr::null_mut();
        // SAFETY: all texts live to the end of this function, longer than the program.
        let created = unsafe {
            (self.functions.create)(
                &raw mut program,
                source.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                headers.as_ptr(),
                names.as_ptr(),
            )
        };
        self.good(created)?;
        let mut program = Owned { nvrtc: self, program };
        let options = pointers(&options);
        program.run(&options)
    }

    fn good(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library gives a text of its own for any number.
        let text = unsafe { CStr::from_ptr((self.functions.error)(code)) };
        Err(format!("NVRTC {}: {}", self.version, text.to_string_lossy()))
    }
}

/// A program, destroyed at the end.
struct Owned<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

/// The source is wrong: the log says how.
const ERROR_COMPILATION: c_int = 6;

impl Owned<'_> {
    fn run(&mut self, options: &[*const c_char]) -> Result<Output, String> {
        let f = &self.nvrtc.functions;
        // SAFETY: the program lives; the options are texts that outlive the call.
        let compiled =
            unsafe { (f.compile)(self.program, options.len() as c_int, options.as_ptr()) };
        if compiled != 0 && compiled != ERROR_COMPILATION {
            self.nvrtc.good(compiled)?;
        }
        let log = self.bytes(f.log_size, f.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        let cubin = match compiled {
            0 => Some(self.bytes(f.cubin_size, f.cubin)?),
            _ => None,
        };
        Ok(Output { cubin, log })
    }

    /// What a pair of functions gives: its size, then its bytes.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, String> {
        let mut count = 0;
        // SAFETY: the program lives; `count` outlives the call.
        self.nvrtc.good(unsafe { size(self.program, &raw mut count) })?;
        let mut bytes = vec![0u8; count];
        // SAFETY: the program lives; the library writes as many bytes as it said.
        self.nvrtc.good(unsafe { get(self.program, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: created by this library, destroyed once. An error leaves nothing to be done.
        let _ = unsafe { (self.nvrtc.functions.destroy)(&raw mut self.program) };
    }
}
