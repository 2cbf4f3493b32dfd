//! The loss of each target, a tile of rows and vocabulary at a time: never all logits at once.

use std::ops::Range;

use super::Weight;
use super::dot::{self, Isa, Kernel, with_isa};
use super::matmul::{View, multiply};
use super::pointwise::softcap_row;
use super::pool::Pool;
use super::product::part;
use super::simd::{exp, exp_sum, max, wide};
use super::weight::Panel;
use crate::cpu::Mat;
use crate::{Error, Result};

/// Rows of a tile.
const ROWS: usize = 128;

/// Pieces of the vocabulary of a tile.
const PIECES: usize = 1024;

/// Negative log-likelihood in nats of each target under `cap · tanh((h · tableᵀ) / cap)`: `[B, T, 1]`.
pub(super) fn nll(
    pool: &Pool,
    kernel: Kernel,
    panel: &mut Panel,
    table: &Weight,
    h: &Mat,
    (cap, targets): (f32, &[u32]),
) -> Result<Mat> {
    let (vocab, cols) = (table.rows(), table.cols());
    assert_eq!((h.rows(), h.cols), (targets.len(), cols), "nll");
    refuse_foreign(targets, vocab)?;
    let head = Head { pool, vocab, cap, targets };
    Ok(match table {
        Weight::Int8(table) if kernel.takes(h.rows()) => with_isa!(kernel, |isa| {
            let x = isa.inputs(pool, h, &table.columns);
            head.nll(h, |first, pieces, logits| part(isa, table, pieces, &x, first, logits))
        }),
        _ => {
            let values = table.unpack(pool, panel);
            head.nll(h, |first, pieces, logits| {
                let h = View::rows(&h.data[first * cols..], logits.len() / pieces.len(), cols, cols);
                let table = View::rows(&values[pieces.start * cols..], pieces.len(), cols, cols);
                multiply(h, table.t(), logits, pieces.len());
            })
        }
    })
}

/// What a tile of logits needs, however it is computed.
struct Head<'a> {
    pool: &'a Pool,
    vocab: usize,
    cap: f32,
    targets: &'a [u32],
}

impl Head<'_> {
    /// `product(first row, pieces, logits)` writes the logits of those pieces for as many rows as fill them.
    fn nll(&self, h: &Mat, product: impl Fn(usize, Range<usize>, &mut [f32]) + Sync) -> Mat {
        let mut nll = h.like(1, vec![0.0; h.rows()]);
        let tile = self.pool.share(h.rows(), self.vocab * h.cols).next_multiple_of(dot::ROWS).min(ROWS);
        self.pool.rows(&mut nll.data, 1, tile, |first, nll| {
            let rows = nll.len();
            let mut sums = vec![LogSum::EMPTY; rows];
            let mut logits = vec![0.0; rows * self.vocab.min(PIECES)];
            for start in (0..self.vocab).step_by(PIECES) {
                let pieces = PIECES.min(self.vocab - start);
                let logits = &mut logits[..rows * pieces];
                product(first, start..start + pieces, logits);
                wide(
                    #[inline(always)]
                    || {
                        let rows = logits.chunks_exact_mut(pieces).zip(&mut sums).zip(&self.targets[first..]);
                        for ((row, sum), target) in rows {
                            softcap_row(row, self.cap);
                            sum.add(row, (*target as usize).wrapping_sub(start));
                        }
                    },
                );
            }
            nll.iter_mut().zip(&sums).for_each(|(nll, sum)| *nll = sum.nll());
        });
        nll
    }
}

/// As [`nll`] of `logits [B, T, V]`.
pub(super) fn cross_entropy(pool: &Pool, logits: &Mat, targets: &[u32]) -> Result<Mat> {
    assert_eq!(logits.rows(), targets.len(), "cross_entropy");
    refuse_foreign(targets, logits.cols)?;
    let mut nll = logits.like(1, vec![0.0; targets.len()]);
    pool.rows(&mut nll.data, 1, pool.share(targets.len(), 10 * logits.cols), |first, nll| {
        wide(
            #[inline(always)]
            || {
                for (i, nll) in nll.iter_mut().enumerate() {
                    let mut sum = LogSum::EMPTY;
                    sum.add(&mut logits.row(first + i).to_vec(), targets[first + i] as usize);
                    *nll = sum.nll();
                }
            },
        );
    });
    Ok(nll)
}

fn refuse_foreign(targets: &[u32], vocab: usize) -> Result<()> {
    match targets.iter().position(|&id| id as usize >= vocab) {
        Some(index) => Err(Error::Token { index, id: targets[index], vocab }),
        None => Ok(()),
    }
}

/// `log Σ exp(logit)` over the tiles so far, as `max` and `sum = Σ exp(logit − max)`, and the target's logit.
#[derive(Clone, Copy)]
struct LogSum {
    max: f32,
    sum: f32,
    target: f32,
}

impl LogSum {
    const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0, target: f32::NAN };

    /// Adds a tile, which it overwrites; `target` is an index into it, or beyond it.
    #[inline(always)]
    fn add(&mut self, logits: &mut [f32], target: usize) {
        if let Some(&logit) = logits.get(target) {
            self.target = logit;
        }
        let max = max(logits).max(self.max);
        self.sum = self.sum * exp(self.max - max) + exp_sum(logits, max, 1.0);
        self.max = max;
    }

    fn nll(self) -> f32 {
        self.sum.ln() + self.max - self.target
    }
}
