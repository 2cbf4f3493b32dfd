//! What the interpreter must pass on any GPU: the suites of all backends, in f32 and in bf16, and gradients.

use std::cell::RefCell;

use sixpack_runtime::cpu::{Dense, Mat, Reference};
use sixpack_runtime::cuda::{Cuda, Feed, Gpu, Kind, Settings};
use sixpack_runtime::{Batch, Error, Pass, ReadBack, Weights, forward, model, now};

use super::{documents, gradients, heads, packs};
use crate::twins::{self, Backend};
use crate::{conformance, golden, session};

/// Its checks and their names; each opens the first GPU.
pub(crate) const CHECKS: &[(&str, fn())] = &[
    ("f32::residual", || twins::residual(backend(Kind::F32))),
    ("f32::attention", || twins::attention(backend(Kind::F32))),
    ("f32::products", || twins::products(backend(Kind::F32))),
    ("f32::products_of_the_library", || twins::products(on(with_products(Kind::F32, true)))),
    ("f32::steps", || twins::steps(backend(Kind::F32))),
    ("f32::remembered", || twins::remembered(backend(Kind::F32))),
    ("f32::goldens", goldens),
    ("f32::sessions", sessions),
    ("f32::gradients", || gradients::all(|| ops(Kind::F32), Kind::F32)),
    ("f32::heads", || heads::all(|| ops(Kind::F32), Kind::F32)),
    ("f32::documents", || documents::all(&ops(Kind::F32), Kind::F32)),
    ("what_a_step_brings_is_what_was_written", feed),
    ("bf16::residual", || twins::residual(backend(Kind::Bf16))),
    ("bf16::attention", || twins::attention(backend(Kind::Bf16))),
    ("bf16::products", || twins::products(backend(Kind::Bf16))),
    ("bf16::products_of_the_library", || twins::products(on(with_products(Kind::Bf16, true)))),
    ("bf16::losses", losses),
    ("bf16::heads", || heads::all(|| with_products(Kind::Bf16, true), Kind::Bf16)),
    ("bf16::documents", || documents::all(&ops(Kind::Bf16), Kind::Bf16)),
    ("f32::packs", || packs::all(&mut ops(Kind::F32))),
    ("bf16::packs", || packs::all(&mut ops(Kind::Bf16))),
    ("bf16::gradients", || gradients::all(|| ops(Kind::Bf16), Kind::Bf16)),
    ("bf16::gradients_with_the_library", || gradients::all(|| with_products(Kind::Bf16, true), Kind::Bf16)),
];

/// Much faster than it is taken, and more from time to time.
fn feed() {
    let gpu = Gpu::open(0, Settings::default()).expect("the first GPU");
    let mut feed = Feed::new(&gpu, Kind::F32).unwrap();
    let steps: Vec<Vec<f32>> = (0..9).map(|i| (0..50 + i / 4 * 1000).map(|j| (i * j) as f32).collect()).collect();
    let mut taken = Vec::new();
    for step in &steps {
        let brought = feed.bring(step.len(), |to| {
            to.iter_mut().zip(step).for_each(|(to, x)| *to = x.to_bits());
            Ok(())
        });
        let kept = gpu.empty(Kind::F32, step.len()).unwrap();
        gpu.copy(&brought.unwrap(), &kept).unwrap();
        taken.push(kept);
    }
    for (kept, step) in taken.iter().zip(&steps) {
        assert_eq!(gpu.read(kept).unwrap(), *step);
    }
    let refused = feed.bring(3, |_| Err(Error::Token { index: 0, id: 7, vocab: 5 }));
    assert!(refused.is_err());
}

/// An interpreter whose buffers are allocations of their own, between guard zones; tiles are smaller than vocabularies.
fn ops(storage: Kind) -> Cuda {
    with_products(storage, false)
}

/// The same with products of cuBLASLt's, which the processor plays too, or of this project's kernel.
fn with_products(storage: Kind, library: bool) -> Cuda {
    let settings = Settings { reuse: false, library, tile: 300, ..Settings::default() };
    let gpu = Gpu::open(0, settings).expect("the first GPU");
    assert!(gpu.has_library() == library, "cuBLASLt is missing");
    Cuda::new(&gpu, storage)
}

fn backend(storage: Kind) -> Backend<Cuda> {
    on(ops(storage))
}

fn on(ops: Cuda) -> Backend<Cuda> {
    let storage = ops.storage();
    let (weights, matrices, acts) = (ops.fork(), ops.fork(), RefCell::new(ops.fork()));
    let f32 = Backend {
        ops,
        weight: Box::new(move |w| weights.weight(w, true).unwrap()),
        matrix: Box::new(move |w| matrices.weight(w, false).unwrap()),
        act: Box::new(move |x| acts.borrow_mut().bring(x).unwrap()),
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
    x.like(x.cols, x.data.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect())
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

/// The whole model by the kernels.
fn goldens() {
    for case in golden::CASES {
        let model = golden::model(case);
        let mut ops = ops(Kind::F32);
        let weights = ops.load(&model).unwrap();
        conformance::goldens(case, &model.config, &weights, &mut ops);
        conformance::narrowed(case, &model.config, &weights, &mut ops);
        conformance::refuses_foreign_tokens(&model.config, &weights, &mut ops);
    }
}

/// Reading in parts gives what the full forward pass gives.
fn sessions() {
    for case in golden::CASES {
        let model = golden::model(case);
        let mut ops = ops(Kind::F32);
        let weights = ops.load(&model).unwrap();
        let ids = session::sequence(case);
        session::parts_equal_the_whole(&model.config, &weights, &mut ops, &ids, [3, 1, 1, ids.len() - 5]);
    }
}

/// The whole model in bf16: losses of random tokens are as large as they are in f32.
fn losses() {
    fn loss<O: ReadBack<Error = Error>>(case: &str, ops: &mut O, weights: &Weights<O::Weight>) -> f64 {
        let config = golden::model(case).config;
        let ids: Vec<u32> = (0..41).map(|i| (i * 37 + i / 5) % config.vocab_size as u32).collect();
        let h = forward(&config, weights, ops, &Batch::new(&ids[..40], 2), Pass::FULL).unwrap();
        let nll = model::nll(&config, weights, ops, &h, &ids[1..]).unwrap();
        let nll = now(ops.read(&nll)).unwrap();
        nll.iter().map(|&x| f64::from(x)).sum::<f64>() / nll.len() as f64
    }
    for case in golden::CASES {
        let model = golden::model(case);
        let expected = loss(case, &mut Reference::new(), &Weights::load(&model, Dense::load));
        let mut ops = ops(Kind::Bf16);
        let weights = ops.load(&model).unwrap();
        let found = loss(case, &mut ops, &weights);
        assert!((found - expected).abs() < 1e-2 * expected, "{case}: found {found}, expected {expected}");
    }
}
