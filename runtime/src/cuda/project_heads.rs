//! Queries, keys and values by one product, and its way back.

use std::sync::Arc;

use super::act::{Act, Weight};
use super::interpreter::Cuda;
use super::kernels::{Projected, Projection, Projections, Turn};
use super::memory::Buffer;
use super::tape::{Gradients, linear};
use crate::{Heads, Result, Rope};

/// What was done, with what its gradient needs.
#[derive(Clone, Debug)]
pub(super) struct ProjectHeads {
    /// The three matrices as one.
    pub(super) w: Weight,
    pub(super) x: Act,
    pub(super) product: Act,
    pub(super) heads: Heads,
    pub(super) rope: Rope,
    pub(super) gain: Weight,
    /// A factor, and what was added to values times it.
    pub(super) value_embedding: Option<(Weight, Act)>,
    /// Queries, keys and values.
    pub(super) results: [u64; 3],
}

impl ProjectHeads {
    /// What the product becomes heads by.
    pub(super) fn projected<'a>(&'a self, angles: &'a Buffer) -> Projected<'a> {
        let turn = Turn { angles, half: self.rope.dims / 2, len: self.x.len, start: self.x.start };
        let value_embedding = self.value_embedding.as_ref().map(|(factor, ve)| (&factor.value, &ve.data));
        let (product, gain, rows) = (&self.product.data, &self.gain.value, self.x.rows());
        Projected { product, heads: self.heads, turn, gain, value_embedding, rows }
    }

    /// The gradients that backward adds to: of the matrices, of the gain and of the factor.
    pub(super) fn gradients(&self) -> [Option<&Buffer>; 3] {
        let factor = self.value_embedding.as_ref().map(|(factor, _)| factor);
        [Some(&self.w), Some(&self.gain), factor].map(|w| w?.gradient.as_ref())
    }

    /// Elements of its results.
    fn extents(&self) -> [usize; 3] {
        let Heads { query, kv, dim } = self.heads;
        [query, kv, kv].map(|heads| self.x.rows() * heads * dim)
    }

    /// Queries and keys once more, by their ids; values are in the product.
    pub(super) fn again(&self, ops: &mut Cuda) -> Result<[(u64, Buffer); 2]> {
        let angles = ops.angles(self.rope, self.x.start + self.x.len)?;
        let [q, k, _] = self.extents().map(|len| ops.gpu.empty(ops.storage, len));
        let (q, k) = (q?, k?);
        ops.gpu.project_heads(self.projected(&angles), Projection { queries: &q, keys: &k, values: None })?;
        Ok([(self.results[0], q), (self.results[1], k)])
    }

    /// The gradients of what it read, from those of its results, of which values may have two.
    pub(super) fn back(
        self,
        ops: &mut Cuda,
        to: &mut Gradients,
        of: [Option<Buffer>; 3],
        second: Option<Buffer>,
    ) -> Result<()> {
        let gpu = Arc::clone(&ops.gpu);
        let angles = ops.angles(self.rope, self.x.start + self.x.len)?;
        // What nothing went on from has a gradient of zeros.
        let mut of =
            of.into_iter().zip(self.extents()).map(|(g, len)| g.map_or_else(|| gpu.zeros(ops.storage, len), Ok));
        let of = [(); 3].map(|()| of.next().expect("three results"));
        let [dq, dk, dv] = of;
        let (dq, dk, dv) = (dq?, dk?, dv?);
        let dproduct = to.room(self.product.data.len())?;
        let dve = self.value_embedding.as_ref().map(|(_, ve)| to.room(ve.data.len())).transpose()?;
        let [_, gain, factor] = self.gradients();
        let from =
            Projections { of: [&dq, &dk, &dv], second: second.as_ref(), value_embedding: dve.as_ref(), gain, factor };
        gpu.project_heads_backward(self.projected(&angles), from, &dproduct)?;
        drop((dq, dk, dv, second));
        if let (Some((_, ve)), Some(dve)) = (&self.value_embedding, dve) {
            to.add(ve.id, dve)?;
        }
        linear(&gpu, to, &self.w, &self.x, &dproduct)
    }
}
