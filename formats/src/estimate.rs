//! How many bytes a model's weights will take in an artifact, before anything is quantised: cheap enough for every
//! line of a training log.
//!
//! With the reference's steps a code's cost depends on `step / σ` alone, not on its nominal bits: the entropy of a
//! Gaussian cut into cells one step wide, which is summed exactly here (the usual formula for fine steps is wrong
//! where a step is as wide as σ). What the coder and GPTQ add to that are factors, measured once and named below.
//! GPTQ's part grows as steps get coarser than weights, by up to 6%, and depends on the inputs, so whoever wants better
//! than that quantises once in a while and puts the ratios on the estimates between: [`Sizes::corrected`].
//!
//! Steps are those of the scheme `reference`, with int6 for every matrix of a block, int8 for the embedding tables and
//! f16 for the rest, coded by our own coder. The file's tokenizer is not counted.

use serde::Serialize;

use crate::{ModelConfig, Part, QuantClass, TensorId, TensorSpec};

/// Bytes by class of tensor, their steps included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sizes {
    /// Attention matrices.
    pub attention: f64,
    /// First matrices of the MLPs.
    pub mlp_up: f64,
    /// Second matrices of the MLPs.
    pub mlp_down: f64,
    /// Embedding tables.
    pub tables: f64,
    /// Tensors kept in f16.
    pub half: f64,
    /// What is no tensor: header, section table, configuration, provenance.
    pub frame: f64,
}

impl Sizes {
    /// All of it, in whole bytes.
    pub fn total(&self) -> u64 {
        let Self { attention, mlp_up, mlp_down, tables, half, frame } = self;
        (attention + mlp_up + mlp_down + tables + half + frame) as u64
    }

    /// Where the bytes of `spec` are counted.
    pub fn of(&mut self, spec: &TensorSpec) -> &mut f64 {
        match (spec.class, spec.id) {
            (QuantClass::Attention, _) => &mut self.attention,
            (QuantClass::Mlp, TensorId::Block(_, Part::MlpUp)) => &mut self.mlp_up,
            (QuantClass::Mlp, _) => &mut self.mlp_down,
            (QuantClass::Embedding, _) => &mut self.tables,
            (QuantClass::Half, _) => &mut self.half,
        }
    }

    /// This estimate, corrected by what an estimate was wrong by where the sizes were `measured`: each class by its
    /// ratio. A class that was hardly there then, as matrices that start as zeros, stays as it is.
    pub fn corrected(&self, estimated: &Self, measured: &Self) -> Self {
        let ratio = |x: f64, e: f64, m: f64| if e < 256.0 { x } else { x * m / e };
        Self {
            attention: ratio(self.attention, estimated.attention, measured.attention),
            mlp_up: ratio(self.mlp_up, estimated.mlp_up, measured.mlp_up),
            mlp_down: ratio(self.mlp_down, estimated.mlp_down, measured.mlp_down),
            tables: ratio(self.tables, estimated.tables, measured.tables),
            half: ratio(self.half, estimated.half, measured.half),
            frame: ratio(self.frame, estimated.frame, measured.frame),
        }
    }
}

/// Projects the artifact's size from the weights; `values` gives those of a tensor, row-major, in full precision.
///
/// # Panics
/// If `values` returns more or fewer elements than the tensor has.
pub fn project<V: AsRef<[f32]>>(config: &ModelConfig, mut values: impl FnMut(&TensorSpec) -> V) -> Sizes {
    let mut sizes = Sizes { frame: FRAME, ..Sizes::default() };
    for spec in config.tensors() {
        let values = values(&spec);
        let values = values.as_ref();
        assert_eq!(values.len(), spec.elements(), "elements of `{}`", spec.name());
        let (q_max, factor) = match spec.class {
            QuantClass::Attention | QuantClass::Mlp => (31, MATRIX_FACTOR),
            QuantClass::Embedding => (127, TABLE_FACTOR),
            QuantClass::Half => {
                *sizes.of(&spec) += values.len() as f64 * HALF_BYTES;
                continue;
            }
        };
        let cols = spec.shape[1];
        let steps = values.chunks_exact(cols).filter(|row| !at_floor(row)).count() as f64 * STEP_BYTES;
        *sizes.of(&spec) += code_bits(values, cols, q_max) / 8.0 * factor + steps;
    }
    sizes
}

/// Coded bytes of a matrix over the entropy found: what GPTQ's errors add to the spread of the codes, and the coder.
/// Measured on a trained model of 5.3 M parameters, as the others below; its classes have 0.995 to 1.005.
const MATRIX_FACTOR: f64 = 1.0026;
/// Coded bytes of an embedding table over the entropy found: the coder learns that rows differ in size.
const TABLE_FACTOR: f64 = 0.9802;
/// Coded bytes of a tensor element in f16.
const HALF_BYTES: f64 = 1.687;
/// Coded bytes of a step that differs from the floor.
const STEP_BYTES: f64 = 3.0;
/// Header, section table, configuration, provenance.
const FRAME: f64 = 1024.0;

/// Entropy in bits of all codes of a matrix `[rows, cols]` whose rows are Gaussian: only their root mean square counts.
fn code_bits(values: &[f32], cols: usize, q_max: i32) -> f64 {
    let rows = values.chunks_exact(cols);
    rows.map(|row| cols as f64 * gaussian_entropy(step(row, q_max) / root_mean_square(row), q_max)).sum()
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
    fn the_sum_meets_the_count_on_gaussian_weights() {
        for sigma in [0.01, 0.03, 0.08, 0.2] {
            let weights = gaussian(200_000, sigma);
            let expected = counted(&weights);
            let bits = code_bits(&weights, 1000, 31);
            assert!((bits / expected - 1.0).abs() < 0.005, "σ {sigma}: {bits}, counted {expected}");
        }
    }

    #[test]
    fn corrections_go_by_class() {
        let sizes = |attention, half| Sizes { attention, half, ..Sizes::default() };
        let corrected = sizes(2000.0, 500.0).corrected(&sizes(1000.0, 100.0), &sizes(1100.0, 900.0));
        assert_eq!(corrected, sizes(2200.0, 500.0), "a class that was hardly there stays as it is");
        assert_eq!(corrected.total(), 2700);
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
        let at = |sigma| project(&config, |spec| gaussian(spec.elements(), sigma)).total();
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
        project(&config, |spec| vec![f32::NAN; spec.elements()]);
        project(&config, |spec| vec![f32::INFINITY; spec.elements()]);
    }
}
