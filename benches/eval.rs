//! Evaluation and steps of a session: model arithmetic per second beside the measured peaks of a matrix product and of
//! reading memory.
//!
//! `cargo bench --bench eval [-- THREADS [SHAPE]]`. The models have random weights and the shapes of the reference model
//! this project compares itself with, of the record, and of the record without recurrence, which is a plain 11-layer
//! model. Whatever is timed must first answer what the plain interpreter does, on the same machine and weights. Each figure
//! is that of the best run of a second, as on a machine with nothing else to do.
//!
//! The text repeats itself with the stride, so that the plain interpreter, which is slow, reads one window for all.

mod machine;

use std::collections::BTreeMap;
use std::time::Instant;

use half::f16;
use machine::answer::{self, Answer};
use machine::{gemm_peak, read_peak, shape};
use sixpack_formats::{Model, ModelConfig, QuantizedMatrix, TensorData};
use sixpack_runtime::count::matmul_parameters;
use sixpack_runtime::cpu::{Fast, Weight};
use sixpack_runtime::metric::{Options, Text, evaluate};
use sixpack_runtime::{Count, Pass, Session, Weights, now};

/// Time for each measurement.
const SECONDS: f64 = 1.0;

/// Length of an evaluation's windows and of a prompt.
const WINDOW: usize = 256;

/// Windows of a run without overlap.
const WINDOWS: usize = 8;

/// New targets of a window that slides, after which the text repeats itself.
const STRIDE: usize = 64;

/// Steps after a prompt.
const STEPS: usize = 128;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let threads = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(1);
    let wanted = arguments.get(1);
    let peaks = Peaks { gflops: gemm_peak(SECONDS) * threads as f64, bandwidth: read_peak(SECONDS, threads) };
    println!("{threads} thread(s)");
    println!("f32 matrix product: {:6.1} GFLOP/s (one thread's, times the threads)", peaks.gflops);
    println!("reading memory:     {:6.1} GB/s", peaks.bandwidth);
    let plain = ModelConfig { recur_layers: vec![], ..ModelConfig::record() };
    let shapes = [("reference", shape()), ("record", ModelConfig::record()), ("plain record", plain)];
    for (name, config) in shapes.into_iter().filter(|(name, _)| wanted.is_none_or(|w| w == name)) {
        println!("\n{name}: {} matmul parameters a token", matmul_parameters(&config, true));
        let float = random_model(config);
        let int8 = quantised(&float);
        measure("int8", &int8, 1, threads, &peaks);
        measure("f32", &float, 4, threads, &peaks);
    }
}

/// What the machine can do at best.
struct Peaks {
    gflops: f64,
    bandwidth: f64,
}

/// Checks and times one model, whose weights take `width` bytes each.
fn measure(name: &str, model: &Model, width: usize, threads: usize, peaks: &Peaks) {
    let mut ops = Fast::new(threads).expect("threads");
    let weights = ops.load(model);
    let config = &model.config;
    let ids: Vec<u32> = text(config.vocab_size, WINDOW + STEPS).into_iter().map(u32::from).collect();
    let answer = Answer::new(model, &ids, WINDOW, ids.len());
    let worst = answer.difference(config, &weights, &mut ops);
    assert!(worst < 1e-3, "a session is off by {worst} in a logit or a nat");
    let nll = answer::window(model, &ids[..=WINDOW]);
    let (prefill, step) = session(config, &weights, &mut ops, &ids);
    let parameters = matmul_parameters(config, true) as f64;
    let (gflops, bandwidth) = (2.0 * parameters * prefill / 1e9, parameters * width as f64 * step / 1e9);
    let shares = [100.0 * gflops / peaks.gflops, 100.0 * bandwidth / peaks.bandwidth];
    println!("{name} prompt of {WINDOW}: {prefill:7.0} tokens/s, {gflops:6.1} GFLOP/s ({:3.0}%)", shares[0]);
    println!("{name} generation: {step:7.0} tokens/s, {bandwidth:6.1} GB/s of weights ({:3.0}%)", shares[1]);
    for (stride, batch) in [(None, 1), (None, 2), (None, 8), (Some(STRIDE), 8)] {
        let later: f64 = nll[WINDOW - stride.unwrap_or(WINDOW)..].iter().sum();
        let (gflops, tokens) = evaluation(config, &weights, &mut ops, (stride, batch), [nll.iter().sum(), later]);
        let mode = stride.map_or("plain".into(), |s| format!("stride {s}"));
        let share = 100.0 * gflops / peaks.gflops;
        println!(
            "{name} evaluation, {mode}, {batch} windows: {gflops:6.1} GFLOP/s ({share:3.0}%), {tokens:7.0} tokens/s"
        );
    }
}

/// Uniform in ±1, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn token(&mut self, vocab: usize) -> u16 {
        ((self.next() + 1.0) / 2.0 * (vocab - 1) as f32) as u16
    }
}

fn random_model(config: ModelConfig) -> Model {
    let mut random = Random(1);
    let tensors = config.tensors().into_iter().map(|spec| {
        let cols = spec.shape.last().copied().unwrap_or(1) as f32;
        let centre = if spec.shape.len() == 2 { 0.0 } else { 1.0 };
        let values = (0..spec.elements()).map(|_| centre + random.next() / cols.sqrt());
        (spec.id, TensorData::F32(values.collect()))
    });
    let tensors = tensors.collect();
    Model::new(config, tensors, None, 0).expect("a tensor for each row of the table")
}

/// Every matrix as codes.
fn quantised(model: &Model) -> Model {
    let mut tensors = BTreeMap::new();
    for spec in model.config.tensors() {
        let data = &model.tensors[&spec.id];
        let [rows, cols] = spec.shape[..] else {
            tensors.insert(spec.id, data.clone());
            continue;
        };
        if spec.elements() <= 8192 {
            tensors.insert(spec.id, data.clone());
            continue;
        }
        let scale = f16::from_f32(1.0 / (127.0 * (cols as f32).sqrt()));
        let codes = data.to_f32().iter().map(|x| (x / scale.to_f32()).round().clamp(-127.0, 127.0) as i8).collect();
        let matrix = QuantizedMatrix::new(&spec.name(), [rows, cols], 127, codes, vec![scale; rows]);
        tensors.insert(spec.id, TensorData::Quantized(matrix.expect("codes within ±127")));
    }
    Model::new(model.config.clone(), tensors, None, 0).expect("the same table")
}

/// A text that repeats itself.
fn text(vocab: usize, len: usize) -> Vec<u16> {
    let mut random = Random(3);
    let part: Vec<u16> = (0..STRIDE).map(|_| random.token(vocab)).collect();
    part.into_iter().cycle().take(len).collect()
}

/// GFLOP/s of model arithmetic, attention included, and tokens scored per second. What the first window and each later
/// one should cost is checked each time.
fn evaluation(
    config: &ModelConfig,
    weights: &Weights<Weight>,
    ops: &mut Fast,
    (stride, batch): (Option<usize>, usize),
    nats: [f64; 2],
) -> (f64, f64) {
    let seq_len = WINDOW;
    let tokens = text(config.vocab_size, WINDOWS * seq_len + 1);
    let text = Text { tokens: &tokens, bytes: None, bos: None };
    let options = Options { seq_len, stride, batch, max_tokens: None };
    let later = Count::forward(config, 1, seq_len, Pass { last: stride, ..Pass::FULL }).total().flops;
    let first = Count::forward(config, 1, seq_len, Pass::FULL).total().flops;
    let windows = stride.map_or(WINDOWS, |s| 1 + (WINDOWS - 1) * seq_len / s);
    let flops = first + (windows as u64 - 1) * later;
    let expected = nats[0] + (windows - 1) as f64 * nats[1];
    let (start, mut best) = (Instant::now(), f64::MAX);
    let mut scored = 0;
    while start.elapsed().as_secs_f64() < SECONDS {
        let found = now(evaluate(config, weights, ops, &text, &options, &mut |_| {})).expect("a sane evaluation");
        let off = (found.nats - expected).abs() / found.tokens as f64;
        assert!(off < 1e-5, "evaluation with stride {stride:?} by {batch} windows is off by {off} nats a token");
        best = best.min(found.seconds);
        scored = found.tokens;
    }
    (flops as f64 / best / 1e9, scored as f64 / best)
}

/// Tokens per second of a prompt, and of the best of the steps after it: one is short enough not to be interrupted.
fn session(config: &ModelConfig, weights: &Weights<Weight>, ops: &mut Fast, ids: &[u32]) -> (f64, f64) {
    let (prompt, rest) = ids.split_at(WINDOW);
    let (start, mut prefill, mut step) = (Instant::now(), f64::MAX, f64::MAX);
    while start.elapsed().as_secs_f64() < SECONDS {
        let mut session = Session::new(config, weights, ops, ids.len());
        let t = Instant::now();
        now(session.prefill(prompt)).expect("room");
        prefill = prefill.min(t.elapsed().as_secs_f64());
        for &id in rest {
            let t = Instant::now();
            session.step(id).expect("room");
            step = step.min(t.elapsed().as_secs_f64());
        }
    }
    (WINDOW as f64 / prefill, 1.0 / step)
}
