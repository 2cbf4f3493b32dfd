//! Causal grouped-query attention, a block of queries at a time; keys after the block are not looked at.

use super::matmul::{View, multiply};
use super::pool::Pool;
use super::remembered::Seen;
use super::simd::{LANES, dots, exp_sum, fma, max, wide};
use crate::cpu::Mat;
use crate::ops::Heads;

/// Scores kept at a time for one head: a block of queries times all keys it sees.
const SCORES: usize = 1 << 16;

/// Queries of a block at most: more would compute more scores that the causal mask throws away.
const BLOCK: usize = 64;

/// `q [B, Tq, H·D]` over the keys and values of the same sequences; query `i` is position `Tk − Tq + i`.
pub(super) fn attention(pool: &Pool, heads: Heads, q: &Mat, seen: &Seen<'_>) -> Mat {
    if q.len == 1 {
        return one_query(pool, heads, q, seen);
    }
    let tokens = seen.tokens();
    let block = (SCORES / tokens).clamp(8, BLOCK);
    let mut y = Mat { data: vec![0.0; q.data.len()], ..*q };
    let blocks = y.data.chunks_mut(q.len * q.cols).enumerate().flat_map(|(sequence, y)| {
        // The last see most: first, so that no thread is left with one at the end.
        let blocks = y.chunks_mut(block * q.cols).enumerate().rev();
        blocks.map(move |(i, y)| (sequence, i * block, y))
    });
    pool.each(blocks, |(sequence, first, y)| {
        let rows = y.len() / q.cols;
        let queries = &q.data[(sequence * q.len + first) * q.cols..][..rows * q.cols];
        Block { heads, queries, rows, seen: tokens - q.len + first + rows }.run(|kv| seen.head(sequence, kv), y);
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
    /// `head` gives keys, values and their stride.
    fn run<'a>(&self, head: impl Fn(usize) -> (&'a [f32], &'a [f32], usize), y: &mut [f32]) {
        let Self { heads, queries, rows, seen } = *self;
        let (stride, dim) = (heads.query * heads.dim, heads.dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores = vec![0.0; rows * seen];
        let mut sums = vec![0.0; rows];
        for h in 0..heads.query {
            let (keys, values, width) = head(h / (heads.query / heads.kv));
            let q = View::rows(&queries[h * dim..], rows, dim, stride);
            multiply(q, View::rows(keys, seen, dim, width).t(), &mut scores, seen);
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
            multiply(weights, View::rows(values, seen, dim, width), &mut y[h * dim..], stride);
            for (y, sum) in y.chunks_exact_mut(stride).zip(&sums) {
                let inverse = 1.0 / sum;
                y[h * dim..][..dim].iter_mut().for_each(|y| *y *= inverse);
            }
        }
    }
}

/// A step of a session: keys and values are read once, packing them for a matrix product would take longer. Threads share
/// the heads.
fn one_query(pool: &Pool, heads: Heads, q: &Mat, seen: &Seen<'_>) -> Mat {
    let (tokens, queries) = (seen.tokens(), heads.query / heads.kv);
    let mut y = Mat { data: vec![0.0; q.data.len()], ..*q };
    let share = pool.share(heads.kv, 2 * tokens * queries * heads.dim);
    let tasks = y.data.chunks_mut(q.cols).zip(q.data.chunks(q.cols)).enumerate().flat_map(|(sequence, (y, q))| {
        let part = share * queries * heads.dim;
        let parts = y.chunks_mut(part).zip(q.chunks(part)).enumerate();
        parts.map(move |(i, (y, q))| (sequence, i * share, y, q))
    });
    pool.each(tasks, |(sequence, first, y, q)| {
        let mut scores = vec![0.0; tokens];
        for (i, (y, q)) in y.chunks_exact_mut(heads.dim).zip(q.chunks_exact(heads.dim)).enumerate() {
            let (keys, values, stride) = seen.head(sequence, first + i / queries);
            wide(
                #[inline(always)]
                || one_head(q, keys, values, stride, &mut scores, y),
            );
        }
    });
    y
}

/// The values of one head `y [D]` for its query `q [D]`; keys and values are `width` apart.
#[inline(always)]
fn one_head(q: &[f32], keys: &[f32], values: &[f32], width: usize, scores: &mut [f32], y: &mut [f32]) {
    const AT_ONCE: usize = 4;
    let key = |i: usize| &keys[i * width..][..q.len()];
    let (fours, rest) = scores.as_chunks_mut::<AT_ONCE>();
    for (i, scores) in fours.iter_mut().enumerate() {
        let i = AT_ONCE * i;
        *scores = dots(q, [key(i), key(i + 1), key(i + 2), key(i + 3)]);
    }
    for (i, score) in rest.iter_mut().enumerate() {
        [*score] = dots(q, [key(AT_ONCE * fours.len() + i)]);
    }
    let largest = max(scores);
    let inverse = 1.0 / exp_sum(scores, largest, 1.0 / (q.len() as f32).sqrt());
    // Sums that fit in registers: two of them would wait for each other's additions.
    let (parts, rest) = y.as_chunks_mut::<{ 4 * LANES }>();
    for (i, y) in parts.iter_mut().enumerate() {
        *y = weighted(scores, &values[i * 4 * LANES..], width);
        y.iter_mut().for_each(|y| *y *= inverse);
    }
    for (i, y) in rest.iter_mut().enumerate() {
        *y = weighted::<1>(scores, &values[parts.len() * 4 * LANES + i..], width)[0] * inverse;
    }
}

/// `Σ weight · value` of the first `N` columns of values that are `width` apart.
#[inline(always)]
fn weighted<const N: usize>(weights: &[f32], values: &[f32], width: usize) -> [f32; N] {
    let mut sums = [0.0; N];
    for (weight, value) in weights.iter().zip(values.chunks(width)) {
        for (sum, value) in sums.iter_mut().zip(&value[..N]) {
            *sum = fma(*weight, *value, *sum);
        }
    }
    sums
}
