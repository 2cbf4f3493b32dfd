//! Kernels to code of a GPU, by NVRTC; needs no GPU.
#![allow(unsafe_code, reason = "NVRTC's functions take pointers")]

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

use cudarc::nvrtc::{result, sys};

use super::libraries::{self, Library, Places};
use super::sources::{HEADERS, Source};
use crate::{Error, Result};

/// NVRTC, opened.
#[derive(Clone, Debug)]
pub struct Compiler {
    library: Library,
}

/// Code for a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// A cubin.
    pub code: Vec<u8>,
    /// Names of the kernels in it, in the order of [`Source::kernels`].
    pub names: Vec<String>,
    /// What the assembler says: registers, spills, shared memory.
    pub log: String,
    /// What the assembler was given (PTX). Of kernels that were kept by an earlier run there is neither.
    pub assembly: String,
}

impl Compiler {
    /// Opens the NVRTC of the usual places; the first time decides for as long as the program runs.
    ///
    /// # Errors
    /// [`Error::Cuda`] where there is none.
    pub fn open() -> Result<Self> {
        static OPENED: OnceLock<Result<Library, String>> = OnceLock::new();
        let opened = OPENED.get_or_init(|| {
            let (library, opened) = libraries::nvrtc(&Places::usual())?;
            opened.keep();
            // SAFETY: it only asks whether the library is there, which cudarc finds by the name of one that is open.
            if !unsafe { sys::is_culib_present() } {
                return Err(format!("{} is not what its name says", library.path.display()));
            }
            let (mut major, mut minor) = (0, 0);
            // SAFETY: valid places to write to.
            let asked = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
            asked.result().map_err(|e| e.to_string())?;
            // Under another of its names the loader may have another one.
            match format!("{major}.{minor}") == library.version {
                true => Ok(library),
                false => Err(format!("found {library}, but `libnvrtc.so` of the loader's path is {major}.{minor}")),
            }
        });
        let failed = |reason: &String| Error::Cuda { what: "NVRTC".into(), reason: reason.clone() };
        opened.as_ref().map(|library| Self { library: library.clone() }).map_err(failed)
    }

    /// Which one it is.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Compiles a file of kernels for an architecture as `sm_90a`.
    ///
    /// # Errors
    /// [`Error::Cuda`] with the compiler's messages.
    pub fn compile(&self, source: &Source, architecture: &str) -> Result<Compiled> {
        let program = Program::new(source).map_err(|e| failed(source, &e.to_string()))?;
        let names: Vec<CString> = source.kernels.iter().map(|kernel| text(kernel)).collect();
        for name in &names {
            program.ask_for(name).map_err(|e| failed(source, &e.to_string()))?;
        }
        // Without `-default-device` a lambda with a template in it counts as code for the host.
        let options = [format!("-arch={architecture}"), "-std=c++17".into(), "-default-device".into()];
        let options = [&options[..], &["--ptxas-options=-v".into()]].concat();
        // SAFETY: the program is alive.
        let done = unsafe { result::compile_program(program.0, &options) };
        let log = program.log();
        done.map_err(|e| failed(source, &format!("{e}\n{log}")))?;
        let names = names.iter().map(|name| program.name(name)).collect::<Result<_, _>>();
        let names = names.map_err(|e| failed(source, &e.to_string()))?;
        let code = program.code().map_err(|e| failed(source, &e.to_string()))?;
        let assembly = program.assembly().map_err(|e| failed(source, &e.to_string()))?;
        Ok(Compiled { code, names, log, assembly })
    }
}

fn failed(source: &Source, reason: &str) -> Error {
    Error::Cuda { what: format!("{}.cu", source.name), reason: reason.to_owned() }
}

fn text(text: &str) -> CString {
    CString::new(text).expect("sources have no zero bytes")
}

/// A text that ends in zero.
fn words(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program of NVRTC, destroyed with this value.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(source: &Source) -> Result<Self, result::NvrtcError> {
        let (name, body) = (text(&format!("{}.cu", source.name)), text(source.text));
        let (names, texts): (Vec<_>, Vec<_>) = HEADERS.iter().map(|(name, body)| (text(name), text(body))).unzip();
        let pointers = |all: &[CString]| all.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
        let (names, texts) = (pointers(&names), pointers(&texts));
        let mut program = std::ptr::null_mut();
        // SAFETY: all texts end in zero and live longer than the call, which copies them; there are as many names as
        // texts.
        unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                body.as_ptr(),
                name.as_ptr(),
                texts.len() as i32,
                texts.as_ptr(),
                names.as_ptr(),
            )
        }
        .result()?;
        Ok(Self(program))
    }

    /// Asks for a kernel before the program is compiled.
    fn ask_for(&self, name: &CStr) -> Result<(), result::NvrtcError> {
        // SAFETY: the program is alive, the name ends in zero and is copied.
        unsafe { sys::nvrtcAddNameExpression(self.0, name.as_ptr()) }.result()
    }

    /// What a kernel asked for is called in the code.
    fn name(&self, name: &CStr) -> Result<String, result::NvrtcError> {
        let mut lowered = std::ptr::null();
        // SAFETY: the program is alive and compiled, and this name was asked for.
        unsafe { sys::nvrtcGetLoweredName(self.0, name.as_ptr(), &raw mut lowered) }.result()?;
        // SAFETY: NVRTC gives a text that ends in zero and lives as long as the program.
        Ok(unsafe { CStr::from_ptr(lowered) }.to_string_lossy().into_owned())
    }

    fn log(&self) -> String {
        // SAFETY: the program is alive.
        words(&unsafe { result::get_program_log(self.0) }.unwrap_or_default())
    }

    fn assembly(&self) -> Result<String, result::NvrtcError> {
        // SAFETY: the program is alive and compiled.
        Ok(words(&unsafe { result::get_ptx(self.0) }?))
    }

    fn code(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut size = 0;
        // SAFETY: the program is alive, and a valid place to write to.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) }.result()?;
        let mut code = vec![0; size];
        // SAFETY: the code has as many bytes as it was said to have.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()) }.result()?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it is alive, and nothing uses it after this. There is nothing to do about a failure.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
