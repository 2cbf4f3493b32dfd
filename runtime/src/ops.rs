//! The operations the model is made of: one method for each thing a paper would name.
//!
//! Three laws. A fused method has a default body that composes the plain ones; decorators keep the default and never
//! forward it, or the inner `linear` is not seen. `linear` takes its [`Site`], the key of Hessians, traces and errors.
//! State (KV cache, buffers) belongs to the `Ops` value, not to `forward`'s arguments.
//!
//! Activations are `[B, T, C]`: sequences, positions, channels. Symbols are those of [`ModelConfig`].
//!
//! [`ModelConfig`]: sixpack_formats::ModelConfig

use std::fmt;

use sixpack_formats::{Part, TensorId};

use crate::model::{Block, Inputs, Stream};
use crate::projection::Projection;
use crate::{Error, Sampler};

/// Which matrix product of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Output projection of attention.
    AttnOut,
    /// First matrix of the MLP.
    MlpUp,
    /// Second matrix of the MLP.
    MlpDown,
    /// Projection of the shared value embedding to keys' width; `layer` is 0.
    ValueProj,
    /// The tied head; `layer` is 0.
    Head,
}

/// A matrix product of the model: physical layer and role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Physical layer (a recurrent layer is one site for all its passes).
    pub layer: usize,
    /// Which product.
    pub role: Role,
}

impl Site {
    /// The tied head.
    pub const HEAD: Self = Self { layer: 0, role: Role::Head };
    /// The projection of the value embedding.
    pub const VALUE_PROJ: Self = Self { layer: 0, role: Role::ValueProj };

    /// The tensor multiplied here.
    pub fn tensor(self) -> TensorId {
        let part = match self.role {
            Role::Query => Part::Query,
            Role::Key => Part::Key,
            Role::Value => Part::Value,
            Role::AttnOut => Part::AttnOut,
            Role::MlpUp => Part::MlpUp,
            Role::MlpDown => Part::MlpDown,
            Role::ValueProj => return TensorId::ValueProj,
            Role::Head => return TensorId::TokenEmbedding,
        };
        TensorId::block(self.layer, part)
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Head => f.write_str("head"),
            _ => self.tensor().fmt(f),
        }
    }
}

/// The tokens of one forward pass: `sequences · len` ids, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids `[B, T]`.
    pub ids: &'a [u32],
    /// `B`.
    pub sequences: usize,
    /// Length of the sequence these tokens are part of, which fixes the rotary base: `T` for a whole sequence, the
    /// context length for a step of a session.
    pub context: usize,
}

impl<'a> Batch<'a> {
    /// Whole sequences of equal length.
    ///
    /// # Panics
    /// If `ids` is not a multiple of `sequences`.
    pub fn new(ids: &'a [u32], sequences: usize) -> Self {
        assert!(sequences > 0 && ids.len().is_multiple_of(sequences), "{} ids in {sequences} sequences", ids.len());
        Self { ids, sequences, context: ids.len() / sequences }
    }

    /// `T`.
    pub fn len(&self) -> usize {
        self.ids.len() / self.sequences
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Rotary embedding of the first `dims` of each head, halves not pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Rotated dimensions, even.
    pub dims: usize,
    /// Base of the frequencies: angle of pair `i` at position `t` is `t · base^(−2i/dims)`.
    pub base: f64,
}

/// Grouped-query attention's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads, `H`.
    pub query: usize,
    /// Key/value heads, `K`; query head `h` uses key/value head `h / (H/K)`.
    pub kv: usize,
    /// Head width, `D`.
    pub dim: usize,
}

/// An interpreter of the model.
pub trait Ops {
    /// An activation `[B, T, C]`.
    type Act;
    /// A parameter.
    type Weight;
    /// What can go wrong on this machine.
    type Error;

    /// Told before each block runs which one it is; for traces and timings, it computes nothing.
    fn block(&mut self, virtual_layer: usize, layer: usize) {
        let _ = (virtual_layer, layer);
    }

    /// Rows of `table [V, C]` by token id: `[B, T, C]`. In a session the first row is at the position after the last
    /// token remembered.
    fn embed(&mut self, table: &Self::Weight, batch: &Batch<'_>) -> Result<Self::Act, Self::Error>;

    /// `scale · x / sqrt(mean(x²) + eps)` over channels, eps the machine epsilon of f32.
    fn rms_norm(&mut self, x: &Self::Act, scale: f32) -> Result<Self::Act, Self::Error>;

    /// `weights[0] ⊙ x + weights[1] ⊙ x0`, weights `[2, C]`.
    fn mix(&mut self, weights: &Self::Weight, x: &Self::Act, x0: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// `x Wᵀ` for `W [out, in]`: `[B, T, out]`.
    fn linear(&mut self, site: Site, w: &Self::Weight, x: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// Each head of `x [B, T, heads·D]` normalised by its root mean square, rotated by its position, then multiplied
    /// by its gain (`gain [heads]`; keys have none).
    fn head_norm_rope(
        &mut self,
        x: &Self::Act,
        heads: usize,
        rope: Rope,
        gain: Option<&Self::Weight>,
    ) -> Result<Self::Act, Self::Error>;

    /// Causal attention, scale `1/sqrt(D)`: `q [B, Tq, H·D]`, `k, v [B, T, K·D]` give `[B, Tq, H·D]`. The `Tq` queries
    /// are the last positions. `pass` is the virtual layer, the key of a cache.
    fn attention(
        &mut self,
        pass: usize,
        heads: Heads,
        q: &Self::Act,
        k: &Self::Act,
        v: &Self::Act,
    ) -> Result<Self::Act, Self::Error>;

    /// Exclusive self-attention: `y − (y·v̂) v̂` per head, `v̂ = v / max(‖v‖, 1e-12)` the key/value head's own value
    /// at that position; `y [B, T, H·D]`, `v [B, T, K·D]`.
    fn exclude_self(&mut self, heads: Heads, y: &Self::Act, v: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// `leaky_relu(x, 0.5)²`.
    fn leaky_relu_squared(&mut self, x: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// `x + scale ⊙ y`, scale `[C]` or a single value.
    fn add_scaled(&mut self, x: &Self::Act, scale: &Self::Weight, y: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// `scale ⊙ x`, scale `[C]` or a single value.
    fn scale(&mut self, scale: &Self::Weight, x: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// U-Net skip: with `s = weights[row] ⊙ skip` and `g = sigmoid(gates[row])`, `s + g ⊙ (x − s)`; without gates
    /// `x + s`. Weights and gates `[S, C]`.
    fn gated_skip(
        &mut self,
        weights: &Self::Weight,
        gates: Option<&Self::Weight>,
        row: usize,
        x: &Self::Act,
        skip: &Self::Act,
    ) -> Result<Self::Act, Self::Error>;

    /// Two-lane residual: `keep[k] · lane + post[p] · y` with flat indices into `keep [N, 2]` and `post [N, 2, 2]`.
    fn update_lane(
        &mut self,
        keep: (&Self::Weight, usize),
        post: (&Self::Weight, usize),
        lane: &Self::Act,
        y: &Self::Act,
    ) -> Result<Self::Act, Self::Error>;

    /// `(a + b) / 2`.
    fn average(&mut self, a: &Self::Act, b: &Self::Act) -> Result<Self::Act, Self::Error>;

    /// The last `n` positions of each sequence, which stay the positions they are (for the rotation): `[B, n, C]`.
    fn tail(&mut self, x: &Self::Act, n: usize) -> Result<Self::Act, Self::Error>;

    /// `cap · tanh(x / cap)`.
    fn softcap(&mut self, x: &Self::Act, cap: f32) -> Result<Self::Act, Self::Error>;

    /// Negative log-likelihood in nats of each target under `logits [B, T, V]`: `[B, T, 1]`; `targets [B, T]`.
    fn cross_entropy(&mut self, logits: &Self::Act, targets: &[u32]) -> Result<Self::Act, Self::Error>;

    // Fusion points: the default is the meaning; a machine may override it for speed, a decorator may not.

    /// [`Ops::mix`], and its [`Ops::rms_norm`].
    fn mix_norm(
        &mut self,
        weights: &Self::Weight,
        x: &Self::Act,
        x0: &Self::Act,
        scale: f32,
    ) -> Result<(Self::Act, Self::Act), Self::Error> {
        let mixed = self.mix(weights, x, x0)?;
        let normed = self.rms_norm(&mixed, scale)?;
        Ok((mixed, normed))
    }

    /// [`Ops::add_scaled`], and its [`Ops::rms_norm`].
    fn add_scaled_norm(
        &mut self,
        x: &Self::Act,
        weights: &Self::Weight,
        y: &Self::Act,
        scale: f32,
    ) -> Result<(Self::Act, Self::Act), Self::Error> {
        let sum = self.add_scaled(x, weights, y)?;
        let normed = self.rms_norm(&sum, scale)?;
        Ok((sum, normed))
    }

    /// Queries, keys and values of a block's normed input: [`Projection::run`].
    fn project_heads(
        &mut self,
        x: &Self::Act,
        by: &Projection<'_, Self::Weight, Self::Act>,
    ) -> Result<[Self::Act; 3], Self::Error>
    where
        Self: Sized,
    {
        by.run(self, x)
    }

    /// `linear` up, [`Ops::leaky_relu_squared`], `linear` down.
    fn mlp(
        &mut self,
        layer: usize,
        up: &Self::Weight,
        down: &Self::Weight,
        x: &Self::Act,
    ) -> Result<Self::Act, Self::Error> {
        let u = self.linear(Site { layer, role: Role::MlpUp }, up, x)?;
        let u = self.leaky_relu_squared(&u)?;
        self.linear(Site { layer, role: Role::MlpDown }, down, &u)
    }

    /// One run of a block, after its skip connection: [`Block::run`].
    fn run_block(
        &mut self,
        block: &Block<'_, Self::Weight>,
        stream: Stream<Self::Act>,
        inputs: &Inputs<'_, Self::Act>,
    ) -> Result<Stream<Self::Act>, Self::Error>
    where
        Self: Sized,
    {
        block.run(self, stream, inputs)
    }

    /// The head: `cap · tanh((h · tableᵀ) / cap)`.
    fn logits(&mut self, table: &Self::Weight, h: &Self::Act, cap: f32) -> Result<Self::Act, Self::Error> {
        let x = self.linear(Site::HEAD, table, h)?;
        self.softcap(&x, cap)
    }

    /// [`Ops::logits`], then [`Ops::cross_entropy`]; a machine need not hold all logits at once.
    fn nll(
        &mut self,
        table: &Self::Weight,
        h: &Self::Act,
        cap: f32,
        targets: &[u32],
    ) -> Result<Self::Act, Self::Error> {
        let logits = self.logits(table, h, cap)?;
        self.cross_entropy(&logits, targets)
    }
}

/// A machine whose activations can be read by the host.
///
/// Everything else an [`Ops`] does may be queued; reading is where the host waits. In a browser a GPU's values arrive
/// only while the event loop runs, so reading is asynchronous. On the CPU it is ready at once, and [`now`] waits.
///
/// [`now`]: crate::now
pub trait ReadBack: Ops {
    /// The values, row-major.
    fn read(&mut self, x: &Self::Act) -> impl Future<Output = Result<Vec<f32>, Self::Error>>;
}

/// A machine that can remember the keys and values of one growing sequence, for sessions.
pub trait Remember: ReadBack
where
    Error: From<Self::Error>,
{
    /// Starts to remember, from nothing: each pass from now on continues the sequence.
    fn begin(&mut self);

    /// Ends a pass of `len` tokens: the next one starts after them. A pass that failed is forgotten if this is not
    /// called.
    fn advance(&mut self, len: usize);

    /// Forgets, and goes back to passes of whole sequences.
    fn end(&mut self);

    /// A token for `logits [1, 1, V]`. A machine that can choose by itself need not send the logits to the host.
    fn sample(&mut self, logits: &Self::Act, sampler: &mut Sampler) -> impl Future<Output = crate::Result<u32>> {
        async move {
            let logits = self.read(logits).await?;
            sampler.sample(&logits)
        }
    }
}
