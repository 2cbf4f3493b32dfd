//! How many bytes a model's weights will take in an artifact, before anything is quantised: cheap enough for every
//! line of a training log.
//!
//! With the reference's steps a code's cost depends on `step / σ` alone, not on its nominal bits: the entropy of a
//! Gaussian cut into cells one step wide, which is summed exactly here (the usual formula for fine steps is wrong
//! where a step is as wide as σ). What the coder and GPTQ add to that are factors, measured once and named below.
//!
//! Steps are those of the scheme `reference`, with int6 for every matrix of a block, int8 for the embedding tables and
//! f16 for the rest. The file's tokenizer is not counted.

use crate::{ModelConfig, QuantClass, TensorSpec};

/// How the share of each code is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marginal {
    /// The weights of each row are taken as Gaussian: only their root mean square is looked at.
    #[default]
    Gaussian,
    /// The codes of each tensor by plain rounding are counted.
    Histogram,
}

/// Bytes by class of tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Projection {
    /// Codes of the attention and MLP matrices.
    pub matrices: f64,
    /// Codes of the embedding tables.
    pub tables: f64,
    /// Steps of rows that are not at the floor.
    pub steps: f64,
    /// Tensors kept in f16.
    pub half: f64,
}

impl Projection {
    /// All of it, in whole bytes.
    pub fn bytes(&self) -> u64 {
        (self.matrices + self.tables + self.steps + self.half + FRAME) as u64
    }
}

/// Projects the artifact's size from the weights; `values` gives those of a tensor, row-major, in full precision.
///
/// # Panics
/// If `values` returns more or fewer elements than the tensor has.
pub fn project<V: AsRef<[f32]>>(
    config: &ModelConfig,
    marginal: Marginal,
    mut values: impl FnMut(&TensorSpec) -> V,
) -> Projection {
    let mut sum = Projection::default();
    for spec in config.tensors() {
        let values = values(&spec);
        let values = values.as_ref();
        assert_eq!(values.len(), spec.elements(), "elements of `{}`", spec.name());
        let (q_max, class) = match spec.class {
            QuantClass::Attention | QuantClass::Mlp => (31, &mut sum.matrices),
            QuantClass::Embedding => (127, &mut sum.tables),
            QuantClass::Half => {
                sum.half += values.len() as f64 * HALF_BYTES;
                continue;
            }
        };
        let cols = spec.shape[1];
        *class += code_bits(values, cols, q_max, marginal) / 8.0;
        sum.steps += values.chunks_exact(cols).filter(|row| !at_floor(row)).count() as f64 * STEP_BYTES;
    }
    let (matrices, tables) = marginal.factors();
    sum.matrices *= matrices;
    sum.tables *= tables;
    sum
}

impl Marginal {
    /// Coded bytes over the entropy found, for matrices and for tables: what GPTQ's errors add to the spread of the
    /// codes, 0.6%, and what the coder adds, 0.6%. Measured with brotli on the codes that the reference implementation
    /// made of a trained model of 5.3 M parameters; between its three streams of matrices the factor varies by 0.4%
    /// for the Gaussian and 0.2% for the histogram. Rows of trained tables differ in size from each other, which brotli
    /// learns as it goes: it ends below the entropy of the pooled codes, so that there the Gaussian is closer.
    fn factors(self) -> (f64, f64) {
        match self {
            Self::Gaussian => (1.0119, 0.9803),
            Self::Histogram => (1.0106, 0.9505),
        }
    }
}

/// Coded bytes of a tensor element in f16, measured there.
const HALF_BYTES: f64 = 1.674;
/// Coded bytes of a step that differs from the floor, measured there.
const STEP_BYTES: f64 = 3.0;
/// Header, section table, configuration, provenance.
const FRAME: f64 = 1024.0;

/// Entropy in bits of all codes of a matrix `[rows, cols]`.
fn code_bits(values: &[f32], cols: usize, q_max: i32, marginal: Marginal) -> f64 {
    match marginal {
        Marginal::Gaussian => {
            let rows = values.chunks_exact(cols);
            rows.map(|row| cols as f64 * gaussian_entropy(step(row, q_max) / root_mean_square(row), q_max)).sum()
        }
        Marginal::Histogram => {
            let mut counts = vec![0u64; 2 * q_max as usize + 1];
            for row in values.chunks_exact(cols) {
                let inverse = (1.0 / step(row, q_max)) as f32;
                for w in row {
                    // A NaN becomes 0 and an infinity the last code: the projection is no place to fail.
                    let code = ((w * inverse).round() as i32).clamp(-q_max, q_max);
                    counts[(code + q_max) as usize] += 1;
                }
            }
            values.len() as f64 * entropy(counts.iter().map(|&n| n as f64 / values.len() as f64))
        }
    }
}

/// Whether the reference's floor decides a row's step.
fn at_floor(row: &[f32]) -> bool {
    largest(row) <= 1.0
}

/// The reference's step of a row: its largest magnitude or 1.0, whichever is more, over `q_max`.
fn step(row: &[f32], q_max: i32) -> f64 {
    f64::from(largest(row).max(1.0)) / f64::from(q_max)
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |max, w| max.max(w.abs()))
}

fn root_mean_square(row: &[f32]) -> f64 {
    (row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() / row.len() as f64).sqrt()
}

/// Entropy in bits of a standard Gaussian rounded to multiples of `step`, the outermost codes ±`q_max` taking all
/// beyond them. 0 where the step is infinite (a row of zeros) or not a number.
pub fn gaussian_entropy(step: f64, q_max: i32) -> f64 {
    if !step.is_finite() || step <= 0.0 {
        return 0.0;
    }
    // Beyond 9 σ no code is ever used; a last cell that far out holds what is left of the tail.
    let last = q_max.min((9.0 / step).ceil() as i32);
    let above = |code: i32| upper_tail((f64::from(code) - 0.5) * step);
    let centre = 1.0 - 2.0 * above(1);
    let outer = (1..=last).map(|k| if k == last { above(k) } else { above(k) - above(k + 1) });
    entropy(std::iter::once(centre)) + 2.0 * entropy(outer)
}

/// `Σ −p log₂ p`.
fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|&p| p > 0.0).map(|p| -p * p.log2()).sum()
}

/// The share of a standard Gaussian above `x ≥ 0`, to 1e-7: Abramowitz and Stegun, 26.2.17.
fn upper_tail(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let polynomial = series.iter().fold(0.0, |sum, c| (sum + c) * t);
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform numbers in 0..1 from a linear congruential generator.
    fn uniform(seed: u64) -> impl Iterator<Item = f64> {
        let next = |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(seed + 1), next).skip(1).map(|x| ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64)
    }

    fn gaussian(n: usize, sigma: f64) -> Vec<f32> {
        let pairs = uniform(1).zip(uniform(2)).take(n);
        pairs.map(|(u, v)| (sigma * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32).collect()
    }

    fn laplace(n: usize, sigma: f64) -> Vec<f32> {
        let signed = uniform(3).take(n).map(|u| 2.0 * u - 1.0);
        signed.map(|u| (-u.signum() * (1.0 - u.abs()).ln() * sigma / 2f64.sqrt()) as f32).collect()
    }

    /// Order-0 entropy in bits of the codes at the floor's step, counted in the plainest way.
    fn counted(weights: &[f32]) -> f64 {
        let mut counts = std::collections::BTreeMap::new();
        for w in weights {
            *counts.entry((w * 31.0).round() as i32).or_insert(0u32) += 1;
        }
        counts.values().map(|&n| f64::from(n)).map(|n| -n * (n / weights.len() as f64).log2()).sum()
    }

    #[test]
    fn fine_steps_follow_the_high_rate_formula() {
        for step in [0.02f64, 0.1, 0.5] {
            // Rounding widens the spread by Sheppard's step²/12.
            let spread = (1.0 + step * step / 12.0).sqrt();
            let formula = ((2.0 * std::f64::consts::PI * std::f64::consts::E).sqrt() * spread / step).log2();
            assert!((gaussian_entropy(step, 1000) - formula).abs() < 1e-3, "step {step}");
        }
    }

    #[test]
    fn coarse_steps_follow_the_shares_of_a_normal_table() {
        // 68.2689% within one σ: a step of 2 σ gives the codes -1, 0, 1 (and 0.27% beyond 3 σ).
        let (centre, one, two) = (0.682_689_5f64, 0.157_305_4f64, 0.001_349_9f64);
        let expected = -centre * centre.log2() - 2.0 * one * one.log2() - 2.0 * two * two.log2();
        assert!((gaussian_entropy(2.0, 31) - expected).abs() < 1e-5, "{}", gaussian_entropy(2.0, 31));
        // Clipped to ±1, the outer codes take the tails.
        let outer = one + two;
        let expected = -centre * centre.log2() - 2.0 * outer * outer.log2();
        assert!((gaussian_entropy(2.0, 1) - expected).abs() < 1e-5);
        assert_eq!(gaussian_entropy(f64::INFINITY, 31), 0.0);
        assert!(gaussian_entropy(50.0, 31) < 1e-9);
    }

    #[test]
    fn both_marginals_meet_the_count_on_gaussian_weights() {
        for sigma in [0.01, 0.03, 0.08, 0.2] {
            let weights = gaussian(200_000, sigma);
            let expected = counted(&weights);
            for marginal in [Marginal::Gaussian, Marginal::Histogram] {
                let bits = code_bits(&weights, 1000, 31, marginal);
                assert!((bits / expected - 1.0).abs() < 0.005, "σ {sigma}, {marginal:?}: {bits}, counted {expected}");
            }
        }
    }

    #[test]
    fn only_the_histogram_meets_the_count_on_laplace_weights() {
        let weights = laplace(200_000, 0.08);
        let expected = counted(&weights);
        let by = |marginal| code_bits(&weights, 1000, 31, marginal) / expected;
        assert!((by(Marginal::Histogram) - 1.0).abs() < 0.005, "{}", by(Marginal::Histogram));
        // A Gaussian of the same spread has the larger entropy.
        assert!((1.01..1.06).contains(&by(Marginal::Gaussian)), "{}", by(Marginal::Gaussian));
    }

    #[test]
    fn smaller_weights_make_a_smaller_projection() {
        let config = ModelConfig {
            num_layers: 2,
            ve_layers: vec![1],
            recur_layers: vec![],
            xsa_last_n: 2,
            ..ModelConfig::record()
        };
        let at = |sigma| project(&config, Marginal::Gaussian, |spec| gaussian(spec.elements(), sigma)).bytes();
        let matrices: usize = config
            .tensors()
            .iter()
            .filter(|s| matches!(s.class, QuantClass::Attention | QuantClass::Mlp))
            .map(TensorSpec::elements)
            .sum();
        assert!(at(0.04) < at(0.08));
        // Halving σ saves a bit of each weight where steps are fine, less where they are coarse.
        let saved = (at(0.16) - at(0.08)) as f64 * 8.0 / matrices as f64;
        assert!((0.9..1.6).contains(&saved), "{saved} bits per weight");
        assert!(at(0.0) < at(0.01));
    }

    #[test]
    fn weights_that_are_not_numbers_still_project() {
        let config = ModelConfig {
            num_layers: 1,
            ve_layers: vec![],
            recur_layers: vec![],
            xsa_last_n: 1,
            ..ModelConfig::record()
        };
        for marginal in [Marginal::Gaussian, Marginal::Histogram] {
            project(&config, marginal, |spec| vec![f32::NAN; spec.elements()]);
            project(&config, marginal, |spec| vec![f32::INFINITY; spec.elements()]);
        }
    }
}
