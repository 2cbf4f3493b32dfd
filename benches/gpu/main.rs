//! What only a GPU can show: that everything computes there what it does elsewhere, and how fast.
//!
//! `cargo bench --bench gpu --no-run` builds the program, which can be carried to a machine with an NVIDIA GPU;
//! `benches/gpu.sh PROGRAM` runs it there, from this project's folder, in a few minutes. It writes a table, and with
//! `--json FILE` the same for a program. `--small` does everything on small models, as on the driver of the tests that
//! computes on the processor; `--only SECTION` does one part. `--sanitize` is a small step to be watched by a tool.

#[path = "../../runtime/tests/suite/conformance.rs"]
mod conformance;
#[path = "../../tests/golden/golden.rs"]
mod golden;
#[allow(dead_code, reason = "what is not stamped here is of other machines")]
#[path = "../../runtime/tests/suite/session.rs"]
mod session;
#[allow(dead_code, reason = "what is not stamped here is of other machines")]
#[path = "../../runtime/tests/suite/twins.rs"]
mod twins;

mod checks;
mod cuda;
#[path = "../../train/tests/cuda/checks.rs"]
mod engine;
mod operations;
mod reading;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use sixpack_runtime::cuda::{Gpu, Settings};
use sixpack_train::Recipe;

/// A part of the program, which gives what it found; an error is something that is wrong.
type Section = fn(&Bench) -> Result<Value, String>;

const SECTIONS: &[(&str, Section)] = &[
    ("conformance", checks::run),
    ("follow", training::follow),
    ("operations", operations::run),
    ("training", training::speed),
    ("reading", reading::run),
];

/// What all parts are given.
#[derive(Debug)]
struct Bench {
    gpu: Arc<Gpu>,
    /// Small models only.
    small: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)).cloned();
    let has = |name: &str| arguments.iter().any(|a| a == name);
    // As the record's run has it.
    let recompute = Recipe::load("record", &[] as &[&str]).expect("it is embedded").run.recompute;
    let gpu = match Gpu::open(0, Settings { recompute, ..Settings::default() }) {
        Ok(gpu) => gpu,
        Err(error) => {
            println!("no GPU at hand: {error}");
            return ExitCode::from(if has("--sanitize") || has("--json") { 1 } else { 0 });
        }
    };
    let facts = gpu.facts().clone();
    let library = if gpu.has_library() { "cuBLASLt" } else { "this project's own" };
    println!(
        "{}, compute capability {}.{}, {} multiprocessors, {:.0} GiB; driver {}; products: {library}",
        facts.name,
        facts.capability[0],
        facts.capability[1],
        facts.multiprocessors,
        facts.memory as f64 / f64::from(1 << 30),
        facts.driver
    );
    let bench = Bench { gpu, small: has("--small") };
    if has("--sanitize") {
        return match training::one_small_step() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let mut found = Map::new();
    found.insert("gpu".into(), json!({ "name": facts.name, "driver": facts.driver, "memory": facts.memory }));
    let mut failed = false;
    let only = after("--only");
    for (name, section) in SECTIONS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        println!("\n{name}");
        let start = Instant::now();
        // With memory of its own, which ends with it.
        let value = match section(&Bench { gpu: bench.gpu.apart(), ..bench }) {
            Ok(value) => value,
            Err(error) => {
                println!("  FAILED: {error}");
                failed = true;
                json!({ "failed": error })
            }
        };
        println!("  ({:.1} s)", start.elapsed().as_secs_f64());
        found.insert((*name).into(), value);
    }
    if let Some(path) = after("--json").map(PathBuf::from) {
        let text = serde_json::to_string_pretty(&Value::Object(found)).expect("numbers and strings");
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("error: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
