//! Each operation forward, and forward and back, at the sizes of the record's micro-batch: time, memory and arithmetic
//! against the ceilings that a copy and a large product reach on the same GPU.

use serde_json::{Value, json};
use sixpack_formats::ModelConfig;
use sixpack_runtime::cpu::Mat;
use sixpack_runtime::cuda::{Act, Cuda, Gpu, Kind, Product, Weight};
use sixpack_runtime::{Batch, Error, Heads, Ops, Role, Rope, Site};

use crate::Bench;

/// Times that each is timed, and how often it runs in each.
const RUNS: usize = 5;
const REPEATS: u32 = 10;

/// Runs an operation.
type Run<'a> = Box<dyn Fn(&mut Cuda) -> Result<Act, Error> + 'a>;

/// An operation at its size.
struct Case<'a> {
    name: &'static str,
    /// Bytes that it has to move, forward.
    bytes: f64,
    /// Its multiplications and additions.
    flops: f64,
    run: Run<'a>,
}

/// All operations.
pub(crate) fn run(bench: &Bench) -> Result<Value, String> {
    measure(bench).map_err(|e| e.to_string())
}

fn measure(bench: &Bench) -> Result<Value, Error> {
    let config = ModelConfig::record();
    let (sequences, len) = if bench.small { (1, 32) } else { (48, 2048) };
    let (gigabytes, teraflops) = ceilings(&bench.gpu, bench.small)?;
    println!("  ceilings: {gigabytes:.0} GB/s (copy), {teraflops:.1} TFLOP/s (product in bf16)");
    let mut ops = Cuda::new(&bench.gpu, Kind::Bf16);
    let heads = Heads { query: config.num_heads, kv: config.num_kv_heads, dim: config.head_dim() };
    let (d, hidden) = (config.model_dim, config.mlp_hidden());
    let rows = (sequences * len) as f64;
    let bring = |ops: &mut Cuda, cols: usize| {
        let data = (0..sequences * len * cols).map(|i| ((i * 7919 % 2001) as f32 - 1000.0) / 1000.0).collect();
        ops.bring(&Mat { sequences, len, cols, start: 0, data })
    };
    let (x, y) = (bring(&mut ops, d)?, bring(&mut ops, d)?);
    let (q, k, v) =
        (bring(&mut ops, d)?, bring(&mut ops, heads.kv * heads.dim)?, bring(&mut ops, heads.kv * heads.dim)?);
    let u = bring(&mut ops, hidden)?;
    let weight = |kind: Kind, rows: usize, cols: usize| -> Result<Weight, Error> {
        let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 31 % 201) as f32 - 100.0) / 2000.0).collect();
        let gradient = bench.gpu.zeros(Kind::F32, rows * cols)?;
        Ok(Weight::new(bench.gpu.floats(kind, &values)?, Some(gradient), [rows, cols]))
    };
    let (table, up) = (weight(Kind::Bf16, config.vocab_size, d)?, weight(Kind::Bf16, hidden, d)?);
    let (down, square) = (weight(Kind::Bf16, d, hidden)?, weight(Kind::Bf16, d, d)?);
    let (mix, scale, gain) = (weight(Kind::F32, 2, d)?, weight(Kind::F32, 1, d)?, weight(Kind::F32, 1, heads.query)?);
    let gates = weight(Kind::F32, 1, d)?;
    let ids: Vec<u32> = (0..sequences * len).map(|i| (i * 31 % config.vocab_size) as u32).collect();
    let rope = Rope { dims: config.rotary_dims(), base: config.rotary_base(len) };
    let site = Site { layer: 0, role: Role::MlpUp };
    let (wide, narrow) = (2.0 * rows * d as f64, 2.0 * rows * (heads.kv * heads.dim) as f64);
    let product = |out: usize, inputs: usize| 2.0 * rows * (out * inputs) as f64;
    let cap = config.logit_softcap as f32;
    // Half of all scores are seen.
    let attention = 2.0 * rows * len as f64 * d as f64;
    let cases = [
        Case {
            name: "embed",
            bytes: 2.0 * wide,
            flops: 0.0,
            run: Box::new(|o| o.embed(&table, &Batch::new(&ids, sequences))),
        },
        Case { name: "rms_norm", bytes: 2.0 * wide, flops: 0.0, run: Box::new(|o| o.rms_norm(&x, 1.0)) },
        Case {
            name: "mix_norm",
            bytes: 4.0 * wide,
            flops: 0.0,
            run: Box::new(|o| Ok(o.mix_norm(&mix, &x, &y, 1.0)?.1)),
        },
        Case {
            name: "add_scaled_norm",
            bytes: 4.0 * wide,
            flops: 0.0,
            run: Box::new(|o| Ok(o.add_scaled_norm(&x, &scale, &y, 1.0)?.1)),
        },
        Case {
            name: "gated_skip",
            bytes: 3.0 * wide,
            flops: 0.0,
            run: Box::new(|o| o.gated_skip(&scale, Some(&gates), 0, &x, &y)),
        },
        Case {
            name: "head_norm_rope",
            bytes: 2.0 * wide,
            flops: 0.0,
            run: Box::new(|o| o.head_norm_rope(&q, heads.query, rope, Some(&gain))),
        },
        Case {
            name: "attention",
            bytes: 2.0 * wide + 2.0 * narrow,
            flops: attention,
            run: Box::new(|o| o.attention(0, heads, &q, &k, &v)),
        },
        Case {
            name: "exclude_self",
            bytes: 2.0 * wide + narrow,
            flops: 0.0,
            run: Box::new(|o| o.exclude_self(heads, &q, &v)),
        },
        Case {
            name: "leaky_relu_squared",
            bytes: 4.0 * rows * hidden as f64,
            flops: 0.0,
            run: Box::new(|o| o.leaky_relu_squared(&u)),
        },
        Case {
            name: "linear d to d",
            bytes: 2.0 * wide,
            flops: product(d, d),
            run: Box::new(|o| o.linear(site, &square, &x)),
        },
        Case { name: "linear up", bytes: wide, flops: product(hidden, d), run: Box::new(|o| o.linear(site, &up, &x)) },
        Case {
            name: "linear down",
            bytes: wide,
            flops: product(d, hidden),
            run: Box::new(|o| o.linear(site, &down, &u)),
        },
        Case {
            name: "head and loss",
            bytes: wide,
            flops: product(config.vocab_size, d),
            run: Box::new(|o| o.nll(&table, &x, cap, &ids)),
        },
    ];
    println!("  {:20} {:>9} {:>9} {:>9} {:>6}   {:>12}", "forward", "ms", "GB/s", "TFLOP/s", "share", "and back, ms");
    let mut found = Vec::new();
    for case in &cases {
        let forward = best(&bench.gpu, || (case.run)(&mut ops).map(drop))?;
        let both = best(&bench.gpu, || {
            ops.start_tape()?;
            let y = (case.run)(&mut ops)?;
            let dy = bench.gpu.zeros(y.buffer().kind(), y.buffer().len())?;
            ops.backward(&y, dy, &[]).map(drop)
        })?;
        let (moved, computed) = (case.bytes / forward / 1e6, case.flops / forward / 1e9);
        let share = 100.0 * (moved / gigabytes).max(computed / teraflops);
        println!("  {:20} {forward:9.3} {moved:9.0} {computed:9.1} {share:5.0}%   {both:12.3}", case.name);
        found.push(json!({ "name": case.name, "ms": forward, "gigabytes_per_second": moved,
            "teraflops": computed, "share": share / 100.0, "with_backward_ms": both }));
    }
    Ok(json!({ "gigabytes_per_second": gigabytes, "teraflops": teraflops, "operations": found }))
}

/// GB/s of a copy, and TFLOP/s of a large product in bf16.
fn ceilings(gpu: &Gpu, small: bool) -> Result<(f64, f64), Error> {
    let (len, n) = if small { (1 << 16, 64) } else { (1 << 29, 8192) };
    let (a, b) = (gpu.zeros(Kind::Bf16, len)?, gpu.zeros(Kind::Bf16, len)?);
    let copied = best(gpu, || gpu.copy(&a, &b))?;
    let (a, b) = (a.part(0..n * n), b.part(0..n * n));
    let y = gpu.empty(Kind::Bf16, n * n)?;
    let product = Product { of: [&a, &b], turned: Some(1), factor: 1.0, plus: None, sizes: [1, n, n, n] };
    let multiplied = best(gpu, || gpu.stacked(product, &y))?;
    Ok((4.0 * len as f64 / copied / 1e6, 2.0 * (n as f64).powi(3) / multiplied / 1e9))
}

/// Milliseconds of the shortest of several runs, after one that loads kernels.
fn best(gpu: &Gpu, mut f: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    f()?;
    // One after the other, so that the host is not waited for.
    let mut again = || (0..REPEATS).try_for_each(|_| f());
    (0..RUNS).try_fold(f64::INFINITY, |best, _| Ok((gpu.time(&mut again)? / f64::from(REPEATS)).min(best)))
}
