//! One matrix ready to be quantised at any knob.

use std::borrow::Cow;
use std::sync::Arc;

use half::f16;
use sixpack_formats::{QuantClass, QuantizedMatrix, TensorSpec};

use super::basis::Basis;
use crate::distortion::{mean_squared_error, row_errors};
use crate::gptq::{Grid, quantize_to};
use crate::scheme::{Rd, SdClip};
use crate::{Matrix, Result, lattice, round};

/// Largest code of rate–distortion quantisation.
const Q_MAX: u8 = 127;
/// Largest code that a weight as it was may need: GPTQ moves weights a little further before it rounds them.
const HEADROOM: f64 = 112.0;
/// Rows looked at to predict a size.
const SAMPLE: usize = 128;

/// A matrix, its Hessian and its steps up to the knob.
pub(crate) struct MatrixPlan<'a> {
    name: String,
    shape: [usize; 2],
    values: Cow<'a, [f32]>,
    /// `None` without a usable Hessian: weights are then rounded to their nearest codes.
    basis: Option<Arc<Basis<'a>>>,
    /// What errors in the rows cost; all 1 where that is not asked.
    costs: Vec<f64>,
    /// Steps of the rows where the knob is 1.
    steps: Vec<f64>,
    q_max: u8,
    trellis: bool,
    rate: f32,
}

impl<'a> MatrixPlan<'a> {
    /// Steps `∝ d_j / √g_i` with `d_j` of the basis and the rows' costs `g_i`.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(crate) fn rate_distortion(
        spec: &TensorSpec,
        values: Cow<'a, [f32]>,
        basis: Option<Arc<Basis<'a>>>,
        costs: &[f64],
        rd: Rd,
    ) -> Result<Self> {
        let shift = basis.as_ref().map_or(0.0, |b| b.shift);
        // In a trellis a step is half of what a code's cost goes by.
        let octave = if rd.trellis { -1.0 } else { 0.0 };
        let step = |g: &f64| lattice::log2(lattice::nearest(shift - 0.5 * g.log2())) + octave;
        let steps: Vec<f64> = costs.iter().map(|g| step(g).exp2()).collect();
        let trellis = rd.trellis && basis.is_some();
        let plan = Self::new(spec, values, basis, steps)?;
        Ok(Self { costs: costs.to_vec(), q_max: Q_MAX, trellis, rate: rd.rate, ..plan })
    }

    /// Steps `k · std(row) / q_max`, the same for all columns.
    ///
    /// # Errors
    /// A weight that is not finite.
    pub(crate) fn sd_clip(
        spec: &TensorSpec,
        values: Cow<'a, [f32]>,
        basis: Option<Arc<Basis<'a>>>,
        k: SdClip,
    ) -> Result<Self> {
        let (k, q_max) = match spec.class {
            QuantClass::Attention => (k.attention, 31),
            QuantClass::Mlp => (k.mlp, 31),
            QuantClass::Embedding | QuantClass::Half => (k.embedding, 127),
        };
        let steps = values.chunks_exact(spec.shape[1]).map(|row| k * deviation(row) / f64::from(q_max)).collect();
        Ok(Self { q_max, ..Self::new(spec, values, basis, steps)? })
    }

    fn new(spec: &TensorSpec, values: Cow<'a, [f32]>, basis: Option<Arc<Basis<'a>>>, steps: Vec<f64>) -> Result<Self> {
        let (name, shape) = (spec.name(), [spec.shape[0], spec.shape[1]]);
        Matrix::new(&name, shape, &values)?;
        let costs = vec![1.0; shape[0]];
        Ok(Self { name, shape, values, basis, costs, steps, q_max: 0, trellis: false, rate: 0.0 })
    }

    /// Number of weights.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The matrix as it was.
    pub(crate) fn weights(&self) -> Matrix<'_> {
        Matrix::new(&self.name, self.shape, &self.values).expect("checked when the plan was made")
    }

    /// What the errors of `q` cost: `½ Σ g_i E_i H E_iᵀ`, with equal inputs that are uncorrelated where no Hessian is.
    pub(crate) fn cost(&self, q: &QuantizedMatrix) -> f64 {
        let w = self.weights();
        let errors = match &self.basis {
            Some(basis) => row_errors(&w, q, &basis.hessian),
            None => vec![mean_squared_error(&w, q); self.shape[0]],
        };
        0.5 * errors.iter().zip(&self.costs).map(|(e, g)| e * g).sum::<f64>()
    }

    /// Whether codes are found by GPTQ.
    pub(crate) fn has_hessian(&self) -> bool {
        self.basis.is_some()
    }

    /// Steps of the rows and columns at a knob.
    pub(crate) fn grid(&self, knob: f64) -> Grid {
        let mut scales: Vec<f64> = self.steps.iter().map(|step| knob * step).collect();
        let mut columns = self.basis.as_ref().map_or(Vec::new(), |b| b.columns.clone());
        if !columns.is_empty() {
            self.make_room(&mut scales, &mut columns);
        }
        // What f16 holds with all its bits; a step of 0 would say nothing of a row.
        let half = |s: f64| f16::from_f64(s.clamp(f64::from(f16::MIN_POSITIVE), f64::from(f16::MAX)));
        let scales = scales.into_iter().map(half).collect();
        Grid { q_max: self.q_max, scales, columns, trellis: self.trellis, rate: self.rate }
    }

    /// Makes steps coarser until codes reach all weights: of rows that are too large in many columns, then of columns
    /// that are too large in many rows, as those of inputs that are always strong are, then of rows that still need it.
    fn make_room(&self, scales: &mut [f64], columns: &mut [f16]) {
        let [rows, cols] = self.shape;
        let mut needed = vec![0.0; cols];
        for (scale, row) in scales.iter_mut().zip(self.values.chunks_exact(cols)) {
            let relative = row.iter().zip(&*columns).map(|(w, f)| f64::from(w.abs()) / (HEADROOM * f.to_f64()));
            needed.iter_mut().zip(relative).for_each(|(n, x)| *n = x);
            *scale = scale.max(all_but_few(&mut needed));
        }
        let mut needed = vec![0.0; rows];
        for (j, factor) in columns.iter_mut().enumerate() {
            let relative = |i: usize| f64::from(self.values[i * cols + j].abs()) / (HEADROOM * scales[i]);
            needed.iter_mut().enumerate().for_each(|(i, n)| *n = relative(i));
            let least = all_but_few(&mut needed);
            if least > factor.to_f64() {
                *factor = f16::from_f64(lattice::log2(lattice::nearest(least.log2() + 0.125)).exp2());
            }
        }
        for (scale, row) in scales.iter_mut().zip(self.values.chunks_exact(cols)) {
            let relative = row.iter().zip(&*columns).map(|(w, factor)| f64::from(w.abs()) / factor.to_f64());
            *scale = scale.max(relative.fold(0.0, f64::max) / HEADROOM);
        }
    }

    /// Codes at a knob.
    pub(crate) fn quantize(&self, knob: f64) -> QuantizedMatrix {
        let grid = self.grid(knob);
        let quantized = match &self.basis {
            Some(basis) => quantize_to(&self.weights(), &basis.prepared, &grid),
            None => self.nearest(knob),
        };
        tight(quantized)
    }

    /// Each weight rounded to its nearest code; for a trellis, of the grid that takes as many bits.
    pub(crate) fn nearest(&self, knob: f64) -> QuantizedMatrix {
        let mut grid = self.grid(knob);
        if self.trellis {
            grid.scales.iter_mut().for_each(|s| *s = f16::from_f32(2.0 * s.to_f32().min(30_000.0)));
        }
        let codes = round::to_grid(&self.weights(), &grid);
        let [rows, cols] = self.shape;
        let Grid { q_max, scales, columns, .. } = grid;
        tight(QuantizedMatrix { rows, cols, q_max, codes, scales, columns, trellis: false })
    }

    /// Bits that the codes are expected to take: the entropy of some rows' nearest codes, among codes of about the same
    /// spread.
    pub(crate) fn predicted_bits(&self, knob: f64) -> f64 {
        let grid = self.grid(knob);
        let factors: Vec<f32> = grid.columns.iter().map(|c| c.to_f32()).collect();
        // A trellis codes multiples of two steps.
        let width = if self.trellis { 2.0 } else { 1.0 };
        let stride = self.shape[0].div_ceil(SAMPLE);
        let mut classes = vec![[0u32; 256]; 64];
        let mut seen = 0usize;
        let rows = self.values.chunks_exact(self.shape[1]).zip(&grid.scales);
        for (row, scale) in rows.step_by(stride) {
            let inverse = 1.0 / (width * scale.to_f32());
            let relative = |(j, w): (usize, &f32)| w * inverse / factors.get(j).copied().unwrap_or(1.0);
            let spread = (row.iter().enumerate().map(|x| relative(x).powi(2)).sum::<f32>() / row.len() as f32).sqrt();
            let class = &mut classes[(16.0 + 4.0 * spread.max(1e-4).log2()).clamp(0.0, 63.0) as usize];
            for code in row.iter().enumerate().map(relative) {
                class[(code.round_ties_even().clamp(-127.0, 127.0) + 128.0) as usize] += 1;
            }
            seen += row.len();
        }
        let bits: f64 = classes.iter().map(entropy).sum();
        bits * self.values.len() as f64 / seen as f64
    }
}

/// What all but a sixteenth of the values are at most. Reorders them.
fn all_but_few(values: &mut [f64]) -> f64 {
    let at = values.len() - 1 - values.len() / 16;
    *values.select_nth_unstable_by(at, f64::total_cmp).1
}

/// With the least `q_max` that its codes are within.
fn tight(q: QuantizedMatrix) -> QuantizedMatrix {
    let q_max = q.codes.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0).max(1);
    QuantizedMatrix { q_max, ..q }
}

/// Total bits of symbols that were counted.
fn entropy(counts: &[u32; 256]) -> f64 {
    let total: u32 = counts.iter().sum();
    counts.iter().filter(|&&n| n > 0).map(|&n| f64::from(n) * (f64::from(total) / f64::from(n)).log2()).sum()
}

/// The standard deviation of a row, with the mean taken off and `n − 1` in the denominator as `torch.std` has it.
fn deviation(row: &[f32]) -> f64 {
    let n = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    (squares / (n - 1.0).max(1.0)).sqrt()
}
