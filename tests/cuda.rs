//! The verbs on CUDA, through the program, on a driver that computes on the processor: what they give is what the CPU
//! gives, but for rounding. Where there is no C++ compiler the tests are ignored, and say so; with `SIXPACK_REQUIRE_CXX=1`
//! they fail.

#[allow(dead_code, reason = "these tests start other programs in it")]
#[path = "../runtime/tests/cuda/host.rs"]
mod host;
mod work;

mod cuda {
    pub(crate) mod ranks;
}

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};

use host::Failure;
use libtest_mimic::{Arguments, Completion, Trial};
use serde_json::Value;
use work::{Output, Work, number};

/// A model of 60 thousand parameters, four sequences a step.
const RECIPE: &str = r#"
name = "cuda"
seed = 7
model = { preset = "small", vocab_size = 512, num_layers = 2, model_dim = 32, num_heads = 2, num_kv_heads = 1, rope_dims = 8, train_seq_len = 32, eval_seq_len = 32, xsa_last_n = 2, ve_layers = [1], ve_dim = 8, recur_layers = [1] }
batch = { tokens_per_step = 128, micro_batch = 2 }
budget = { steps = 8 }
schedule = { recurrence = { step = 4 } }
run = { warmup_steps = 1, log_steps = 1 }
"#;

/// Largest difference of a loss in nats: bf16 beside f32, on steps that build on each other.
const APART: f64 = 0.02;

/// A trained model that comes with the project, and text that it reads.
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/web/page/books.6pk");
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

/// A test, which is given the folder of the libraries.
type Test = fn(&Path);

const TESTS: &[(&str, Test)] = &[
    ("devices_lists_and_checks_it", devices),
    ("eval_gives_nearly_the_cpus_bits_per_byte", eval),
    ("run_writes_the_cpus_text", run),
    ("train_follows_the_cpu_and_writes_what_it_reads", train),
    ("ranks::learn_as_one", cuda::ranks::learn_as_one),
    ("ranks::share_normuon", cuda::ranks::share_normuon),
    ("ranks::refuse_one_gpu", cuda::ranks::refuse_one_gpu),
    ("ranks::lose_one", cuda::ranks::lose_one),
    ("compress_calibrates_on_it", compress),
    ("experiments_run_on_it", experiment),
    ("what_is_not_there_is_said", missing),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let folder: Result<PathBuf, Failure> = match arguments.list {
        true => Err(Failure::NoCompiler("not needed to list".into())),
        false => host::folder(),
    };
    let folder = Arc::new(folder);
    let trials = TESTS.iter().map(|&(name, test)| {
        let folder = Arc::clone(&folder);
        Trial::ignorable_test(name, move || match &*folder {
            Ok(folder) => {
                test(folder);
                Ok(Completion::Completed)
            }
            Err(failure) => failure.conclude(),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Tokenizer, shards and a recipe.
fn shards() -> &'static Work {
    static WORK: OnceLock<Work> = OnceLock::new();
    WORK.get_or_init(|| {
        let work = Work::with_shards();
        std::fs::write(work.at("recipe.toml"), RECIPE).expect("recipe");
        work
    })
}

/// The program where it finds the libraries; words are split at spaces.
fn program(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("sixpack"));
    host::environment(&mut command, folder, 1);
    command.current_dir(shards().dir.path()).args(line.split_whitespace());
    command
}

fn output(mut command: Command) -> Output {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn report(folder: &Path, line: &str, device: &str) -> Value {
    output(program(folder, &format!("{line} --json --threads 1 --device {device}"))).json()
}

fn devices(folder: &Path) {
    let report = output(program(folder, &format!("devices {MODEL} --json"))).json();
    let adapters = report["adapters"].as_array().expect("adapters");
    let gpu = adapters.iter().find(|a| a["device"] == "cuda:0").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(gpu["self_check"], "passed", "{gpu}");
    assert!(number(gpu, "/largest_difference") < 1e-4 && number(gpu, "/tokens_per_second") > 0.0, "{gpu}");
    let text = output(program(folder, &format!("devices {MODEL}"))).ok().stdout;
    assert!(text.contains("cuda: the driver for CUDA 12.9 (libcuda.so.1); NVRTC 0.1 ("), "{text}");
}

fn eval(folder: &Path) {
    let line = format!("eval {MODEL} --data {TEXT} --max-tokens 300");
    let [cpu, gpu] = ["cpu", "cuda"].map(|device| report(folder, &line, device));
    assert_eq!((&cpu["device"], &gpu["device"]), (&"cpu".into(), &"cuda:0".into()));
    assert_eq!((&cpu["tokens"], &cpu["bytes"]), (&gpu["tokens"], &gpu["bytes"]));
    let [cpu, gpu] = [cpu, gpu].map(|report| number(&report, "/bits_per_byte"));
    assert!((cpu - gpu).abs() < 2e-3, "{gpu} bits per byte where the CPU has {cpu}");
}

fn run(folder: &Path) {
    let line = format!("run {MODEL} --prompt Alice --temperature 0 --max-tokens 12");
    let [cpu, gpu] = ["cpu", "cuda"].map(|device| report(folder, &line, device));
    assert_eq!((&gpu["device"], &gpu["text"]), (&"cuda:0".into(), &cpu["text"]));
}

/// The losses of a run's log.
fn losses(out: &str) -> Vec<f64> {
    let log = std::fs::read_to_string(shards().at(out).join("train.jsonl")).expect("a log");
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|e| e["event"] == "step").map(|e| number(&e, "/loss")).collect()
}

fn training(out: &str, more: &str) -> String {
    format!("train --recipe recipe.toml --data shards --out {out} --measure-size-every 0 --threads 1 {more}")
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    for (step, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() < within, "step {step}: loss {f}, expected {e}");
    }
}

fn train(folder: &Path) {
    output(program(folder, &training("on_cpu", "--device cpu"))).ok();
    let said = output(program(folder, &training("on_gpu", "--device cuda"))).ok().stdout;
    assert!(said.contains("parameters on the processor, as a GPU"), "{said}");
    let (cpu, gpu) = (losses("on_cpu"), losses("on_gpu"));
    near(&gpu, &cpu, APART);
    // What it wrote is a checkpoint as any other: the CPU finds the run at its end.
    let on = output(program(folder, &training("on_gpu", "--resume --device cpu"))).ok().stdout;
    assert!(on.contains("training") && on.contains("from step 8"), "{on}");
}

fn compress(folder: &Path) {
    output(program(folder, &training("small", "--device cpu"))).ok();
    let [cpu, gpu] = ["cpu", "cuda"].map(|device| {
        let line = format!("compress small --data shards --out {device}.6pk --no-sensitivity --calibration-tokens 512");
        report(folder, &format!("{line} --max-tokens 200"), device)
    });
    let [cpu_bytes, gpu_bytes] = [&cpu, &gpu].map(|report| number(report, "/artifact/bytes"));
    assert!((gpu_bytes / cpu_bytes - 1.0).abs() < 0.01, "{gpu_bytes} bytes, the CPU {cpu_bytes}");
    let [cpu, gpu] = [&cpu, &gpu].map(|report| number(report, "/artifact/bits_per_byte"));
    assert!((gpu - cpu).abs() < 0.01, "{gpu} bits per byte, the CPU {cpu}");
}

/// Two arms of which one is the other: what each run ends with is nearly what the CPU finds.
fn experiment(folder: &Path) {
    const PLAN: &str = r#"
name = "test"
description = "Does the machine matter?"
baseline = "recipe.toml"
seeds = 1
budget = { steps = 4 }
eval = { plain = true, max_tokens = 300 }

[[arm]]
id = "same"
description = "nothing changed"
"#;
    std::fs::write(shards().at("plan.toml"), PLAN).expect("a plan");
    let [cpu, gpu] = ["cpu", "cuda"].map(|device| {
        let line =
            format!("experiment run plan.toml --data shards --threads 1 --out on_{device}_arms --device {device}");
        output(program(folder, &line)).ok();
        let results = shards().at(&format!("on_{device}_arms/results.json"));
        let json = std::fs::read(results).expect("results");
        serde_json::from_slice::<Value>(&json).expect("JSON")
    });
    let scores = |results: &Value| -> Vec<f64> {
        let runs = results["runs"].as_array().expect("runs");
        runs.iter().map(|run| number(run, "/outcome/trained/bits_per_byte")).collect()
    };
    let (on_cpu, on_gpu) = (scores(&cpu), scores(&gpu));
    assert_eq!(on_gpu[0], on_gpu[1], "the same run twice on one GPU");
    assert_ne!(on_gpu, on_cpu, "in bf16");
    near(&on_gpu, &on_cpu, APART);
}

fn missing(folder: &Path) {
    let reason = "no device `cuda:7`: the driver has 1, counted from 0";
    output(program(folder, &training("nowhere", "--device cuda:7"))).fails(1, reason);
    assert!(!shards().at("nowhere").exists());
    output(program(folder, &format!("eval {MODEL} --data {TEXT} --device cuda:7"))).fails(1, reason);
    output(program(folder, &training("nowhere", "--device wgpu"))).fails(1, "WebGPU does not train");
}
