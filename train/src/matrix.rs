//! Matrix products on plain slices: the safe door to the `gemm` crate.

use gemm::Parallelism;

/// A borrowed matrix of f32 with any strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix whose rows are `cols` apart.
    ///
    /// # Panics
    /// If `data` is not `rows · cols` long.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows}×{cols} matrix");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A row-major matrix within a wider one: rows are `row_stride` apart.
    ///
    /// # Panics
    /// If the last row ends outside `data`.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, cols, row_stride), "a {rows}×{cols} matrix of stride {row_stride}");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose; nothing moves.
    pub(crate) fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// The matrix a product is written to: row-major, rows `row_stride` apart.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    row_stride: usize,
}

impl<'a> MatMut<'a> {
    /// Rows `row_stride` apart; the size is that of the product.
    pub(crate) fn new(data: &'a mut [f32], row_stride: usize) -> Self {
        Self { data, row_stride }
    }
}

/// What happens to the numbers a product is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// They are replaced.
    Set,
    /// The product is added to them.
    Add,
}

/// `dst ← factor · a b`, or `dst ← dst + factor · a b`. Runs on the calling thread: the same numbers in the same order
/// every time.
///
/// # Panics
/// If the inner sizes differ or the product does not fit `dst`.
pub(crate) fn multiply(dst: MatMut<'_>, write: Write, factor: f32, a: Mat<'_>, b: Mat<'_>) {
    assert_eq!(a.cols, b.rows, "inner sizes of a product");
    assert!(fits(dst.data.len(), a.rows, b.cols, dst.row_stride), "room for a {}×{} product", a.rows, b.cols);
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    // SAFETY: `Mat`'s constructors and the assertions above bound every index of the three matrices by its slice;
    // `dst` is borrowed mutably, so it overlaps neither operand; strides come from slice lengths and fit `isize`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `a b` as a new row-major matrix.
pub(crate) fn product(a: Mat<'_>, b: Mat<'_>) -> Vec<f32> {
    let mut out = vec![0.0; a.rows * b.cols];
    multiply(MatMut::new(&mut out, b.cols), Write::Set, 1.0, a, b);
    out
}

/// Whether `rows` rows of `cols`, `stride` apart and not overlapping, lie within `len`.
fn fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    rows == 0 || (cols <= stride.max(1) && (rows - 1) * stride + cols <= len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_strided_and_transposed_matrices() {
        // a is 2×3 inside rows of 4; b is the transpose of a 2×3.
        let a = [1., 2., 3., 9., 4., 5., 6.];
        let b = [1., 0., 2., 0., 1., 1.];
        let (a, b) = (Mat::strided(&a, 2, 3, 4), Mat::new(&b, 2, 3).t());
        assert_eq!(product(a, b), [7., 5., 16., 11.]);
        let mut dst = [1., 1., -1., 1., 1.];
        multiply(MatMut::new(&mut dst, 3), Write::Add, 2.0, a, b);
        assert_eq!(dst, [15., 11., -1., 33., 23.]);
    }

    #[test]
    #[should_panic(expected = "room for a 2×2 product")]
    fn a_product_that_does_not_fit_is_refused() {
        let x = [1.0; 4];
        let mut dst = [0.0; 3];
        multiply(MatMut::new(&mut dst, 2), Write::Set, 1.0, Mat::new(&x, 2, 2), Mat::new(&x, 2, 2));
    }
}
