//! Calibration: the Hessian `Σ xᵀx` of every layer that GPTQ quantises, over inputs `x` from training text.

use std::collections::BTreeMap;

use rayon::ThreadPool;
use rayon::prelude::*;
use sixpack_formats::{Model, ModelConfig, Part, QuantClass, TensorId};
use sixpack_runtime::cpu::{Fast, Mat};
use sixpack_runtime::{Batch, Calibrate, Pass, Role, Site, forward};

use crate::product::{View, ViewMut, add_product};
use crate::{Error, Result};

/// Rows of a Hessian that are accumulated in one product, up to their diagonal: a symmetric matrix needs no more.
const PANEL: usize = 128;

/// What to calibrate on. Training text only, never what the result will be scored on.
#[derive(Clone, Copy, Debug)]
pub struct Calibration<'a> {
    /// Tokens that sequences are taken from: all that fit if no more are wanted, evenly spread ones otherwise.
    pub tokens: &'a [u16],
    /// Length of a sequence.
    pub seq_len: usize,
    /// Batches at most; fewer if the tokens end.
    pub batches: usize,
    /// Sequences of a batch.
    pub sequences: usize,
}

impl Calibration<'_> {
    /// Where the sequences start.
    fn starts(&self) -> Result<Vec<usize>> {
        let available = self.tokens.len().checked_div(self.seq_len).unwrap_or(0);
        let wanted = available.min(self.batches.saturating_mul(self.sequences));
        if wanted == 0 {
            return Err(Error::Calibration {
                expected: "at least one batch of at least one sequence",
                tokens: self.tokens.len(),
                seq_len: self.seq_len,
                batches: self.batches,
                sequences: self.sequences,
            });
        }
        Ok((0..wanted).map(|i| i * available / wanted * self.seq_len).collect())
    }
}

/// A product's input within a block. Queries, keys and values have one input and so one Hessian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Input {
    Attention,
    AttnOut,
    MlpUp,
    MlpDown,
}

impl Input {
    fn of(part: Part) -> Option<Self> {
        match part {
            Part::Query | Part::Key | Part::Value => Some(Self::Attention),
            Part::AttnOut => Some(Self::AttnOut),
            Part::MlpUp => Some(Self::MlpUp),
            Part::MlpDown => Some(Self::MlpDown),
            Part::QueryGain | Part::AttnScale | Part::MlpScale | Part::ResidMix => None,
        }
    }

    /// Where `site` has an input that is to be accumulated: once for queries, keys and values.
    fn at(site: Site) -> Option<Self> {
        match site.role {
            Role::Key => Some(Self::Attention),
            Role::AttnOut => Some(Self::AttnOut),
            Role::MlpUp => Some(Self::MlpUp),
            Role::MlpDown => Some(Self::MlpDown),
            Role::Query | Role::Value | Role::ValueProj | Role::Head => None,
        }
    }
}

/// The Hessians of a model's attention and MLP matrices, each divided by the number of batches.
#[derive(Clone, Debug)]
pub struct Hessians {
    /// By layer and input: the number of columns `n` and the entries `[n, n]`.
    entries: BTreeMap<(usize, Input), Entries>,
}

#[derive(Clone, Debug)]
struct Entries {
    cols: usize,
    values: Vec<f32>,
}

impl Hessians {
    /// Runs `model` over the calibration text with recurrence on; a recurrent layer's Hessian sums over its passes.
    /// The result does not depend on `threads`. `progress` is told after each batch how many of how many are done.
    ///
    /// # Errors
    /// [`Error::Calibration`] if there is not one sequence to run, and those of the interpreter: a token beyond the
    /// vocabulary, no threads.
    pub fn measure(
        model: &Model,
        calibration: &Calibration<'_>,
        threads: usize,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self> {
        let starts = calibration.starts()?;
        let pool = thread_pool(threads)?;
        let mut ops = Fast::new(threads)?;
        let weights = ops.load(model);
        let mut hessians = Self::zeros(&model.config);
        let batches = starts.len().div_ceil(calibration.sequences);
        for (done, batch) in starts.chunks(calibration.sequences).enumerate() {
            let sequences = batch.iter().flat_map(|&at| &calibration.tokens[at..at + calibration.seq_len]);
            let ids: Vec<u32> = sequences.map(|&t| u32::from(t)).collect();
            let mut see = |site: Site, x: &Mat| hessians.add(&pool, site, x);
            let mut watched = Calibrate::new(&mut ops, &mut see);
            forward(&model.config, &weights, &mut watched, &Batch::new(&ids, batch.len()), Pass::FULL)?;
            progress(done + 1, batches);
        }
        hessians.finish(batches);
        Ok(hessians)
    }

    /// The Hessian `[cols, cols]` of a matrix's inputs, if it is one that GPTQ quantises.
    pub fn get(&self, tensor: TensorId) -> Option<&[f32]> {
        let TensorId::Block(layer, part) = tensor else { return None };
        let entries = self.entries.get(&(usize::from(layer), Input::of(part)?))?;
        Some(&entries.values)
    }

    fn zeros(config: &ModelConfig) -> Self {
        let mut entries = BTreeMap::new();
        for spec in config.tensors() {
            if let (TensorId::Block(layer, part), QuantClass::Attention | QuantClass::Mlp) = (spec.id, spec.class)
                && let Some(input) = Input::of(part)
            {
                let cols = spec.shape[1];
                let zeros = || Entries { cols, values: vec![0.0; cols * cols] };
                entries.entry((usize::from(layer), input)).or_insert_with(zeros);
            }
        }
        Self { entries }
    }

    /// Adds `xᵀx` below and on the diagonal.
    fn add(&mut self, pool: &ThreadPool, site: Site, x: &Mat) {
        let Some(input) = Input::at(site) else { return };
        let Some(Entries { cols, values }) = self.entries.get_mut(&(site.layer, input)) else { return };
        let (rows, cols) = (x.rows(), *cols);
        pool.install(|| {
            values.par_chunks_mut(PANEL * cols).enumerate().for_each(|(panel, values)| {
                let (start, height) = (panel * PANEL, values.len() / cols);
                let left = View::with_stride(&x.data[start..], rows, height, cols).transposed();
                let right = View::with_stride(&x.data, rows, start + height, cols);
                add_product(&mut ViewMut::with_stride(values, height, start + height, cols), 1.0, left, right);
            });
        });
    }

    /// Divides by the number of batches and fills in what is above the diagonal.
    fn finish(&mut self, batches: usize) {
        for Entries { cols, values } in self.entries.values_mut() {
            for i in 0..*cols {
                for j in 0..=i {
                    let mean = values[i * *cols + j] / batches as f32;
                    values[i * *cols + j] = mean;
                    values[j * *cols + i] = mean;
                }
            }
        }
    }
}

/// A pool of `threads` threads.
pub(crate) fn thread_pool(threads: usize) -> Result<ThreadPool> {
    if threads == 0 {
        return Err(Error::Threads { threads, source: None });
    }
    let build = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    build.map_err(|source| Error::Threads { threads, source: Some(source) })
}
