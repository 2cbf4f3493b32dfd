//! GPTQ against rounding to nearest, on one matrix whose inputs are correlated.
//!
//! `cargo run --release --example 2_quantise_a_matrix`

use sixpack_compress::distortion::hessian_error;
use sixpack_compress::{Matrix, Scheme, gptq, round};
use sixpack_formats::estimate::gaussian_entropy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (rows, cols, samples) = (64, 96, 400);
    let mut next = noise();
    let weights: Vec<f32> = (0..rows * cols).map(|_| next() * 0.2).collect();
    // Inputs that share a part: their Hessian Σ xᵀx is far from diagonal, which is what GPTQ lives from.
    let mut hessian = vec![0.0; cols * cols];
    for _ in 0..samples {
        let shared = next();
        let x: Vec<f32> = (0..cols).map(|_| shared + 0.5 * next()).collect();
        for (i, row) in hessian.chunks_exact_mut(cols).enumerate() {
            row.iter_mut().zip(&x).for_each(|(h, xj)| *h += x[i] * xj);
        }
    }
    let matrix = Matrix::new("example", [rows, cols], &weights)?;
    for q_max in [31, 15] {
        let (codes, _) = gptq::quantize(&matrix, &hessian, Scheme::Reference, q_max)?;
        let nearest = round::to_nearest(&matrix, Scheme::Reference, q_max)?;
        let (ours, rounding) = (hessian_error(&matrix, &codes, &hessian)?, hessian_error(&matrix, &nearest, &hessian)?);
        println!("int{}: error {ours:.2} by GPTQ, {rounding:.2} by rounding ({:.2})", codes.bits(), ours / rounding);
    }
    // What a code costs depends on the step over the deviation, not on the nominal width.
    for step in [0.1, 0.3, 0.5] {
        println!("step {step} σ: {:.3} bits a weight", gaussian_entropy(step, 31));
    }
    Ok(())
}

/// Numbers between −1 and 1 that are the same in each run.
fn noise() -> impl FnMut() -> f32 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
