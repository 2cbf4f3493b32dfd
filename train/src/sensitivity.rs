//! Measures how much the loss minds an error in each output of a layer: a Fisher diagonal, by backward passes.
//!
//! The loss of a sequence is the sum over its tokens, with targets drawn from the model's own softmax: then the mean of
//! squared gradients is the diagonal of the Fisher information, the second-order term of the KL divergence from this
//! model to a changed one. At the head the mean over targets is known in closed form and taken instead; few of a large
//! vocabulary are ever drawn.
//! Source: Amari, "Natural gradient works efficiently in learning" (1998); Kunstner et al., arXiv 1905.12558, on targets
//! of the model against those of the data.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sixpack_formats::sensitivity::{Lookup, Sensitivity};
use sixpack_formats::{Digest, Model, ModelConfig, QuantClass, TensorId};
use sixpack_runtime::watch::{Watch, Watched};
use sixpack_runtime::{Batch, Ops, Pass, ReadBack, Site, Weights, forward, model, now};

use crate::engine::{CandleOps, tensor};
use crate::vector::{exp, max, sum_of_squares};
use crate::{Error, Result, params};

/// Sequences whose sums are held at once.
const WAVE: usize = 64;
/// A row that was looked up `n` times has the mean of its own squared gradients with weight `n`, and that of all
/// lookups with this weight.
const PRIOR: f64 = 8.0;

/// What to run. Training text only, never what a compressed model will be scored on.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Tokens that sequences are taken from, evenly spread; lookups are counted in all of them.
    pub tokens: &'a [u16],
    /// Length of a sequence.
    pub seq_len: usize,
    /// Sequences at most; fewer if the tokens end.
    pub sequences: usize,
    /// Seed of the targets.
    pub seed: u64,
}

impl Text<'_> {
    /// Sequences that will be run.
    pub fn count(&self) -> usize {
        self.available().min(self.sequences)
    }

    fn available(&self) -> usize {
        self.tokens.len().checked_div(self.seq_len).unwrap_or(0)
    }

    /// Where the sequences start.
    fn starts(&self) -> Result<Vec<usize>> {
        let (available, wanted) = (self.available(), self.count());
        if wanted == 0 {
            return Err(Error::EmptyBatch);
        }
        Ok((0..wanted).map(|i| i * available / wanted * self.seq_len).collect())
    }
}

/// Measures the sensitivity of `model`, whose weights have the hash `checkpoint`, with recurrence on.
///
/// A forward and a backward pass of each sequence, without the gradients of large matrices: two thirds of the
/// arithmetic of training on it. The result does not depend on `threads`. `progress` is told how many sequences of how many are done.
///
/// # Errors
/// If there is not one sequence, a token is beyond the vocabulary, or a gradient is no finite number; and if the system
/// gives no threads.
pub fn measure(
    model: &Model,
    checkpoint: Digest,
    text: &Text<'_>,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Sensitivity> {
    let starts = text.starts()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build().map_err(Error::Threads)?;
    let machine = Machine::new(model)?;
    let mut total = Sums::default();
    let done = AtomicUsize::new(0);
    for wave in starts.chunks(WAVE) {
        let run = |&start: &usize| {
            let ids: Vec<u32> = text.tokens[start..start + text.seq_len].iter().map(|&t| u32::from(t)).collect();
            let mut rng = ChaCha8Rng::seed_from_u64(text.seed);
            rng.set_stream(start as u64);
            let sums = machine.record(&ids).and_then(|recorded| {
                let targets = recorded.draw(&mut rng);
                machine.backward(recorded, &ids, &targets)
            });
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, starts.len());
            sums
        };
        let parts: Vec<Sums> = pool.install(|| wave.par_iter().map(run).collect::<Result<_>>())?;
        // In the order of the sequences, whoever ran them.
        parts.into_iter().for_each(|part| total.merge(part));
    }
    let measured = total.finish(&model.config, (starts.len() * text.seq_len) as u64, checkpoint, text.tokens);
    measured.validate(&model.config)?;
    Ok(measured)
}

/// The model as it is run.
struct Machine<'a> {
    config: &'a ModelConfig,
    weights: Weights<Tensor>,
    /// Matrices whose own gradients are not wanted.
    frozen: Arc<BTreeSet<TensorId>>,
    /// Tensors whose gradients are.
    leaves: Vec<TensorId>,
}

/// A forward pass of one sequence.
struct Recorded {
    ops: CandleOps,
    seen: Seen,
    logits: Tensor,
    /// Softcapped logits `[T, V]`.
    values: Vec<f32>,
}

impl<'a> Machine<'a> {
    fn new(model: &'a Model) -> Result<Self> {
        let (config, params) = (&model.config, params::of_model(model));
        let weights = Weights::build(config, |spec| tensor(&params, spec))?;
        let (half, large): (Vec<_>, _) = config.tensors().into_iter().partition(|s| s.class == QuantClass::Half);
        let frozen = Arc::new(large.into_iter().map(|spec| spec.id).collect());
        Ok(Self { config, weights, frozen, leaves: half.into_iter().map(|spec| spec.id).collect() })
    }

    fn record(&self, ids: &[u32]) -> Result<Recorded> {
        let mut ops = CandleOps::recording_without(&self.frozen);
        let mut watched = Watched::with(&mut ops, Seen::default());
        let h = forward(self.config, &self.weights, &mut watched, &Batch::new(ids, 1), Pass::FULL)?;
        let logits = model::logits(self.config, &self.weights, &mut watched, &h)?;
        let seen = watched.into_watch();
        let values = now(ops.read(&logits))?;
        Ok(Recorded { ops, seen, logits, values })
    }

    /// The squared gradients of the loss of `targets`, summed over the sequence.
    fn backward(&self, recorded: Recorded, ids: &[u32], targets: &[u32]) -> Result<Sums> {
        let Recorded { mut ops, seen, logits, values } = recorded;
        let nll = ops.cross_entropy(&logits, targets)?;
        let seed = nll.ones_like()?;
        let mut sums = Sums::default();
        let leaves = ops.backward_watched(&nll, seed, &mut |id, gradient| {
            match seen.places.get(&id) {
                // Below, in closed form.
                Some(Place::Product(TensorId::TokenEmbedding)) | None => {}
                Some(&Place::Product(tensor)) => sums.output(tensor, gradient)?,
                Some(&Place::Lookup(table)) => sums.lookup(table, ids, gradient)?,
            }
            Ok(())
        })?;
        sums.outputs.insert(TensorId::TokenEmbedding, head(&values, ids.len(), self.config.logit_softcap));
        for &id in &self.leaves {
            // A tensor the pass does not use has no gradient: layers of a second lane before it starts, for instance.
            if let Some(gradient) = leaves.get(&self.weights[id].id()) {
                let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
                sums.elements.insert(id, gradient.iter().map(|&g| f64::from(g) * f64::from(g)).collect());
            }
        }
        Ok(sums)
    }
}

impl Recorded {
    /// Targets from the softmax of the logits.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let vocab = self.logits.dims().last().copied().unwrap_or(1);
        let rows = self.values.chunks_exact(vocab).map(|row| {
            let odds = odds(row);
            let mut ticket = rng.random::<f64>() * odds.iter().sum::<f64>();
            let drawn = odds.iter().position(|p| {
                ticket -= p;
                ticket < 0.0
            });
            drawn.unwrap_or(vocab - 1) as u32
        });
        rows.collect()
    }
}

/// The softmax of a row of logits, times a factor.
fn odds(row: &[f32]) -> Vec<f64> {
    let top = max(row);
    row.iter().map(|&z| f64::from(exp(z - top))).collect()
}

/// At each logit before the softcap the mean of the squared gradient over targets, summed over the sequence:
/// `p (1 − p)` times the square of the softcap's slope. `values` are softcapped logits `[T, V]`.
fn head(values: &[f32], tokens: usize, cap: f64) -> Vec<f64> {
    let vocab = values.len() / tokens;
    let mut sums = vec![0.0; vocab];
    for row in values.chunks_exact(vocab) {
        let odds = odds(row);
        let total: f64 = odds.iter().sum();
        for ((sum, odds), &z) in sums.iter_mut().zip(&odds).zip(row) {
            let (p, slope) = (odds / total, 1.0 - (f64::from(z) / cap).powi(2));
            *sum += p * (1.0 - p) * slope * slope;
        }
    }
    sums
}

/// Where a result of the forward pass came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Product(TensorId),
    Lookup(TensorId),
}

/// Which results are those of products and lookups.
#[derive(Debug, Default)]
struct Seen {
    places: HashMap<candle_core::TensorId, Place>,
    lookups: usize,
}

impl Watch<CandleOps> for Seen {
    fn output(
        &mut self,
        _: &mut CandleOps,
        op: &'static str,
        site: Option<Site>,
        y: &Tensor,
    ) -> candle_core::Result<()> {
        if let Some(site) = site {
            self.places.insert(y.id(), Place::Product(site.tensor()));
        } else if op == "embed" {
            // The model looks its tokens up first, then, if it has one, in the value embedding.
            let table = if self.lookups == 0 { TensorId::TokenEmbedding } else { TensorId::ValueEmbedding };
            self.lookups += 1;
            self.places.insert(y.id(), Place::Lookup(table));
        }
        Ok(())
    }
}

/// Sums of squared gradients over tokens; for `elements` over sequences.
#[derive(Debug, Default)]
struct Sums {
    outputs: BTreeMap<TensorId, Vec<f64>>,
    lookups: BTreeMap<TensorId, LookupSums>,
    elements: BTreeMap<TensorId, Vec<f64>>,
}

#[derive(Debug, Default)]
struct LookupSums {
    /// For each row that was taken: how often, and the sum over its columns.
    rows: BTreeMap<u32, (u64, f64)>,
    columns: Vec<f64>,
}

impl Sums {
    /// Adds the gradient `[1, T, rows]` at a product's output.
    fn output(&mut self, tensor: TensorId, gradient: &Tensor) -> candle_core::Result<()> {
        let (values, width) = (gradient.flatten_all()?.to_vec1::<f32>()?, gradient.dim(2)?);
        add_squares(self.outputs.entry(tensor).or_default(), &values, width);
        Ok(())
    }

    /// Adds the gradient `[1, T, cols]` at the rows `ids` of a table.
    fn lookup(&mut self, table: TensorId, ids: &[u32], gradient: &Tensor) -> candle_core::Result<()> {
        let (values, width) = (gradient.flatten_all()?.to_vec1::<f32>()?, gradient.dim(2)?);
        let sums = self.lookups.entry(table).or_default();
        add_squares(&mut sums.columns, &values, width);
        for (&id, row) in ids.iter().zip(values.chunks_exact(width)) {
            let (count, sum) = sums.rows.entry(id).or_default();
            *count += 1;
            *sum += sum_of_squares(row);
        }
        Ok(())
    }

    fn merge(&mut self, other: Self) {
        for (tensor, part) in other.outputs {
            merge(self.outputs.entry(tensor).or_default(), &part);
        }
        for (tensor, part) in other.elements {
            merge(self.elements.entry(tensor).or_default(), &part);
        }
        for (table, part) in other.lookups {
            let sums = self.lookups.entry(table).or_default();
            merge(&mut sums.columns, &part.columns);
            for (id, (count, sum)) in part.rows {
                let row = sums.rows.entry(id).or_default();
                *row = (row.0 + count, row.1 + sum);
            }
        }
    }

    /// The means over `run` tokens. How often a row is looked up is counted in all of `tokens`.
    fn finish(self, config: &ModelConfig, run: u64, checkpoint: Digest, tokens: &[u16]) -> Sensitivity {
        let mut measured = Sensitivity::zeros(config, run, checkpoint);
        let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| (sum / run as f64) as f32).collect();
        measured.outputs.extend(self.outputs.into_iter().map(|(id, sums)| (id, mean(sums))));
        measured.elements.extend(self.elements.into_iter().map(|(id, sums)| (id, mean(sums))));
        let shares = shares(tokens, config.vocab_size);
        for (table, sums) in self.lookups {
            let width = sums.columns.len() as f64;
            let rows = rows(&sums.rows, &shares).into_iter().map(|x| (x / width) as f32).collect();
            measured.lookups.insert(table, Lookup { rows, columns: mean(sums.columns) });
        }
        measured
    }
}

/// Adds the squares of the rows of `values`, each of `width`.
fn add_squares(sums: &mut Vec<f64>, values: &[f32], width: usize) {
    sums.resize(width, 0.0);
    for row in values.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
}

fn merge(sums: &mut Vec<f64>, part: &[f64]) {
    sums.resize(part.len(), 0.0);
    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
}

/// The share of each token; one that is never met counts as half a token.
fn shares(tokens: &[u16], vocab: usize) -> Vec<f64> {
    let mut counts = vec![0.5; vocab];
    for &token in tokens {
        if let Some(count) = counts.get_mut(usize::from(token)) {
            *count += 1.0;
        }
    }
    let total: f64 = counts.iter().sum();
    counts.into_iter().map(|count| count / total).collect()
}

/// By row: its share of the lookups times its mean squared gradient, which for rows that were taken seldom leans on
/// that of all. `sums` has how often each was taken and its sum.
fn rows(sums: &BTreeMap<u32, (u64, f64)>, shares: &[f64]) -> Vec<f64> {
    let (count, sum) = sums.values().fold((0, 0.0), |(n, s), (count, sum)| (n + count, s + sum));
    let mean = sum / count.max(1) as f64;
    let own = |row: usize| sums.get(&(row as u32)).copied().unwrap_or_default();
    let estimate = |(row, share): (usize, &f64)| {
        let (count, sum) = own(row);
        share * (sum + PRIOR * mean) / (count as f64 + PRIOR)
    };
    shares.iter().enumerate().map(estimate).collect()
}

#[cfg(test)]
mod tests;
