//! The head and the loss: softcapped logits, negative log-likelihood, and both in one op.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::{Values, channels, gradient, result, values};
use crate::matrix::{Mat, product};
use crate::vector::{exp, max, tanh};

/// `cap · tanh(x / cap)`.
pub(crate) struct Softcap(pub(crate) f32);

impl CustomOp1 for Softcap {
    fn name(&self) -> &'static str {
        "softcap"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = values(x, layout)?.to_vec();
        softcap(&mut out, self.0);
        result(out, layout.shape())
    }

    fn bwd(&self, x: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (z, g) = (Values::of(out)?, Values::of(grad)?);
        gradient(z.iter().zip(g.iter()).map(|(z, g)| g * softcap_slope(*z, self.0)).collect(), x)
    }
}

fn softcap(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    x.iter_mut().for_each(|x| *x = cap * tanh(*x * inverse));
}

/// Slope of the softcap where it takes the value `z`.
#[inline(always)]
fn softcap_slope(z: f32, cap: f32) -> f32 {
    1.0 - (z / cap) * (z / cap)
}

/// Log-sum-exp of a row of logits.
fn log_sum_exp(row: &[f32]) -> f32 {
    let top = max(row);
    let (chunks, rest) = row.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for chunk in chunks {
        for (sum, &z) in sums.iter_mut().zip(chunk) {
            *sum += exp(z - top);
        }
    }
    let total = sums.iter().sum::<f32>() + rest.iter().map(|&z| exp(z - top)).sum::<f32>();
    top + total.ln()
}

/// For each row of logits its log-sum-exp and the loss of its target.
fn losses(logits: &[f32], vocab: usize, targets: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
    if logits.len() != targets.len() * vocab {
        bail!("expected {} targets, found {}", logits.len() / vocab, targets.len());
    }
    if let Some(id) = targets.iter().find(|&&id| id as usize >= vocab) {
        bail!("expected targets below {vocab}, found {id}");
    }
    let rows = logits.chunks_exact(vocab).zip(targets);
    Ok(rows.map(|(row, &id)| (log_sum_exp(row), row[id as usize])).map(|(lse, z)| (lse, lse - z)).unzip())
}

/// Negative log-likelihood `[B, T, 1]` of targets under logits `[B, T, V]`.
pub(crate) struct CrossEntropy {
    pub(crate) targets: Vec<u32>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (logits, vocab) = (values(logits, layout)?, channels(layout)?);
        let (_, nll) = losses(logits, vocab, &self.targets)?;
        result(nll, column(layout))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (lv, g, vocab) = (Values::of(logits)?, Values::of(grad)?, channels(logits.layout())?);
        let mut d = lv.to_vec();
        for ((row, &id), &g) in d.chunks_exact_mut(vocab).zip(&self.targets).zip(g.iter()) {
            let lse = log_sum_exp(row);
            row.iter_mut().for_each(|z| *z = g * exp(*z - lse));
            row[id as usize] -= g;
        }
        gradient(d, logits)
    }
}

/// The whole head: softcapped logits of `h [B, T, d]` by the table `[V, d]`, and their losses `[B, T, 1]`. It keeps
/// the logits and turns them into their own gradient.
pub(crate) struct Nll {
    targets: Vec<u32>,
    cap: f32,
    /// Softcapped logits `[B·T, V]` and log-sum-exps `[B·T]`.
    kept: OnceLock<(Vec<f32>, Vec<f32>)>,
}

impl Nll {
    pub(crate) fn new(targets: &[u32], cap: f32) -> Self {
        Self { targets: targets.to_vec(), cap, kept: OnceLock::new() }
    }
}

impl CustomOp2 for Nll {
    fn name(&self) -> &'static str {
        "nll"
    }

    fn cpu_fwd(
        &self,
        h: &CpuStorage,
        layout: &Layout,
        table: &CpuStorage,
        table_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (h, table, d) = (values(h, layout)?, values(table, table_layout)?, channels(layout)?);
        if channels(table_layout)? != d {
            bail!("nll: expected a table of {d} columns, found shape {:?}", table_layout.dims());
        }
        let vocab = table.len() / d;
        let mut logits = product(Mat::new(h, h.len() / d, d), Mat::new(table, vocab, d).t());
        softcap(&mut logits, self.cap);
        let (log_sums, nll) = losses(&logits, vocab, &self.targets)?;
        // Each op value runs forward once.
        let _ = self.kept.set((logits, log_sums));
        result(nll, column(layout))
    }

    fn bwd(&self, h: &Tensor, table: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (hv, tv, g) = (Values::of(h)?, Values::of(table)?, Values::of(grad)?);
        let Some((logits, log_sums)) = self.kept.get() else { bail!("nll: backward without a forward") };
        let d = channels(h.layout())?;
        let (tokens, vocab) = (hv.len() / d, tv.len() / d);
        let mut dz = Vec::with_capacity(logits.len());
        for (((row, &lse), &id), &g) in logits.chunks_exact(vocab).zip(log_sums).zip(&self.targets).zip(g.iter()) {
            let start = dz.len();
            dz.extend(row.iter().map(|&z| g * exp(z - lse) * softcap_slope(z, self.cap)));
            let target = id as usize;
            dz[start + target] -= g * softcap_slope(row[target], self.cap);
        }
        let dz = Mat::new(&dz, tokens, vocab);
        let dh = product(dz, Mat::new(&tv, vocab, d));
        let d_table = product(dz.t(), Mat::new(&hv, tokens, d));
        Ok((gradient(dh, h)?, gradient(d_table, table)?))
    }
}

/// The shape with one channel.
fn column(layout: &Layout) -> Vec<usize> {
    let mut shape = layout.dims().to_vec();
    shape.pop();
    shape.push(1);
    shape
}
