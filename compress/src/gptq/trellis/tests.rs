//! The search against a plain one that keeps everything of every survivor.

use sixpack_formats::trellis::State;

use super::*;

fn free(rows: usize, cols: usize) -> Prices {
    Prices { rows: vec![0.0; rows], columns: vec![0.0; cols] }
}

/// Numbers in ±1 by a linear congruential generator.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// An upper triangular factor that spreads a good part of each error.
fn factor(seed: u64, cols: usize) -> Vec<f32> {
    let values = numbers(seed, cols * cols);
    let entry = |(i, j): (usize, usize), x: f32| match i.cmp(&j) {
        std::cmp::Ordering::Less => 0.3 * x,
        std::cmp::Ordering::Equal => 1.0 + 0.5 * x,
        std::cmp::Ordering::Greater => 0.0,
    };
    values.into_iter().enumerate().map(|(k, x)| entry((k / cols, k % cols), x)).collect()
}

#[derive(Clone)]
struct Survivor {
    cost: f64,
    weights: Vec<f32>,
    codes: Vec<i8>,
}

/// A row by the definition.
fn plain(row: &[f32], factor: &[f32], prices: &[f32], q_max: i32) -> Survivor {
    let cols = row.len();
    let mut survivors: Vec<(State, Survivor)> =
        vec![(State::default(), Survivor { cost: 0.0, weights: row.to_vec(), codes: Vec::new() })];
    for k in 0..cols {
        let mut best: Vec<(State, Survivor)> = Vec::new();
        for (state, survivor) in &survivors {
            for code in (-q_max..=q_max).filter(|&code| state.index(code).is_some()) {
                let next = state.next(state.index(code).unwrap());
                let mut after = survivor.clone();
                let error = (after.weights[k] - code as f32) / factor[k * cols + k];
                let size = code as f32 / factor[k * cols + k];
                after.cost += f64::from(error * error + prices[k] * size * size);
                match best.iter_mut().find(|(state, _)| *state == next) {
                    Some((_, other)) if other.cost <= after.cost => continue,
                    known => {
                        (k + 1..cols).for_each(|j| after.weights[j] -= error * factor[k * cols + j]);
                        after.codes.push(code as i8);
                        match known {
                            Some((_, other)) => *other = after,
                            None => best.push((next, after)),
                        }
                    }
                }
            }
        }
        survivors = best;
    }
    survivors.into_iter().map(|(_, s)| s).min_by(|a, b| a.cost.total_cmp(&b.cost)).unwrap()
}

/// What a row of codes costs.
fn cost(row: &[f32], factor: &[f32], prices: &[f32], codes: &[i8]) -> f64 {
    let cols = row.len();
    let mut weights = row.to_vec();
    let mut sum = 0.0;
    for k in 0..cols {
        let error = (weights[k] - f32::from(codes[k])) / factor[k * cols + k];
        (k + 1..cols).for_each(|j| weights[j] -= error * factor[k * cols + j]);
        let size = f32::from(codes[k]) / factor[k * cols + k];
        sum += f64::from(error * error + prices[k] * size * size);
    }
    sum
}

#[test]
fn agrees_with_the_plain_search() {
    for (seed, (rows, cols, q_max)) in
        [(1, 1, 2), (3, 7, 4), (17, 31, 31), (16, 32, 3), (5, 33, 31), (2, 64, 63), (40, 100, 31)]
            .into_iter()
            .enumerate()
    {
        let w: Vec<f32> = numbers(seed as u64, rows * cols).iter().map(|x| 6.0 * x).collect();
        let factor = factor(90 + seed as u64, cols);
        let mut prices = free(rows, cols);
        if seed % 2 == 0 {
            prices.rows = numbers(50, rows).iter().map(|x| 0.2 + 0.2 * x).collect();
            prices.columns = numbers(51, cols).iter().map(|x| 1.0 + x).collect();
        }
        let codes = quantize_columns(w.clone(), &factor, &prices, q_max);
        let (mut same, mut ours, mut theirs) = (0, 0.0, 0.0);
        for (i, (row, codes)) in w.chunks_exact(cols).zip(codes.chunks_exact(cols)).enumerate() {
            let prices: Vec<f32> = prices.columns.iter().map(|column| prices.rows[i] * column).collect();
            let expected = plain(row, &factor, &prices, i32::from(q_max));
            same += usize::from(codes == expected.codes);
            ours += cost(row, &factor, &prices, codes);
            theirs += expected.cost;
        }
        // Sums in another order may change which of two paths of almost equal cost survives.
        assert!(same * 10 >= rows * 8, "{rows}×{cols} ±{q_max}: {same} rows agree");
        assert!(
            (ours / theirs - 1.0).abs() < 0.02,
            "{rows}×{cols} ±{q_max}: cost {ours}, {theirs} by the plain search"
        );
    }
}

#[test]
fn every_row_is_a_path_within_the_limits() {
    for (rows, cols, q_max, size) in [(1, 1, 2, 9.0), (20, 65, 2, 9.0), (33, 40, 5, 3.0), (7, 200, 127, 90.0)] {
        let w: Vec<f32> = numbers(7, rows * cols).iter().map(|x| size * x).collect();
        let codes = quantize_columns(w, &factor(8, cols), &free(rows, cols), q_max);
        for row in codes.chunks_exact(cols) {
            let mut state = State::default();
            for &code in row {
                assert!(code.unsigned_abs() <= q_max);
                state = state.next(state.index(i32::from(code)).expect("a code that the state allows"));
            }
        }
    }
}

#[test]
fn rows_do_not_see_each_other_and_zeros_stay() {
    let (rows, cols) = (37, 70);
    let mut w: Vec<f32> = numbers(3, rows * cols).iter().map(|x| 4.0 * x).collect();
    w[5 * cols..6 * cols].fill(0.0);
    let factor = factor(4, cols);
    let all = quantize_columns(w.clone(), &factor, &free(rows, cols), 31);
    assert!(all[5 * cols..6 * cols].iter().all(|&code| code == 0));
    for row in [0, 16, 36] {
        let span = row * cols..(row + 1) * cols;
        assert_eq!(quantize_columns(w[span.clone()].to_vec(), &factor, &free(1, cols), 31), all[span]);
    }
}

#[test]
fn errors_are_a_decibel_below_those_of_steps_twice_as_wide() {
    let (rows, cols) = (32, 256);
    let w: Vec<f32> = numbers(11, rows * cols).iter().map(|x| 20.0 * x).collect();
    let identity: Vec<f32> = (0..cols * cols).map(|i| f32::from(u8::from(i % (cols + 1) == 0))).collect();
    let codes = quantize_columns(w.clone(), &identity, &free(rows, cols), 31);
    let sum: f64 = w.iter().zip(&codes).map(|(&x, &q)| f64::from(x - f32::from(q)).powi(2)).sum();
    let mean = sum / w.len() as f64;
    // Steps of 2 have the mean square 1/3; the gain of eight states is 1 dB.
    assert!((mean - 0.263).abs() < 0.01, "{mean}");
}
