//! Queries and keys before attention: norm per head, rotation, gain.

use super::rms_norm::inverse_rms;
use crate::cpu::{Dense, Mat};
use crate::ops::Rope;

/// Each head of `x [B, T, heads·D]` normalised by its root mean square, rotated by its position, times its gain.
pub(super) fn head_norm_rope(x: &Mat, heads: usize, rope: Rope, gain: Option<&Dense>) -> Mat {
    let mut y = x.clone();
    for (i, row) in y.data.chunks_exact_mut(x.cols).enumerate() {
        for (h, head) in row.chunks_exact_mut(x.cols / heads).enumerate() {
            let factor = inverse_rms(head) * gain.map_or(1.0, |g| f64::from(g.data[h]));
            head.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
            rotate(head, rope, x.position(i));
        }
    }
    y
}

/// Halves, not pairs: element `i` of the first half turns with element `i` of the second.
fn rotate(head: &mut [f32], rope: Rope, position: usize) {
    let half = rope.dims / 2;
    for i in 0..half {
        let angle = position as f64 * rope.base.powf(-2.0 * i as f64 / rope.dims as f64);
        let (sin, cos) = angle.sin_cos();
        let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
        head[i] = (a * cos + b * sin) as f32;
        head[i + half] = (b * cos - a * sin) as f32;
    }
}
