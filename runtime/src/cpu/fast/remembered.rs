//! Keys and values of a session, each head by itself: a step reads those of one head from first to last, so they lie in
//! that order, which the machine fetches ahead.

use crate::cpu::Mat;
use crate::ops::Heads;

/// What a virtual layer remembers: for each head the keys and the values, `[T, D]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    heads: Vec<[Vec<f32>; 2]>,
}

impl Remembered {
    /// Adds keys and values `[1, T, K·D]` after those of `past` tokens.
    pub(super) fn extend(&mut self, past: usize, heads: Heads, k: &Mat, v: &Mat) -> &Self {
        self.heads.resize_with(heads.kv, Default::default);
        for (head, all) in self.heads.iter_mut().enumerate() {
            for (all, new) in all.iter_mut().zip([k, v]) {
                all.truncate(past * heads.dim);
                for row in new.data.chunks_exact(new.cols) {
                    all.extend_from_slice(&row[head * heads.dim..][..heads.dim]);
                }
            }
        }
        self
    }
}

/// The keys and values that queries see: those of a session, or of the same pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    remembered: Option<&'a Remembered>,
    dim: usize,
    k: &'a Mat,
    v: &'a Mat,
}

impl<'a> Seen<'a> {
    /// What is remembered, if there is a session; it has `k` and `v` already.
    pub(super) fn new(remembered: Option<&'a Remembered>, heads: Heads, k: &'a Mat, v: &'a Mat) -> Self {
        Self { remembered, dim: heads.dim, k, v }
    }

    /// Keys of a sequence.
    pub(super) fn tokens(&self) -> usize {
        self.remembered.map_or(self.k.len, |all| all.heads[0][0].len() / self.dim)
    }

    /// Keys and values of one head of a sequence, and from one row of each to the next.
    pub(super) fn head(&self, sequence: usize, head: usize) -> (&'a [f32], &'a [f32], usize) {
        if let Some(all) = self.remembered {
            let [keys, values] = &all.heads[head];
            return (keys, values, self.dim);
        }
        let first = sequence * self.k.len * self.k.cols + head * self.dim;
        (&self.k.data[first..], &self.v.data[first..], self.k.cols)
    }
}
