//! Speed of a training step on one thread, against the measured peak of a matrix product on the same thread.
//!
//! The shape is that of a model of 5.3 M parameters: 4 layers of width 320, recurrence on, 1024 pieces, sequences of
//! 256. Arithmetic counted is the model's: 6 × matmul parameters × tokens, recurrent layers as often as they run, the
//! head included; norms, attention scores and the optimizer are not counted but are in the time.
//!
//!     cargo bench --bench train

mod machine;

use std::time::{Duration, Instant};

use machine::{gemm_peak, shape};
use sixpack_formats::ModelConfig;
use sixpack_runtime::count::training_flops;
use sixpack_train::optim::{self, AdamW, Groups, Matrix, Muon, Now};
use sixpack_train::{CpuEngine, Optimizer, Params, Sequences, params};

const SEQUENCES: usize = 24;
const MICRO_BATCH: usize = 8;

fn main() {
    let config = shape();
    let tokens = SEQUENCES * config.train_seq_len;
    let batch = batch(&config);
    let mut weights = weights(&config);
    let engine = CpuEngine::new(&config, MICRO_BATCH, 1).expect("one thread");
    let gradients = engine.gradients(&weights, &batch, true).expect("a batch of the configuration");
    check(&engine, &weights, &batch, &gradients.of, gradients.loss);

    let peak = gemm_peak(1.0);
    println!("matrix product of 1024³ in f32, one thread: {peak:.1} GFLOP/s (peak)");
    let flops = training_flops(&config, true, tokens as u64);
    let report = |what: &str, time: Duration| {
        let rate = flops / time.as_secs_f64() / 1e9;
        let per_second = tokens as f64 / time.as_secs_f64();
        println!("{what}: {rate:.1} GFLOP/s, {:.0}% of peak, {per_second:.0} tokens/s", 100.0 * rate / peak);
    };
    let gradient_time = best(3, || {
        engine.gradients(&weights, &batch, true).expect("checked above");
    });
    report("gradients", gradient_time);
    let mut optimizer = Optimizer::new(&config, groups()).expect("steps its coefficients are for");
    let mut ema = weights.clone();
    let step_time = best(3, || {
        let mut gradients = engine.gradients(&weights, &batch, true).expect("checked above");
        optim::clip(&mut gradients.of, 0.3);
        engine.pool().install(|| optimizer.step(&mut weights, &gradients.of, Now { lr_scale: 1e-3, ..Now::default() }));
        optim::average(&mut ema, &weights, 0.997);
    });
    report(&format!("training step of {tokens} tokens"), step_time);
}

/// Correct before fast: a small move along the gradient changes the loss as the gradient says.
fn check(engine: &CpuEngine, weights: &Params, batch: &Sequences, gradients: &Params, loss: f64) {
    let norm: f64 = gradients.values().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
    let step = 1e-2 / norm;
    let mut moved = weights.clone();
    for (w, g) in moved.values_mut().flatten().zip(gradients.values().flatten()) {
        *w -= (step * f64::from(*g)) as f32;
    }
    let change = loss - engine.loss(&moved, batch, true).expect("the same batch");
    let ratio = change / (step * norm * norm);
    assert!((0.9..1.1).contains(&ratio), "the loss changes by {ratio:.3} of what the gradient says");
}

fn batch(config: &ModelConfig) -> Sequences {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % config.vocab_size as u32
    };
    let windows: Vec<u32> = (0..SEQUENCES * (config.train_seq_len + 1)).map(|_| next()).collect();
    Sequences::from_windows(&windows, config.train_seq_len)
}

/// Uniform weights of about the size training gives them.
fn weights(config: &ModelConfig) -> Params {
    let mut state = 7u64;
    let mut weights = params::zeros(config);
    for value in weights.values_mut().flatten() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *value = ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.1;
    }
    weights
}

fn groups() -> Groups {
    let adamw = AdamW { lr: 0.02, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.02 };
    Groups { matrix: Matrix::Muon(Muon::default()), token: adamw, scalar: adamw }
}

/// The shortest of several runs.
fn best(runs: usize, mut f: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap_or_default()
}
