//! Choosing what a model runs on, and the verbs on a GPU. What that computes is tested in `runtime/tests/wgpu`.
//!
//! Where there is no GPU what needs one is ignored, and says so; with `SIXPACK_REQUIRE_GPU=1` it fails.

mod server;
mod work;

use std::process::ExitCode;

use assert_cmd::Command;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use serde_json::{Value, json};

use server::Server;
use work::number;

/// A test and its name.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("devices_are_listed_and_one_is_taken", devices_are_listed_and_one_is_taken),
    ("what_of_cuda_is_missing_is_said", what_of_cuda_is_missing_is_said),
    ("what_is_not_there_is_said_at_once", what_is_not_there_is_said_at_once),
];

const ON_A_GPU: &[Test] = &[
    ("eval_gives_the_cpus_bits_per_byte", eval_gives_the_cpus_bits_per_byte),
    ("run_writes_the_cpus_text", run_writes_the_cpus_text),
    ("serve_gives_the_cpus_completion", serve_gives_the_cpus_completion),
];

fn main() -> ExitCode {
    let run = |test: fn()| {
        test();
        Completion::Completed
    };
    let plain = TESTS.iter().map(|&(name, test)| Trial::ignorable_test(name, move || Ok(run(test))));
    let on_a_gpu = ON_A_GPU.iter().map(|&(name, test)| {
        Trial::ignorable_test(format!("wgpu::{name}"), move || match no_gpu() {
            Some(reason) => reason,
            None => Ok(run(test)),
        })
    });
    libtest_mimic::run(&Arguments::from_args(), plain.chain(on_a_gpu).collect()).exit_code()
}

/// What to say where there is no GPU.
fn no_gpu() -> Option<Result<Completion, Failed>> {
    if !sixpack_runtime::now(sixpack_runtime::wgpu::adapters()).is_empty() {
        return None;
    }
    let reason = "this machine has no adapter that wgpu can use";
    let required = std::env::var_os("SIXPACK_REQUIRE_GPU").is_some_and(|v| v == "1");
    let failed = || Err(format!("SIXPACK_REQUIRE_GPU is 1, and {reason}").into());
    Some(if required { failed() } else { Ok(Completion::ignored_with(reason)) })
}

fn sixpack() -> Command {
    Command::cargo_bin("sixpack").expect("the program was built")
}

fn devices_are_listed_and_one_is_taken() {
    let found = sixpack().args(["devices", "--json", "--threads", "1"]).assert().success();
    let report: serde_json::Value = serde_json::from_slice(&found.get_output().stdout).unwrap();
    assert!(report["cpu"]["tokens_per_second"].as_f64().unwrap() > 0.0);
    assert!(!report["why"].as_str().unwrap().is_empty());
    let adapters = report["adapters"].as_array().unwrap();
    let devices: Vec<&str> = adapters.iter().map(|a| a["device"].as_str().unwrap()).chain(["cpu"]).collect();
    assert!(devices.contains(&report["auto"].as_str().unwrap()), "{report}");
    for adapter in adapters {
        assert_eq!(adapter["self_check"], "passed", "{adapter}");
        assert!(adapter["kind"] != "software" || adapter["device"] != report["auto"], "{report}");
    }
    let cuda = |key: &str| report["cuda"][key].as_array().unwrap().clone();
    let names: Vec<_> = cuda("found").iter().chain(&cuda("missing")).map(|l| l["what"].clone()).collect();
    assert_eq!(names.len(), 4, "{report}");
    assert!(cuda("found").iter().all(|l| !l["version"].as_str().unwrap().is_empty()), "{report}");
}

/// Each library of CUDA is found where it is or named with where was looked, and asking for CUDA says the same.
fn what_of_cuda_is_missing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = || {
        let mut program = sixpack();
        // No toolkit and no wheels, whatever this machine has of its own.
        for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
            program.env_remove(name);
        }
        program.env("HOME", folder.path()).env("SIXPACK_NVRTC", folder.path());
        program
    };
    let nowhere = format!("none at {}", folder.path().display());
    let found = elsewhere().args(["devices", "--threads", "1"]).assert().success();
    let text = String::from_utf8(found.get_output().stdout.clone()).unwrap();
    let line = text.lines().find(|l| l.starts_with("cuda: ")).unwrap();
    assert!(line.contains(&format!("NVRTC is missing ({nowhere})")), "{line}");
    assert!(["the driver ", "cuBLASLt "].iter().all(|what| line.contains(what)), "{line}");
    let out = folder.path().join("new");
    let args = ["quickstart", "--device", "cuda", "--out", out.to_str().unwrap()];
    let failed = elsewhere().args(args).assert().code(1);
    failed.stderr(contains("no device `cuda`: CUDA needs what is not found here: ").and(contains(nowhere)));
}

fn what_is_not_there_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new");
    for (device, reason) in [("wgpu:99", "no device `wgpu:99`"), ("cuda:99", "no device `cuda:99`")] {
        let quickstart = || ["quickstart", "--device", device, "--out", out.to_str().unwrap()];
        sixpack().args(quickstart()).assert().code(1).stderr(contains(reason));
        assert!(!out.exists(), "{device}: something was done first");
    }
    let wrong = sixpack().args(["run", "model.6pk", "--prompt", "x", "--device", "gpu"]).assert().code(2);
    wrong.stderr(contains("expected auto, cpu, wgpu, cuda"));
}

/// What the program prints with `--json` about the small model of the server's tests.
fn report(arguments: &[&str], device: &str) -> Value {
    let mut program = sixpack();
    program.current_dir(server::folder()).args(arguments).args(["--json", "--device", device, "--threads", "1"]);
    serde_json::from_slice(&program.assert().success().get_output().stdout).expect("one JSON object")
}

fn eval_gives_the_cpus_bits_per_byte() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/src/lib.rs");
    let eval = ["eval", "model.6pk", "--data", text, "--max-tokens", "400"];
    let [cpu, gpu] = ["cpu", "wgpu"].map(|device| report(&eval, device));
    // The first that is no software, if there is one.
    assert!(cpu["device"] == "cpu" && gpu["device"].as_str().is_some_and(|d| d.starts_with("wgpu:")), "{gpu}");
    assert_eq!((&cpu["tokens"], &cpu["bytes"]), (&gpu["tokens"], &gpu["bytes"]));
    let [cpu, gpu] = [cpu, gpu].map(|report| number(&report, "/bits_per_byte"));
    assert!((cpu - gpu).abs() < 1e-4, "{gpu} bits per byte where the CPU has {cpu}");
}

fn run_writes_the_cpus_text() {
    let run = ["run", "model.6pk", "--prompt", "pub fn ", "--temperature", "0", "--max-tokens", "24"];
    let [cpu, gpu] = ["cpu", "wgpu"].map(|device| report(&run, device));
    // The first that is no software, if there is one.
    assert!(cpu["device"] == "cpu" && gpu["device"].as_str().is_some_and(|d| d.starts_with("wgpu:")), "{gpu}");
    assert_eq!(cpu["text"], gpu["text"]);
    assert!(number(&gpu, "/generated_tokens") > 0.0, "{gpu}");
}

fn serve_gives_the_cpus_completion() {
    let request = json!({"prompt": "pub fn ", "max_tokens": 16, "temperature": 0, "logprobs": 0});
    let [cpu, gpu] = ["cpu", "wgpu"].map(|device| Server::on(device, "--threads 1").complete(request.clone()));
    assert_eq!(server::text(&cpu), server::text(&gpu));
    let logprobs = |answer: &Value| -> Vec<f64> {
        let all = answer["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("logprobs");
        all.iter().map(|l| l.as_f64().expect("a number")).collect()
    };
    let (cpu, gpu) = (logprobs(&cpu), logprobs(&gpu));
    let worst = cpu.iter().zip(&gpu).map(|(c, g)| (c - g).abs()).fold(0.0, f64::max);
    // The same computation in another order: not one that went on on the CPU.
    assert!(cpu.len() == gpu.len() && !cpu.is_empty() && worst < 1e-3, "off by {worst}");
    assert_ne!(cpu, gpu, "the GPU gives the CPU's very bits");
}
