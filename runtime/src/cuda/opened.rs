//! Opening libraries and asking for their versions.
#![allow(unsafe_code, reason = "code of libraries runs when they are opened and asked")]

use std::ffi::c_int;
use std::path::Path;

use libloading::{Library, Symbol};

/// A library that is open.
#[derive(Debug)]
pub(super) struct Opened(Library);

/// Opens a library.
///
/// # Errors
/// The loader's message.
pub(super) fn open(path: &Path) -> Result<Opened, String> {
    // SAFETY: these are NVIDIA's libraries by their names, or what the user named; their initialisers have no demands.
    unsafe { Library::new(path) }.map(Opened).map_err(|e| e.to_string())
}

impl Opened {
    /// Its version, as the library `what` tells it.
    ///
    /// # Errors
    /// A library that is another one, or that fails.
    pub(super) fn version(&self, what: &str) -> Result<String, String> {
        let text = |e: libloading::Error| e.to_string();
        match what {
            "the driver" => {
                // SAFETY: `CUresult cuDriverGetVersion(int *)`, which needs no initialisation.
                let ask: Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int> =
                    unsafe { self.0.get(b"cuDriverGetVersion\0") }.map_err(text)?;
                let mut version = 0;
                // SAFETY: a valid place to write to.
                let code = unsafe { ask(&raw mut version) };
                if code != 0 {
                    return Err(format!("cuDriverGetVersion failed with code {code}"));
                }
                Ok(format!("for CUDA {}.{}", version / 1000, version % 1000 / 10))
            }
            "NVRTC" => {
                // SAFETY: `nvrtcResult nvrtcVersion(int *, int *)`.
                let ask: Symbol<'_, unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
                    unsafe { self.0.get(b"nvrtcVersion\0") }.map_err(text)?;
                let (mut major, mut minor) = (0, 0);
                // SAFETY: valid places to write to.
                let code = unsafe { ask(&raw mut major, &raw mut minor) };
                if code != 0 {
                    return Err(format!("nvrtcVersion failed with code {code}"));
                }
                Ok(format!("{major}.{minor}"))
            }
            "NCCL" => {
                // SAFETY: `ncclResult_t ncclGetVersion(int *)`.
                let ask: Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int> =
                    unsafe { self.0.get(b"ncclGetVersion\0") }.map_err(text)?;
                let mut version = 0;
                // SAFETY: a valid place to write to.
                let code = unsafe { ask(&raw mut version) };
                if code != 0 {
                    return Err(format!("ncclGetVersion failed with code {code}"));
                }
                Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
            }
            _ => {
                // SAFETY: `size_t cublasLtGetVersion(void)`.
                let ask: Symbol<'_, unsafe extern "C" fn() -> usize> =
                    unsafe { self.0.get(b"cublasLtGetVersion\0") }.map_err(text)?;
                // SAFETY: it has no arguments.
                Ok(cublaslt_version(unsafe { ask() }))
            }
        }
    }

    /// Keeps it open for as long as the program runs.
    pub(super) fn keep(self) -> &'static Library {
        Box::leak(Box::new(self.0))
    }
}

/// A version of cuBLASLt's, as it is told.
pub(super) fn cublaslt_version(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}
