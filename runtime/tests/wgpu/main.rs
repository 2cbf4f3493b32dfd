//! The suites on a GPU. Where there is none its tests are ignored, and say so; with `SIXPACK_REQUIRE_GPU=1` they fail.

#[path = "../suite/conformance.rs"]
mod conformance;
mod engines;
#[path = "../../../tests/golden/golden.rs"]
mod golden;
mod models;
mod samples;
#[path = "../suite/session.rs"]
mod session;
mod sessions;
mod shared;
#[path = "../suite/trained.rs"]
mod trained;
#[path = "../suite/twins.rs"]
mod twins;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sixpack_runtime::cpu::{self, Dense, Mat};
use sixpack_runtime::wgpu::{Settings, Specialisations, Wgpu, adapters};
use sixpack_runtime::{Device, Ops, ReadBack, Remember, Sampler, Sampling, device, now};

/// A GPU for tests, or why there is none.
type Gpu = Result<Wgpu, String>;

fn open(settings: Settings) -> Gpu {
    let adapters = now(adapters());
    let adapter = adapters.first().ok_or("this machine has no adapter that wgpu can use")?;
    let gpu = now(Wgpu::with(adapter, settings)).map_err(|e| e.to_string())?;
    if gpu.specialisations() != settings.specialisations {
        return Err(format!("the adapter has no more than {:?}", adapter.specialisations().names()));
    }
    Ok(gpu)
}

/// Activations with guard zones, as all of these tests have but one.
const GUARDED: Settings = Settings { binding: None, guarded: true, specialisations: Specialisations::NONE };

/// A machine that tests are stamped for: its name, what its kernels make use of, and the tests.
type Machine = (&'static str, Specialisations, &'static [Test]);

const MACHINES: &[Machine] = &[
    ("base", Specialisations::NONE, TESTS),
    ("base", Specialisations::NONE, ONCE),
    ("special", Specialisations { f16: false, ..Specialisations::ALL }, TESTS),
    ("special_f16", Specialisations::ALL, ROUNDED),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = MACHINES.iter().flat_map(|&(machine, specialisations, tests)| {
        // Opened once, by the first test that needs it: pipelines take longer than most tests.
        let gpu = Arc::new(LazyLock::new(move || open(Settings { specialisations, ..GUARDED })));
        tests.iter().map(move |&(name, test)| {
            let gpu = Arc::clone(&gpu);
            Trial::ignorable_test(format!("{machine}::{name}"), move || run(&gpu, test))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(gpu: &Gpu, test: fn(Wgpu)) -> Result<Completion, Failed> {
    match gpu {
        Ok(gpu) => {
            test(gpu.fork());
            Ok(Completion::Completed)
        }
        Err(reason) if std::env::var_os("SIXPACK_REQUIRE_GPU").is_some_and(|v| v == "1") => {
            Err(format!("SIXPACK_REQUIRE_GPU is 1, and {reason}").into())
        }
        Err(reason) => Ok(Completion::ignored_with(reason)),
    }
}

/// A test and its name.
type Test = (&'static str, fn(Wgpu));

/// What every machine must pass.
const TESTS: &[Test] = &[
    ("conformance::goldens", models::goldens),
    ("twins::residual", |gpu| twins::residual(backend(gpu, twins::dense))),
    ("twins::products", |gpu| twins::products(backend(gpu, twins::dense))),
    ("twins::products_with_codes", |gpu| twins::products(backend(gpu, twins::codes))),
    ("twins::steps", |gpu| twins::steps(backend(gpu, twins::dense))),
    ("twins::steps_with_codes", |gpu| twins::steps(backend(gpu, twins::codes))),
    ("session::in_parts", sessions::in_parts),
    ("session::long_prompts_of_a_quantised_model", sessions::long_prompts),
    ("generate::greedy_text_is_that_of_the_cpu", models::greedy_text),
    ("generate::a_trained_model_says_and_scores_what_it_does_on_the_cpu", models::trained_model),
    ("decode::five_kernels_a_layer_and_one_submission_a_token", sessions::five_kernels),
];

/// What has no other kernels, or opens its own machine.
const ONCE: &[Test] = &[
    ("conformance::refuses_foreign_tokens", models::refuses_foreign_tokens),
    ("twins::residual_of_codes", |gpu| twins::residual(backend(gpu, twins::codes))),
    ("twins::attention", |gpu| twins::attention(backend(gpu, twins::dense))),
    ("twins::remembered", |gpu| twins::remembered(backend(gpu, twins::dense))),
    ("twins::in_small_bindings", in_small_bindings),
    ("guard::an_overrun_of_what_nobody_reads_is_found", an_overrun_is_found),
    ("metric::reproduces_the_reference", models::reproduces_the_reference),
    ("decode::in_small_bindings", sessions::in_small_bindings),
    ("sample::as_the_host_does", samples::as_the_host_does),
    ("device::passes_its_self_check", |_| now(device::present(Device::Wgpu(Some(0)))).unwrap()),
    ("device::software_is_never_taken_unasked", engines::never_unasked),
    ("device::one_that_fails_its_self_check_is_passed_over", engines::fails_its_self_check),
    ("engine::does_what_the_cpu_does", engines::does_what_the_cpu_does),
    ("engine::goes_on_on_the_cpu_when_the_gpu_is_lost", engines::lost),
    ("shared::all_know_that_the_gpu_is_lost", shared::lost),
];

/// What a machine must pass whose keys and values are rounded.
const ROUNDED: &[Test] = &[
    ("session::in_parts", |gpu| sessions::in_parts_within(gpu, sessions::ROUNDED)),
    ("session::long_prompts_of_a_quantised_model", |gpu| sessions::long_prompts_within(gpu, sessions::ROUNDED)),
    ("generate::greedy_text_is_that_of_the_cpu", models::greedy_text),
    ("decode::five_kernels_a_layer_and_one_submission_a_token", sessions::five_kernels),
];

fn backend(ops: Wgpu, weight: fn(&Dense) -> cpu::Weight) -> twins::Backend<Wgpu> {
    let acts = ops.fork();
    let [weights, matrices] = [(); 2].map(|()| RefCell::new(ops.fork()));
    twins::Backend {
        ops,
        weight: Box::new(move |w| weights.borrow_mut().weight(&weight(w))),
        matrix: Box::new(move |w| matrices.borrow_mut().weight(&weight(w))),
        act: Box::new(move |x: &Mat| acts.upload(x)),
        kept: Mat::clone,
        tolerance: twins::f32_tolerance,
    }
}

/// Whether the host reads the activation, one made of it, or a later token.
fn an_overrun_is_found(mut gpu: Wgpu) {
    let x = gpu.upload(&Mat::zeros(1, 3, 5));
    let read = |gpu: &mut Wgpu, x| catch_unwind(AssertUnwindSafe(|| now(gpu.read(x)).unwrap()));
    let half = gpu.average(&x, &x).unwrap();
    gpu.overrun(&half);
    let y = gpu.average(&half, &x).unwrap();
    drop(half);
    let message = *read(&mut gpu, &y).unwrap_err().downcast::<String>().unwrap();
    assert_eq!(message, "a kernel wrote behind the 60 bytes of an activation");
    // That one is gone; of those in use each is looked at each time.
    assert_eq!(read(&mut gpu, &y).unwrap(), [0.0; 15]);
    gpu.overrun(&y);
    let chosen = catch_unwind(AssertUnwindSafe(|| {
        let logits = gpu.upload(&Mat::zeros(1, 1, 5));
        now(gpu.sample(&logits, &mut Sampler::new(Sampling::default()).unwrap()))
    }));
    assert!(chosen.is_err());
}

/// Weights, activations and logits larger than a binding may be are split.
fn in_small_bindings(_: Wgpu) {
    let open =
        |binding| open(Settings { binding: Some(binding), guarded: false, ..GUARDED }).expect("the adapter is there");
    twins::products(backend(open(300 << 10), twins::codes));
    let gpu = open(160 << 10);
    twins::residual(backend(gpu.fork(), twins::dense));
    twins::attention(backend(gpu, twins::dense));
}
