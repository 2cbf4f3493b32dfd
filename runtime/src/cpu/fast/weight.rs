//! A parameter as the fast interpreter keeps it.

use std::borrow::Cow;

use sixpack_formats::{TensorData, TensorSpec};

use super::pool::Pool;
use crate::cpu::Dense;

/// Room for the values of a weight kept as codes, used again for each.
pub(super) type Panel = Vec<f32>;

/// A parameter in f32, or as integer codes: a quarter of the memory, which is what a step of one token waits for.
#[derive(Clone, Debug)]
pub enum Weight {
    /// f32 values.
    Dense(Dense),
    /// Codes and row scales.
    Int8(Int8),
}

/// `W[i, j] = codes[i, j] · scales[i] · columns[j]`.
#[derive(Clone, Debug)]
pub struct Int8 {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Codes `[rows, cols]`.
    pub codes: Vec<i8>,
    /// Steps `[rows]`.
    pub scales: Vec<f32>,
    /// Factors of the steps `[cols]`; empty where they are all 1.
    pub columns: Vec<f32>,
}

impl Weight {
    /// The tensor of a model; codes stay codes.
    pub fn load(spec: &TensorSpec, data: &TensorData) -> Self {
        match data {
            TensorData::Quantized(q) => Self::Int8(Int8 {
                rows: q.rows,
                cols: q.cols,
                codes: q.codes.clone(),
                scales: q.scales.iter().map(|s| s.to_f32()).collect(),
                columns: q.columns.iter().map(|s| s.to_f32()).collect(),
            }),
            _ => Self::Dense(Dense::load(spec, data)),
        }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Dense(w) => w.rows,
            Self::Int8(w) => w.rows,
        }
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        match self {
            Self::Dense(w) => w.cols,
            Self::Int8(w) => w.cols,
        }
    }

    /// The same values in f32.
    pub fn to_dense(&self) -> Dense {
        Dense::new(self.rows(), self.cols(), self.to_f32().into_owned())
    }

    /// All values as f32; borrowed where they are. For the small tensors that are never codes.
    pub(super) fn to_f32(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Dense(w) => Cow::Borrowed(&w.data),
            Self::Int8(w) => {
                let mut values = vec![0.0; w.codes.len()];
                (0..w.rows).for_each(|i| w.dequantize_row(i, &mut values[i * w.cols..(i + 1) * w.cols]));
                Cow::Owned(values)
            }
        }
    }

    /// All values as f32: those of a dense weight itself, those of codes written to `panel`.
    ///
    /// A product with many rows does this each time. It costs about 1% of a product with 512 rows, and a dense copy of
    /// every matrix would cost five times the memory of the codes.
    pub(super) fn unpack<'a>(&'a self, pool: &Pool, panel: &'a mut Panel) -> &'a [f32] {
        match self {
            Self::Dense(w) => &w.data,
            Self::Int8(w) => {
                if panel.len() < w.codes.len() {
                    panel.resize(w.codes.len(), 0.0);
                }
                let values = &mut panel[..w.codes.len()];
                pool.rows(values, w.cols, pool.share(w.rows, w.cols), |first, values| {
                    let rows = values.chunks_exact_mut(w.cols).enumerate();
                    rows.for_each(|(i, out)| w.dequantize_row(first + i, out));
                });
                values
            }
        }
    }

    /// Writes row `i` as f32.
    pub(super) fn read_row(&self, i: usize, out: &mut [f32]) {
        match self {
            Self::Dense(w) => out.copy_from_slice(w.row(i)),
            Self::Int8(w) => w.dequantize_row(i, out),
        }
    }
}

impl Int8 {
    fn row(&self, i: usize) -> &[i8] {
        &self.codes[i * self.cols..(i + 1) * self.cols]
    }

    fn dequantize_row(&self, i: usize, out: &mut [f32]) {
        let scale = self.scales[i];
        super::simd::wide(
            #[inline(always)]
            || match &self.columns[..] {
                [] => out.iter_mut().zip(self.row(i)).for_each(|(out, &code)| *out = f32::from(code) * scale),
                columns => {
                    let codes = self.row(i).iter().zip(columns);
                    out.iter_mut()
                        .zip(codes)
                        .for_each(|(out, (&code, column))| *out = f32::from(code) * scale * column);
                }
            },
        );
    }
}
