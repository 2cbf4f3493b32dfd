//! Products of matrices.

use super::{Arg, Buffer, Gpu, THREADS};
use crate::Result;

/// Which factor of a product lies transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Turned {
    Neither = 0,
    /// `A` is `[k, m]`.
    First = 1,
    /// `B` is `[n, k]`.
    Second = 2,
}

impl Gpu {
    /// `y = factor · A B + keep · y`, `A [m, k]`, `B [k, n]`, `y [m, n]`, of each of a stack.
    pub(in super::super) fn products(
        &self,
        turned: Turned,
        [a, b]: [&Buffer; 2],
        [factor, keep]: [f32; 2],
        y: &Buffer,
        [stack, m, n, k]: [usize; 4],
    ) -> Result<()> {
        let ins = [Arg::In(a, stack * m * k), Arg::In(b, stack * k * n), Arg::Float(factor), Arg::Float(keep)];
        let args = [&ins[..], &[Arg::Out(y, stack * m * n)], &[m, n, k].map(Arg::Int)].concat();
        let kernel = format!("product<{}, {}, {}>", a.kind(), y.kind(), turned as usize);
        self.start(&kernel, [n.div_ceil(64), m.div_ceil(64), stack], THREADS, &args)
    }

    /// `y = x Wᵀ` for `W [out, in]`.
    pub(in super::super) fn linear(
        &self,
        w: &Buffer,
        x: &Buffer,
        y: &Buffer,
        [rows, inputs, out]: [usize; 3],
    ) -> Result<()> {
        self.products(Turned::Second, [x, w], [1.0, 0.0], y, [1, rows, out, inputs])
    }

    /// `dx = dy W`, added to what is there for a `keep` of 1.
    pub(in super::super) fn linear_backward(
        &self,
        w: &Buffer,
        dy: &Buffer,
        keep: f32,
        dx: &Buffer,
        [rows, inputs, out]: [usize; 3],
    ) -> Result<()> {
        self.products(Turned::Neither, [dy, w], [1.0, keep], dx, [1, rows, inputs, out])
    }

    /// `dW += dyᵀ x`, in f32.
    pub(in super::super) fn linear_backward_weights(
        &self,
        x: &Buffer,
        dy: &Buffer,
        dw: &Buffer,
        [rows, inputs, out]: [usize; 3],
    ) -> Result<()> {
        self.products(Turned::First, [dy, x], [1.0, 1.0], dw, [1, out, inputs, rows])
    }
}
