//! Reading and writing text on each device: tokens, bytes and arithmetic per second beside the device's measured peaks.
//!
//! `cargo bench --bench devices [-- [record] [cpu]]`, with `cpu` on the CPU only. The model has random int8 weights and the
//! shape of the reference model of the other benches, or with `record` that of the record (34 M parameters). Before anything
//! is timed the same calls, on the same machine and weights, must answer what the plain interpreter does: both prompts,
//! steps after them, and the choice of a token. The peak of arithmetic of several threads is that of one times their number.
//! Bytes are those of the weights a token reads.

mod machine;

use std::time::Instant;

use half::f16;
use machine::answer::Answer;
use machine::{gemm_peak, read_peak, shape};
use sixpack_formats::{Model, ModelConfig, QuantizedMatrix, TensorData};
use sixpack_runtime::count::matmul_parameters;
use sixpack_runtime::cpu::Fast;
use sixpack_runtime::wgpu::{Wgpu, adapters};
use sixpack_runtime::{Count, Error, Pass, Remember, Sampler, Sampling, Session, Weights, now};

/// Time for each measurement.
const SECONDS: f64 = 1.0;

/// Tokens that are read at once.
const PROMPT: usize = 256;

/// Tokens of a short prompt.
const SHORT: usize = 2;

/// Tokens that are written after them.
const WRITTEN: usize = 32;

fn main() {
    let [record, cpu] = ["record", "cpu"].map(|wanted| std::env::args().any(|a| a == wanted));
    let model = random_model(if record { ModelConfig::record() } else { shape() });
    let weights = matmul_parameters(&model.config, true) as f64;
    println!("{weights} bytes of matrices a token");
    let ids = tokens(&model.config, PROMPT + WRITTEN);
    let answers = [SHORT, PROMPT].map(|prompt| Answer::new(&model, &ids, prompt, prompt + WRITTEN + 1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores].into_iter().take(cores.min(2)) {
        let mut cpu = Fast::new(threads).expect("threads");
        let loaded = cpu.load(&model);
        let peaks = (threads as f64 * gemm_peak(SECONDS), read_peak(SECONDS, threads));
        measure(&format!("cpu, {threads} threads"), &model.config, &loaded, &mut cpu, &answers, peaks);
    }
    let gpus = if cpu { Vec::new() } else { now(adapters()) };
    for (index, adapter) in gpus.iter().enumerate() {
        let facts = adapter.facts();
        let mut gpu = now(Wgpu::new(adapter)).expect("a device");
        let loaded = gpu.load(&model).expect("room for the model");
        let peak = now(gpu.peak()).expect("a working device");
        let name = format!("wgpu:{index}, {} ({}, {})", facts.name, facts.kind, facts.driver);
        measure(&name, &model.config, &loaded, &mut gpu, &answers, (peak.gflops, peak.gigabytes));
    }
}

/// Checks the answer, then prints the figures of a device with these peaks of GFLOP/s and GB/s.
fn measure<O: Remember<Error = Error>>(
    name: &str,
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    answers: &[Answer],
    (gflops, gigabytes): (f64, f64),
) {
    let worst = answers.iter().map(|answer| answer.difference(config, weights, ops)).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{name} is off by {worst} in a logit or a nat");
    println!("{name}: off by {worst:.0e} at most; peaks {gflops:.1} GFLOP/s, {gigabytes:.1} GB/s");
    let (read, written) = session(config, weights, ops, PROMPT);
    let flops =
        Count::forward(config, 1, PROMPT, Pass { last: Some(1), ..Pass::FULL }).total().flops as f64 / PROMPT as f64;
    let arithmetic = read * flops / 1e9;
    let share = 100.0 * arithmetic / gflops;
    println!("  reads {PROMPT} tokens: {read:8.0} tokens/s, {arithmetic:8.2} GFLOP/s, {share:3.0}% of the peak");
    for (after, written) in [(SHORT, session(config, weights, ops, SHORT).1), (PROMPT, written)] {
        let bytes = written * matmul_parameters(config, true) as f64 / 1e9;
        let share = 100.0 * bytes / gigabytes;
        println!("  writes after {after:3}:   {written:8.0} tokens/s, {bytes:8.2} GB/s,    {share:3.0}% of the peak");
    }
}

/// Tokens a second of a prompt, and of what is written after it: the best prompt and the best token of a second.
fn session<O: Remember<Error = Error>>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    prompt: usize,
) -> (f64, f64) {
    let ids = tokens(config, prompt);
    let mut sampler = Sampler::new(Sampling::default()).expect("sane options");
    let (start, mut read, mut written) = (Instant::now(), f64::MAX, f64::MAX);
    while read == f64::MAX || start.elapsed().as_secs_f64() < SECONDS {
        let mut session = Session::new(config, weights, ops, prompt + WRITTEN + 1);
        let t = Instant::now();
        session.feed(&ids).expect("room");
        let mut token = now(session.sample(&mut sampler)).expect("logits");
        read = read.min(t.elapsed().as_secs_f64());
        for _ in 0..WRITTEN {
            let t = Instant::now();
            session.step(token).expect("room");
            token = now(session.sample(&mut sampler)).expect("logits");
            written = written.min(t.elapsed().as_secs_f64());
        }
    }
    (prompt as f64 / read, 1.0 / written)
}

fn tokens(config: &ModelConfig, n: usize) -> Vec<u32> {
    let mut random = Random(2);
    (0..n).map(|_| (random.next() % config.vocab_size as u64) as u32).collect()
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// Matrices of int8 codes, the rest ones.
fn random_model(config: ModelConfig) -> Model {
    let mut random = Random(1);
    let tensors = config.tensors().into_iter().map(|spec| {
        let data = match spec.shape[..] {
            [rows, cols] if rows > 16 => {
                let codes = (0..rows * cols).map(|_| (random.next() % 255) as u8 as i8).map(|c| c.max(-127)).collect();
                let scale = f16::from_f32(1.0 / (80.0 * (cols as f32).sqrt()));
                let matrix = QuantizedMatrix::new(&spec.name(), [rows, cols], 127, codes, vec![scale; rows]);
                TensorData::Quantized(matrix.expect("codes within ±127"))
            }
            _ => TensorData::F32(vec![1.0; spec.elements()]),
        };
        (spec.id, data)
    });
    let tensors = tensors.collect();
    Model::new(config, tensors, None, 0).expect("a tensor for each row of the table")
}
