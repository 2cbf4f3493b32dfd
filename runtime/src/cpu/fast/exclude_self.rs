//! Exclusive self-attention.

use super::pool::Pool;
use super::simd::{dot, wide};
use crate::cpu::Mat;
use crate::ops::Heads;

/// `y − (y·v̂) v̂` per head, `v̂ = v / max(‖v‖, 1e-12)` the key/value head's own value at that position.
pub(super) fn exclude_self(pool: &Pool, heads: Heads, y: &Mat, v: &Mat) -> Mat {
    assert_eq!(y.rows(), v.rows(), "exclude_self");
    let group = heads.query / heads.kv;
    let mut out = y.clone();
    pool.rows(&mut out.data, y.cols, pool.share(y.rows(), 4 * y.cols), |first, out| {
        wide(
            #[inline(always)]
            || {
                for (i, row) in out.chunks_exact_mut(y.cols).enumerate() {
                    for (h, head) in row.chunks_exact_mut(heads.dim).enumerate() {
                        exclude(head, &v.row(first + i)[h / group * heads.dim..][..heads.dim]);
                    }
                }
            },
        );
    });
    out
}

#[inline(always)]
fn exclude(y: &mut [f32], v: &[f32]) {
    let inverse = 1.0 / dot(v, v).sqrt().max(1e-12);
    // Twice once, not once squared: the square of 1e12 is near the end of f32.
    let along = dot(y, v) * inverse * inverse;
    y.iter_mut().zip(v).for_each(|(y, v)| *y -= along * v);
}
