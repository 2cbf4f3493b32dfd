//! How far one model's predictions are from another's: what compression changed beyond the loss.
//!
//! Both models run over the same consecutive windows, and every position's two distributions over the vocabulary are
//! compared. Sums are in f64.

use sixpack_formats::ModelConfig;

use crate::metric::{self, Options};
use crate::ops::{Batch, ReadBack};
use crate::{Error, Pass, Result, Weights, forward, model};

/// A model on a machine.
#[derive(Debug)]
pub struct Loaded<'a, W> {
    /// What its tensors mean.
    pub config: &'a ModelConfig,
    /// Its tensors.
    pub weights: &'a Weights<W>,
}

/// The comparison of `q` with `p`: means over positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// Positions compared.
    pub positions: u64,
    /// Kullback–Leibler divergence `Σ p (ln p − ln q)` in nats; what is lost by coding what `p` says with `q`.
    pub kl_nats: f64,
    /// Largest divergence of a position.
    pub kl_max: f64,
    /// Share of positions at which both find the same token likeliest; of equal ones the first counts.
    pub top1: f64,
}

/// Compares `q` with `p` on `tokens`: in each window of `options.seq_len` every position predicts the next token.
/// `options.stride` is not used. `progress` is told how many of how many positions are done.
///
/// # Errors
/// Options that mean nothing, too few tokens for a window, a token outside the vocabulary, vocabularies that differ,
/// logits that are no numbers, and those of the machine.
pub async fn divergence<O>(
    p: &Loaded<'_, O::Weight>,
    q: &Loaded<'_, O::Weight>,
    ops: &mut O,
    tokens: &[u16],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Divergence>
where
    O: ReadBack,
    Error: From<O::Error>,
{
    let vocab = p.config.vocab_size;
    if q.config.vocab_size != vocab {
        let (expected, found) = (vocab.to_string(), q.config.vocab_size.to_string());
        return Err(Error::Option { field: "vocab_size", expected, found });
    }
    let starts = metric::plain_starts(tokens, vocab, options)?;
    let total = (starts.len() * options.seq_len) as u64;
    let mut sum = Sum::default();
    for starts in starts.chunks(options.batch) {
        let window = |&start: &usize| tokens[start..start + options.seq_len].iter().map(|&id| u32::from(id));
        let ids: Vec<u32> = starts.iter().flat_map(window).collect();
        let batch = Batch::new(&ids, starts.len());
        let logits = [logits(p, ops, &batch).await?, logits(q, ops, &batch).await?];
        for (p, q) in logits[0].chunks_exact(vocab).zip(logits[1].chunks_exact(vocab)) {
            sum.add(p, q)?;
        }
        progress(sum.positions, total);
    }
    Ok(sum.means())
}

/// The logits of a batch, `[B · T, V]`.
async fn logits<O>(of: &Loaded<'_, O::Weight>, ops: &mut O, batch: &Batch<'_>) -> Result<Vec<f32>>
where
    O: ReadBack,
    Error: From<O::Error>,
{
    let h = forward(of.config, of.weights, ops, batch, Pass::FULL)?;
    let logits = model::logits(of.config, of.weights, ops, &h)?;
    Ok(ops.read(&logits).await?)
}

/// Sums over positions.
#[derive(Default)]
struct Sum {
    positions: u64,
    kl: f64,
    kl_max: f64,
    agree: u64,
}

impl Sum {
    /// Adds a position with the logits of both models.
    fn add(&mut self, p: &[f32], q: &[f32]) -> Result<()> {
        let (p, q) = (Softmax::of(p), Softmax::of(q));
        // ln p − ln q is a difference of logits and one of the two normalisers.
        let terms = p.logits.iter().zip(q.logits).map(|(&a, &b)| {
            let log_p = f64::from(a) - p.log_sum;
            log_p.exp() * (log_p - (f64::from(b) - q.log_sum))
        });
        let kl: f64 = terms.sum();
        if !kl.is_finite() {
            return Err(Error::NotFinite { target: self.positions as usize, found: kl as f32 });
        }
        // What is left of rounding where both are the same.
        let kl = kl.max(0.0);
        self.positions += 1;
        self.kl += kl;
        self.kl_max = self.kl_max.max(kl);
        self.agree += u64::from(p.likeliest() == q.likeliest());
        Ok(())
    }

    fn means(&self) -> Divergence {
        let n = self.positions as f64;
        Divergence { positions: self.positions, kl_nats: self.kl / n, kl_max: self.kl_max, top1: self.agree as f64 / n }
    }
}

/// Logits, and the logarithm of the sum of their exponentials.
struct Softmax<'a> {
    logits: &'a [f32],
    log_sum: f64,
}

impl<'a> Softmax<'a> {
    fn of(logits: &'a [f32]) -> Self {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum();
        Self { logits, log_sum: max + sum.ln() }
    }

    fn likeliest(&self) -> usize {
        let better = |best: usize, i: usize| if self.logits[i] > self.logits[best] { i } else { best };
        (0..self.logits.len()).fold(0, better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: probabilities first, then their logarithms.
    fn naive(p: &[f32], q: &[f32]) -> f64 {
        let softmax = |x: &[f32]| {
            let exp: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(|e| e / sum).collect::<Vec<_>>()
        };
        softmax(p).iter().zip(softmax(q)).map(|(&p, q)| p * (p / q).ln()).sum()
    }

    #[test]
    fn a_position_by_the_definition() {
        let rows = [[0.5f32, -1.0, 2.0, 0.0], [0.4, 2.5, 2.0, -3.0], [0.5, -1.0, 2.0, 0.0], [2.0, 2.0, 1.0, 0.0]];
        let mut sum = Sum::default();
        for pair in rows.windows(2) {
            sum.add(&pair[0], &pair[1]).unwrap();
        }
        let each: Vec<f64> = rows.windows(2).map(|pair| naive(&pair[0], &pair[1])).collect();
        let found = sum.means();
        assert!((found.kl_nats - each.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert!((found.kl_max - each.iter().copied().fold(0.0, f64::max)).abs() < 1e-12);
        assert_eq!((found.positions, found.top1), (3, 0.0));
        let mut same = Sum::default();
        same.add(&rows[3], &rows[3]).unwrap();
        assert_eq!(same.means(), Divergence { positions: 1, kl_nats: 0.0, kl_max: 0.0, top1: 1.0 });
        assert!(matches!(same.add(&[f32::NAN], &[0.0]), Err(Error::NotFinite { target: 1, .. })));
    }
}
