//! A quantised matrix: integer codes and steps of its rows and columns.

use half::f16;

use crate::{Error, Result};

/// `W[i, j] ≈ codes[i, j] · scales[i] · columns[j]`, with `|codes| ≤ q_max`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedMatrix {
    /// Number of rows (outputs).
    pub rows: usize,
    /// Number of columns (inputs).
    pub cols: usize,
    /// Largest magnitude of a code: 31 for int6, 15 for int5, 127 for int8.
    pub q_max: u8,
    /// Codes `[rows, cols]`, row-major.
    pub codes: Vec<i8>,
    /// Steps `[rows]`.
    pub scales: Vec<f16>,
    /// Factors of the steps `[cols]`; empty where they are all 1.
    pub columns: Vec<f16>,
    /// Whether the codes of each row are a path of the [`trellis`](crate::trellis).
    /// It says how they can be coded, not what they mean.
    pub trellis: bool,
}

impl QuantizedMatrix {
    /// Checks lengths and that every code is within ±`q_max`; `name` is for the message.
    pub fn new(name: &str, shape: [usize; 2], q_max: u8, codes: Vec<i8>, scales: Vec<f16>) -> Result<Self> {
        let [rows, cols] = shape;
        let fail = |expected: String, found: String| Err(Error::Tensor { name: name.to_owned(), expected, found });
        if rows.checked_mul(cols) != Some(codes.len()) {
            return fail(format!("{rows}×{cols} codes"), format!("{} codes", codes.len()));
        }
        if scales.len() != rows {
            return fail(format!("{rows} scales"), format!("{} scales", scales.len()));
        }
        if let Some(code) = codes.iter().find(|c| c.unsigned_abs() > q_max) {
            return fail(format!("codes within ±{q_max}"), format!("code {code}"));
        }
        if let Some(scale) = scales.iter().find(|s| !s.is_finite()) {
            return fail("finite scales".into(), format!("scale {scale}"));
        }
        Ok(Self { rows, cols, q_max, codes, scales, columns: Vec::new(), trellis: false })
    }

    /// The same with factors of the columns, `[cols]` or none; `name` is for the message.
    pub fn with_columns(self, name: &str, columns: Vec<f16>) -> Result<Self> {
        let fail = |expected: String, found: String| Err(Error::Tensor { name: name.to_owned(), expected, found });
        if !columns.is_empty() && columns.len() != self.cols {
            return fail(format!("{} column factors", self.cols), format!("{} column factors", columns.len()));
        }
        if let Some(factor) = columns.iter().find(|s| !s.is_finite()) {
            return fail("finite column factors".into(), format!("factor {factor}"));
        }
        Ok(Self { columns, ..self })
    }

    /// The order in which trellis and coder take the columns: their own.
    pub fn column_order(&self) -> Vec<usize> {
        (0..self.cols).collect()
    }

    /// Nominal bits of a code: 6 for `q_max` 31.
    pub fn bits(&self) -> u32 {
        u32::from(self.q_max).ilog2() + 2
    }

    /// The matrix as f32 `[rows, cols]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let columns: Vec<f32> = self.columns.iter().map(|c| c.to_f32()).collect();
        let mut out = Vec::with_capacity(self.codes.len());
        for (row, scale) in self.codes.chunks_exact(self.cols.max(1)).zip(&self.scales) {
            let scale = scale.to_f32();
            if columns.is_empty() {
                out.extend(row.iter().map(|&q| f32::from(q) * scale));
            } else {
                out.extend(row.iter().zip(&columns).map(|(&q, column)| f32::from(q) * scale * column));
            }
        }
        out
    }
}
