//! Calibration: the Hessian `Σ xᵀx` of every matrix product of the model, over inputs `x` from training text.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;
use sixpack_formats::{Model, ModelConfig, Part, TensorId};
use sixpack_runtime::cpu::{Fast, Mat};
use sixpack_runtime::cuda::{Act, Buffer, Cuda, Gpu, Kind, Product};
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

/// A product's input. Queries, keys and values of a layer have one input and so one Hessian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    Attention(u16),
    AttnOut(u16),
    MlpUp(u16),
    MlpDown(u16),
    ValueProj,
    Head,
}

impl Input {
    /// What `tensor` is multiplied with, if it is a matrix that something is multiplied with.
    pub(crate) fn of(tensor: TensorId) -> Option<Self> {
        match tensor {
            TensorId::Block(layer, Part::Query | Part::Key | Part::Value) => Some(Self::Attention(layer)),
            TensorId::Block(layer, Part::AttnOut) => Some(Self::AttnOut(layer)),
            TensorId::Block(layer, Part::MlpUp) => Some(Self::MlpUp(layer)),
            TensorId::Block(layer, Part::MlpDown) => Some(Self::MlpDown(layer)),
            TensorId::ValueProj => Some(Self::ValueProj),
            TensorId::TokenEmbedding => Some(Self::Head),
            _ => None,
        }
    }

    /// Where `site` has an input that is to be accumulated: once for queries, keys and values.
    fn at(site: Site) -> Option<Self> {
        match site.role {
            Role::Query | Role::Value => None,
            _ => Self::of(site.tensor()),
        }
    }
}

/// The Hessians of a model's matrices, the tied embedding's as the head, each divided by the number of batches.
#[derive(Clone, Debug)]
pub struct Hessians {
    /// By input: the number of columns `n` and the entries `[n, n]`.
    entries: BTreeMap<Input, Entries>,
    batches: usize,
    /// Tokens of a batch, on average.
    tokens_per_batch: f64,
    /// How often each token of the vocabulary was an input.
    counts: Vec<u32>,
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
        hessians.walk(&starts, calibration, progress, |hessians, batch| {
            let mut see = |site: Site, x: &Mat| hessians.add(&pool, site, x);
            let mut watched = Calibrate::new(&mut ops, &mut see);
            let head = forward(&model.config, &weights, &mut watched, batch, Pass::FULL)?;
            hessians.add(&pool, Site::HEAD, &head);
            Ok(())
        })?;
        hessians.finish();
        Ok(hessians)
    }

    /// Gives each batch of the calibration text to `run`, and counts its tokens.
    fn walk(
        &mut self,
        starts: &[usize],
        calibration: &Calibration<'_>,
        progress: &dyn Fn(usize, usize),
        mut run: impl FnMut(&mut Self, &Batch<'_>) -> Result<()>,
    ) -> Result<()> {
        self.batches = starts.len().div_ceil(calibration.sequences);
        self.tokens_per_batch = (starts.len() * calibration.seq_len) as f64 / self.batches as f64;
        for (done, batch) in starts.chunks(calibration.sequences).enumerate() {
            let sequences = batch.iter().flat_map(|&at| &calibration.tokens[at..at + calibration.seq_len]);
            let ids: Vec<u32> = sequences.map(|&t| u32::from(t)).collect();
            ids.iter().for_each(|&id| self.count(id));
            run(self, &Batch::new(&ids, batch.len()))?;
            progress(done + 1, self.batches);
        }
        Ok(())
    }

    /// As [`Hessians::measure`], on a GPU, whose sums are in f32 too but in another order.
    ///
    /// # Errors
    /// Those of [`Hessians::measure`] but for threads, and what the GPU's driver says.
    pub fn measure_on(
        gpu: &Arc<Gpu>,
        model: &Model,
        calibration: &Calibration<'_>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self> {
        let starts = calibration.starts()?;
        let mut ops = Cuda::new(gpu, Kind::F32);
        let weights = ops.load(model)?;
        let mut hessians = Self::zeros(&model.config);
        let zeros = |entries: &Entries| gpu.zeros(Kind::F32, entries.values.len());
        let sums: BTreeMap<Input, Buffer> =
            hessians.entries.iter().map(|(&input, entries)| Ok((input, zeros(entries)?))).collect::<Result<_>>()?;
        let add = |site: Site, x: &Act| -> Result<(), sixpack_runtime::Error> {
            let Some(sum) = Input::at(site).and_then(|input| sums.get(&input)) else { return Ok(()) };
            let cols = sum.len().isqrt();
            let (of, sizes) = ([x.buffer(); 2], [1, cols, cols, x.buffer().len() / cols]);
            gpu.stacked(Product { of, turned: Some(0), factor: 1.0, plus: Some((sum, 1.0)), sizes }, sum)
        };
        hessians.walk(&starts, calibration, progress, |_, batch| {
            let mut added = Ok(());
            let mut see = |site: Site, x: &Act| {
                if added.is_ok() {
                    added = add(site, x);
                }
            };
            let mut watched = Calibrate::new(&mut ops, &mut see);
            let head = forward(&model.config, &weights, &mut watched, batch, Pass::FULL)?;
            Ok(added.and_then(|()| add(Site::HEAD, &head))?)
        })?;
        for (input, sum) in &sums {
            let entries = hessians.entries.get_mut(input).expect("sums are of entries");
            entries.values = gpu.read(sum)?;
        }
        hessians.finish();
        Ok(hessians)
    }

    /// The Hessian `[cols, cols]` of a matrix's inputs; `None` for what nothing is multiplied with.
    pub fn get(&self, tensor: TensorId) -> Option<&[f32]> {
        Some(&self.entries.get(&Input::of(tensor)?)?.values)
    }

    /// Tokens of a batch on average: a Hessian divided by it is the mean over tokens, summed over passes.
    pub fn tokens_per_batch(&self) -> f64 {
        self.tokens_per_batch
    }

    /// The share of each token among all inputs, as if each of the `pieces` of the vocabulary had been seen once more.
    pub(crate) fn frequencies(&self, pieces: usize) -> Vec<f64> {
        let counts = || (0..pieces).map(|id| self.counts.get(id).map_or(1.0, |&n| f64::from(n) + 1.0));
        let total: f64 = counts().sum();
        counts().map(|n| n / total).collect()
    }

    fn zeros(config: &ModelConfig) -> Self {
        let mut entries = BTreeMap::new();
        for spec in config.tensors() {
            if let Some(input) = Input::of(spec.id) {
                let cols = spec.shape[1];
                let zeros = || Entries { cols, values: vec![0.0; cols * cols] };
                entries.entry(input).or_insert_with(zeros);
            }
        }
        Self { entries, batches: 0, tokens_per_batch: 0.0, counts: vec![0; config.vocab_size] }
    }

    fn count(&mut self, id: u32) {
        // A token beyond the vocabulary is refused by the interpreter.
        if let Some(count) = self.counts.get_mut(id as usize) {
            *count += 1;
        }
    }

    /// Adds `xᵀx` below and on the diagonal.
    fn add(&mut self, pool: &ThreadPool, site: Site, x: &Mat) {
        let Some(input) = Input::at(site) else { return };
        let Some(Entries { cols, values }) = self.entries.get_mut(&input) else { return };
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
    fn finish(&mut self) {
        for Entries { cols, values } in self.entries.values_mut() {
            for i in 0..*cols {
                for j in 0..=i {
                    let mean = values[i * *cols + j] / self.batches as f32;
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
