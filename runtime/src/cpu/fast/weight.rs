//! A parameter as the fast interpreter keeps it.

use std::borrow::Cow;

use sixpack_formats::{TensorData, TensorSpec};

use super::dot::MAX_INPUTS;
use super::pool::Pool;
use super::tiles::{INPUTS, Tiles};
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
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) codes: Tiles,
    pub(super) scales: Vec<f32>,
    pub(super) columns: Vec<f32>,
}

impl Int8 {
    /// Codes `[rows, cols]`, row-major, with steps `[rows]` and factors of the steps `[cols]`, which are empty where they
    /// are all 1.
    ///
    /// # Panics
    /// If there are more or fewer of any, or more than 32,768 columns.
    pub fn new([rows, cols]: [usize; 2], codes: &[i8], scales: Vec<f32>, columns: Vec<f32>) -> Self {
        assert_eq!(scales.len(), rows, "steps of {rows} by {cols} codes");
        assert!(columns.is_empty() || columns.len() == cols, "{} factors of {cols} columns", columns.len());
        assert!(cols <= MAX_INPUTS, "{cols} columns of codes");
        Self { rows, cols, codes: Tiles::new(rows, cols, codes), scales, columns }
    }

    /// Codes `[rows, cols]`, row-major.
    pub fn codes(&self) -> Vec<i8> {
        let row = |i| self.codes.row(i).flatten().take(self.cols).map(|code| code as i8);
        (0..self.rows).flat_map(row).collect()
    }

    /// Steps `[rows]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Factors of the steps `[cols]`; empty where they are all 1.
    pub fn columns(&self) -> &[f32] {
        &self.columns
    }
}

impl Weight {
    /// The tensor of a model; codes stay codes.
    pub fn load(spec: &TensorSpec, data: &TensorData) -> Self {
        match data {
            TensorData::Quantized(q) if q.cols <= MAX_INPUTS => {
                let [scales, columns] = [&q.scales, &q.columns].map(|s| s.iter().map(|s| s.to_f32()).collect());
                Self::Int8(Int8::new([q.rows, q.cols], &q.codes, scales, columns))
            }
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
                let mut values = vec![0.0; w.rows * w.cols];
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
                let len = w.rows * w.cols;
                if panel.len() < len {
                    panel.resize(len, 0.0);
                }
                let values = &mut panel[..len];
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
    fn dequantize_row(&self, i: usize, out: &mut [f32]) {
        let scale = self.scales[i];
        super::simd::wide(
            #[inline(always)]
            || {
                for (out, codes) in out.chunks_mut(INPUTS).zip(self.codes.row(i)) {
                    out.iter_mut().zip(codes).for_each(|(out, code)| *out = code * scale);
                }
                out.iter_mut().zip(&self.columns).for_each(|(out, column)| *out *= column);
            },
        );
    }
}
