//! Queries, keys and values from their one product.

use super::heads::lanes;
use super::{Arg, Buffer, Gpu, Kind, THREADS, Turn, maybe, spread};
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

/// Where queries, keys and values go.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Projection<'a> {
    pub(in super::super) queries: &'a Buffer,
    pub(in super::super) keys: &'a Buffer,
    /// With the elements from one row to the next; none where values stay as they are in the product.
    pub(in super::super) values: Option<(&'a Buffer, usize)>,
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
    /// Lanes of a head, blocks, and the groups of so many heads that warps have, of which there are as many of each.
    fn projecting(&self, of: &Projected<'_>, used: usize, args: &[Arg<'_>]) -> [usize; 3] {
        let kind = of.product.kind();
        // What turns is whole packs.
        let whole = of.turn.half.is_multiple_of(16 / kind.bytes());
        let lanes = if whole { lanes(kind, of.heads.dim, args) } else { 0 };
        let groups = used.div_ceil(32_usize.checked_div(lanes).unwrap_or(1));
        [lanes, self.blocks(of.rows * groups, 8)[0].next_multiple_of(groups), groups]
    }

    pub(in super::super) fn project_heads(&self, of: Projected<'_>, into: Projection<'_>) -> Result<()> {
        let Projection { queries, keys, values } = into;
        let (Heads { query, kv, dim }, [q, k, _]) = (of.heads, of.extents());
        let (values, apart, used) = match values {
            Some((values, apart)) => (Arg::Out(values, spread(of.rows, kv * dim, apart)), apart, of.all()),
            None => (Arg::Null, 0, query + kv),
        };
        let outs = [Arg::Out(queries, q), Arg::Out(keys, k), values, Arg::Int(apart), Arg::Int(used)];
        let args = [&of.ins()[..], &outs, &of.sizes()].concat();
        let [lanes, blocks, _] = self.projecting(&of, used, &args);
        self.start(&format!("project_heads<{}, {lanes}>", of.product.kind()), [blocks, 1, 1], THREADS, &args)
    }

    pub(in super::super) fn project_heads_backward(
        &self,
        of: Projected<'_>,
        from: Projections<'_>,
        dproduct: &Buffer,
    ) -> Result<()> {
        let (query, extents) = (of.heads.query, of.extents());
        let own = of.ins();
        let ins: Vec<Arg<'_>> = from.of.into_iter().zip(extents).map(|(g, n)| Arg::In(g, n)).collect();
        let outs = [
            maybe(from.second, extents[2]),
            Arg::Out(dproduct, of.rows * of.all() * of.heads.dim),
            written(from.value_embedding, extents[2]),
        ];
        let [lanes, blocks, groups] = self.projecting(&of, of.all(), &[&own[..], &ins, &outs].concat());
        let warps = 8 * blocks;
        let room = |wanted: Option<&Buffer>, len: usize| wanted.map(|_| self.empty(Kind::F32, len)).transpose();
        let gains = room(from.gain, warps / groups * query)?;
        let factors = room(from.factor, warps)?;
        let parts = [written(gains.as_ref(), warps / groups * query), written(factors.as_ref(), warps)];
        let args = [&own[..], &ins, &outs, &parts, &of.sizes()].concat();
        self.start(&format!("project_heads_backward<{}, {lanes}>", of.product.kind()), [blocks, 1, 1], THREADS, &args)?;
        if let (Some(parts), Some(gain)) = (&gains, from.gain) {
            self.add_parts(parts, gain, [warps / groups, query])?;
        }
        if let (Some(parts), Some(factor)) = (&factors, from.factor) {
            self.add_parts(parts, factor, [warps, 1])?;
        }
        Ok(())
    }
}
