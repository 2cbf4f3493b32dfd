//! Training: losses that follow the CPU engine's on real text, and the speed of the record's step.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_formats::{Artifact, ModelConfig};
use sixpack_runtime::count::training_flops;
use sixpack_runtime::cuda::{Gpu, Kind, Settings};
use sixpack_train::cuda::{self, IN_FLIGHT, Learner, Ranks, Rules};
use sixpack_train::optim::{self, AdamW, Groups, Matrix, Muon, Now};
use sixpack_train::{CpuEngine, Optimizer, Sequences, init};

use crate::Bench;

/// Dense bf16 arithmetic of an H100 or H200 in TFLOP/s, which utilisation is of.
const DENSE: f64 = 989.0;

/// The text that is learned from, and a model whose tokenizer reads it: both are in this project's folder.
const TEXT: &str = "LOG.md";
const READER: &str = "examples/web/page/books.6pk";

/// Largest difference of a loss of the fifty steps, in nats: bf16 beside f32.
const APART: f64 = 0.05;

fn groups() -> Groups {
    let adamw = |lr| AdamW { lr, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.09 };
    Groups { matrix: Matrix::Muon(Muon::default()), token: adamw(0.03), scalar: adamw(0.02) }
}

/// Tokens of the text.
pub(crate) fn tokens() -> Result<(Vec<u32>, usize), String> {
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e} (run this in the project's folder)");
    let text = std::fs::read_to_string(TEXT).map_err(|e| failed(TEXT, &e))?;
    let packed = Artifact::open(READER).map_err(|e| failed(READER, &e))?;
    let tokenizer = packed.model.tokenizer.as_deref().ok_or_else(|| failed(READER, &"it has no tokenizer"))?;
    let tokenizer = Tokenizer::from_model(tokenizer).map_err(|e| failed(READER, &e))?;
    Ok((tokenizer.encode(&text), packed.model.config.vocab_size))
}

/// Fifty steps on real text, recurrence from the middle on, beside the same on the CPU.
pub(crate) fn follow(bench: &Bench) -> Result<Value, String> {
    let (tokens, vocab_size) = tokens()?;
    let (steps, sequences) = if bench.small { (4, 2) } else { (50, 8) };
    let shape = ModelConfig {
        vocab_size,
        num_layers: if bench.small { 2 } else { 4 },
        model_dim: if bench.small { 32 } else { 256 },
        num_heads: if bench.small { 2 } else { 4 },
        num_kv_heads: if bench.small { 1 } else { 2 },
        train_seq_len: if bench.small { 16 } else { 256 },
        eval_seq_len: if bench.small { 16 } else { 256 },
        xsa_last_n: 2,
        ve_layers: vec![1],
        ve_dim: 64,
        recur_layers: vec![1],
        ..ModelConfig::record()
    };
    let rules = Rules { micro_batch: sequences / 2, grad_clip: 0.3, ema_decay: 0.997 };
    let weights = init(&shape, 1337);
    let text = |e: sixpack_train::Error| e.to_string();
    let mut learner =
        Learner::new(&bench.gpu, Kind::Bf16, &shape, groups(), rules, [&weights, &weights]).map_err(text)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let engine = CpuEngine::new(&shape, 1, threads).map_err(text)?;
    let mut optimizer = Optimizer::new(&shape, groups()).map_err(text)?;
    let mut on_cpu = weights;
    let window = sequences * (shape.train_seq_len + 1);
    let mut losses = Vec::new();
    for (step, tokens) in tokens.chunks_exact(window).cycle().take(steps).enumerate() {
        let batch = Sequences::from_windows(tokens, shape.train_seq_len);
        let recurrence = step >= steps / 2;
        let found = learner.step(&batch, recurrence, Now::default()).map_err(text)?.loss;
        let mut gradients = engine.gradients(&on_cpu, &batch, recurrence).map_err(text)?;
        optim::clip(&mut gradients.of, rules.grad_clip);
        engine.pool().install(|| optimizer.step(&mut on_cpu, &gradients.of, Now::default()));
        losses.push([found, gradients.loss]);
    }
    let worst = losses.iter().map(|[found, expected]| (found - expected).abs()).fold(0.0, f64::max);
    let [first, last] = [losses[0], losses[losses.len() - 1]];
    println!(
        "  {steps} steps of {window} tokens of {TEXT}: from {:.4} to {:.4} nats on the GPU, to {:.4} on the CPU",
        first[0], last[0], last[1]
    );
    println!("  largest difference of a step's loss: {worst:.4} nats; on the GPU and on the CPU:");
    losses.iter().for_each(|[found, expected]| println!("  {found:.4} {expected:.4}"));
    // A few steps of a small model teach nothing yet.
    match worst < APART && (bench.small || last[0] < first[0]) {
        true => Ok(json!({ "steps": steps, "losses": losses, "largest_difference": worst })),
        false => Err(format!(
            "losses differ by {worst:.4} nats, expected at most {APART}, and go from {:.4} to {:.4}",
            first[0], last[0]
        )),
    }
}

/// Tokens per second of the record's step, before and after recurrence, and what the optimizer takes of it.
pub(crate) fn speed(bench: &Bench) -> Result<Value, String> {
    let (config, sequences, steps) = match bench.small {
        true => (
            ModelConfig {
                num_layers: 3,
                model_dim: 64,
                num_heads: 2,
                num_kv_heads: 1,
                train_seq_len: 32,
                xsa_last_n: 3,
                ve_layers: vec![2],
                recur_layers: vec![1],
                ..ModelConfig::record()
            },
            2,
            2,
        ),
        false => (ModelConfig::record(), 48, 12),
    };
    let rules = Rules { micro_batch: sequences, grad_clip: 0.3, ema_decay: 0.997 };
    let weights = init(&config, 1337);
    let text = |e: sixpack_train::Error| e.to_string();
    let driver = |e: sixpack_runtime::Error| e.to_string();
    let before = bench.gpu.taken().map_err(driver)?;
    let mut learner =
        Learner::new(&bench.gpu, Kind::Bf16, &config, groups(), rules, [&weights, &weights]).map_err(text)?;
    let len = config.train_seq_len;
    let ids: Vec<u32> = (0..sequences * (len + 1)).map(|i| (i * 7919 % config.vocab_size) as u32).collect();
    let batch = Sequences::from_windows(&ids, len);
    let tokens = batch.targets.len();
    let now = Now { lr_scale: 0.01, ..Now::default() };
    let mut found = Vec::new();
    for recurrence in [false, true] {
        // The first loads kernels and chooses products, the second is recorded.
        for _ in 0..3 {
            learner.step(&batch, recurrence, now).map_err(text)?;
        }
        let before = learner.gpu().stalls();
        let start = Instant::now();
        for _ in 0..steps {
            if learner.in_flight() == IN_FLIGHT {
                learner.finish().map_err(text)?;
            }
            learner.queue(&batch, recurrence, now, &Ranks::alone()).map_err(text)?;
        }
        while learner.finish().map_err(text)?.is_some() {}
        let seconds = start.elapsed().as_secs_f64() / f64::from(steps);
        let after = learner.gpu().stalls();
        let (allocations, copies) = (after.allocations - before.allocations, after.copies - before.copies);
        if allocations + copies > 0 {
            return Err(format!("{steps} steps allocated {allocations} times and copied {copies} times unpinned"));
        }
        let start = Instant::now();
        for _ in 0..steps {
            learner.update(now).map_err(text)?;
        }
        learner.gpu().wait().map_err(driver)?;
        let update = start.elapsed().as_secs_f64() / f64::from(steps);
        let rate = tokens as f64 / seconds;
        let flops = training_flops(&config, recurrence, tokens as u64) / seconds;
        let (share, used) = (100.0 * update / seconds, 100.0 * flops / 1e12 / DENSE);
        println!(
            "  recurrence {recurrence:5}: {:8.2} ms/step, {rate:9.0} tokens/s, {:6.1} TFLOP/s, MFU {used:4.1}%, optimizer {:.2} ms ({share:.1}%)",
            1e3 * seconds,
            flops / 1e12,
            1e3 * update
        );
        found.push(json!({ "recurrence": recurrence, "ms_per_step": 1e3 * seconds, "tokens_per_second": rate,
            "teraflops": flops / 1e12, "mfu": used / 100.0, "optimizer_ms": 1e3 * update }));
    }
    let memory = learner.gpu().taken().map_err(driver)?.saturating_sub(before);
    let recompute = bench.gpu.settings().recompute;
    let expected = cuda::memory::steps(&config, groups(), rules, sequences, recompute).map_err(text)?;
    println!(
        "  memory: {:.2} GB for {tokens} tokens at once; expected {:.2} GB without code and workspace",
        memory as f64 / 1e9,
        expected as f64 / 1e9
    );
    Ok(json!({ "tokens_per_step": tokens, "speeds": found, "memory_bytes": memory, "expected_bytes": expected }))
}

/// A step of a small model, without recording and with each buffer an allocation of its own: for a tool that watches.
pub(crate) fn one_small_step() -> Result<(), String> {
    // Of this project's kernels only: what is watched is slow, and the library's are not ours to mend.
    let settings = Settings { reuse: false, library: false, tile: 60, ..Settings::default() };
    let gpu: Arc<Gpu> = Gpu::open(0, settings).map_err(|e| e.to_string())?;
    let config = ModelConfig {
        vocab_size: 128,
        num_layers: 3,
        model_dim: 64,
        num_heads: 2,
        num_kv_heads: 1,
        train_seq_len: 40,
        xsa_last_n: 3,
        ve_layers: vec![2],
        ve_dim: 16,
        recur_layers: vec![1],
        ..ModelConfig::record()
    };
    let weights = init(&config, 1);
    let rules = Rules { micro_batch: 2, grad_clip: 0.3, ema_decay: 0.997 };
    for storage in [Kind::F32, Kind::Bf16] {
        let learner = Learner::new(&gpu, storage, &config, groups(), rules, [&weights, &weights]);
        let mut learner = learner.map_err(|e| e.to_string())?;
        let ids: Vec<u32> = (0..3 * 41).map(|i| i * 31 % 128).collect();
        let batch = Sequences::from_windows(&ids, 40);
        let outcome = learner.step(&batch, true, Now::default()).map_err(|e| e.to_string())?;
        println!("one step in {storage}: loss {:.4}", outcome.loss);
    }
    Ok(())
}
