//! Evaluation by sliding windows and generation on the GPU.

use std::time::Instant;

use serde_json::{Value, json};
use sixpack_formats::ModelConfig;
use sixpack_runtime::cpu::Dense;
use sixpack_runtime::cuda::{Cuda, Kind, is_control};
use sixpack_runtime::{Batch, Error, Pass, ReadBack, Sampler, Sampling, Session, Weights, forward, model, now};
use sixpack_train::init;

use crate::Bench;

/// Tokens that are written.
const WRITTEN: usize = 128;

pub(crate) fn run(bench: &Bench) -> Result<Value, String> {
    measure(bench).map_err(|e| e.to_string())
}

fn measure(bench: &Bench) -> Result<Value, Error> {
    let (config, windows, stride, written) = match bench.small {
        true => (
            ModelConfig {
                num_layers: 2,
                model_dim: 32,
                num_heads: 2,
                num_kv_heads: 1,
                xsa_last_n: 2,
                ve_layers: vec![1],
                recur_layers: vec![1],
                eval_seq_len: 32,
                train_seq_len: 32,
                ..ModelConfig::record()
            },
            2,
            8,
            4,
        ),
        false => (ModelConfig::record(), 32, 64, WRITTEN),
    };
    let mut ops = Cuda::new(&bench.gpu, Kind::Bf16);
    let params = init(&config, 1337);
    let weights = Weights::build(&config, |spec| {
        let cols = spec.shape.last().copied().unwrap_or(1);
        let dense = Dense::new(spec.elements() / cols, cols, params[&spec.id].clone());
        ops.weight(&dense, is_control(spec))
    })?;
    let len = config.eval_seq_len;
    let ids: Vec<u32> = (0..windows * len).map(|i| (i * 7919 % config.vocab_size) as u32).collect();
    let targets: Vec<u32> = ids.chunks(len).flat_map(|w| w[len - stride..].to_vec()).collect();
    // Losses of the last positions of each window, as the metric asks for them.
    let mut window = || -> Result<(), Error> {
        let pass = Pass { recurrence: true, last: Some(stride) };
        let h = forward(&config, &weights, &mut ops, &Batch::new(&ids, windows), pass)?;
        let nll = model::nll(&config, &weights, &mut ops, &h, &targets)?;
        now(ops.read(&nll)).map(drop)
    };
    window()?;
    let (start, runs) = (Instant::now(), if bench.small { 1 } else { 10 });
    (0..runs).try_for_each(|_| window())?;
    let read = (runs * windows * len) as f64 / start.elapsed().as_secs_f64();
    println!("  evaluation, {windows} windows of {len} at once, {stride} scored: {read:.0} forward tokens/s");
    let mut sampler = Sampler::new(Sampling::default())?;
    let mut session = Session::new(&config, &weights, &mut ops, len);
    now(session.prefill(&ids[..len / 2]))?;
    let mut token = now(session.sample(&mut sampler))?;
    let start = Instant::now();
    for _ in 0..written {
        session.step(token)?;
        token = now(session.sample(&mut sampler))?;
    }
    let rate = written as f64 / start.elapsed().as_secs_f64();
    println!("  generation after {} tokens: {rate:.0} tokens/s", len / 2);
    Ok(json!({ "forward_tokens_per_second": read, "generated_tokens_per_second": rate }))
}
