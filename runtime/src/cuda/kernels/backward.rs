//! Kernels over rows and elements, backward. Gradients of weights are added to what is there.

use super::{Arg, Buffer, Extent, Gpu, Kind, THREADS};
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
        self.by_rows("embed_backward", dy.kind(), vocab * cols.div_ceil(32), &args)
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
        self.by_elements("leaky_relu_squared_backward", x.kind(), n, &args)
    }

    pub(in super::super) fn softcap_backward(&self, x: &Buffer, cap: f32, dy: &Buffer, dx: &Buffer) -> Result<()> {
        let n = dx.len();
        let args = [Arg::In(x, n), Arg::Float(cap), Arg::In(dy, n), Arg::Out(dx, n), Arg::Int(n)];
        self.by_elements("softcap_backward", x.kind(), n, &args)
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
        self.by_rows("tail_backward", dy.kind(), sequences * len, &[io, sizes].concat())
    }

    /// Adds `Σ x ⊙ dy` over rows, and over channels where one weight holds for all.
    pub(in super::super) fn scale_backward_weights(
        &self,
        x: &Buffer,
        dy: &Buffer,
        dw: &Buffer,
        [rows, cols]: Extent,
    ) -> Result<()> {
        let (n, count) = (rows * cols, self.parts(rows));
        let parts = self.empty(Kind::F32, count * cols)?;
        let args = [Arg::In(x, n), Arg::In(dy, n), Arg::Out(&parts, count * cols), Arg::Int(rows), Arg::Int(cols)];
        let kernel = format!("scale_backward_weights<{}>", x.kind());
        self.start(&kernel, [cols.div_ceil(THREADS as usize), count, 1], THREADS, &args)?;
        if dw.len() == 1 { self.add_all(&parts, dw) } else { self.add_parts(&parts, dw, [count, cols]) }
    }

    /// Adds the sum of all of `parts` to a single value.
    fn add_all(&self, parts: &Buffer, y: &Buffer) -> Result<()> {
        self.add_parts(parts, y, [parts.len(), 1])
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
        let (n, count) = (rows * cols, self.parts(rows));
        let parts = self.empty(Kind::F32, 2 * count * cols)?;
        let ins = [
            Arg::In(weights, cols),
            super::maybe(gates.map(|(gates, _)| gates), cols),
            Arg::In(x, n),
            Arg::In(skip, n),
            Arg::In(dy, n),
        ];
        let outs = [Arg::Out(dx, n), Arg::Out(dskip, n), Arg::Out(&parts, 2 * count * cols)];
        let args = [&ins[..], &outs, &[Arg::Int(rows), Arg::Int(cols)]].concat();
        let kernel = format!("gated_skip_backward<{}>", x.kind());
        self.start(&kernel, [cols.div_ceil(THREADS as usize), count, 1], THREADS, &args)?;
        let half = count * cols;
        if let Some(dweights) = dweights {
            self.add_parts(&parts.part(0..half), dweights, [count, cols])?;
        }
        if let Some(dgates) = gates.and_then(|(_, dgates)| dgates) {
            self.add_parts(&parts.part(half..2 * half), dgates, [count, cols])?;
        }
        Ok(())
    }
}
