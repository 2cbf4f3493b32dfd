//! Every kernel on the host, compiled by the C++ compiler and run as blocks of threads in several orders, against its
//! plain twin. Where there is no compiler its tests are ignored, and say so; with `SIXPACK_REQUIRE_CXX=1` they fail.

#[path = "suite/conformance.rs"]
mod conformance;
#[path = "../../tests/golden/golden.rs"]
mod golden;
#[allow(dead_code, reason = "there are no sessions here, and no codes")]
#[path = "suite/twins.rs"]
mod twins;

mod cuda {
    pub(crate) mod backward;
    pub(crate) mod buffer;
    pub(crate) mod gradients;
    pub(crate) mod gradients_of_weights;
    pub(crate) mod libraries;
    pub(crate) mod library;
    pub(crate) mod mistakes;
    pub(crate) mod ops;
}

use std::process::ExitCode;
use std::sync::Arc;

use cuda::buffer::{Buffer, Kind};
use cuda::library::{Failure, Kernels};
use cuda::mistakes;
use cuda::ops::OnHost;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sixpack_runtime::cpu::{Dense, Mat, Reference};
use sixpack_runtime::cuda::SOURCES;
use sixpack_runtime::{Batch, Error, Ops, Pass, Weights, forward, model};
use twins::Backend;

/// A test and its name.
type Test = (&'static str, fn(Arc<Kernels>));

const TESTS: &[Test] = &[
    ("every_kernel_is_there", every_kernel_is_there),
    ("libraries::are_found_where_they_are", |_| cuda::libraries::are_found_where_they_are()),
    ("mistakes::arguments", |k| mistakes::arguments(&k)),
    ("mistakes::barriers", |k| mistakes::barriers(&k)),
    ("mistakes::bounds", |k| mistakes::bounds(&k)),
    ("mistakes::races", |k| mistakes::races(&k)),
    ("f32::residual", |k| twins::residual(backend(k, Kind::F32))),
    ("f32::attention", |k| twins::attention(backend(k, Kind::F32))),
    ("f32::products", |k| twins::products(backend(k, Kind::F32))),
    ("f32::steps", |k| twins::steps(backend(k, Kind::F32))),
    ("f32::goldens", goldens),
    ("f32::gradients", |k| cuda::gradients::all(&OnHost::new(k, Kind::F32, &[0, 1]))),
    ("bf16::gradients", |k| cuda::gradients::all(&OnHost::new(k, Kind::Bf16, &[0, 1]))),
    ("bf16::residual", |k| twins::residual(backend(k, Kind::Bf16))),
    ("bf16::attention", |k| twins::attention(backend(k, Kind::Bf16))),
    ("bf16::products", |k| twins::products(backend(k, Kind::Bf16))),
    ("bf16::losses", losses),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let kernels = if arguments.list { Err(Failure::NoCompiler("not needed to list".into())) } else { Kernels::build() };
    let kernels = Arc::new(kernels.map(Arc::new));
    let trials = TESTS.iter().map(|&(name, test)| {
        let kernels = Arc::clone(&kernels);
        Trial::ignorable_test(name, move || run(&kernels, test))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(kernels: &Result<Arc<Kernels>, Failure>, test: fn(Arc<Kernels>)) -> Result<Completion, Failed> {
    match kernels {
        Ok(kernels) => {
            test(Arc::clone(kernels));
            Ok(Completion::Completed)
        }
        Err(Failure::Broken(messages)) => Err(messages.into()),
        Err(Failure::NoCompiler(reason)) if std::env::var_os("SIXPACK_REQUIRE_CXX").is_some_and(|v| v == "1") => {
            Err(format!("SIXPACK_REQUIRE_CXX is 1, and there is no C++ compiler {reason}").into())
        }
        Err(Failure::NoCompiler(reason)) => Ok(Completion::ignored_with(format!("no C++ compiler {reason}"))),
    }
}

fn backend(kernels: Arc<Kernels>, storage: Kind) -> Backend<OnHost> {
    let f32 = Backend {
        ops: OnHost::new(kernels, storage, &[0, 1]),
        weight: Box::new(Dense::clone),
        act: Box::new(Mat::clone),
        kept: Mat::clone,
        tolerance: twins::f32_tolerance,
    };
    match storage {
        Kind::Bf16 => Backend { kept: rounded, tolerance: bf16_tolerance, ..f32 },
        _ => f32,
    }
}

/// What is left in bf16.
fn rounded(x: &Mat) -> Mat {
    x.like(x.cols, Buffer::floats(Kind::Bf16, &x.data).values())
}

/// Largest difference of an operation in bf16, relative to one plus the size of the value.
///
/// Both sides see inputs as bf16 has them. A number in bf16 is off by up to 2⁻⁸ of its size.
fn bf16_tolerance(op: &str) -> f32 {
    const ROUNDING: f32 = 1.0 / 256.0;
    match op {
        // Copies, and what only reads bf16 and keeps f32.
        "embed" | "tail" | "cross_entropy" => twins::f32_tolerance(op),
        // The norm or the bound of what was rounded.
        "add_scaled_norm" | "mix_norm" | "logits" => 2.0 * ROUNDING,
        // Sums of up to 131 squares, each off by three roundings of its own.
        "mlp" => 16.0 * ROUNDING,
        // The output.
        _ => ROUNDING,
    }
}

fn every_kernel_is_there(kernels: Arc<Kernels>) {
    for kernel in SOURCES.iter().flat_map(|source| source.kernels) {
        assert!(kernels.signature(kernel).is_some(), "{kernel}");
    }
}

/// The whole model by the kernels.
fn goldens(kernels: Arc<Kernels>) {
    for case in golden::CASES {
        let model = golden::model(case);
        let weights = Weights::load(&model, Dense::load);
        let mut ops = OnHost::new(Arc::clone(&kernels), Kind::F32, &[1]);
        conformance::goldens(case, &model.config, &weights, &mut ops);
        conformance::narrowed(case, &model.config, &weights, &mut ops);
        conformance::refuses_foreign_tokens(&model.config, &weights, &mut ops);
    }
}

/// The whole model in bf16: losses of random tokens are as large as they are in f32.
fn losses(kernels: Arc<Kernels>) {
    fn loss<O: Ops<Act = Mat, Weight = Dense, Error = Error>>(case: &str, ops: &mut O) -> f64 {
        let model = golden::model(case);
        let weights = Weights::load(&model, Dense::load);
        let ids: Vec<u32> = (0..41).map(|i| (i * 37 + i / 5) % model.config.vocab_size as u32).collect();
        let h = forward(&model.config, &weights, ops, &Batch::new(&ids[..40], 2), Pass::FULL).unwrap();
        let nll = model::nll(&model.config, &weights, ops, &h, &ids[1..]).unwrap();
        nll.data.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.data.len() as f64
    }
    for case in golden::CASES {
        let expected = loss(case, &mut Reference::new());
        let found = loss(case, &mut OnHost::new(Arc::clone(&kernels), Kind::Bf16, &[1]));
        assert!((found - expected).abs() < 1e-2 * expected, "{case}: found {found}, expected {expected}");
    }
}
