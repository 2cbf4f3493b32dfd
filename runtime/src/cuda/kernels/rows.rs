//! Kernels over rows and elements, forward.

use super::{Arg, Buffer, Extent, Gpu};
use crate::Result;

/// 0 where one weight holds for all channels.
pub(super) fn step(weights: &Buffer) -> usize {
    usize::from(weights.len() != 1)
}

/// Elements of weights that a kernel over so many channels reads.
pub(super) fn count(weights: &Buffer, cols: usize) -> usize {
    if step(weights) == 0 { 1 } else { cols }
}

impl Gpu {
    pub(in super::super) fn embed(&self, table: &Buffer, ids: &Buffer, y: &Buffer, [rows, cols]: Extent) -> Result<()> {
        let args = [Arg::In(table, cols), Arg::In(ids, rows), Arg::Out(y, rows * cols), Arg::Int(rows), Arg::Int(cols)];
        self.packed_rows("embed", y.kind(), [rows, cols], &args)
    }

    pub(in super::super) fn rms_norm(&self, x: &Buffer, scale: f32, y: &Buffer, [rows, cols]: Extent) -> Result<()> {
        let n = rows * cols;
        let args = [Arg::In(x, n), Arg::Float(scale), Arg::Out(y, n), Arg::Int(rows), Arg::Int(cols)];
        self.packed_rows("rms_norm", x.kind(), [rows, cols], &args)
    }

    pub(in super::super) fn mix(
        &self,
        weights: &Buffer,
        x: &Buffer,
        x0: &Buffer,
        y: &Buffer,
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let ins = [Arg::In(weights, 2 * cols), Arg::In(x, n), Arg::In(x0, n)];
        let args = [&ins[..], &[Arg::Out(y, n), Arg::Int(rows), Arg::Int(cols)]].concat();
        self.packed_channels("mix", x.kind(), [rows, cols], &args)
    }

    /// As [`Gpu::mix`]; results are the sum and its norm.
    pub(in super::super) fn mix_norm(
        &self,
        weights: &Buffer,
        x: &Buffer,
        x0: &Buffer,
        scale: f32,
        [mixed, normed]: [&Buffer; 2],
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let ins = [Arg::In(weights, 2 * cols), Arg::In(x, n), Arg::In(x0, n), Arg::Float(scale)];
        let outs = [Arg::Out(mixed, n), Arg::Out(normed, n), Arg::Int(rows), Arg::Int(cols)];
        self.packed_rows("mix_norm", x.kind(), [rows, cols], &[ins, outs].concat())
    }

    pub(in super::super) fn add_scaled(
        &self,
        x: &Buffer,
        weights: &Buffer,
        y: &Buffer,
        sum: &Buffer,
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let w = [Arg::In(weights, count(weights, cols)), Arg::Int(step(weights))];
        let rest = [Arg::In(y, n), Arg::Out(sum, n), Arg::Int(rows), Arg::Int(cols)];
        self.packed_channels("add_scaled", x.kind(), [rows, cols], &[&[Arg::In(x, n)][..], &w, &rest].concat())
    }

    /// As [`Gpu::add_scaled`]; results are the sum and its norm.
    pub(in super::super) fn add_scaled_norm(
        &self,
        x: &Buffer,
        weights: &Buffer,
        y: &Buffer,
        scale: f32,
        [sum, normed]: [&Buffer; 2],
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let ins = [
            Arg::In(x, n),
            Arg::In(weights, count(weights, cols)),
            Arg::Int(step(weights)),
            Arg::In(y, n),
            Arg::Float(scale),
        ];
        let outs = [Arg::Out(sum, n), Arg::Out(normed, n), Arg::Int(rows), Arg::Int(cols)];
        self.packed_rows("add_scaled_norm", x.kind(), [rows, cols], &[&ins[..], &outs].concat())
    }

    pub(in super::super) fn scale(&self, weights: &Buffer, x: &Buffer, y: &Buffer, [rows, cols]: Extent) -> Result<()> {
        let n = rows * cols;
        let w = [Arg::In(weights, count(weights, cols)), Arg::Int(step(weights))];
        let rest = [Arg::In(x, n), Arg::Out(y, n), Arg::Int(rows), Arg::Int(cols)];
        self.packed_channels("scale", x.kind(), [rows, cols], &[&w[..], &rest].concat())
    }

    /// Weights and gates are those of one row.
    pub(in super::super) fn gated_skip(
        &self,
        weights: &Buffer,
        gates: Option<&Buffer>,
        x: &Buffer,
        skip: &Buffer,
        y: &Buffer,
        [rows, cols]: Extent,
    ) -> Result<()> {
        let n = rows * cols;
        let ins = [Arg::In(weights, cols), super::maybe(gates, cols), Arg::In(x, n), Arg::In(skip, n)];
        let args = [&ins[..], &[Arg::Out(y, n), Arg::Int(rows), Arg::Int(cols)]].concat();
        self.packed_channels("gated_skip", x.kind(), [rows, cols], &args)
    }

    /// `keep` and `post` are single values.
    pub(in super::super) fn update_lane(
        &self,
        keep: &Buffer,
        post: &Buffer,
        lane: &Buffer,
        y: &Buffer,
        out: &Buffer,
    ) -> Result<()> {
        let n = out.len();
        let ins = [Arg::In(keep, 1), Arg::In(post, 1), Arg::In(lane, n), Arg::In(y, n)];
        self.packed_elements("update_lane", y.kind(), [n, 0], &[&ins[..], &[Arg::Out(out, n), Arg::Int(n)]].concat())
    }

    pub(in super::super) fn average(&self, a: &Buffer, b: &Buffer, y: &Buffer) -> Result<()> {
        let n = y.len();
        self.packed_elements("average", y.kind(), [n, 0], &[Arg::In(a, n), Arg::In(b, n), Arg::Out(y, n), Arg::Int(n)])
    }

    pub(in super::super) fn leaky_relu_squared(&self, x: &Buffer, y: &Buffer) -> Result<()> {
        let n = y.len();
        self.packed_elements("leaky_relu_squared", y.kind(), [n, 0], &[Arg::In(x, n), Arg::Out(y, n), Arg::Int(n)])
    }

    pub(in super::super) fn softcap(&self, x: &Buffer, cap: f32, y: &Buffer) -> Result<()> {
        let n = y.len();
        self.packed_elements(
            "softcap",
            y.kind(),
            [n, 0],
            &[Arg::In(x, n), Arg::Float(cap), Arg::Out(y, n), Arg::Int(n)],
        )
    }

    /// The last `n` of `len` positions of each sequence.
    pub(in super::super) fn tail(
        &self,
        x: &Buffer,
        n: usize,
        y: &Buffer,
        [sequences, len, cols]: [usize; 3],
    ) -> Result<()> {
        assert!(n <= len, "the last {n} of {len} positions");
        let io = [Arg::In(x, sequences * len * cols), Arg::Int(n), Arg::Out(y, sequences * n * cols)];
        let sizes = [sequences, len, cols].map(Arg::Int);
        self.packed_rows("tail", x.kind(), [sequences * n, cols], &[io, sizes].concat())
    }
}
