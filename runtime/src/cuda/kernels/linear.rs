//! Products of matrices.

use super::{Arg, Buffer, Gpu, Product, THREADS};
use crate::Result;
use crate::cuda::blas::Shape;

impl Gpu {
    /// A product of each of a stack.
    pub(in super::super) fn products(&self, product: Product<'_>, y: &Buffer) -> Result<()> {
        let Product { of: [a, b], turned, factor, plus, sizes: [stack, m, n, k] } = product;
        let shape =
            Shape { kinds: [a.kind(), y.kind()], turned, sizes: product.sizes, adds: plus.is_some(), alignment: 0 };
        let factors = [factor, plus.map_or(0.0, |(_, keep)| keep)];
        if self.product(shape, factors, [a, b], plus.map(|(c, _)| c), y)? {
            return Ok(());
        }
        let (c, keep) = plus.map_or((Arg::Null, 0.0), |(c, keep)| (Arg::In(c, stack * m * n), keep));
        let ins = [Arg::In(a, stack * m * k), Arg::In(b, stack * k * n), Arg::Float(factor), c, Arg::Float(keep)];
        let args = [&ins[..], &[Arg::Out(y, stack * m * n)], &[m, n, k].map(Arg::Int)].concat();
        let kernel = format!("product<{}, {}, {}>", a.kind(), y.kind(), turned.map_or(0, |which| 1 + which));
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
        let sizes = [1, rows, out, inputs];
        self.products(Product { of: [x, w], turned: Some(1), factor: 1.0, plus: None, sizes }, y)
    }

    /// `dx = dy W`, or added to what is there.
    pub(in super::super) fn linear_backward(
        &self,
        w: &Buffer,
        dy: &Buffer,
        add: bool,
        dx: &Buffer,
        [rows, inputs, out]: [usize; 3],
    ) -> Result<()> {
        let (plus, sizes) = (add.then_some((dx, 1.0)), [1, rows, inputs, out]);
        self.products(Product { of: [dy, w], turned: None, factor: 1.0, plus, sizes }, dx)
    }

    /// `dW += dyᵀ x`, in f32.
    pub(in super::super) fn linear_backward_weights(
        &self,
        x: &Buffer,
        dy: &Buffer,
        dw: &Buffer,
        [rows, inputs, out]: [usize; 3],
    ) -> Result<()> {
        let sizes = [1, out, inputs, rows];
        self.products(Product { of: [dy, x], turned: Some(0), factor: 1.0, plus: Some((dw, 1.0)), sizes }, dw)
    }
}
