//! What GPTQ must satisfy on any matrix: better than rounding where inputs are correlated, the invariances of the
//! problem, and errors that name the tensor.

use half::f16;
use sixpack_compress::distortion::hessian_error;
use sixpack_compress::gptq::{self, Grid, Method, Order, Prepared, quantize_to};
use sixpack_compress::{Error, Matrix, Scheme, round};

/// A linear congruential generator: numbers in ±1, sums of which are as good as Gaussian here.
struct Numbers(u64);

impl Numbers {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.uniform() + 1.0) / 2.0 * n as f32) as usize % n
    }

    fn matrix(&mut self, rows: usize, cols: usize, size: f32) -> Vec<f32> {
        (0..rows * cols).map(|_| size * (self.uniform() + self.uniform() + self.uniform())).collect()
    }

    /// `Σ xᵀx` of `samples` inputs that share a few directions, columns of very different strengths.
    fn hessian(&mut self, n: usize, samples: usize) -> Vec<f32> {
        let shared = self.matrix(4, n, 1.0);
        let strengths: Vec<f32> = (0..n).map(|_| 0.2 + self.uniform().abs()).collect();
        let mut h = vec![0.0; n * n];
        for _ in 0..samples {
            let weights = self.matrix(1, 4, 1.0);
            let x: Vec<f32> = (0..n)
                .map(|j| {
                    let common: f32 = (0..4).map(|k| weights[k] * shared[k * n + j]).sum();
                    strengths[j] * (common + 0.3 * self.uniform())
                })
                .collect();
            for (i, row) in h.chunks_exact_mut(n).enumerate() {
                row.iter_mut().zip(&x).for_each(|(sum, xj)| *sum += x[i] * xj);
            }
        }
        h
    }

    fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, self.below(i + 1)));
        order
    }
}

fn codes(w: &[f32], shape: [usize; 2], h: &[f32], q_max: u8) -> Vec<i8> {
    let (q, method) = gptq::quantize(&Matrix::new("w", shape, w).unwrap(), h, Scheme::Reference, q_max).unwrap();
    assert_eq!(method, Method::Gptq);
    q.codes
}

#[test]
fn correlated_inputs_lose_less_than_by_rounding() {
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let shape = [1 + numbers.below(40), 8 + numbers.below(200)];
        let w = numbers.matrix(shape[0], shape[1], [0.05, 0.3, 3.0][seed as usize % 3]);
        let h = numbers.hessian(shape[1], 2 * shape[1]);
        let w = Matrix::new("w", shape, &w).unwrap();
        for q_max in [31, 15] {
            let (q, _) = gptq::quantize(&w, &h, Scheme::Reference, q_max).unwrap();
            let nearest = round::to_nearest(&w, Scheme::Reference, q_max).unwrap();
            let (ours, theirs) = (hessian_error(&w, &q, &h).unwrap(), hessian_error(&w, &nearest, &h).unwrap());
            assert!(ours < 0.9 * theirs, "seed {seed}, {shape:?}, ±{q_max}: {ours} against {theirs}");
        }
    }
}

#[test]
fn the_order_of_columns_does_not_matter() {
    let (rows, cols) = (7, 300);
    let mut numbers = Numbers(3);
    let (w, h) = (numbers.matrix(rows, cols, 0.3), numbers.hessian(cols, 900));
    let order = numbers.permutation(cols);
    let permuted_w: Vec<f32> = (0..rows * cols).map(|i| w[i / cols * cols + order[i % cols]]).collect();
    let permuted_h: Vec<f32> = (0..cols * cols).map(|i| h[order[i / cols] * cols + order[i % cols]]).collect();
    let plain = codes(&w, [rows, cols], &h, 31);
    let expected: Vec<i8> = (0..rows * cols).map(|i| plain[i / cols * cols + order[i % cols]]).collect();
    assert_eq!(codes(&permuted_w, [rows, cols], &permuted_h, 31), expected);
}

#[test]
fn the_unit_of_the_hessian_does_not_matter() {
    let mut numbers = Numbers(4);
    let (w, h) = (numbers.matrix(5, 150, 0.3), numbers.hessian(150, 300));
    let scaled: Vec<f32> = h.iter().map(|x| x / 64.0).collect();
    assert_eq!(codes(&w, [5, 150], &h, 31), codes(&w, [5, 150], &scaled, 31));
}

#[test]
fn uncorrelated_inputs_need_no_more_than_rounding() {
    let mut numbers = Numbers(5);
    let w = numbers.matrix(6, 140, 0.3);
    let h: Vec<f32> = (0..140 * 140).map(|i| if i % 141 == 0 { 1.0 + (i % 7) as f32 } else { 0.0 }).collect();
    let nearest = round::to_nearest(&Matrix::new("w", [6, 140], &w).unwrap(), Scheme::Reference, 31).unwrap();
    assert_eq!(codes(&w, [6, 140], &h, 31), nearest.codes);
}

#[test]
fn inputs_that_are_always_zero_get_the_code_zero() {
    let n = 20;
    let mut numbers = Numbers(6);
    let (w, mut h) = (numbers.matrix(3, n, 0.3), numbers.hessian(n, 40));
    for i in 0..n {
        h[i * n + 7] = 0.0;
        h[7 * n + i] = 0.0;
    }
    let codes = codes(&w, [3, n], &h, 31);
    assert!(codes.iter().skip(7).step_by(n).all(|&q| q == 0), "{codes:?}");
    assert!(codes.iter().any(|&q| q != 0));
}

#[test]
fn without_a_positive_definite_hessian_codes_are_rounded() {
    let w = [0.5, -0.2, 0.1, 0.7];
    let w = Matrix::new("w", [2, 2], &w).unwrap();
    let (q, method) = gptq::quantize(&w, &[1.0, 3.0, 3.0, 1.0], Scheme::Reference, 31).unwrap();
    assert_eq!(method, Method::Nearest);
    assert_eq!(q, round::to_nearest(&w, Scheme::Reference, 31).unwrap());
}

#[test]
fn what_is_not_a_number_is_named() {
    let refused = |w: [f32; 4], h: &[f32]| {
        let quantized = Matrix::new("blocks.0.mlp.fc.weight", [2, 2], &w)
            .and_then(|w| gptq::quantize(&w, h, Scheme::Reference, 31));
        let error = quantized.unwrap_err();
        assert!(error.to_string().contains("blocks.0.mlp.fc.weight"), "{error}");
        error
    };
    let identity = [1.0, 0.0, 0.0, 1.0];
    let error = refused([0.0, 1.0, f32::NAN, 0.0], &identity);
    assert!(matches!(error, Error::NotFinite { what: "weight", row: 1, col: 0, .. }), "{error}");
    let error = refused(identity, &[1.0, f32::INFINITY, 0.0, 1.0]);
    assert!(matches!(error, Error::NotFinite { what: "hessian", row: 0, col: 1, .. }), "{error}");
    assert!(matches!(refused(identity, &[-1.0, 0.0, 0.0, 1.0]), Error::Shape { .. }));
    assert!(matches!(refused(identity, &[1.0; 9]), Error::Shape { .. }));
    assert!(Matrix::new("empty", [0, 3], &[]).is_err());
    assert!(Matrix::new("short", [2, 3], &[0.0; 5]).is_err());
}

#[test]
fn column_factors_are_steps_of_scaled_columns() {
    let (rows, cols) = (6, 200);
    let mut numbers = Numbers(8);
    let (w, h) = (numbers.matrix(rows, cols, 0.3), numbers.hessian(cols, 600));
    let factors: Vec<f32> = (0..cols).map(|_| [0.5, 1.0, 2.0][numbers.below(3)]).collect();
    // W · diag(1/f) with the inputs times f is the same layer.
    let scaled_w: Vec<f32> = w.iter().zip(factors.iter().cycle()).map(|(x, f)| x / f).collect();
    let scaled_h: Vec<f32> = (0..cols * cols).map(|i| h[i] * factors[i / cols] * factors[i % cols]).collect();
    let quantize = |w: &[f32], h: &[f32], columns: &[f32]| {
        let w = Matrix::new("w", [rows, cols], w).unwrap();
        let columns = columns.iter().map(|&f| f16::from_f32(f)).collect();
        let grid = Grid { q_max: 31, scales: vec![f16::from_f32(0.03); rows], columns, trellis: false, rate: 0.0 };
        quantize_to(&w, &Prepared::new(h, cols, Order::Natural).unwrap(), &grid)
    };
    let (q, scaled) = (quantize(&w, &h, &factors), quantize(&scaled_w, &scaled_h, &[]));
    // The damping is by the mean of the diagonal, which differs, so some codes may.
    let error = |q, h: &[f32], w: &[f32]| hessian_error(&Matrix::new("w", [rows, cols], w).unwrap(), q, h).unwrap();
    let (ours, theirs) = (error(&q, &h, &w), error(&scaled, &scaled_h, &scaled_w));
    assert!((ours / theirs - 1.0).abs() < 0.25, "{ours} against {theirs}");
    let expected: Vec<f32> = q.codes.iter().zip(factors.iter().cycle()).map(|(&c, f)| f32::from(c) * f).collect();
    let step = q.scales[0].to_f32();
    assert!(q.dequantize().iter().zip(&expected).all(|(a, b)| (a - b * step).abs() < 1e-6));
}

#[test]
fn steps_of_zero_give_codes_of_zero() {
    let mut numbers = Numbers(9);
    let (w, h) = (numbers.matrix(2, 9, 0.3), numbers.hessian(9, 30));
    let mut columns = vec![f16::ONE; 9];
    columns[4] = f16::ZERO;
    let scales = vec![f16::from_f32(0.02), f16::ZERO];
    let grid = Grid { q_max: 31, scales, columns, trellis: false, rate: 0.0 };
    let prepared = Prepared::new(&h, 9, Order::Activation).unwrap();
    let q = quantize_to(&Matrix::new("w", [2, 9], &w).unwrap(), &prepared, &grid);
    assert!(q.codes[9..].iter().all(|&c| c == 0) && q.codes[4] == 0, "{:?}", q.codes);
    assert!(q.codes[..9].iter().any(|&c| c != 0));
}

/// The steps of equal slope, on the trellis or not.
fn grid(prepared: &Prepared, rows: usize, step: f32, trellis: bool, rate: f32) -> Grid {
    let noise = prepared.noise();
    let mean = noise.iter().sum::<f32>() / noise.len() as f32;
    let columns = noise.iter().map(|d| f16::from_f32(d / mean)).collect();
    Grid { q_max: 127, scales: vec![f16::from_f32(step); rows], columns, trellis, rate }
}

#[test]
fn the_trellis_has_less_error_than_steps_twice_as_wide_and_less_than_rounding() {
    for (seed, shape) in [[1, 1], [1, 40], [30, 31], [17, 130], [40, 200]].into_iter().enumerate() {
        let mut numbers = Numbers(seed as u64);
        let w = numbers.matrix(shape[0], shape[1], 0.3);
        let w = Matrix::new("w", shape, &w).unwrap();
        let h = numbers.hessian(shape[1], 3 * shape[1]);
        let prepared = Prepared::new(&h, shape[1], Order::Natural).unwrap();
        let error = |trellis, step| {
            hessian_error(&w, &quantize_to(&w, &prepared, &grid(&prepared, shape[0], step, trellis, 0.0)), &h).unwrap()
        };
        let (trellis, wide) = (error(true, 0.1), error(false, 0.2));
        assert!(trellis < wide * if shape[0] * shape[1] > 100 { 0.9 } else { 1.001 }, "{shape:?}: {trellis}, {wide}");
        let q = quantize_to(&w, &prepared, &grid(&prepared, shape[0], 0.1, true, 0.0));
        let mut nearest = q.clone();
        for (i, code) in nearest.codes.iter_mut().enumerate() {
            let (row, column) = (i / shape[1], i % shape[1]);
            let step = 2.0 * q.scales[row].to_f32() * q.columns[column].to_f32();
            *code = (2.0 * (w.values()[i] / step).round_ties_even()) as i8;
        }
        let nearest = hessian_error(&w, &nearest, &h).unwrap();
        assert!(trellis <= nearest * 1.001, "{shape:?}: {trellis}, {nearest} by rounding");
    }
}

#[test]
fn a_price_on_bits_makes_codes_smaller_for_little_error() {
    let (rows, cols) = (40, 150);
    let mut numbers = Numbers(12);
    let (w, h) = (numbers.matrix(rows, cols, 0.3), numbers.hessian(cols, 500));
    let w = Matrix::new("w", [rows, cols], &w).unwrap();
    let prepared = Prepared::new(&h, cols, Order::Natural).unwrap();
    for (trellis, step) in [(true, 0.2), (false, 0.4)] {
        let at = |rate| {
            let q = quantize_to(&w, &prepared, &grid(&prepared, rows, step, trellis, rate));
            let size: f64 = q.codes.iter().map(|&c| f64::from(c).powi(2)).sum();
            (size, hessian_error(&w, &q, &h).unwrap())
        };
        let ((free_size, free_error), (size, error)) = (at(0.0), at(1.0));
        assert!(size < 0.98 * free_size, "{size} of {free_size}");
        assert!(error < 1.4 * free_error, "{error}, {free_error} without a price");
    }
}
