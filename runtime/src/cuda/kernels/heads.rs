//! Kernels over heads: queries and keys before attention, and what comes after it.

use super::{Arg, Buffer, Gpu, Kind, THREADS, maybe};
use crate::{Heads, Result};

/// The rotation of rows by their positions.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Turn<'a> {
    /// Cosines and sines, `[positions, half, 2]`.
    pub(in super::super) angles: &'a Buffer,
    /// Pairs that turn.
    pub(in super::super) half: usize,
    /// Positions of a sequence.
    pub(in super::super) len: usize,
    /// The position of the first.
    pub(in super::super) start: usize,
}

/// Lanes that have a head of `dim` channels, 16 bytes each, where memory begins at multiples of 16 bytes; otherwise 0.
pub(super) fn lanes(kind: Kind, dim: usize, args: &[Arg<'_>]) -> usize {
    let lanes = dim / super::pack(kind, dim, args);
    if [8, 16].contains(&lanes) && dim != lanes { lanes } else { 0 }
}

impl Turn<'_> {
    /// Elements of the table that are read.
    pub(super) fn angles(&self) -> usize {
        (self.start + self.len) * 2 * self.half
    }
}

impl Gpu {
    pub(in super::super) fn head_norm_rope(
        &self,
        x: &Buffer,
        heads: usize,
        turn: Turn<'_>,
        gain: Option<&Buffer>,
        y: &Buffer,
        [rows, dim]: [usize; 2],
    ) -> Result<()> {
        let n = rows * heads * dim;
        let args = [
            Arg::In(x, n),
            Arg::Int(heads),
            Arg::In(turn.angles, turn.angles()),
            Arg::Int(turn.half),
            maybe(gain, heads),
            Arg::Out(y, n),
            Arg::Int(rows),
            Arg::Int(dim),
            Arg::Int(turn.len),
            Arg::Int(turn.start),
        ];
        self.by_rows("head_norm_rope", x.kind(), rows * heads, &args)
    }

    /// Blocks for `warps` heads of rows, a multiple of the number of heads.
    fn gain_blocks(&self, warps: usize, heads: usize) -> usize {
        self.blocks(warps, 8)[0].next_multiple_of(heads)
    }

    /// Memory for the parts of gains' gradients, `[parts, heads]`.
    pub(in super::super) fn gain_parts(&self, warps: usize, heads: usize) -> Result<Buffer> {
        self.empty(Kind::F32, 8 * self.gain_blocks(warps, heads))
    }

    /// `dgain` gets [parts](Gpu::gain_parts).
    pub(in super::super) fn head_norm_rope_backward(
        &self,
        (x, dy): (&Buffer, &Buffer),
        heads: usize,
        turn: Turn<'_>,
        gain: Option<&Buffer>,
        (dx, dgain): (&Buffer, Option<&Buffer>),
        [rows, dim]: [usize; 2],
    ) -> Result<()> {
        let (n, blocks) = (rows * heads * dim, self.gain_blocks(rows * heads, heads));
        let args = [
            Arg::In(x, n),
            Arg::Int(heads),
            Arg::In(turn.angles, turn.angles()),
            Arg::Int(turn.half),
            maybe(gain, heads),
            Arg::In(dy, n),
            Arg::Out(dx, n),
            dgain.map_or(Arg::Null, |dgain| Arg::Out(dgain, 8 * blocks)),
            Arg::Int(rows),
            Arg::Int(dim),
            Arg::Int(turn.len),
            Arg::Int(turn.start),
        ];
        self.start(&format!("head_norm_rope_backward<{}>", x.kind()), [blocks, 1, 1], THREADS, &args)
    }

    pub(in super::super) fn exclude_self(
        &self,
        heads: Heads,
        y: &Buffer,
        (v, apart): (&Buffer, usize),
        out: &Buffer,
        rows: usize,
    ) -> Result<()> {
        let (q, kv) = (rows * heads.query * heads.dim, super::spread(rows, heads.kv * heads.dim, apart));
        let sizes = [heads.query, heads.kv, heads.dim].map(Arg::Int);
        let rest = [Arg::In(y, q), Arg::In(v, kv), Arg::Int(apart), Arg::Out(out, q), Arg::Int(rows)];
        self.by_heads("exclude_self", y.kind(), heads, rows * heads.query, &[&sizes[..], &rest].concat())
    }

    pub(in super::super) fn exclude_self_backward(
        &self,
        heads: Heads,
        [y, v, dout]: [&Buffer; 3],
        apart: usize,
        [dy, dv]: [&Buffer; 2],
        rows: usize,
    ) -> Result<()> {
        assert!(heads.dim <= 256, "heads of at most 256, found {}", heads.dim);
        let (q, kv) = (rows * heads.query * heads.dim, rows * heads.kv * heads.dim);
        let sizes = [heads.query, heads.kv, heads.dim].map(Arg::Int);
        let values = super::spread(rows, heads.kv * heads.dim, apart);
        let ins = [Arg::In(y, q), Arg::In(v, values), Arg::Int(apart), Arg::In(dout, q)];
        let outs = [Arg::Out(dy, q), Arg::Out(dv, kv), Arg::Int(rows)];
        self.by_heads("exclude_self_backward", y.kind(), heads, rows * heads.kv, &[&sizes[..], &ins, &outs].concat())
    }

    /// A kernel with some lanes for each head, or a warp.
    fn by_heads(&self, name: &str, kind: Kind, heads: Heads, count: usize, args: &[Arg<'_>]) -> Result<()> {
        let lanes = lanes(kind, heads.dim, args);
        let blocks = self.blocks(count, 256 / if lanes > 0 { lanes } else { 32 });
        self.start(&format!("{name}<{kind}, {lanes}>"), blocks, THREADS, args)
    }
}
