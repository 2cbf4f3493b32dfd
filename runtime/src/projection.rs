//! What attention reads: queries, keys and values of a block.

use sixpack_formats::Part;

use crate::model::Block;
use crate::ops::{Heads, Ops, Role, Rope, Site};

/// How a block's normed input becomes queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a, W, A> {
    /// The physical block.
    pub layer: usize,
    /// Its heads.
    pub heads: Heads,
    /// The rotation of queries and keys.
    pub rope: Rope,
    /// Matrices of queries `[H·D, d]`, keys and values `[K·D, d]`.
    pub weights: [&'a W; 3],
    /// Of queries, `[H]`.
    pub gain: &'a W,
    /// A single factor, and the value embedding `[B, T, K·D]` that is added to values times it.
    pub value_embedding: Option<(&'a W, &'a A)>,
    /// Positions whose queries are wanted, where fewer than all.
    pub last: Option<usize>,
}

impl<'a, W, A> Projection<'a, W, A> {
    /// That of a block, with the shared value embedding if the model has one.
    pub fn of(block: &Block<'a, W>, value_embedding: Option<&'a A>) -> Self {
        let factor = block.value_scale().map(|id| &block.weights[id]);
        Self {
            layer: block.layer,
            heads: block.heads(),
            rope: block.rope,
            weights: [Part::Query, Part::Key, Part::Value].map(|part| block.part(part)),
            gain: block.part(Part::QueryGain),
            value_embedding: factor.zip(value_embedding),
            last: block.last,
        }
    }

    /// Queries `[B, T, H·D]` (or `[B, last, H·D]`), keys and values `[B, T, K·D]` of `x [B, T, d]`, an operation after the
    /// other.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn run<O: Ops<Weight = W, Act = A>>(&self, ops: &mut O, x: &A) -> Result<[A; 3], O::Error> {
        let (layer, heads) = (self.layer, self.heads);
        let [query, key, value] = self.weights;
        let k = ops.linear(Site { layer, role: Role::Key }, key, x)?;
        let k = ops.head_norm_rope(&k, heads.kv, self.rope, None)?;
        let mut v = ops.linear(Site { layer, role: Role::Value }, value, x)?;
        if let Some((factor, embedding)) = self.value_embedding {
            v = ops.add_scaled(&v, factor, embedding)?;
        }
        let narrowed = self.last.map(|n| ops.tail(x, n)).transpose()?;
        let q = ops.linear(Site { layer, role: Role::Query }, query, narrowed.as_ref().unwrap_or(x))?;
        let q = ops.head_norm_rope(&q, heads.query, self.rope, Some(self.gain))?;
        Ok([q, k, v])
    }
}
