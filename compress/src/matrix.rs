//! A borrowed matrix with the name that error messages use.

use crate::{Error, Result};

/// A linear layer's weights `[rows, cols]` (outputs, inputs), row-major, borrowed; every entry is finite.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    name: &'a str,
    rows: usize,
    cols: usize,
    values: &'a [f32],
}

impl<'a> Matrix<'a> {
    /// Checks the size and that every value is finite.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not `rows · cols` values or a side is 0; [`Error::NotFinite`] naming the first
    /// value that is NaN or infinite.
    pub fn new(name: &'a str, [rows, cols]: [usize; 2], values: &'a [f32]) -> Result<Self> {
        if rows == 0 || cols == 0 || rows.checked_mul(cols) != Some(values.len()) {
            return Err(Error::Shape {
                tensor: name.to_owned(),
                expected: format!("{rows}×{cols} weights, both sides above 0"),
                found: format!("{} values", values.len()),
            });
        }
        check_finite(name, "weight", cols, values)?;
        Ok(Self { name, rows, cols, values })
    }

    /// The tensor's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, row-major.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The rows in order.
    pub fn iter_rows(&self) -> std::slice::ChunksExact<'a, f32> {
        self.values.chunks_exact(self.cols)
    }

    /// Checks that `hessian` is `[cols, cols]` and finite, with no negative entry on its diagonal.
    pub(crate) fn check_hessian(&self, hessian: &[f32]) -> Result<()> {
        let n = self.cols;
        if hessian.len() != n * n {
            return Err(Error::Shape {
                tensor: self.name.to_owned(),
                expected: format!("a hessian of {n}×{n} entries"),
                found: format!("{} entries", hessian.len()),
            });
        }
        check_finite(self.name, "hessian", n, hessian)?;
        match (0..n).find(|j| hessian[j * n + j] < 0.0) {
            None => Ok(()),
            Some(j) => Err(Error::Shape {
                tensor: self.name.to_owned(),
                expected: "a hessian without negative entries on its diagonal".into(),
                found: format!("{} at [{j}, {j}]", hessian[j * n + j]),
            }),
        }
    }
}

fn check_finite(name: &str, what: &'static str, cols: usize, values: &[f32]) -> Result<()> {
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => {
            Err(Error::NotFinite { tensor: name.to_owned(), what, row: i / cols, col: i % cols, found: values[i] })
        }
    }
}
