//! The loss of each target.

use crate::cpu::Mat;
use crate::{Error, Result};

/// Negative log-likelihood in nats of each target under `logits [B, T, V]`: `[B, T, 1]`; `targets [B, T]`.
pub(super) fn cross_entropy(logits: &Mat, targets: &[u32]) -> Result<Mat> {
    assert_eq!(logits.rows(), targets.len(), "cross_entropy");
    let mut nll = Vec::with_capacity(targets.len());
    for (index, (row, &id)) in logits.data.chunks_exact(logits.cols).zip(targets).enumerate() {
        let target = row.get(id as usize).ok_or(Error::Token { index, id, vocab: logits.cols })?;
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        nll.push((sum.ln() + f64::from(max) - f64::from(*target)) as f32);
    }
    Ok(logits.like(1, nll))
}
