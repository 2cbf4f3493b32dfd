//! Products of f32 matrices: the only unsafe code of this crate, behind views whose bounds are checked when made.
#![allow(unsafe_code, reason = "the one module that calls the matrix product library")]

use gemm::{Parallelism, gemm};

/// A borrowed matrix `[rows, cols]`: entry `(i, j)` is at `i · row_stride + j · col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// `rows` of `cols` neighbours each.
    pub(crate) fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// `rows` of `cols` neighbours each, that start `stride` apart.
    pub(crate) fn with_stride(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check_bounds(data.len(), rows, cols, stride);
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The same entries, `(i, j)` for `(j, i)`.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

/// A matrix `[rows, cols]` of rows that start `stride` apart, borrowed to be written.
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// `rows` of `cols` neighbours each.
    pub(crate) fn row_major(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// `rows` of `cols` neighbours each, that start `stride` apart.
    pub(crate) fn with_stride(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check_bounds(data.len(), rows, cols, stride);
        Self { data, rows, cols, stride }
    }
}

/// `dst += factor · a · b`, on the calling thread: callers are parallel over matrices already.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn add_product(dst: &mut ViewMut<'_>, factor: f32, a: View<'_>, b: View<'_>) {
    assert_eq!((dst.rows, dst.cols, a.cols), (a.rows, b.cols, b.rows), "shapes of a matrix product");
    let (m, n, k) = (dst.rows, dst.cols, a.cols);
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let stride = |s: usize| s as isize;
    // SAFETY: each view was checked to lie within its slice when it was made, and its fields have not changed since;
    // `dst` is borrowed mutably, so it overlaps neither `a` nor `b`; the shapes agree, as asserted above.
    unsafe {
        gemm(
            m,
            n,
            k,
            dst.data.as_mut_ptr(),
            1,
            stride(dst.stride),
            true,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            1.0f32,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The last entry must lie within the slice, and rows must not overlap.
fn check_bounds(len: usize, rows: usize, cols: usize, stride: usize) {
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
    assert!(cols <= stride && needed <= len, "a view of {rows}×{cols}, stride {stride}, over {len} values");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_on_odd_shapes_and_strides() {
        let (m, n, k) = (5, 7, 3);
        let a: Vec<f32> = (0..k * (m + 2)).map(|i| (i * i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
        let mut dst = vec![1.0f32; m * (n + 4)];
        let a_view = View::with_stride(&a, k, m, m + 2).transposed();
        add_product(&mut ViewMut::with_stride(&mut dst, m, n, n + 4), -2.0, a_view, View::row_major(&b, k, n));
        for i in 0..m {
            for j in 0..n + 4 {
                let sum: f32 = (0..k).map(|l| a[l * (m + 2) + i] * b.get(l * n + j).copied().unwrap_or(0.0)).sum();
                let expected = if j < n { 1.0 - 2.0 * sum } else { 1.0 };
                assert_eq!(dst[i * (n + 4) + j], expected, "[{i}, {j}]");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a view of 2×3")]
    fn a_view_past_its_slice_is_refused() {
        View::row_major(&[0.0; 5], 2, 3);
    }
}
