//! The last positions of each sequence.

use crate::cpu::Mat;

/// The last `n` positions of each sequence, which stay the positions they are: `[B, n, C]`.
pub(super) fn tail(x: &Mat, n: usize) -> Mat {
    assert!((1..=x.len).contains(&n), "a tail of {n} positions of {}", x.len);
    let kept = |sequence: &[f32]| sequence[(x.len - n) * x.cols..].to_vec();
    let data = x.data.chunks_exact(x.len * x.cols).flat_map(kept).collect();
    Mat { sequences: x.sequences, len: n, cols: x.cols, start: x.start + x.len - n, data }
}
