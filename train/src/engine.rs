//! The CPU engine: the runtime's one `forward` over candle tensors, and gradients by the backward of each candle op,
//! called in reverse by a tape of ours (why: `tape.rs`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use candle_core::{Device, Tensor, TensorId, bail};
use rayon::prelude::*;
use sixpack_formats::{ModelConfig, TensorSpec};
use sixpack_runtime::{Batch, Heads, Ops, Pass, ReadBack, Rope, Site, Weights, forward, model};

use crate::collective::exchange;
use crate::gradients::Sums;
use crate::ops::attention::Attention;
use crate::ops::average::Average;
use crate::ops::embed::Embed;
use crate::ops::exclude_self::ExcludeSelf;
use crate::ops::head_norm_rope::{HeadNormRope, Rotation};
use crate::ops::linear::Linear;
use crate::ops::loss::{CrossEntropy, Nll, Softcap};
use crate::ops::mix::Mix;
use crate::ops::mlp::{LeakyReluSquared, Mlp};
use crate::ops::rms_norm::RmsNorm;
use crate::ops::scaled::{AddScaled, Scale, Slice};
use crate::ops::skip::Gate;
use crate::ops::tail::Tail;
use crate::params::Params;
use crate::tape::Tape;
use crate::{Alone, Collective, Error, Result};

/// An interpreter of the model on candle tensors, differentiable. Runs on the calling thread.
///
/// The default value only computes; [`CandleOps::recording`] also keeps what [`CandleOps::backward`] needs.
#[derive(Debug, Default)]
pub struct CandleOps {
    tape: Tape,
    /// Length of the sequences of the batch that was embedded last: shorter activations are its last positions.
    len: usize,
    rotation: Option<Arc<Rotation>>,
    /// Matrices whose gradients are not wanted.
    frozen: Arc<BTreeSet<sixpack_formats::TensorId>>,
}

impl CandleOps {
    /// An interpreter that writes down what it does.
    pub fn recording() -> Self {
        Self { tape: Tape::recording(), ..Self::default() }
    }

    /// [`CandleOps::recording`], without the gradients of these matrices by products (lookups have theirs); only where
    /// no fused operation runs.
    pub(crate) fn recording_without(frozen: &Arc<BTreeSet<sixpack_formats::TensorId>>) -> Self {
        Self { frozen: Arc::clone(frozen), ..Self::recording() }
    }

    /// Gradients of the leaves (the weights), by [`Tensor::id`], given the gradient of `output`.
    ///
    /// # Errors
    /// If this interpreter was not [recording](Self::recording), or shapes do not agree.
    pub fn backward(self, output: &Tensor, gradient: Tensor) -> candle_core::Result<HashMap<TensorId, Tensor>> {
        self.tape.backward(output, gradient)
    }

    /// [`CandleOps::backward`]; `see` is told the gradient of each operation's result, by [`Tensor::id`].
    pub(crate) fn backward_watched(
        self,
        output: &Tensor,
        gradient: Tensor,
        see: &mut dyn FnMut(TensorId, &Tensor) -> candle_core::Result<()>,
    ) -> candle_core::Result<HashMap<TensorId, Tensor>> {
        self.tape.backward_watched(output, gradient, see)
    }

    /// [`CandleOps::backward`], which gives away the gradient of each of these leaves once it is complete.
    pub(crate) fn backward_by_leaf(
        self,
        output: &Tensor,
        gradient: Tensor,
        leaves: impl Iterator<Item = TensorId>,
        give: &mut dyn FnMut(TensorId, Option<Tensor>) -> candle_core::Result<()>,
    ) -> candle_core::Result<()> {
        self.tape.backward_by_leaf(output, gradient, leaves, give)
    }

    fn rotation(&mut self, rope: Rope) -> Arc<Rotation> {
        match &self.rotation {
            Some(rotation) if rotation.serves(rope, self.len) => Arc::clone(rotation),
            _ => Arc::clone(self.rotation.insert(Arc::new(Rotation::new(rope, self.len)))),
        }
    }
}

impl Ops for CandleOps {
    type Act = Tensor;
    type Weight = Tensor;
    type Error = candle_core::Error;

    fn embed(&mut self, table: &Tensor, batch: &Batch<'_>) -> candle_core::Result<Tensor> {
        if batch.context != batch.len() {
            bail!("training runs whole sequences, found {} of {} positions", batch.len(), batch.context);
        }
        self.len = batch.len();
        self.tape.one(table, Embed { ids: batch.ids.to_vec(), sequences: batch.sequences })
    }

    fn rms_norm(&mut self, x: &Tensor, scale: f32) -> candle_core::Result<Tensor> {
        self.tape.one(x, RmsNorm { scale })
    }

    fn mix(&mut self, weights: &Tensor, x: &Tensor, x0: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.three(weights, x, x0, Mix)
    }

    fn linear(&mut self, site: Site, w: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.two(x, w, Linear { train: !self.frozen.contains(&site.tensor()) })
    }

    fn head_norm_rope(
        &mut self,
        x: &Tensor,
        heads: usize,
        rope: Rope,
        gain: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let start = self.len.saturating_sub(x.dim(1)?);
        let op = HeadNormRope { heads, rotation: self.rotation(rope), start };
        match gain {
            Some(gain) => self.tape.two(x, gain, op),
            None => self.tape.one(x, op),
        }
    }

    fn attention(&mut self, _: usize, heads: Heads, q: &Tensor, k: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.three(q, k, v, Attention::new(heads))
    }

    fn exclude_self(&mut self, heads: Heads, y: &Tensor, v: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.two(y, v, ExcludeSelf(heads))
    }

    fn leaky_relu_squared(&mut self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.one(x, LeakyReluSquared)
    }

    fn add_scaled(&mut self, x: &Tensor, scale: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.three(x, scale, y, AddScaled(Slice::all(scale)))
    }

    fn scale(&mut self, scale: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.two(scale, x, Scale(Slice::all(scale)))
    }

    fn gated_skip(
        &mut self,
        weights: &Tensor,
        gates: Option<&Tensor>,
        row: usize,
        x: &Tensor,
        skip: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let slice = Slice::row(weights, row);
        match gates {
            Some(gates) => {
                let scaled = self.tape.two(weights, skip, Scale(slice))?;
                self.tape.three(gates, x, &scaled, Gate(slice))
            }
            None => self.tape.three(x, weights, skip, AddScaled(slice)),
        }
    }

    fn update_lane(
        &mut self,
        keep: (&Tensor, usize),
        post: (&Tensor, usize),
        lane: &Tensor,
        y: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let kept = self.tape.two(keep.0, lane, Scale(Slice::element(keep.1)))?;
        self.tape.three(&kept, post.0, y, AddScaled(Slice::element(post.1)))
    }

    fn average(&mut self, a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.two(a, b, Average)
    }

    fn tail(&mut self, x: &Tensor, n: usize) -> candle_core::Result<Tensor> {
        self.tape.one(x, Tail(n))
    }

    fn softcap(&mut self, x: &Tensor, cap: f32) -> candle_core::Result<Tensor> {
        self.tape.one(x, Softcap(cap))
    }

    fn cross_entropy(&mut self, logits: &Tensor, targets: &[u32]) -> candle_core::Result<Tensor> {
        self.tape.one(logits, CrossEntropy { targets: targets.to_vec() })
    }

    fn mlp(&mut self, _: usize, up: &Tensor, down: &Tensor, x: &Tensor) -> candle_core::Result<Tensor> {
        self.tape.three(x, up, down, Mlp::default())
    }

    fn nll(&mut self, table: &Tensor, h: &Tensor, cap: f32, targets: &[u32]) -> candle_core::Result<Tensor> {
        self.tape.two(h, table, Nll::new(targets, cap))
    }
}

impl ReadBack for CandleOps {
    async fn read(&mut self, x: &Tensor) -> candle_core::Result<Vec<f32>> {
        x.flatten_all()?.to_vec1()
    }
}

/// The tokens of an optimizer step, or a part of them: inputs and, one position on, targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// Inputs `[B, T]`.
    pub inputs: Vec<u32>,
    /// Targets `[B, T]`.
    pub targets: Vec<u32>,
    /// `T`.
    pub len: usize,
}

impl Sequences {
    /// Splits windows of `len + 1` tokens, laid end to end, into inputs and targets.
    ///
    /// # Panics
    /// If `tokens` is not whole windows.
    pub fn from_windows(tokens: &[u32], len: usize) -> Self {
        assert!(len > 0 && tokens.len().is_multiple_of(len + 1), "{} tokens in windows of {len} + 1", tokens.len());
        let windows = tokens.chunks_exact(len + 1);
        let inputs = windows.clone().flat_map(|w| &w[..len]).copied().collect();
        let targets = windows.flat_map(|w| &w[1..]).copied().collect();
        Self { inputs, targets, len }
    }

    /// `B`.
    pub fn count(&self) -> usize {
        self.inputs.len() / self.len.max(1)
    }
}

/// What a batch says about the weights.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Mean loss in nats per token.
    pub loss: f64,
    /// Gradient of the mean loss for each tensor.
    pub of: Params,
}

/// Computes losses and gradients on this machine's CPU.
///
/// A batch is cut into micro-batches of a fixed number of sequences, each run by one thread; their gradients are added
/// in order. The result therefore does not depend on the number of threads.
#[derive(Debug)]
pub struct CpuEngine {
    config: ModelConfig,
    micro_batch: usize,
    pool: rayon::ThreadPool,
}

impl CpuEngine {
    /// An engine for models of this configuration, with micro-batches of so many sequences, on so many threads.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(config: &ModelConfig, micro_batch: usize, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build().map_err(Error::Threads)?;
        Ok(Self { config: config.clone(), micro_batch: micro_batch.max(1), pool })
    }

    /// The threads, for the optimizer's work too.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// Mean loss of a batch and its gradient for each tensor of the table.
    ///
    /// # Errors
    /// If the batch is empty, or a token or a tensor is not the configuration's.
    pub fn gradients(&self, params: &Params, batch: &Sequences, recurrence: bool) -> Result<Gradients> {
        self.gradients_of_all(params, batch, recurrence, &Alone)
    }

    /// As [`CpuEngine::gradients`], of the batches of all ranks, which are of one size. Every rank gets the same bits.
    ///
    /// # Errors
    /// As [`CpuEngine::gradients`]; if a rank was lost.
    pub fn gradients_of_all(
        &self,
        params: &Params,
        batch: &Sequences,
        recurrence: bool,
        all: &dyn Collective,
    ) -> Result<Gradients> {
        if batch.inputs.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let weights = Weights::build(&self.config, |spec| tensor(params, spec))?;
        let size = self.micro_batch * batch.len;
        let mut micro = batch.inputs.chunks(size).zip(batch.targets.chunks(size)).peekable();
        let tokens = batch.inputs.len() * all.rank().world;
        let mut sums = Sums::new(&self.config, all);
        let mut loss = 0.0;
        // As many at once as there are threads, so that only so many gradients are in memory.
        while micro.peek().is_some() {
            let wave: Vec<_> = micro.by_ref().take(self.pool.current_num_threads()).collect();
            sums.expect(wave.len(), micro.peek().is_none());
            let run = |(i, &(inputs, targets)): (usize, &(&[u32], &[u32]))| {
                let part = Part { inputs, targets, len: batch.len, recurrence, of: tokens };
                part.run(&self.config, &weights, |id, gradient| sums.give(i, id, gradient))
            };
            let losses: Vec<f64> = self.pool.install(|| wave.par_iter().enumerate().map(run).collect::<Result<_>>())?;
            losses.into_iter().for_each(|part| loss += part);
        }
        if all.rank().world > 1 {
            // As bits: a loss that is no number is to arrive as one.
            let losses = exchange(all, &f64::to_bits(loss))?;
            loss = losses.into_iter().map(f64::from_bits).sum();
        }
        Ok(Gradients { loss, of: sums.finish()? })
    }

    /// Mean loss of a batch, without gradients.
    ///
    /// # Errors
    /// As [`CpuEngine::gradients`].
    pub fn loss(&self, params: &Params, batch: &Sequences, recurrence: bool) -> Result<f64> {
        if batch.inputs.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let weights = Weights::build(&self.config, |spec| tensor(params, spec))?;
        let size = self.micro_batch * batch.len;
        let micro: Vec<_> = batch.inputs.chunks(size).zip(batch.targets.chunks(size)).collect();
        let run = |&(inputs, targets): &(&[u32], &[u32])| -> Result<f64> {
            let mut ops = CandleOps::default();
            let nll = nll(&self.config, &weights, &mut ops, inputs, targets, batch.len, recurrence)?;
            Ok(nll.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).sum())
        };
        let sums: Vec<f64> = self.pool.install(|| micro.par_iter().map(run).collect::<Result<_>>())?;
        Ok(sums.iter().sum::<f64>() / batch.inputs.len() as f64)
    }
}

pub(crate) fn tensor(params: &Params, spec: &TensorSpec) -> Result<Tensor> {
    let data = params.get(&spec.id).ok_or_else(|| Error::MissingTensor(spec.name()))?;
    Ok(Tensor::from_slice(data, spec.shape.as_slice(), &Device::Cpu)?)
}

/// Losses `[B, T, 1]` of a micro-batch.
fn nll(
    config: &ModelConfig,
    weights: &Weights<Tensor>,
    ops: &mut CandleOps,
    inputs: &[u32],
    targets: &[u32],
    len: usize,
    recurrence: bool,
) -> Result<Tensor> {
    let batch = Batch::new(inputs, inputs.len() / len);
    let h = forward(config, weights, ops, &batch, Pass { recurrence, last: None })?;
    Ok(model::nll(config, weights, ops, &h, targets)?)
}

/// A micro-batch.
struct Part<'a> {
    inputs: &'a [u32],
    targets: &'a [u32],
    len: usize,
    recurrence: bool,
    /// Tokens of the whole batch.
    of: usize,
}

impl Part<'_> {
    /// Its loss, times its share of the batch; `give` gets its gradient for each tensor once that is complete, or hears
    /// that there is none: layers of a second lane before it starts, for instance, have none.
    fn run(
        &self,
        config: &ModelConfig,
        weights: &Weights<Tensor>,
        give: impl Fn(sixpack_formats::TensorId, Option<Vec<f32>>),
    ) -> Result<f64> {
        let mut ops = CandleOps::recording();
        let nll = nll(config, weights, &mut ops, self.inputs, self.targets, self.len, self.recurrence)?;
        let loss: f64 = nll.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).sum();
        let share = self.inputs.len() as f64 / self.of as f64;
        let seed = Tensor::full((share / self.targets.len() as f64) as f32, nll.shape(), &Device::Cpu)?;
        let ids: HashMap<_, _> = weights.iter().map(|(id, weight)| (weight.id(), id)).collect();
        ops.backward_by_leaf(&nll, seed.contiguous()?, ids.keys().copied(), &mut |leaf, gradient| {
            let gradient = gradient.map(|g| g.flatten_all()?.to_vec1()).transpose()?;
            give(ids[&leaf], gradient);
            Ok(())
        })?;
        Ok(loss / self.targets.len() as f64 * share)
    }
}
