//! Exclusive self-attention.

use super::linear::dot;
use crate::cpu::Mat;
use crate::ops::Heads;

/// `y − (y·v̂) v̂` per head, `v̂ = v / max(‖v‖, 1e-12)` the key/value head's own value at that position.
pub(super) fn exclude_self(heads: Heads, y: &Mat, v: &Mat) -> Mat {
    assert_eq!(y.rows(), v.rows(), "exclude_self");
    let mut out = y.clone();
    for (i, row) in out.data.chunks_exact_mut(y.cols).enumerate() {
        for (h, head) in row.chunks_exact_mut(heads.dim).enumerate() {
            let v = &v.row(i)[h / (heads.query / heads.kv) * heads.dim..][..heads.dim];
            let norm = dot(v, v).sqrt().max(1e-12);
            let along = dot(head, v) / norm / norm;
            head.iter_mut().zip(v).for_each(|(y, &v)| *y = (f64::from(*y) - along * f64::from(v)) as f32);
        }
    }
    out
}
