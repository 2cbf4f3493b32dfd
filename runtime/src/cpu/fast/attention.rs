//! Causal grouped-query attention, a block of queries at a time; keys after the block are not looked at.

use super::matmul::{View, multiply};
use super::pool::Pool;
use super::simd::{dot, exp_sum, fma, max, wide};
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
        let block = Block { heads, queries, rows, seen };
        let (keys, values) = (&keys[of_sequence.clone()], &values[of_sequence]);
        if rows == 1 { block.one_query(keys, values, y) } else { block.run(keys, values, y) }
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

    /// A step of a session: keys and values are read once, packing them for a matrix product would take longer.
    fn one_query(&self, keys: &[f32], values: &[f32], y: &mut [f32]) {
        let Self { heads, queries, seen, .. } = *self;
        let (width, dim) = (heads.kv * heads.dim, heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0.0; seen];
        wide(
            #[inline(always)]
            || {
                for (h, y) in y.chunks_exact_mut(dim).enumerate() {
                    let q = &queries[h * dim..][..dim];
                    let kv = h / (heads.query / heads.kv) * dim;
                    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(width)) {
                        *score = dot(q, &key[kv..][..dim]);
                    }
                    let largest = max(&scores);
                    let inverse = 1.0 / exp_sum(&mut scores, largest, scale);
                    for (&weight, value) in scores.iter().zip(values.chunks_exact(width)) {
                        y.iter_mut().zip(&value[kv..][..dim]).for_each(|(y, &v)| *y = fma(weight, v, *y));
                    }
                    y.iter_mut().for_each(|y| *y *= inverse);
                }
            },
        );
    }
}
