//! The MLP in one op: `leaky_relu(x upᵀ, 0.5)² downᵀ`; and its activation alone.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{Values, channels, gradient, result, values};
use crate::matrix::{Mat, MatMut, Write, multiply, product};

/// `leaky_relu(u, 0.5)²`.
#[inline(always)]
fn activation(u: f32) -> f32 {
    let y = if u > 0.0 { u } else { 0.5 * u };
    y * y
}

/// Its derivative: `2u` above zero, `u/2` below.
#[inline(always)]
fn slope(u: f32) -> f32 {
    if u > 0.0 { 2.0 * u } else { 0.5 * u }
}

/// The activation alone.
pub(crate) struct LeakyReluSquared;

impl CustomOp1 for LeakyReluSquared {
    fn name(&self) -> &'static str {
        "leaky_relu_squared"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        result(values(x, layout)?.iter().map(|&u| activation(u)).collect(), layout.shape())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (xv, g) = (Values::of(x)?, Values::of(grad)?);
        gradient(xv.iter().zip(g.iter()).map(|(&u, g)| slope(u) * g).collect(), x)
    }
}

/// The whole MLP; arguments are `x [B, T, d]`, `up [m, d]` and `down [d, m]`. It keeps the hidden values `[B·T, m]`
/// before the activation, and computes the activation again in the backward pass: half the memory of keeping both.
#[derive(Default)]
pub(crate) struct Mlp {
    hidden: OnceLock<Vec<f32>>,
}

impl CustomOp3 for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
        down: &CpuStorage,
        down_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, up, down) = (values(x, layout)?, values(up, up_layout)?, values(down, down_layout)?);
        let (d, m) = (channels(up_layout)?, channels(down_layout)?);
        let shapes = (layout.dims().last(), up_layout.dims(), down_layout.dims());
        if shapes != (Some(&d), &[m, d], &[d, m]) {
            bail!("mlp: expected x [.., d], up [m, d] and down [d, m], found {shapes:?}");
        }
        let tokens = x.len() / d;
        let u = product(Mat::new(x, tokens, d), Mat::new(up, m, d).t());
        let a: Vec<f32> = u.iter().map(|&u| activation(u)).collect();
        let out = product(Mat::new(&a, tokens, m), Mat::new(down, d, m).t());
        // Each op value runs forward once.
        let _ = self.hidden.set(u);
        result(out, layout.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        up: &Tensor,
        down: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (xv, upv, downv, g) = (Values::of(x)?, Values::of(up)?, Values::of(down)?, Values::of(grad)?);
        let (d, m) = (channels(up.layout())?, channels(down.layout())?);
        let tokens = xv.len() / d;
        let Some(u) = self.hidden.get() else { bail!("mlp: backward without a forward") };
        let g = Mat::new(&g, tokens, d);
        let mut a: Vec<f32> = u.iter().map(|&u| activation(u)).collect();
        let d_down = product(g.t(), Mat::new(&a, tokens, m));
        // The activation's memory takes the gradient of the hidden values.
        multiply(MatMut::new(&mut a, m), Write::Set, 1.0, g, Mat::new(&downv, d, m));
        for (a, &u) in a.iter_mut().zip(u) {
            *a *= slope(u);
        }
        let du = Mat::new(&a, tokens, m);
        let d_up = product(du.t(), Mat::new(&xv, tokens, d));
        let dx = product(du, Mat::new(&upv, m, d));
        Ok((gradient(dx, x)?, gradient(d_up, up)?, gradient(d_down, down)?))
    }
}
