//! Matrix products of views, by the `gemm` crate on the calling thread: the only unsafe code of the CPU interpreters.
#![allow(unsafe_code, reason = "gemm takes pointers; the views below check their bounds")]

/// A matrix in a slice: element `[i, j]` is at `i · row + j · col`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a> View<'a> {
    /// `rows` rows of `cols` values, each row `stride` after the one before.
    pub(super) fn rows(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(span(rows, cols, stride) <= data.len(), "{rows} rows of {cols} by {stride} in {}", data.len());
        Self { data, rows, cols, row: stride, col: 1 }
    }

    /// The transpose.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }
}

/// Elements from the first of a matrix of rows to its last.
fn span(rows: usize, cols: usize, stride: usize) -> usize {
    assert!(cols <= stride || rows <= 1, "rows of {cols} overlap at stride {stride}");
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols }
}

/// `out = a · b`; the rows of `out` are `stride` apart.
pub(super) fn multiply(a: View<'_>, b: View<'_>, out: &mut [f32], stride: usize) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner dimensions");
    assert!(span(m, n, stride) <= out.len(), "{m} rows of {n} by {stride} in {}", out.len());
    // SAFETY: `a` and `b` were checked by `View::rows`, whose bounds transposition keeps, and `out` above; `out` is
    // borrowed mutably, so it overlaps neither. Strides fit isize because slices do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            false,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
