//! CUDA for the processor: a driver with the kernels in it and a compiler that has nothing to do, built by the C++
//! compiler, in a folder in which a program finds them as it finds NVIDIA's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed};
use sixpack_formats::Digest;
use sixpack_runtime::cuda::{HEADERS, SOURCES};

/// Why there are no such libraries.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This machine has no C++ compiler.
    NoCompiler(String),
    /// The compiler's message.
    Broken(String),
}

impl Failure {
    /// What that means for a test.
    pub(crate) fn conclude(&self) -> Result<Completion, Failed> {
        match self {
            Self::Broken(messages) => Err(messages.into()),
            Self::NoCompiler(reason) if std::env::var_os("SIXPACK_REQUIRE_CXX").is_some_and(|v| v == "1") => {
                Err(format!("SIXPACK_REQUIRE_CXX is 1, and there is no C++ compiler {reason}").into())
            }
            Self::NoCompiler(reason) => Ok(Completion::ignored_with(format!("no C++ compiler {reason}"))),
        }
    }
}

/// Names the folder in a process that finds the libraries.
const FOLDER: &str = "SIXPACK_HOST_CUDA";

/// The kernels of `host/mistakes.cu`, which are wrong on purpose.
pub(crate) const MISTAKES: &[&str] = &[
    "no_barrier",
    "no_second_barrier",
    "half_a_barrier",
    "two_barriers",
    "lost_lane",
    "past_the_end",
    "past_the_shared_end",
    "never_written",
    "too_much",
    "blocks_in_order",
    "late_wait",
    "own_wait",
    "no_wait",
    "half_a_chunk",
    "read_between",
    "write_between",
];

/// Those of `host/fragments.cu`: products of a warp.
pub(crate) const FRAGMENTS: &[&str] =
    &["fragments_by_hand", "fragments_of_rows", "fragments_of_columns", "fragments_swapped"];

/// The folder of the libraries, in a process that takes them for NVIDIA's: this one, started again by itself. Each kernel
/// then runs in so many orders of threads, which must give the same bits.
pub(crate) fn enter(orders: usize) -> Result<PathBuf, Failure> {
    use std::os::unix::process::CommandExt;
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Ok(folder.into());
    }
    let folder = folder()?;
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(std::env::args_os().skip(1));
    environment(&mut again, &folder, orders);
    // Mistakes on a device leave it useless, as on a GPU: each has one of its own.
    again.env("SIXPACK_HOST_DEVICES", "32");
    Err(Failure::Broken(again.exec().to_string()))
}

/// Within the folder, that of NCCL, which may be missing.
const NCCL: &str = "nccl";

/// Lets a program find the libraries.
pub(crate) fn environment(program: &mut Command, folder: &Path, orders: usize) {
    program.env(FOLDER, folder).env("SIXPACK_HOST_ORDERS", orders.to_string());
    let paths = [folder.to_owned(), folder.join(NCCL)];
    program.env("LD_LIBRARY_PATH", std::env::join_paths(paths).expect("no colons")).env("SIXPACK_NVRTC", folder);
    program.env("XDG_CACHE_HOME", folder.join("cache"));
}

/// The folder with both libraries, built unless they were: from the same sources they are the same.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src/cuda", "../runtime/src/cuda", "runtime/src/cuda"].map(|at| crates.join(at));
    let sources = sources.into_iter().find(|at| at.join("host").is_dir()).expect("the kernels' folder");
    let glue = glue();
    let mut content = compiler.clone() + &glue;
    HEADERS.iter().for_each(|(_, text)| content += text);
    SOURCES.iter().for_each(|source| content += source.text);
    let mut host: Vec<PathBuf> = std::fs::read_dir(sources.join("host")).unwrap().map(|e| e.unwrap().path()).collect();
    host.sort();
    host.iter().for_each(|file| content += &std::fs::read_to_string(file).unwrap());
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = all.join(format!("cuda_host_{:016x}", Digest::of(content.as_bytes()).short()));
    if folder.is_dir() {
        return Ok(folder);
    }
    // Whole or not at all, whoever else builds it now.
    let own = all.join(format!("cuda_host.{}", std::process::id()));
    let broken = |e: std::io::Error| Failure::Broken(e.to_string());
    std::fs::create_dir_all(&own).map_err(broken)?;
    std::fs::write(own.join("kernels.cpp"), glue).map_err(broken)?;
    let host = |file: &str| sources.join("host").join(file);
    let threads = ["fibers.cpp", "copies.cpp", "launch.cpp", "shared.cpp"];
    let queues = ["order.cpp", "streams.cpp", "events.cpp", "graphs.cpp", "misuse.cpp", "driver.cpp"];
    let driver: Vec<PathBuf> = threads.into_iter().chain(queues).map(host).collect();
    let built = compile(&compiler, &sources, &[&[own.join("kernels.cpp")], &driver[..]].concat(), &own, "libcuda.so.1")
        .and_then(|()| compile(&compiler, &sources, &[host("compiler.cpp")], &own, "libnvrtc.so.12"))
        .and_then(|()| {
            let files = [host("blas.cpp"), own.join("libcuda.so.1")];
            compile(&compiler, &sources, &files, &own, "libcublasLt.so.12")
        })
        .and_then(|()| {
            let files = [host("nccl.cpp"), own.join("libcuda.so.1")];
            std::fs::create_dir(own.join(NCCL)).map_err(broken)?;
            compile(&compiler, &sources, &files, &own.join(NCCL), "libnccl.so.2")
        });
    if built.is_err() || std::fs::rename(&own, &folder).is_err() {
        std::fs::remove_dir_all(&own).map_err(broken)?;
    }
    built.map(|()| folder)
}

fn compile(compiler: &str, sources: &Path, files: &[PathBuf], folder: &Path, name: &str) -> Result<(), Failure> {
    let mut command = Command::new(compiler);
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

/// A C++ file with all kernels, each of their files in a namespace of its own.
fn glue() -> String {
    let mut text = String::from("#include \"cuda.hpp\"\n#include \"launch.hpp\"\n");
    HEADERS.iter().for_each(|(name, _)| writeln!(text, "#include \"{name}\"").unwrap());
    let files = SOURCES.iter().map(|s| (s.name, s.kernels));
    for (file, kernels) in files.chain([("host/mistakes", MISTAKES), ("host/fragments", FRAGMENTS)]) {
        writeln!(text, "namespace file_{} {{\n#include \"{file}.cu\"", file.replace('/', "_")).unwrap();
        for (i, kernel) in kernels.iter().enumerate() {
            writeln!(text, "KERNEL(kernel_{i}, {kernel});").unwrap();
        }
        text.push_str("}\n");
    }
    text
}
