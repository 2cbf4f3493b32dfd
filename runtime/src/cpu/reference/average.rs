//! Two lanes to one.

use crate::cpu::Mat;

/// `(a + b) / 2`.
pub(super) fn average(a: &Mat, b: &Mat) -> Mat {
    assert_eq!(a.shape(), b.shape(), "average");
    a.like(a.cols, a.data.iter().zip(&b.data).map(|(a, b)| 0.5 * (a + b)).collect())
}
