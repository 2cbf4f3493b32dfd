//! The suites on a GPU. Where there is none its tests are ignored, and say so; with `SIXPACK_REQUIRE_GPU=1` they fail.

#[path = "suite/conformance.rs"]
mod conformance;
#[path = "../../tests/golden/golden.rs"]
mod golden;
#[path = "suite/session.rs"]
mod session;
#[path = "suite/twins.rs"]
mod twins;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sixpack_runtime::cpu::{self, Dense, Fast, Mat};
use sixpack_runtime::generate::{Limits, generate};
use sixpack_runtime::metric::{Options, Text, evaluate};
use sixpack_runtime::wgpu::{Settings, Wgpu, adapters};
use sixpack_runtime::{Remember, Sampler, Sampling, now};

/// A GPU for tests, or why there is none.
type Gpu = Result<Wgpu, String>;

fn open(settings: Settings) -> Gpu {
    let adapters = now(adapters());
    let adapter = adapters.first().ok_or("this machine has no adapter that wgpu can use")?;
    now(Wgpu::with(adapter, settings)).map_err(|e| e.to_string())
}

/// Activations with guard zones, as all of these tests have but one.
const GUARDED: Settings = Settings { binding: None, guarded: true };

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Opened once: pipelines take longer than most tests.
    let gpu = Arc::new(if arguments.list { Err("not needed to list".to_owned()) } else { open(GUARDED) });
    let trials = TESTS.iter().map(|&(name, test)| {
        let gpu = Arc::clone(&gpu);
        Trial::ignorable_test(name, move || run(&gpu, test))
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

const TESTS: &[Test] = &[
    ("conformance::goldens", goldens),
    ("conformance::refuses_foreign_tokens", refuses_foreign_tokens),
    ("twins::residual", |gpu| twins::residual(backend(gpu, twins::dense))),
    ("twins::residual_of_codes", |gpu| twins::residual(backend(gpu, twins::codes))),
    ("twins::attention", |gpu| twins::attention(backend(gpu, twins::dense))),
    ("twins::products", |gpu| twins::products(backend(gpu, twins::dense))),
    ("twins::products_with_codes", |gpu| twins::products(backend(gpu, twins::codes))),
    ("twins::steps", |gpu| twins::steps(backend(gpu, twins::dense))),
    ("twins::steps_with_codes", |gpu| twins::steps(backend(gpu, twins::codes))),
    ("twins::remembered", |gpu| twins::remembered(backend(gpu, twins::dense))),
    ("twins::in_small_bindings", in_small_bindings),
    ("session::in_parts", in_parts),
    ("session::long_prompts_of_a_quantised_model", long_prompts),
    ("metric::reproduces_the_reference", reproduces_the_reference),
    ("generate::greedy_text_is_that_of_the_cpu", greedy_text),
];

fn backend(ops: Wgpu, weight: fn(&Dense) -> cpu::Weight) -> twins::Backend<Wgpu> {
    let (weights, acts) = (RefCell::new(ops.fork()), ops.fork());
    twins::Backend {
        ops,
        weight: Box::new(move |w| weights.borrow_mut().weight(&weight(w))),
        act: Box::new(move |x: &Mat| acts.upload(x)),
    }
}

fn goldens(mut gpu: Wgpu) {
    for case in golden::CASES {
        let model = golden::model(case);
        let weights = gpu.load(&model);
        conformance::goldens(case, &model.config, &weights, &mut gpu);
        conformance::narrowed(case, &model.config, &weights, &mut gpu);
    }
}

fn refuses_foreign_tokens(mut gpu: Wgpu) {
    let model = golden::model("tiny");
    let weights = gpu.load(&model);
    conformance::refuses_foreign_tokens(&model.config, &weights, &mut gpu);
}

/// Weights, activations and logits larger than a binding may be are split.
fn in_small_bindings(_: Wgpu) {
    let open = |binding| open(Settings { binding: Some(binding), guarded: false }).expect("the adapter is there");
    twins::products(backend(open(300 << 10), twins::codes));
    let gpu = open(160 << 10);
    twins::residual(backend(gpu.fork(), twins::dense));
    twins::attention(backend(gpu, twins::dense));
}

fn in_parts(mut gpu: Wgpu) {
    for case in golden::CASES {
        let (model, ids) = (golden::model(case), session::sequence(case));
        let weights = gpu.load(&model);
        for parts in [vec![1], vec![ids.len()], vec![7, 1, 1]] {
            session::parts_equal_the_whole(&model.config, &weights, &mut gpu, &ids, parts.into_iter().cycle());
        }
    }
}

fn long_prompts(mut gpu: Wgpu) {
    let mut model = golden::model("tiny");
    session::quantise(&mut model);
    let ids: Vec<u32> = (0..330).map(|i| (i * 37 + i / 5) % 160).collect();
    let weights = gpu.load(&model);
    session::parts_equal_the_whole(&model.config, &weights, &mut gpu, &ids, [1, 300, 3, 1, 25]);
    let found = session::full(&model.config, &weights, &mut gpu, &ids[..40]);
    let mut cpu = Fast::new(1).unwrap();
    let weights = cpu.load(&model);
    let expected = session::full(&model.config, &weights, &mut cpu, &ids[..40]);
    let worst = found.0.iter().zip(&expected.0).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

fn reproduces_the_reference(mut gpu: Wgpu) {
    for case in golden::CASES {
        let arrays = golden::arrays(&format!("{case}/eval.safetensors"));
        let narrow = |key: &str| arrays[key].ids().into_iter().map(|x| x as u16).collect::<Vec<_>>();
        let flags = |key: &str| narrow(key).into_iter().map(|x| x != 0).collect();
        let tables = sixpack_formats::tokenizer::ByteTables {
            base_bytes: narrow("base_bytes"),
            leading_space: flags("leading_space"),
            boundary: flags("boundary"),
        };
        let eval = golden::meta(case)["eval"].clone();
        let number = |key: &str| eval[key].as_u64().unwrap() as usize;
        let model = golden::model(case);
        let weights = gpu.load(&model);
        let tokens = narrow("tokens");
        let text = Text { tokens: &tokens, bytes: Some(&tables), bos: Some(1) };
        for (mode, stride) in [("plain", None), ("sliding", Some(number("stride")))] {
            let options = Options { seq_len: number("seq_len"), stride, batch: 3, max_tokens: None };
            let found = now(evaluate(&model.config, &weights, &mut gpu, &text, &options, &mut |_| {})).unwrap();
            let expected = eval[format!("{mode}_bpb")].as_f64().unwrap();
            let found = found.bits_per_byte.unwrap();
            assert!((found - expected).abs() < 1e-5, "{case} {mode}: found {found}, expected {expected}");
        }
    }
}

/// Also past the end of the context, and with weights that are codes.
fn greedy_text(mut gpu: Wgpu) {
    for case in golden::CASES {
        for quantised in [false, true] {
            let mut model = golden::model(case);
            if quantised {
                session::quantise(&mut model);
            }
            let mut cpu = Fast::new(1).unwrap();
            let weights = cpu.load(&model);
            let expected = text(&model, &weights, &mut cpu);
            let weights = gpu.load(&model);
            assert_eq!(text(&model, &weights, &mut gpu), expected, "{case}, codes: {quantised}");
        }
    }
}

fn text<O: Remember<Error = sixpack_runtime::Error>>(
    model: &sixpack_formats::Model,
    weights: &sixpack_runtime::Weights<O::Weight>,
    ops: &mut O,
) -> Vec<u32> {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
    let limits = Limits { max_tokens: 40, context: 32, stop: &[] };
    let mut text = Vec::new();
    let mut on_token = |token| {
        text.push(token);
        true
    };
    now(generate(&model.config, weights, ops, &[3, 1, 4, 1, 5], &limits, &mut sampler, &mut on_token)).unwrap();
    text
}
