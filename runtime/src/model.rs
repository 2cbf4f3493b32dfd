//! The model: the only place that says what it computes. Source: openai/parameter-golf pull request 1285.

use std::rc::Rc;

use sixpack_formats::{ModelConfig, Part, TensorId};

use crate::ops::{Batch, Heads, Ops, Role, Rope, Site};
use crate::projection::Projection;
use crate::weights::Weights;

/// How one forward pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Whether recurrent layers run again; always so but in training before recurrence starts.
    pub recurrence: bool,
    /// Positions of each sequence whose output is wanted, from its end; `None` for all. The last block then computes
    /// keys and values everywhere and the rest only where it is wanted, with the same result.
    pub last: Option<usize>,
}

impl Pass {
    /// Recurrence on, every position: evaluation and the exported model.
    pub const FULL: Self = Self { recurrence: true, last: None };
}

/// Hidden states after the final norm, `[B, T, d]` (or `[B, pass.last, d]`). The head is [`logits`] or [`nll`].
///
/// # Errors
/// Those of the machine.
pub fn forward<O: Ops>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    batch: &Batch<'_>,
    pass: Pass,
) -> Result<O::Act, O::Error> {
    let embedded = ops.embed(&weights[TensorId::TokenEmbedding], batch)?;
    let x0 = Rc::new(ops.rms_norm(&embedded, 1.0)?);
    drop(embedded);
    let value_embedding = value_embedding(weights, ops, batch)?;
    let rope = Rope { dims: config.rotary_dims(), base: config.rotary_base(batch.context) };
    let order = config.virtual_layers(pass.recurrence);
    let encoder = order.len() / 2;
    let mut stream = Stream::One(Rc::clone(&x0));
    let mut stack: Vec<Rc<O::Act>> = Vec::with_capacity(encoder);
    for (virtual_layer, &layer) in order.iter().enumerate() {
        let skip = if virtual_layer >= encoder { stack.pop() } else { None };
        let skip_row = virtual_layer.saturating_sub(encoder).min(config.skips().saturating_sub(1));
        let last = if virtual_layer + 1 == order.len() { pass.last } else { None };
        let last = last.filter(|&n| n < batch.len());
        let block = Block { config, weights, rope, virtual_layer, layer, skip_row, last };
        let inputs = Inputs { x0: &*x0, value_embedding: value_embedding.as_ref(), skip: skip.as_deref() };
        stream = ops.run_block(&block, stream, &inputs)?;
        if virtual_layer < encoder {
            let Stream::One(x) = &stream else { unreachable!("validated: lanes part in the decoder half") };
            stack.push(Rc::clone(x));
        }
    }
    let x = match stream {
        Stream::One(x) => x,
        Stream::Two(a, b) => Rc::new(ops.average(&a, &b)?),
    };
    ops.rms_norm(&x, 1.0)
}

/// Logits `[B, T, V]` of hidden states `h`.
///
/// # Errors
/// Those of the machine.
pub fn logits<O: Ops>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    h: &O::Act,
) -> Result<O::Act, O::Error> {
    ops.logits(&weights[TensorId::TokenEmbedding], h, config.logit_softcap as f32)
}

/// Negative log-likelihood in nats `[B, T, 1]` of `targets [B, T]` given hidden states `h`.
///
/// # Errors
/// Those of the machine.
pub fn nll<O: Ops>(
    config: &ModelConfig,
    weights: &Weights<O::Weight>,
    ops: &mut O,
    h: &O::Act,
    targets: &[u32],
) -> Result<O::Act, O::Error> {
    ops.nll(&weights[TensorId::TokenEmbedding], h, config.logit_softcap as f32, targets)
}

/// The residual stream.
#[derive(Clone, Debug)]
pub enum Stream<A> {
    /// One.
    One(Rc<A>),
    /// Two lanes: attention's and the MLP's.
    Two(Rc<A>, Rc<A>),
}

impl<A> Stream<A> {
    fn each<E>(self, mut f: impl FnMut(&A) -> Result<A, E>) -> Result<Self, E> {
        Ok(match self {
            Self::One(x) => Self::One(Rc::new(f(&x)?)),
            Self::Two(a, b) => Self::Two(Rc::new(f(&a)?), Rc::new(f(&b)?)),
        })
    }
}

/// The shared value embedding times its scale, `[B, T, K·D]`.
fn value_embedding<O: Ops>(
    weights: &Weights<O::Weight>,
    ops: &mut O,
    batch: &Batch<'_>,
) -> Result<Option<O::Act>, O::Error> {
    let Some(table) = weights.find(TensorId::ValueEmbedding) else { return Ok(None) };
    let mut ve = ops.embed(table, batch)?;
    if let Some(w) = weights.find(TensorId::ValueProj) {
        ve = ops.linear(Site::VALUE_PROJ, w, &ve)?;
    }
    ops.scale(&weights[TensorId::ValueScale], &ve).map(Some)
}

/// What a block reads beside the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, A> {
    /// The normed embedding `[B, T, d]`.
    pub x0: &'a A,
    /// The shared value embedding `[B, T, K·D]`, if the model has one.
    pub value_embedding: Option<&'a A>,
    /// What the skip connection brings.
    pub skip: Option<&'a A>,
}

/// One run of one physical block.
#[derive(Debug)]
pub struct Block<'a, W> {
    /// The model.
    pub config: &'a ModelConfig,
    /// Its parameters.
    pub weights: &'a Weights<W>,
    /// The rotation.
    pub rope: Rope,
    /// Number of this run.
    pub virtual_layer: usize,
    /// Number of the block.
    pub layer: usize,
    /// Row of the skip connection's weights.
    pub skip_row: usize,
    /// Positions wanted, where fewer than all.
    pub last: Option<usize>,
}

impl<'a, W> Block<'a, W> {
    /// Joins the stream with the skip connection and runs the block on it.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn run<O: Ops<Weight = W>>(
        &self,
        ops: &mut O,
        mut stream: Stream<O::Act>,
        inputs: &Inputs<'_, O::Act>,
    ) -> Result<Stream<O::Act>, O::Error> {
        if let Some(skip) = inputs.skip {
            let gates = self.weights.find(TensorId::SkipGates);
            let weights = &self.weights[TensorId::SkipWeights];
            stream = stream.each(|x| ops.gated_skip(weights, gates, self.skip_row, x, skip))?;
        }
        ops.block(self.virtual_layer, self.layer);
        let mut run = Run { block: self, ops };
        let (x0, ve) = (inputs.x0, inputs.value_embedding);
        match stream {
            Stream::One(x) if !self.has_lanes() => Ok(Stream::One(Rc::new(run.single(&x, x0, ve)?))),
            Stream::One(x) => run.two_lanes(&x, &x, x0, ve),
            Stream::Two(a, b) => run.two_lanes(&a, &b, x0, ve),
        }
    }

    /// A parameter of the block.
    pub fn part(&self, part: Part) -> &'a W {
        &self.weights[TensorId::block(self.layer, part)]
    }

    /// Its attention's heads.
    pub fn heads(&self) -> Heads {
        Heads { query: self.config.num_heads, kv: self.config.num_kv_heads, dim: self.config.head_dim() }
    }

    /// Whether the stream has two lanes after it.
    pub fn has_lanes(&self) -> bool {
        self.config.parallel_residual && self.layer >= self.config.parallel_start_layer
    }

    /// Factor on its norms.
    pub fn norm(&self) -> f32 {
        self.config.norm_scale(self.layer)
    }

    /// The scale of the value embedding in it, if it reads that.
    pub fn value_scale(&self) -> Option<TensorId> {
        let index = self.config.ve_layers.iter().position(|&l| l == self.layer)?;
        Some(TensorId::ValueLayerScale(index as u16))
    }
}

/// A block on its machine.
struct Run<'a, 'b, O: Ops> {
    block: &'b Block<'a, O::Weight>,
    ops: &'b mut O,
}

impl<'a, O: Ops> Run<'a, '_, O> {
    fn single(&mut self, x: &O::Act, x0: &O::Act, ve: Option<&O::Act>) -> Result<O::Act, O::Error> {
        let norm = self.block.norm();
        let (x_in, a) = self.ops.mix_norm(self.part(Part::ResidMix), x, x0, norm)?;
        let y = self.attend(&a, ve)?;
        let x_in = self.narrow(x_in)?;
        let (x_mid, b) = self.ops.add_scaled_norm(&x_in, self.part(Part::AttnScale), &y, norm)?;
        let m = self.ops.mlp(self.block.layer, self.part(Part::MlpUp), self.part(Part::MlpDown), &b)?;
        self.ops.add_scaled(&x_mid, self.part(Part::MlpScale), &m)
    }

    fn two_lanes(
        &mut self,
        l0: &O::Act,
        l1: &O::Act,
        x0: &O::Act,
        ve: Option<&O::Act>,
    ) -> Result<Stream<O::Act>, O::Error> {
        let norm = self.block.norm();
        let (_, a) = self.ops.mix_norm(self.part(Part::ResidMix), l0, x0, norm)?;
        let y = self.attend(&a, ve)?;
        let y = self.ops.scale(self.part(Part::AttnScale), &y)?;
        // The rest is computed where it is wanted: all positions, or the last of each sequence.
        let narrow = |ops: &mut O, x: &O::Act| self.block.last.map(|n| ops.tail(x, n)).transpose();
        let (n0, n1, nx0) = (narrow(self.ops, l0)?, narrow(self.ops, l1)?, narrow(self.ops, x0)?);
        let (l0, l1, x0) = (n0.as_ref().unwrap_or(l0), n1.as_ref().unwrap_or(l1), nx0.as_ref().unwrap_or(x0));
        let (l0, l1) = self.update_lanes(0, l0, l1, &y)?;
        let (_, b) = self.ops.mix_norm(self.part(Part::ResidMix), &l1, x0, norm)?;
        let m = self.ops.mlp(self.block.layer, self.part(Part::MlpUp), self.part(Part::MlpDown), &b)?;
        let m = self.ops.scale(self.part(Part::MlpScale), &m)?;
        let (l0, l1) = self.update_lanes(1, &l0, &l1, &m)?;
        Ok(Stream::Two(Rc::new(l0), Rc::new(l1)))
    }

    /// Both lanes take `y`, the output of attention (`half` 0) or the MLP (`half` 1).
    fn update_lanes(
        &mut self,
        half: usize,
        l0: &O::Act,
        l1: &O::Act,
        y: &O::Act,
    ) -> Result<(O::Act, O::Act), O::Error> {
        let keep = (&self.block.weights[TensorId::LaneKeep], self.block.layer * 2 + half);
        let post = |lane| (&self.block.weights[TensorId::LanePost], self.block.layer * 4 + half * 2 + lane);
        Ok((self.ops.update_lane(keep, post(0), l0, y)?, self.ops.update_lane(keep, post(1), l1, y)?))
    }

    /// Attention from its normed input `a [B, T, d]` to its projected output.
    fn attend(&mut self, a: &O::Act, ve: Option<&O::Act>) -> Result<O::Act, O::Error> {
        let block = self.block;
        let heads = block.heads();
        let [q, k, v] = self.ops.project_heads(a, &Projection::of(block, ve))?;
        let mut y = self.ops.attention(self.block.virtual_layer, heads, &q, &k, &v)?;
        if block.config.has_xsa(self.block.layer) {
            let v = self.narrow(v)?;
            y = self.ops.exclude_self(heads, &y, &v)?;
        }
        self.ops.linear(Site { layer: block.layer, role: Role::AttnOut }, self.part(Part::AttnOut), &y)
    }

    fn narrow(&mut self, x: O::Act) -> Result<O::Act, O::Error> {
        match self.block.last {
            Some(n) => self.ops.tail(&x, n),
            None => Ok(x),
        }
    }

    fn part(&self, part: Part) -> &'a O::Weight {
        self.block.part(part)
    }
}
