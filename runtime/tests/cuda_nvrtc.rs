//! Every kernel compiled for GPUs, which needs none: no spills, and what each kernel takes. Where NVRTC is missing its
//! tests are ignored, and say so; with `SIXPACK_REQUIRE_NVRTC=1` they fail. `SIXPACK_NVRTC` says where it is.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sixpack_runtime::cuda::compile::Compiler;
use sixpack_runtime::cuda::{SOURCES, Source};

/// The base path, and the one of the GPUs that the project is measured on.
const ARCHITECTURES: [&str; 2] = ["sm_80", "sm_90a"];

/// Bytes that a block may have of its own memory, on any GPU.
const SHARED: u32 = 48 << 10;

/// What a kernel takes.
#[derive(Clone, Debug, Default)]
struct Usage {
    kernel: String,
    architecture: &'static str,
    registers: u32,
    shared: u32,
    stack: u32,
    spills: u32,
}

type Found = Arc<Mutex<Vec<Usage>>>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let compiler = Compiler::open().map_err(|e| e.to_string());
    let found = Found::default();
    let mut trials = vec![Trial::test("reports_are_read", reports_are_read)];
    for source in SOURCES {
        for architecture in ARCHITECTURES {
            let (compiler, found) = (compiler.clone(), Arc::clone(&found));
            let test = move || run(compiler.as_ref().map_err(String::as_str), source, architecture, &found);
            trials.push(Trial::ignorable_test(format!("{}::{architecture}", source.name), test));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut found = found.lock().unwrap();
    found.sort_by(|a, b| (&a.kernel, a.architecture).cmp(&(&b.kernel, b.architecture)));
    for Usage { kernel, architecture, registers, shared, .. } in found.iter() {
        println!("{kernel:28} {architecture:6} {registers:3} registers {shared:6} bytes shared");
    }
    conclusion.exit_code()
}

fn run(
    compiler: Result<&Compiler, &str>,
    source: &Source,
    architecture: &'static str,
    found: &Found,
) -> Result<Completion, Failed> {
    match compiler {
        Ok(compiler) => {
            let usages = compiles(compiler, source, architecture);
            found.lock().unwrap().extend(usages);
            Ok(Completion::Completed)
        }
        Err(reason) if std::env::var_os("SIXPACK_REQUIRE_NVRTC").is_some_and(|v| v == "1") => {
            Err(format!("SIXPACK_REQUIRE_NVRTC is 1, and {reason}").into())
        }
        Err(reason) => Ok(Completion::ignored_with(reason)),
    }
}

fn compiles(compiler: &Compiler, source: &Source, architecture: &'static str) -> Vec<Usage> {
    let compiled = compiler.compile(source, architecture).unwrap_or_else(|e| panic!("{e}"));
    assert!(compiled.code.starts_with(b"\x7fELF"), "{}: no cubin", source.name);
    assert!(!compiled.log.contains("warning"), "{}", compiled.log);
    let usages = usages(&compiled.log, architecture);
    let usage = |(kernel, name): (&&str, &String)| {
        let usage = usages.iter().find(|(of, _)| of == name).unwrap_or_else(|| panic!("{name}: {}", compiled.log));
        Usage { kernel: (*kernel).to_owned(), architecture, ..usage.1.clone() }
    };
    let named: Vec<Usage> = source.kernels.iter().zip(&compiled.names).map(usage).collect();
    for usage in &named {
        assert!(usage.registers > 0 && usage.stack == 0 && usage.spills == 0, "{usage:?}\n{}", compiled.log);
        assert!(usage.shared <= SHARED, "{usage:?}");
    }
    for (kernel, name) in source.kernels.iter().zip(&compiled.names).filter(|(kernel, _)| is_packed(kernel)) {
        let (_, body) = compiled.assembly.split_once(&format!(".entry {name}(")).expect("a kernel's text");
        let body = body.split(".entry ").next().unwrap_or_default();
        assert!(body.contains("ld.global.v4.") && !body.contains(".local"), "{kernel} reads no 16 bytes at once");
    }
    named
}

/// Whether it takes 16 bytes of numbers at once.
fn is_packed(kernel: &str) -> bool {
    [", 4>", ", 8>", "<4>"].iter().any(|end| kernel.ends_with(end))
}

/// What the assembler says of each function: its name in the code, and what it takes.
fn usages(log: &str, architecture: &'static str) -> Vec<(String, Usage)> {
    let mut all: Vec<(String, Usage)> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default();
            all.push((name.to_owned(), Usage { architecture, ..Usage::default() }));
            continue;
        }
        let Some((_, usage)) = all.last_mut() else { continue };
        for part in line.split(": ").last().unwrap_or_default().split(", ") {
            let number = || part.split_whitespace().find_map(|word| word.parse::<u32>().ok()).unwrap_or(u32::MAX);
            match part.trim() {
                p if p.ends_with("registers") => usage.registers = number(),
                p if p.ends_with("bytes smem") => usage.shared = number(),
                p if p.ends_with("bytes stack frame") => usage.stack = number(),
                p if p.contains("bytes spill") => usage.spills += number(),
                _ => {}
            }
        }
    }
    all
}

fn reports_are_read() -> Result<(), Failed> {
    let log = "ptxas info    : 0 bytes gmem\n\
               ptxas info    : Compiling entry function '_Z1fPf' for 'sm_80'\n\
               ptxas info    : Function properties for _Z1fPf\n    \
               16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n\
               ptxas info    : Used 32 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]\n";
    let [(name, usage)] = &usages(log, "sm_80")[..] else { return Err("one function".into()) };
    assert_eq!(name, "_Z1fPf");
    assert_eq!((usage.registers, usage.shared, usage.stack, usage.spills), (32, 1024, 16, 12));
    Ok(())
}
