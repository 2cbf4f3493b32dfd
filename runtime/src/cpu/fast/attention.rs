//! Causal grouped-query attention, a block of queries at a time; keys after the block are not looked at.

use super::matmul::{View, multiply};
use super::pool::Pool;
use super::simd::{dot, dots, exp_sum, fma, max, wide};
use crate::cpu::Mat;
use crate::ops::Heads;

/// Scores kept at a time for one head: a block of queries times all keys it sees.
const SCORES: usize = 1 << 16;

/// Queries of a block at most: more would compute more scores that the causal mask throws away.
const BLOCK: usize = 64;

/// `q [B, Tq, H·D]`, keys and values `[B, Tk, K·D]` of the same sequences; query `i` is position `Tk − Tq + i`.
pub(super) fn attention(pool: &Pool, heads: Heads, q: &Mat, keys: &[f32], values: &[f32]) -> Mat {
    let width = heads.kv * heads.dim;
    let tokens = keys.len() / width / q.sequences;
    if q.rows() == 1 {
        let mut y = Mat { data: vec![0.0; q.data.len()], ..*q };
        one_query(pool, heads, &q.data, keys, values, &mut y.data);
        return y;
    }
    let block = (SCORES / tokens).clamp(8, BLOCK);
    let mut y = Mat { data: vec![0.0; q.data.len()], ..*q };
    let blocks = y.data.chunks_mut(q.len * q.cols).enumerate().flat_map(|(sequence, y)| {
        let blocks = y.chunks_mut(block * q.cols).enumerate();
        blocks.map(move |(i, y)| (sequence, i * block, y))
    });
    pool.each(blocks, |(sequence, first, y)| {
        let rows = y.len() / q.cols;
        let queries = &q.data[(sequence * q.len + first) * q.cols..][..rows * q.cols];
        let of_sequence = sequence * tokens * width..(sequence + 1) * tokens * width;
        let seen = tokens - q.len + first + rows;
        Block { heads, queries, rows, seen }.run(&keys[of_sequence.clone()], &values[of_sequence], y);
    });
    y
}

/// Consecutive queries of a sequence, of which the last sees `seen` keys and each one before it one fewer.
struct Block<'a> {
    heads: Heads,
    queries: &'a [f32],
    rows: usize,
    seen: usize,
}

impl Block<'_> {
    fn run(&self, keys: &[f32], values: &[f32], y: &mut [f32]) {
        let Self { heads, queries, rows, seen } = *self;
        let (stride, width, dim) = (heads.query * heads.dim, heads.kv * heads.dim, heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0.0; rows * seen];
        let mut sums = vec![0.0; rows];
        for h in 0..heads.query {
            let kv = h / (heads.query / heads.kv) * dim;
            let q = View::rows(&queries[h * dim..], rows, dim, stride);
            multiply(q, View::rows(&keys[kv..], seen, dim, width).t(), &mut scores, seen);
            wide(
                #[inline(always)]
                || {
                    for (i, (scores, sum)) in scores.chunks_exact_mut(seen).zip(&mut sums).enumerate() {
                        let (scores, masked) = scores.split_at_mut(seen - (rows - 1) + i);
                        let largest = max(scores);
                        *sum = exp_sum(scores, largest, scale);
                        masked.fill(0.0);
                    }
                },
            );
            let weights = View::rows(&scores, rows, seen, seen);
            multiply(weights, View::rows(&values[kv..], seen, dim, width), &mut y[h * dim..], stride);
            for (y, sum) in y.chunks_exact_mut(stride).zip(&sums) {
                let inverse = 1.0 / sum;
                y[h * dim..][..dim].iter_mut().for_each(|y| *y *= inverse);
            }
        }
    }
}

/// A step of a session: keys and values are read once, in the order of memory; packing them for a matrix product would
/// take longer.
fn one_query(pool: &Pool, heads: Heads, queries: &[f32], keys: &[f32], values: &[f32], y: &mut [f32]) {
    let group = heads.query / heads.kv;
    let tile = pool.share(heads.kv, 2 * group * keys.len() / heads.kv);
    pool.rows(y, group * heads.dim, tile, |first, y| {
        let queries = &queries[first * group * heads.dim..][..y.len()];
        let step = Step { group, dim: heads.dim, width: heads.kv * heads.dim, first: first * heads.dim };
        let mut scores = vec![0.0; y.len() / heads.dim * (keys.len() / step.width)];
        wide(
            #[inline(always)]
            || step.run(queries, keys, values, &mut scores, y),
        );
    });
}

/// Some heads of a step: key/value heads begin at `first` of rows `width` wide, each with `group` query heads.
struct Step {
    group: usize,
    dim: usize,
    width: usize,
    first: usize,
}

/// Positions at a time: a sum alone would wait for its own last addition.
const AT_ONCE: usize = 4;

impl Step {
    #[inline(always)]
    fn run(&self, queries: &[f32], keys: &[f32], values: &[f32], scores: &mut [f32], y: &mut [f32]) {
        let tokens = keys.len() / self.width;
        let rows = AT_ONCE * self.width;
        for (i, keys) in keys.chunks(rows).enumerate() {
            for (h, (q, scores)) in queries.chunks_exact(self.dim).zip(scores.chunks_exact_mut(tokens)).enumerate() {
                let scores = &mut scores[i * AT_ONCE..];
                if keys.len() == rows {
                    scores[..AT_ONCE].copy_from_slice(&dots(q, [0, 1, 2, 3].map(|row| self.row(keys, row, h))));
                } else {
                    scores.iter_mut().enumerate().for_each(|(row, score)| *score = dot(q, self.row(keys, row, h)));
                }
            }
        }
        let scale = 1.0 / (self.dim as f32).sqrt();
        for scores in scores.chunks_exact_mut(tokens) {
            let largest = max(scores);
            let inverse = 1.0 / exp_sum(scores, largest, scale);
            scores.iter_mut().for_each(|score| *score *= inverse);
        }
        y.fill(0.0);
        for (i, values) in values.chunks(rows).enumerate() {
            for (h, (y, scores)) in y.chunks_exact_mut(self.dim).zip(scores.chunks_exact(tokens)).enumerate() {
                let weights = &scores[i * AT_ONCE..];
                if values.len() == rows {
                    let v = [0, 1, 2, 3].map(|row| &self.row(values, row, h)[..y.len()]);
                    for (j, y) in y.iter_mut().enumerate() {
                        *y = (0..AT_ONCE).fold(*y, |sum, row| fma(weights[row], v[row][j], sum));
                    }
                } else {
                    for (row, &weight) in weights.iter().enumerate() {
                        y.iter_mut().zip(self.row(values, row, h)).for_each(|(y, &v)| *y = fma(weight, v, *y));
                    }
                }
            }
        }
    }

    /// What query head `h` of these sees in a row.
    #[inline(always)]
    fn row<'a>(&self, rows: &'a [f32], row: usize, h: usize) -> &'a [f32] {
        &rows[row * self.width + self.first + h / self.group * self.dim..][..self.dim]
    }
}
