//! Queries, keys and values from their one product.

use super::{Arg, Buffer, Gpu, Kind, THREADS, Turn, maybe};
use crate::{Heads, Result};

/// What a product becomes heads by.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Projected<'a> {
    /// The product `[rows, (H + 2K)·D]`.
    pub(in super::super) product: &'a Buffer,
    pub(in super::super) heads: Heads,
    pub(in super::super) turn: Turn<'a>,
    /// Of queries.
    pub(in super::super) gain: &'a Buffer,
    /// A factor, and what is added to values times it.
    pub(in super::super) value_embedding: Option<(&'a Buffer, &'a Buffer)>,
    pub(in super::super) rows: usize,
}

/// What the gradients of a product are made from, and where those of the value embedding and of parameters go.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Projections<'a> {
    /// Gradients of queries, keys and values.
    pub(in super::super) of: [&'a Buffer; 3],
    /// Another one of values, to be added.
    pub(in super::super) second: Option<&'a Buffer>,
    /// Gets that of the value embedding.
    pub(in super::super) value_embedding: Option<&'a Buffer>,
    /// Those of the gain and of the factor are added.
    pub(in super::super) gain: Option<&'a Buffer>,
    pub(in super::super) factor: Option<&'a Buffer>,
}

impl Projected<'_> {
    /// Heads of a row.
    fn all(&self) -> usize {
        self.heads.query + 2 * self.heads.kv
    }

    /// Channels that a lane has side by side, where all memory begins where so many can be read at once; or 0.
    fn lanes(&self, others: &[&Buffer]) -> usize {
        let Self { heads: Heads { dim, .. }, turn, product, value_embedding, .. } = self;
        let all = others.iter().copied().chain([*product]).chain(value_embedding.map(|(_, ve)| ve));
        let aligned = all.fold(0, |bits, buffer| bits | buffer.address()).is_multiple_of(16);
        let fits = |&lanes: &usize| aligned && *dim == 32 * lanes && turn.half.is_multiple_of(lanes);
        [2, 4].into_iter().find(fits).unwrap_or(0)
    }

    fn ins(&self) -> [Arg<'_>; 8] {
        let Self { heads: Heads { query, kv, dim }, turn, .. } = *self;
        let ve = self.value_embedding;
        [
            Arg::In(self.product, self.rows * self.all() * dim),
            Arg::Int(query),
            Arg::Int(kv),
            Arg::In(turn.angles, turn.angles()),
            Arg::Int(turn.half),
            Arg::In(self.gain, query),
            maybe(ve.map(|(factor, _)| factor), 1),
            maybe(ve.map(|(_, ve)| ve), self.rows * kv * dim),
        ]
    }

    fn sizes(&self) -> [Arg<'static>; 4] {
        [self.rows, self.heads.dim, self.turn.len, self.turn.start].map(Arg::Int)
    }

    /// Elements of queries, keys and values.
    fn extents(&self) -> [usize; 3] {
        let Heads { query, kv, dim } = self.heads;
        [query, kv, kv].map(|heads| self.rows * heads * dim)
    }
}

/// Memory that is written, or none.
fn written(buffer: Option<&Buffer>, len: usize) -> Arg<'_> {
    buffer.map_or(Arg::Null, |buffer| Arg::Out(buffer, len))
}

impl Gpu {
    /// Blocks, and the groups of heads that warps have, of which there are as many of each.
    fn projecting(&self, of: &Projected<'_>, lanes: usize) -> [usize; 2] {
        let groups = of.all().div_ceil(8_usize.checked_div(lanes).unwrap_or(1));
        [self.blocks(of.rows * groups, 8)[0].next_multiple_of(groups), groups]
    }

    pub(in super::super) fn project_heads(&self, of: Projected<'_>, qkv: [&Buffer; 3]) -> Result<()> {
        let lanes = of.lanes(&qkv);
        let outs: Vec<Arg<'_>> = qkv.into_iter().zip(of.extents()).map(|(to, n)| Arg::Out(to, n)).collect();
        let [blocks, _] = self.projecting(&of, lanes);
        let kernel = format!("project_heads<{}, {lanes}>", of.product.kind());
        self.start(&kernel, [blocks, 1, 1], THREADS, &[&of.ins()[..], &outs, &of.sizes()].concat())
    }

    pub(in super::super) fn project_heads_backward(
        &self,
        of: Projected<'_>,
        from: Projections<'_>,
        dproduct: &Buffer,
    ) -> Result<()> {
        let gradients = from.of.into_iter().chain(from.second).chain(from.value_embedding).chain([dproduct]);
        let lanes = of.lanes(&gradients.collect::<Vec<_>>());
        let [blocks, groups] = self.projecting(&of, lanes);
        let (warps, query, extents) = (8 * blocks, of.heads.query, of.extents());
        let room = |wanted: Option<&Buffer>, len: usize| wanted.map(|_| self.empty(Kind::F32, len)).transpose();
        let gains = room(from.gain, warps / groups * query)?;
        let factors = room(from.factor, warps)?;
        let ins: Vec<Arg<'_>> = from.of.into_iter().zip(extents).map(|(g, n)| Arg::In(g, n)).collect();
        let outs = [
            maybe(from.second, extents[2]),
            Arg::Out(dproduct, of.rows * of.all() * of.heads.dim),
            written(from.value_embedding, extents[2]),
            written(gains.as_ref(), warps / groups * query),
            written(factors.as_ref(), warps),
        ];
        let kernel = format!("project_heads_backward<{}, {lanes}>", of.product.kind());
        self.start(&kernel, [blocks, 1, 1], THREADS, &[&of.ins()[..], &ins, &outs, &of.sizes()].concat())?;
        if let (Some(parts), Some(gain)) = (&gains, from.gain) {
            self.add_parts(parts, gain, [warps / groups, query])?;
        }
        if let (Some(parts), Some(factor)) = (&factors, from.factor) {
            self.add_parts(parts, factor, [warps, 1])?;
        }
        Ok(())
    }
}
