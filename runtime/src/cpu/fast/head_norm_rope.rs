//! Queries and keys before attention: norm per head, rotation, gain.

use super::pool::Pool;
use super::simd::{inverse_rms, wide};
use crate::cpu::Mat;
use crate::ops::Rope;

/// Sines and cosines of the positions seen so far.
#[derive(Debug, Default)]
pub(super) struct Angles {
    rope: Option<Rope>,
    /// For each position the cosines of all pairs, then the sines.
    table: Vec<f32>,
}

impl Angles {
    /// The table for `rope`, at least `positions` long, and its values for each position.
    pub(super) fn of(&mut self, rope: Rope, positions: usize) -> (&[f32], usize) {
        if self.rope != Some(rope) {
            *self = Self { rope: Some(rope), table: Vec::new() };
        }
        let half = rope.dims / 2;
        for position in self.table.len() / rope.dims..positions {
            let angle = |i: usize| position as f64 * rope.base.powf(-2.0 * i as f64 / rope.dims as f64);
            self.table.extend((0..half).map(|i| angle(i).cos() as f32));
            self.table.extend((0..half).map(|i| angle(i).sin() as f32));
        }
        (&self.table, rope.dims)
    }
}

/// Each head of `x [B, T, heads·D]` normalised by its root mean square, rotated by its position, times its gain.
/// `angles` holds `dims` values for each position.
pub(super) fn head_norm_rope(
    pool: &Pool,
    x: &Mat,
    heads: usize,
    (angles, dims): (&[f32], usize),
    gain: Option<&[f32]>,
) -> Mat {
    let mut y = x.clone();
    pool.rows(&mut y.data, x.cols, pool.share(x.rows(), 3 * x.cols), |first, y| {
        wide(
            #[inline(always)]
            || {
                for (i, row) in y.chunks_exact_mut(x.cols).enumerate() {
                    let (cos, sin) = angles[x.position(first + i) * dims..][..dims].split_at(dims / 2);
                    for (h, head) in row.chunks_exact_mut(x.cols / heads).enumerate() {
                        let factor = inverse_rms(head) * gain.map_or(1.0, |gain| gain[h]);
                        head.iter_mut().for_each(|v| *v *= factor);
                        rotate(head, cos, sin);
                    }
                }
            },
        );
    });
    y
}

/// Halves, not pairs: element `i` of the first half turns with element `i` of the second.
#[inline(always)]
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, rest) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
    }
}
