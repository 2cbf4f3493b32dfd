//! A parameter in f32.

use sixpack_formats::{TensorData, TensorSpec};

/// A parameter as f32 `[rows, cols]`; a vector has one row, a scalar one element.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Product of all dimensions but the last.
    pub rows: usize,
    /// The last dimension.
    pub cols: usize,
    /// Row-major values.
    pub data: Vec<f32>,
}

impl Dense {
    /// `rows · cols` values.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} by {cols} matrix");
        Self { rows, cols, data }
    }

    /// The tensor of a model, dequantised.
    pub fn load(spec: &TensorSpec, data: &TensorData) -> Self {
        let cols = spec.shape.last().copied().unwrap_or(1);
        let rows = spec.shape.iter().rev().skip(1).product();
        Self::new(rows, cols, data.to_f32().into_owned())
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// The element a channel is scaled by: its own, or the only one.
    pub fn channel(&self, c: usize) -> f32 {
        if self.data.len() == 1 { self.data[0] } else { self.data[c] }
    }
}
