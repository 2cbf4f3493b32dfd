//! Kernels over rows and elements, backward. Gradients of weights are added to what is there.

use super::rows::{count, step};
use super::{ADDING, Arg, Buffer, Extent, Gpu, Kind, THREADS};
use crate::Result;

impl Gpu {
    /// Adds the gradient of a table: `order` lists the rows of `dy` by token, those of token `t` from `starts[t]` to
    /// `starts[t + 1]`.
    pub(in super::super) fn embed_backward(
        &self,
        dy: &Buffer,
        [starts, order]: [&Buffer; 2],
        dtable: &Buffer,
        [rows, vocab, cols]: [usize; 3],
    ) -> Result<()> {
        let ins = [Arg::In(dy, rows * cols), Arg::In(starts, vocab + 1), Arg::In(order, rows)];
        let args = [&ins[..], &[Arg::Out(dtable, vocab * cols), Arg::Int(vocab), Arg::Int(cols)]].concat();
        let n = super::pack(dy.kind(), cols, &args);
        let blocks = self.blocks(vocab * cols.div_ceil(32 * n), 1);
        self.start(&format!("embed_backward<{}, {n}>", dy.kind()), blocks, THREADS, &args)
    }

    /// With `keep` added to what is in `dx`.
    pub(in super::super) fn rms_norm_backward(
        &self,
        x: &Buffer,
        scale: f32,
        dy: &Buffer,
        (dx, keep): (&Buffer, bool),
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let ins = [Arg::In(x, n), Arg::Float(scale), Arg::In(dy, n), Arg::Int(keep.into())];
        let args = [&ins[..], &[Arg::Out(dx, n), Arg::Int(rows), Arg::Int(cols)]].concat();
        self.packed_rows("rms_norm_backward", x.kind(), [rows, cols], &args)
    }

    pub(in super::super) fn leaky_relu_squared_backward(&self, x: &Buffer, dy: &Buffer, dx: &Buffer) -> Result<()> {
        let n = dx.len();
        let args = [Arg::In(x, n), Arg::In(dy, n), Arg::Out(dx, n), Arg::Int(n)];
        self.packed_elements("leaky_relu_squared_backward", x.kind(), [n, 0], &args)
    }

    pub(in super::super) fn softcap_backward(&self, x: &Buffer, cap: f32, dy: &Buffer, dx: &Buffer) -> Result<()> {
        let n = dx.len();
        let args = [Arg::In(x, n), Arg::Float(cap), Arg::In(dy, n), Arg::Out(dx, n), Arg::Int(n)];
        self.packed_elements("softcap_backward", x.kind(), [n, 0], &args)
    }

    pub(in super::super) fn tail_backward(
        &self,
        dy: &Buffer,
        n: usize,
        dx: &Buffer,
        [sequences, len, cols]: [usize; 3],
    ) -> Result<()> {
        let io = [Arg::In(dy, sequences * n * cols), Arg::Int(n), Arg::Out(dx, sequences * len * cols)];
        let sizes = [sequences, len, cols].map(Arg::Int);
        self.packed_rows("tail_backward", dy.kind(), [sequences * len, cols], &[io, sizes].concat())
    }

    /// Gradients of `weights ⊙ x`: that of `x`, with `keep` added to what is in `dx`; that of weights is added, if it is
    /// wanted.
    pub(in super::super) fn scale_backward(
        &self,
        (weights, dweights): (&Buffer, Option<&Buffer>),
        x: &Buffer,
        dy: &Buffer,
        (dx, keep): (&Buffer, bool),
        [rows, cols]: Extent,
    ) -> Result<()> {
        let (n, step) = (rows * cols, step(weights));
        let args = [
            Arg::In(weights, count(weights, cols)),
            Arg::Int(step),
            Arg::In(x, n),
            Arg::In(dy, n),
            Arg::Int(keep.into()),
            Arg::Out(dx, n),
        ];
        let (blocks, kernel) = self.adding("scale_backward", x.kind(), [rows, cols], &args);
        let width = if step == 1 { cols } else { 8 * blocks[0] };
        let parts = dweights.map(|_| self.empty(Kind::F32, blocks[1] * width)).transpose()?;
        let rest = [wanted(parts.as_ref()), Arg::Int(rows), Arg::Int(cols)];
        self.start(&kernel, blocks, THREADS, &[&args[..], &rest].concat())?;
        match (&parts, dweights) {
            (Some(parts), Some(dweights)) if step == 1 => self.add_parts(parts, dweights, [blocks[1], cols]),
            (Some(parts), Some(dweights)) => self.add_parts(parts, dweights, [parts.len(), 1]),
            _ => Ok(()),
        }
    }

    /// Gradients of both inputs, with `keep` added to what is in `dx` and `dx0`; those of weights are added, if they are
    /// wanted.
    pub(in super::super) fn mix_backward(
        &self,
        (weights, dweights): (&Buffer, Option<&Buffer>),
        [x, x0, dy]: [&Buffer; 3],
        (dx, keep): (&Buffer, bool),
        (dx0, keep0): (&Buffer, bool),
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let args = [
            Arg::In(weights, 2 * cols),
            Arg::In(x, n),
            Arg::In(x0, n),
            Arg::In(dy, n),
            Arg::Int(keep.into()),
            Arg::Int(keep0.into()),
            Arg::Out(dx, n),
            Arg::Out(dx0, n),
        ];
        let (blocks, kernel) = self.adding("mix_backward", x.kind(), [rows, cols], &args);
        let parts = dweights.map(|_| self.empty(Kind::F32, blocks[1] * 2 * cols)).transpose()?;
        let rest = [wanted(parts.as_ref()), Arg::Int(rows), Arg::Int(cols)];
        self.start(&kernel, blocks, THREADS, &[&args[..], &rest].concat())?;
        match (&parts, dweights) {
            (Some(parts), Some(dweights)) => self.add_parts(parts, dweights, [blocks[1], 2 * cols]),
            _ => Ok(()),
        }
    }

    /// Gradients of the inputs; those of weights and gates are added. Weights and gates are those of one row.
    pub(in super::super) fn gated_skip_backward(
        &self,
        (weights, dweights): (&Buffer, Option<&Buffer>),
        gates: Option<(&Buffer, Option<&Buffer>)>,
        [x, skip, dy]: [&Buffer; 3],
        [dx, dskip]: [&Buffer; 2],
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let args = [
            Arg::In(weights, cols),
            super::maybe(gates.map(|(gates, _)| gates), cols),
            Arg::In(x, n),
            Arg::In(skip, n),
            Arg::In(dy, n),
            Arg::Out(dx, n),
            Arg::Out(dskip, n),
        ];
        let (blocks, kernel) = self.adding("gated_skip_backward", x.kind(), [rows, cols], &args);
        let half = blocks[1] * cols;
        let parts = self.empty(Kind::F32, 2 * half)?;
        let rest = [Arg::Out(&parts, 2 * half), Arg::Int(rows), Arg::Int(cols)];
        self.start(&kernel, blocks, THREADS, &[&args[..], &rest].concat())?;
        if let Some(dweights) = dweights {
            self.add_parts(&parts.part(0..half), dweights, [blocks[1], cols])?;
        }
        if let Some(dgates) = gates.and_then(|(_, dgates)| dgates) {
            self.add_parts(&parts.part(half..2 * half), dgates, [blocks[1], cols])?;
        }
        Ok(())
    }

    /// The grid and the name of a kernel over channels with sums over rows.
    fn adding(&self, name: &str, kind: Kind, extent: Extent, args: &[Arg<'_>]) -> ([usize; 3], String) {
        let n = super::pack(kind, extent[1], args);
        (self.by_channels(extent, n, ADDING), format!("{name}<{kind}, {n}>"))
    }
}

/// Memory for parts of sums, or none.
fn wanted(parts: Option<&Buffer>) -> Arg<'_> {
    parts.map_or(Arg::Null, |parts| Arg::Out(parts, parts.len()))
}
