//! Start values of the tensors, by the tensor table.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sixpack_formats::{Init, ModelConfig, TensorSpec};

use crate::params::Params;

/// Matrices with a shorter side below this start uniform instead of orthogonal.
const ORTHOGONAL_SIDE: usize = 64;

/// All tensors of the configuration, determined by the seed. Each tensor has its own stream of random numbers.
pub fn init(config: &ModelConfig, seed: u64) -> Params {
    let table = config.tensors();
    let tensors = table.par_iter().enumerate().map(|(stream, spec)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        (spec.id, tensor(spec, &mut rng))
    });
    tensors.collect()
}

fn tensor(spec: &TensorSpec, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let n = spec.elements();
    match spec.init {
        Init::Constant(value) => vec![value; n],
        Init::Normal(deviation) => (0..n).map(|_| (normal(rng) * f64::from(deviation)) as f32).collect(),
        Init::OnesThenZeros => (0..n).map(|i| if i < n / 2 { 1.0 } else { 0.0 }).collect(),
        Init::Orthogonal => {
            let [rows, cols] = [spec.shape[0], spec.shape[1]];
            if rows.min(cols) >= ORTHOGONAL_SIDE {
                return orthogonal(rows, cols, rng);
            }
            let bound = 1.0 / (cols as f64).sqrt();
            (0..n).map(|_| (bound * (2.0 * rng.random::<f64>() - 1.0)) as f32).collect()
        }
    }
}

/// A standard normal number (Box–Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // 1 − u is above 0, where the logarithm is finite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A matrix `[rows, cols]` whose rows (or columns, if there are fewer) are orthonormal, uniformly distributed: the
/// orthogonal factor of a Gaussian matrix, by modified Gram–Schmidt in f64, with the signs of a positive diagonal.
fn orthogonal(rows: usize, cols: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let (count, len) = (rows.min(cols), rows.max(cols));
    let mut vectors: Vec<f64> = (0..count * len).map(|_| normal(rng)).collect();
    let mut rest = vectors.as_mut_slice();
    while !rest.is_empty() {
        let (vector, others) = rest.split_at_mut(len);
        let norm = dot(vector, vector).sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
        for other in others.chunks_exact_mut(len) {
            let along = dot(vector, other);
            other.iter_mut().zip(vector.iter()).for_each(|(o, v)| *o -= along * v);
        }
        rest = others;
    }
    if rows <= cols {
        return vectors.into_iter().map(|x| x as f32).collect();
    }
    (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))).map(|(r, c)| vectors[c * len + r] as f32).collect()
}

/// `Σ a·b` in lanes, so that it runs in vector registers and always in the same order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use sixpack_formats::{Part, TensorId};

    use super::*;

    #[test]
    fn orthogonal_matrices_are_orthogonal() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (rows, cols) in [(64, 64), (70, 131), (131, 70)] {
            let w = orthogonal(rows, cols, &mut rng);
            let at = |r: usize, c: usize| f64::from(w[r * cols + c]);
            let side = rows.min(cols);
            for i in 0..side {
                for j in 0..=i {
                    let product: f64 = if rows <= cols {
                        (0..cols).map(|k| at(i, k) * at(j, k)).sum()
                    } else {
                        (0..rows).map(|k| at(k, i) * at(k, j)).sum()
                    };
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((product - expected).abs() < 1e-6, "{rows}×{cols}: {i}, {j}: {product}");
                }
            }
        }
    }

    #[test]
    fn the_table_is_followed_and_the_seed_decides() {
        let config = ModelConfig::small();
        let params = init(&config, 5);
        for spec in config.tensors() {
            let values = &params[&spec.id];
            assert_eq!(values.len(), spec.elements());
            match spec.init {
                Init::Constant(c) => assert!(values.iter().all(|&v| v == c)),
                Init::OnesThenZeros => assert_eq!(values.iter().sum::<f32>(), values.len() as f32 / 2.0),
                Init::Normal(deviation) => {
                    let n = values.len() as f64;
                    let square: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / n;
                    let mean: f64 = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                    let deviation = f64::from(deviation);
                    assert!((square.sqrt() / deviation - 1.0).abs() < 0.02, "{}", spec.name());
                    assert!(mean.abs() < 0.02 * deviation, "{}", spec.name());
                }
                Init::Orthogonal => assert!(values.iter().any(|&v| v != 0.0)),
            }
        }
        assert_eq!(params, init(&config, 5));
        let query = TensorId::block(0, Part::Query);
        assert_ne!(params[&query], init(&config, 6)[&query]);
        assert_ne!(params[&query], params[&TensorId::block(1, Part::Query)]);
    }

    #[test]
    fn narrow_matrices_are_uniform_within_their_bound() {
        let config = ModelConfig { model_dim: 48, num_heads: 6, num_kv_heads: 3, rope_dims: 0, ..ModelConfig::small() };
        let key = &init(&config, 1)[&TensorId::block(0, Part::Key)];
        let bound = 1.0 / 48f32.sqrt();
        let largest = key.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert!(largest <= bound && largest > 0.95 * bound, "{largest} of {bound}");
    }
}
