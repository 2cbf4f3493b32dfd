//! The driver that computes on the processor, for what no GPU's has.
#![allow(unsafe_code, reason = "code from outside of Rust")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::sync::Mutex;

use libloading::Library;

type Signature = unsafe extern "C" fn(*const c_char) -> *const c_char;
type Misuse = unsafe extern "C" fn(*const c_char, c_int) -> *const c_char;
type Run = unsafe extern "C" fn(*const c_char, u32, u32, u64, *mut f32, *mut c_char, usize) -> c_int;

/// The driver's library.
pub(crate) struct Kernels {
    signature: Signature,
    run: Run,
    misuse: Misuse,
    /// What it plays a GPU with is there once.
    turn: Mutex<()>,
    /// Holds the code of the functions above.
    _library: Library,
}

impl Kernels {
    /// Loads what was built for this process.
    pub(crate) fn load(folder: &Path) -> Self {
        // SAFETY: the library was just built from this project's sources; its initialisers only fill a table.
        let library = unsafe { Library::new(folder.join("libcuda.so.1")) }.unwrap();
        // SAFETY: the types are those of `launch.cpp` and `misuse.cpp`, and the library lives as long as the pointers.
        let (signature, run, misuse) = unsafe {
            (
                *library.get::<Signature>(b"sixpack_signature\0").unwrap(),
                *library.get::<Run>(b"sixpack_run\0").unwrap(),
                *library.get::<Misuse>(b"sixpack_misuse\0").unwrap(),
            )
        };
        Self { signature, run, misuse, turn: Mutex::new(()), _library: library }
    }

    /// The types of a kernel's arguments, as the C++ compiler has them.
    pub(crate) fn signature(&self, kernel: &str) -> Option<String> {
        let name = CString::new(kernel).unwrap();
        // SAFETY: a text that ends in zero.
        let found = unsafe { (self.signature)(name.as_ptr()) };
        // SAFETY: a text that ends in zero and lives as long as the library.
        (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
    }

    /// Makes a mistake with streams on a device, which is of no use afterwards; what the driver found, if it did.
    pub(crate) fn misuse(&self, mistake: &str, device: i32) -> String {
        let name = CString::new(mistake).unwrap();
        // SAFETY: a text that ends in zero, before and after.
        unsafe { CStr::from_ptr((self.misuse)(name.as_ptr(), device)) }.to_string_lossy().into_owned()
    }

    /// Runs blocks of a kernel that only writes, a number for each thread; between two zones that it must leave.
    pub(crate) fn run(&self, kernel: &str, blocks: u32, threads: u32, seed: u64) -> Result<Vec<f32>, String> {
        const ZONE: usize = 64;
        assert_eq!(self.signature(kernel).as_deref(), Some("float *"), "{kernel}");
        let len = (blocks * threads) as usize;
        let mut memory = vec![f32::NAN; len + 2 * ZONE];
        let (name, mut message) = (CString::new(kernel).unwrap(), [0_u8; 512]);
        let code = {
            let _turn = self.turn.lock().unwrap();
            // SAFETY: the kernel takes one pointer; memory behind it has zones for the mistakes that kernels under test
            // make. One call at a time.
            unsafe {
                let to = memory.as_mut_ptr().add(ZONE);
                (self.run)(name.as_ptr(), blocks, threads, seed, to, message.as_mut_ptr().cast(), 512)
            }
        };
        if code != 0 {
            return Err(CStr::from_bytes_until_nul(&message).unwrap().to_string_lossy().into_owned());
        }
        let zones = memory[..ZONE].iter().chain(&memory[ZONE + len..]);
        if !zones.into_iter().all(|x| x.to_bits() == f32::NAN.to_bits()) {
            return Err(format!("{kernel} wrote outside of its memory"));
        }
        Ok(memory[ZONE..ZONE + len].to_vec())
    }
}
