//! CUDA for the processor: a driver with the kernels in it and a compiler that has nothing to do, built by the C++
//! compiler, in a folder in which the program finds them as it finds NVIDIA's.
#![allow(unsafe_code, reason = "code from outside of Rust")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use libloading::Library;
use sixpack_runtime::cuda::{HEADERS, SOURCES};

/// Why there is no such folder.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This machine has no C++ compiler.
    NoCompiler(String),
    /// The compiler's or the loader's message.
    Broken(String),
}

/// Builds both libraries in `folder`. `mistakes` are kernels of `host/mistakes.cu` to be in it too.
pub(crate) fn build(folder: &Path, mistakes: &[&'static str]) -> Result<(), Failure> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda");
    let broken = |e: std::io::Error| Failure::Broken(e.to_string());
    std::fs::create_dir_all(folder).map_err(broken)?;
    let glue = folder.join("kernels.cpp");
    std::fs::write(&glue, self::glue(mistakes)).map_err(broken)?;
    let host = |file: &str| sources.join("host").join(file);
    let driver = ["fibers.cpp", "launch.cpp", "shared.cpp", "driver.cpp"].map(host);
    compile(&sources, &[&[glue], &driver[..]].concat(), folder, "libcuda.so.1")?;
    compile(&sources, &[host("compiler.cpp")], folder, "libnvrtc.so.12")
}

fn compile(sources: &Path, files: &[PathBuf], folder: &Path, name: &str) -> Result<(), Failure> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]);
    command.arg(format!("-Wl,-soname,{name}")).arg("-I").arg(sources).arg("-I").arg(sources.join("host"));
    let built = command.args(files).arg("-o").arg(folder.join(name)).output();
    let built = built.map_err(|e| Failure::NoCompiler(format!("`{compiler}`: {e}")))?;
    let messages = String::from_utf8_lossy(&built.stderr).into_owned();
    match built.status.success() && !messages.contains("warning:") {
        true => Ok(()),
        false => Err(Failure::Broken(messages)),
    }
}

/// A C++ file with all kernels, each of their files in a namespace of its own, and those that are wrong on purpose.
fn glue(mistakes: &[&'static str]) -> String {
    let mut text = String::from("#include \"cuda.hpp\"\n#include \"launch.hpp\"\n");
    HEADERS.iter().for_each(|(name, _)| writeln!(text, "#include \"{name}\"").unwrap());
    let files = SOURCES.iter().map(|s| (s.name.to_owned(), s.kernels.to_vec()));
    for (file, kernels) in files.chain([("host/mistakes".to_owned(), mistakes.to_vec())]) {
        writeln!(text, "namespace file_{} {{\n#include \"{file}.cu\"", file.replace('/', "_")).unwrap();
        for (i, kernel) in kernels.iter().enumerate() {
            writeln!(text, "KERNEL(kernel_{i}, {kernel});").unwrap();
        }
        text.push_str("}\n");
    }
    text
}

type Signature = unsafe extern "C" fn(*const c_char) -> *const c_char;
type Run = unsafe extern "C" fn(*const c_char, u32, u32, u64, *mut f32, *mut c_char, usize) -> c_int;

/// The driver's library, for what no GPU's has.
pub(crate) struct Kernels {
    signature: Signature,
    run: Run,
    /// What it plays a GPU with is there once.
    turn: Mutex<()>,
    /// Holds the code of the functions above.
    _library: Library,
}

impl Kernels {
    /// Loads what [`build`] made.
    pub(crate) fn load(folder: &Path) -> Self {
        // SAFETY: the library was just built from this project's sources; its initialisers only fill a table.
        let library = unsafe { Library::new(folder.join("libcuda.so.1")) }.unwrap();
        // SAFETY: the types are those of `launch.cpp`, and the library lives as long as the pointers.
        let (signature, run) = unsafe {
            (*library.get::<Signature>(b"sixpack_signature\0").unwrap(), *library.get::<Run>(b"sixpack_run\0").unwrap())
        };
        Self { signature, run, turn: Mutex::new(()), _library: library }
    }

    /// The types of a kernel's arguments, as the C++ compiler has them.
    pub(crate) fn signature(&self, kernel: &str) -> Option<String> {
        let name = CString::new(kernel).unwrap();
        // SAFETY: a text that ends in zero.
        let found = unsafe { (self.signature)(name.as_ptr()) };
        // SAFETY: a text that ends in zero and lives as long as the library.
        (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
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
