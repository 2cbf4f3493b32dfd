//! Causal grouped-query attention.

use super::linear::dot;
use crate::cpu::Mat;
use crate::ops::Heads;

/// `q [B, Tq, H·D]`, keys and values `[B, Tk, K·D]` of the same sequences; query `i` is position `Tk − Tq + i`.
pub(super) fn attention(heads: Heads, q: &Mat, keys: &[f32], values: &[f32]) -> Mat {
    let (width, dim) = (heads.kv * heads.dim, heads.dim);
    let tokens = keys.len() / width / q.sequences;
    let mut y = Mat { data: vec![0.0; q.data.len()], ..*q };
    for i in 0..q.rows() {
        let (sequence, last) = (i / q.len, tokens - q.len + i % q.len);
        for h in 0..heads.query {
            let query = &q.row(i)[h * dim..][..dim];
            let at = |position: usize| (sequence * tokens + position) * width + h / (heads.query / heads.kv) * dim;
            let scores = (0..=last).map(|t| dot(query, &keys[at(t)..][..dim]) / (dim as f64).sqrt());
            let weights = softmax(scores.collect());
            let out = &mut y.data[i * q.cols + h * dim..][..dim];
            for (c, out) in out.iter_mut().enumerate() {
                *out = weights.iter().enumerate().map(|(t, w)| w * f64::from(values[at(t) + c])).sum::<f64>() as f32;
            }
        }
    }
    y
}

fn softmax(mut scores: Vec<f64>) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|s| *s /= sum);
    scores
}
