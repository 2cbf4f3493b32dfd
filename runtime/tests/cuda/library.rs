//! The kernels as host code: built by the C++ compiler, loaded, and run with guard zones around everything they see.
#![allow(unsafe_code, reason = "code from outside of Rust, whose types are checked before it runs")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use libloading::Library;
use sixpack_runtime::cuda::{HEADERS, SOURCES};

use super::buffer::Buffer;

/// An argument of a kernel.
#[derive(Clone, Debug)]
pub(crate) enum Arg<'a> {
    /// Memory that the kernel reads.
    In(&'a Buffer),
    /// Memory that it writes.
    Out(Buffer),
    /// No memory.
    Null,
    /// A number of things.
    Int(usize),
    /// A factor.
    Float(f32),
}

type Signature = unsafe extern "C" fn(*const c_char) -> *const c_char;
type Launch = unsafe extern "C" fn(*const c_char, *const u32, u32, *mut *mut c_void, u64, *mut c_char, usize) -> c_int;

/// The kernels, loaded.
pub(crate) struct Kernels {
    signature: Signature,
    launch: Launch,
    /// What it plays a GPU with is there once.
    turn: Mutex<()>,
    /// Holds the code of the functions above.
    _library: Library,
}

/// Why there are no kernels.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This machine has no C++ compiler.
    NoCompiler(String),
    /// The compiler's or the loader's message.
    Broken(String),
}

impl Kernels {
    /// Builds and loads them.
    pub(crate) fn build() -> Result<Self, Failure> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
        // A folder of this process: another one may run the same test.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda_host.{}", std::process::id()));
        let broken = |e: &dyn std::fmt::Display| Failure::Broken(e.to_string());
        std::fs::create_dir_all(&folder).map_err(|e| broken(&e))?;
        let (glue, library) = (folder.join("kernels.cpp"), folder.join("libkernels.so"));
        std::fs::write(&glue, self::glue()).map_err(|e| broken(&e))?;
        let host = sources.join("host");
        let mut command = Command::new(&compiler);
        command.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]);
        command.arg("-I").arg(&sources).arg("-I").arg(&host);
        command.arg(&glue).args(["fibers.cpp", "launch.cpp", "shared.cpp"].map(|file| host.join(file)));
        let built = command.arg("-o").arg(&library).output();
        let built = built.map_err(|e| Failure::NoCompiler(format!("`{compiler}`: {e}")))?;
        let messages = String::from_utf8_lossy(&built.stderr).into_owned();
        if !built.status.success() || messages.contains("warning:") {
            return Err(Failure::Broken(messages));
        }
        let loaded = Self::load(&library);
        // What is loaded stays so without its file.
        std::fs::remove_dir_all(&folder).map_err(|e| broken(&e))?;
        loaded.map_err(|e| broken(&e))
    }

    fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library was just built from this project's sources; its initialisers only fill a table.
        let library = unsafe { Library::new(path) }?;
        // SAFETY: the types are those of `launch.cpp`, and the library lives as long as the pointers.
        let (signature, launch) = unsafe {
            (*library.get::<Signature>(b"sixpack_signature\0")?, *library.get::<Launch>(b"sixpack_launch\0")?)
        };
        Ok(Self { signature, launch, turn: Mutex::new(()), _library: library })
    }

    /// The types of a kernel's arguments.
    pub(crate) fn signature(&self, kernel: &str) -> Option<String> {
        let name = CString::new(kernel).unwrap();
        // SAFETY: a text that ends in zero.
        let found = unsafe { (self.signature)(name.as_ptr()) };
        // SAFETY: a text that ends in zero and lives as long as the library.
        (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
    }

    /// Runs `blocks` of `threads` of a kernel, in the order of `seed`: what it wrote, in the order of the arguments.
    pub(crate) fn launch(
        &self,
        kernel: &str,
        blocks: [usize; 3],
        threads: u32,
        seed: u64,
        args: &[Arg<'_>],
    ) -> Result<Vec<Buffer>, String> {
        let signature = self.signature(kernel).ok_or_else(|| format!("there is no kernel {kernel}"))?;
        let wanted: Vec<&str> = signature.split(", ").collect();
        if args.len() != wanted.len() || !args.iter().zip(&wanted).all(|(arg, wanted)| fits(arg, wanted)) {
            return Err(format!("{kernel} takes ({signature}), found {args:?}"));
        }
        let mut args = args.to_vec();
        let mut slots: Vec<u64> = args.iter_mut().map(slot).collect();
        let mut pointers: Vec<*mut c_void> = slots.iter_mut().map(|s| std::ptr::from_mut(s).cast()).collect();
        let (name, mut message) = (CString::new(kernel).unwrap(), [0_u8; 512]);
        let code = {
            let _turn = self.turn.lock().unwrap();
            let blocks = blocks.map(|n| u32::try_from(n).unwrap());
            // SAFETY: the kernel is there and its arguments have the types it takes; memory behind them lives longer
            // than the call, and has guard zones for the mistakes that kernels under test make. One call at a time.
            unsafe {
                let message = message.as_mut_ptr().cast();
                (self.launch)(name.as_ptr(), blocks.as_ptr(), threads, pointers.as_mut_ptr(), seed, message, 512)
            }
        };
        if code != 0 {
            return Err(CStr::from_bytes_until_nul(&message).unwrap().to_string_lossy().into_owned());
        }
        let written = |arg: &Arg<'_>| matches!(arg, Arg::Out(b) if !b.is_guarded());
        if let Some(argument) = args.iter().position(written) {
            return Err(format!("{kernel} wrote outside of its argument {argument}"));
        }
        Ok(args.into_iter().filter_map(|arg| if let Arg::Out(buffer) = arg { Some(buffer) } else { None }).collect())
    }
}

/// Whether an argument is of the type that C++ has.
fn fits(arg: &Arg<'_>, wanted: &str) -> bool {
    match arg {
        Arg::In(buffer) => wanted == format!("const {} *", buffer.kind()),
        Arg::Out(buffer) => wanted == format!("{} *", buffer.kind()),
        Arg::Null => wanted.ends_with('*'),
        Arg::Int(_) => wanted == "int",
        Arg::Float(_) => wanted == "float",
    }
}

/// The bytes of an argument.
fn slot(arg: &mut Arg<'_>) -> u64 {
    let four = |bytes: [u8; 4]| u64::from_ne_bytes([bytes, [0; 4]].concat().try_into().unwrap());
    match arg {
        Arg::In(buffer) => buffer.start() as u64,
        Arg::Out(buffer) => buffer.start_mut() as u64,
        Arg::Null => 0,
        Arg::Int(n) => four(i32::try_from(*n).unwrap().to_ne_bytes()),
        Arg::Float(x) => four(x.to_ne_bytes()),
    }
}

/// A C++ file with all kernels, each of their files in a namespace of its own, and those that are wrong on purpose.
fn glue() -> String {
    let mut text = String::from("#include \"cuda.hpp\"\n#include \"launch.hpp\"\n");
    HEADERS.iter().for_each(|(name, _)| writeln!(text, "#include \"{name}\"").unwrap());
    let mistakes: Vec<&str> = super::mistakes::NAMES.to_vec();
    let files = SOURCES.iter().map(|s| (s.name.to_owned(), s.kernels.to_vec()));
    for (file, kernels) in files.chain([("host/mistakes".to_owned(), mistakes)]) {
        writeln!(text, "namespace file_{} {{\n#include \"{file}.cu\"", file.replace('/', "_")).unwrap();
        for (i, kernel) in kernels.iter().enumerate() {
            writeln!(text, "KERNEL(kernel_{i}, {kernel});").unwrap();
        }
        text.push_str("}\n");
    }
    text
}
