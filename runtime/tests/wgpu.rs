//! The suites on a GPU. Where there is none its tests are ignored, and say so; with `SIXPACK_REQUIRE_GPU=1` they fail.

#[path = "suite/conformance.rs"]
mod conformance;
#[path = "../../tests/golden/golden.rs"]
mod golden;
#[path = "suite/session.rs"]
mod session;
#[path = "suite/trained.rs"]
mod trained;
#[path = "suite/twins.rs"]
mod twins;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sixpack_formats::ModelConfig;
use sixpack_runtime::cpu::{self, Dense, Fast, Mat};
use sixpack_runtime::generate::{Limits, generate};
use sixpack_runtime::metric::{Options, Text, evaluate};
use sixpack_runtime::wgpu::{Settings, Wgpu, adapters};
use sixpack_runtime::{Device, Engine, Error, Remember, Sampler, Sampling, Session, device, now};

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
    ("generate::a_trained_model_says_and_scores_what_it_does_on_the_cpu", trained_model),
    ("decode::five_kernels_a_layer_and_one_submission_a_token", five_kernels),
    ("decode::in_small_bindings", decode_in_small_bindings),
    ("sample::as_the_host_does", sample_as_the_host_does),
    ("device::passes_its_self_check", |_| now(device::present(Device::Wgpu(Some(0)))).unwrap()),
    ("device::software_is_never_taken_unasked", never_unasked),
    ("engine::does_what_the_cpu_does", engine),
    ("engine::goes_on_on_the_cpu_when_the_gpu_is_lost", lost),
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
        let weights = gpu.load(&model).unwrap();
        conformance::goldens(case, &model.config, &weights, &mut gpu);
        conformance::narrowed(case, &model.config, &weights, &mut gpu);
    }
}

fn refuses_foreign_tokens(mut gpu: Wgpu) {
    let model = golden::model("tiny");
    let weights = gpu.load(&model).unwrap();
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
        let weights = gpu.load(&model).unwrap();
        // Prompts are composed of the plain kernels, single tokens run in the fused ones.
        for parts in [vec![ids.len()], vec![7, 1, 1, 2]] {
            session::parts_equal_the_whole(&model.config, &weights, &mut gpu, &ids, parts.into_iter().cycle());
        }
    }
}

fn long_prompts(mut gpu: Wgpu) {
    let mut model = golden::model("tiny");
    session::quantise(&mut model);
    let ids: Vec<u32> = (0..330).map(|i| (i * 37 + i / 5) % 160).collect();
    let weights = gpu.load(&model).unwrap();
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
        let weights = gpu.load(&model).unwrap();
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
            let weights = gpu.load(&model).unwrap();
            assert_eq!(text(&model, &weights, &mut gpu), expected, "{case}, codes: {quantised}");
        }
    }
}

fn trained_model(gpu: Wgpu) {
    let (artifact, tokenizer) = trained::model();
    let expected = trained::make(&mut Engine::cpu(&artifact.model, 1).unwrap(), &tokenizer);
    let found = trained::make(&mut Engine::gpu(&artifact.model, gpu, 0, None).unwrap(), &tokenizer);
    assert_eq!(found.texts, expected.texts);
    assert!((found.bits_per_byte - expected.bits_per_byte).abs() < trained::BITS, "{found:?} for {expected:?}");
    assert!((found.nats - expected.nats).abs() < trained::NATS, "{found:?} for {expected:?}");
}

/// A software adapter, which all adapters of CI are, is for those who ask.
fn never_unasked(_: Wgpu) {
    let config = ModelConfig { vocab_size: 512, num_layers: 2, recur_layers: vec![], ..ModelConfig::record() };
    let survey = now(device::survey(&config, 1)).unwrap();
    assert!(survey.cpu > 0.0 && !survey.adapters.is_empty());
    for adapter in &survey.adapters {
        assert!(*adapter.check.as_ref().unwrap() < 1e-4, "{adapter:?}");
        assert!(*adapter.speed.as_ref().unwrap().as_ref().unwrap() > 0.0, "{adapter:?}");
        assert!(!adapter.facts.software || adapter.device != survey.choice, "{survey:?}");
    }
}

/// Everything a program asks of an engine, on `tiny`.
fn ask(engine: &mut Engine) -> Result<(Vec<f32>, Vec<u32>, f64), Error> {
    let ids: Vec<u32> = session::sequence("tiny").into_iter().cycle().take(60).collect();
    let scores = now(engine.score(&ids, 24))?;
    let tokens: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
    let options = Options { seq_len: 16, stride: Some(4), batch: 4, max_tokens: None };
    let text = Text { tokens: &tokens, bytes: None, bos: None };
    let nats = now(engine.evaluate(&text, &options, &mut |_| {}))?.nats;
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() })?;
    let limits = Limits { max_tokens: 12, context: 48, stop: &[] };
    let mut said = Vec::new();
    let mut on_token = |token| {
        said.push(token);
        true
    };
    now(engine.generate(&ids[..9], &limits, &mut sampler, &mut on_token))?;
    Ok((scores, said, nats))
}

fn assert_same(found: &(Vec<f32>, Vec<u32>, f64), expected: &(Vec<f32>, Vec<u32>, f64)) {
    assert_eq!(found.1, expected.1);
    assert!((found.2 - expected.2).abs() < 1e-2, "{} nats for {}", found.2, expected.2);
    let worst = found.0.iter().zip(&expected.0).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(found.0.len() == expected.0.len() && worst < 1e-3, "{worst}");
}

fn engine(gpu: Wgpu) {
    let model = golden::model("tiny");
    let expected = ask(&mut Engine::cpu(&model, 1).unwrap()).unwrap();
    let mut engine = Engine::gpu(&model, gpu, 3, None).unwrap();
    assert_eq!(engine.device(), Device::Wgpu(Some(3)));
    assert_same(&ask(&mut engine).unwrap(), &expected);
    // Others of the same model at the same time, each on a thread of its own.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut fork = engine.fork(1).unwrap();
            let expected = &expected;
            scope.spawn(move || assert_same(&ask(&mut fork).unwrap(), expected));
        }
    });
    // A small model is the CPU's, and what is not there is not found.
    assert_eq!(now(Engine::open(&model, Device::Auto, 1)).unwrap().device(), Device::Cpu);
    let error = now(Engine::open(&model, Device::Wgpu(Some(99)), 1)).unwrap_err();
    assert!(error.to_string().starts_with("no device `wgpu:99`: there are "), "{error}");
    let error = now(Engine::open(&model, Device::Cuda(None), 1)).unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }), "{error}");
}

fn lost(_: Wgpu) {
    let model = golden::model("tiny");
    let expected = ask(&mut Engine::cpu(&model, 1).unwrap()).unwrap();
    for spare in [None, Some(1)] {
        let gpu = open(Settings::default()).unwrap();
        let same = gpu.fork();
        let mut engine = Engine::gpu(&model, gpu, 0, spare).unwrap();
        // In the middle of a text.
        let limits = Limits { max_tokens: 8, context: 48, stop: &[] };
        let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
        let mut said = Vec::new();
        let mut on_token = |token| {
            said.push(token);
            if said.len() == 4 {
                same.lose();
            }
            true
        };
        let prompt = &session::sequence("tiny")[..9];
        let reading = now(engine.generate(prompt, &limits, &mut sampler, &mut on_token));
        if spare.is_none() {
            assert!(matches!(reading, Err(Error::DeviceLost { .. })), "{reading:?}");
            assert!(matches!(ask(&mut engine), Err(Error::DeviceLost { .. })));
            continue;
        }
        assert_eq!((said.as_slice(), reading.unwrap().tokens), (&expected.1[..8], 8));
        assert_eq!(engine.device(), Device::Cpu);
        assert_same(&ask(&mut engine).unwrap(), &expected);
    }
}

fn five_kernels(mut gpu: Wgpu) {
    assert!(gpu.pipelines() <= 16);
    for case in golden::CASES {
        let model = golden::model(case);
        let config = &model.config;
        let weights = gpu.load(&model).unwrap();
        let mut sampler = Sampler::new(Sampling { seed: 1, ..Sampling::default() }).unwrap();
        let counts = |gpu: &Wgpu| gpu.counts();
        let mut session = Session::new(config, &weights, &mut gpu, 32);
        now(session.prefill(&[1, 2, 3])).unwrap();
        now(session.sample(&mut sampler)).unwrap();
        let before = counts(session.machine());
        session.step(5).unwrap();
        now(session.sample(&mut sampler)).unwrap();
        let after = counts(session.machine());
        // The embedding and its norm; the value embedding, its projection and scale; the last norm, the head, the choice.
        let value_embedding = match config.ve_layers.is_empty() {
            true => 0,
            false => 2 + u64::from(config.ve_dim != config.kv_dim()),
        };
        let around = 2 + value_embedding + 3 + u64::from(config.parallel_residual);
        let layers = config.virtual_layers(true).len() as u64;
        assert_eq!(after.dispatches - before.dispatches, 5 * layers + around, "{case}");
        assert_eq!(after.submissions - before.submissions, 1, "{case}");
        assert_eq!(after.read - before.read, 4, "{case}: more than the token came back");
    }
}

/// Weights in many chunks: no kernel sees a whole block, so that it is composed.
fn decode_in_small_bindings(_: Wgpu) {
    let mut gpu = open(Settings { binding: Some(48 << 10), guarded: false }).unwrap();
    for case in ["tiny", "parallel"] {
        let (model, ids) = (golden::model(case), session::sequence(case));
        let weights = gpu.load(&model).unwrap();
        let parts = [ids.len() - 5, 1, 1, 1, 1, 1];
        session::parts_equal_the_whole(&model.config, &weights, &mut gpu, &ids, parts);
    }
}

fn sample_as_the_host_does(mut gpu: Wgpu) {
    // Few values, so that there are many equal logits; a vocabulary that is no multiple of anything.
    let logits: Vec<f32> = (0..1003u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32 / 16.0 - 9.0).collect();
    let act = |gpu: &Wgpu, data: &[f32]| gpu.upload(&Mat { data: data.to_vec(), ..Mat::zeros(1, 1, data.len()) });
    let on_gpu = act(&gpu, &logits);
    let all = Sampling::default();
    let ways = [
        all,
        Sampling { temperature: 0.0, ..all },
        Sampling { temperature: 0.3, seed: 5, ..all },
        Sampling { top_k: 1, ..all },
        Sampling { top_k: 7, ..all },
        Sampling { top_p: 0.6, seed: 2, ..all },
        Sampling { top_p: 0.0, ..all },
        Sampling { min_p: 0.2, seed: 3, ..all },
        Sampling { temperature: 2.0, top_k: 300, top_p: 0.9, min_p: 0.05, seed: 9 },
    ];
    for way in ways {
        let (mut ours, mut hosts) = (Sampler::new(way).unwrap(), Sampler::new(way).unwrap());
        for draw in 0..8 {
            let expected = hosts.sample(&logits).unwrap();
            assert_eq!(now(gpu.sample(&on_gpu, &mut ours)).unwrap(), expected, "{way:?}, draw {draw}");
        }
    }
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let logits = vec![wrong; 3];
        let on_gpu = act(&gpu, &logits);
        let found = now(gpu.sample(&on_gpu, &mut Sampler::new(all).unwrap())).unwrap_err().to_string();
        assert_eq!(found, Sampler::new(all).unwrap().sample(&logits).unwrap_err().to_string());
    }
}

fn text<O: Remember<Error = sixpack_runtime::Error>>(
    model: &sixpack_formats::Model,
    weights: &sixpack_runtime::Weights<O::Weight>,
    ops: &mut O,
) -> Vec<u32> {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..Sampling::default() }).unwrap();
    let limits = Limits { max_tokens: 24, context: 20, stop: &[] };
    let mut text = Vec::new();
    let mut on_token = |token| {
        text.push(token);
        true
    };
    now(generate(&model.config, weights, ops, &[3, 1, 4, 1, 5], &limits, &mut sampler, &mut on_token)).unwrap();
    text
}
