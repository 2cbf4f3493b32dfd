//! Each head normalised, rotated by its position, and multiplied by its gain.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use sixpack_runtime::Rope;

use super::rms_norm::inverse_rms;
use super::{Values, channels, gradient, result, values};
use crate::vector::dot;

/// Cosines and sines of positions `0 .. len`, `[len, dims/2]` each.
#[derive(Debug)]
pub(crate) struct Rotation {
    rope: Rope,
    len: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotation {
    pub(crate) fn new(rope: Rope, len: usize) -> Self {
        let half = rope.dims / 2;
        let mut rotation = Self { rope, len, cos: Vec::new(), sin: Vec::new() };
        for t in 0..len {
            for i in 0..half {
                let angle = t as f64 * rope.base.powf(-2.0 * i as f64 / rope.dims as f64);
                rotation.cos.push(angle.cos() as f32);
                rotation.sin.push(angle.sin() as f32);
            }
        }
        rotation
    }

    /// Whether this is the rotation of `rope` for at least `len` positions.
    pub(crate) fn serves(&self, rope: Rope, len: usize) -> bool {
        self.rope == rope && len <= self.len
    }

    /// Rotates a head at position `t`: `(x1, x2) → (x1 cos + x2 sin, x2 cos − x1 sin)`, or back.
    fn turn(&self, head: &mut [f32], t: usize, back: bool) {
        let half = self.rope.dims / 2;
        let sign = if back { -1.0 } else { 1.0 };
        let (first, rest) = head.split_at_mut(half);
        let at = t * half..(t + 1) * half;
        for (((x1, x2), cos), sin) in first.iter_mut().zip(rest).zip(&self.cos[at.clone()]).zip(&self.sin[at]) {
            let sin = sign * sin;
            (*x1, *x2) = (*x1 * cos + *x2 * sin, *x2 * cos - *x1 * sin);
        }
    }
}

/// The op for keys (one argument, `x [B, T, heads·D]`) and for queries (a second one, the gain `[heads]`).
pub(crate) struct HeadNormRope {
    pub(crate) heads: usize,
    pub(crate) rotation: Arc<Rotation>,
    /// Position of the first row of each sequence.
    pub(crate) start: usize,
}

/// One head in its place.
struct Place {
    position: usize,
    head: usize,
}

impl HeadNormRope {
    /// The head width `D` of activations of this shape.
    fn width(&self, layout: &Layout) -> Result<usize> {
        let (c, dims) = (channels(layout)?, self.rotation.rope.dims);
        if layout.dims().len() != 3 || !c.is_multiple_of(self.heads) || c / self.heads < dims {
            bail!("head_norm_rope: expected [B, T, {}·D] with D ≥ {dims}, found {:?}", self.heads, layout.dims());
        }
        if self.start + layout.dims()[1] > self.rotation.len {
            bail!("head_norm_rope: expected at most {} positions", self.rotation.len);
        }
        Ok(c / self.heads)
    }

    /// Where each head of activations of this shape is, in order.
    fn places(&self, layout: &Layout) -> impl Iterator<Item = Place> {
        let (sequences, len, heads, start) = (layout.dims()[0], layout.dims()[1], self.heads, self.start);
        let rows = (0..sequences).flat_map(move |_| start..start + len);
        rows.flat_map(move |position| (0..heads).map(move |head| Place { position, head }))
    }

    fn forward(&self, x: &[f32], gain: Option<&[f32]>, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = self.width(layout)?;
        let mut out = x.to_vec();
        for (head, place) in out.chunks_exact_mut(width).zip(self.places(layout)) {
            let factor = inverse_rms(head) * gain.map_or(1.0, |g| g[place.head]);
            head.iter_mut().for_each(|x| *x *= factor);
            self.rotation.turn(head, place.position, false);
        }
        result(out, layout.shape())
    }

    /// Gradients of `x` and of the gain (of ones for keys).
    fn backward(&self, x: &Tensor, gain: Option<&[f32]>, grad: &Tensor) -> Result<(Vec<f32>, Vec<f32>)> {
        let (xv, g) = (Values::of(x)?, Values::of(grad)?);
        let width = self.width(x.layout())?;
        let (mut dx, mut d_gain) = (g.to_vec(), vec![0.0; self.heads]);
        let heads = dx.chunks_exact_mut(width).zip(xv.chunks_exact(width));
        for ((d, x), place) in heads.zip(self.places(x.layout())) {
            // Turned back, d is the gradient of gain · x/rms(x), from which both gradients follow.
            self.rotation.turn(d, place.position, true);
            let r = inverse_rms(x);
            let along = r * dot(x, d);
            d_gain[place.head] += along;
            let factor = r * gain.map_or(1.0, |g| g[place.head]);
            let pull = along * r / width as f32;
            for (d, x) in d.iter_mut().zip(x) {
                *d = factor * (*d - pull * x);
            }
        }
        Ok((dx, d_gain))
    }
}

impl CustomOp1 for HeadNormRope {
    fn name(&self) -> &'static str {
        "head_norm_rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(values(x, layout)?, None, layout)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        gradient(self.backward(x, None, grad)?.0, x)
    }
}

impl CustomOp2 for HeadNormRope {
    fn name(&self) -> &'static str {
        "head_norm_rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let gain = values(gain, gain_layout)?;
        if gain.len() != self.heads {
            bail!("head_norm_rope: expected {} gains, found {}", self.heads, gain.len());
        }
        self.forward(values(x, layout)?, Some(gain), layout)
    }

    fn bwd(&self, x: &Tensor, gain: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, d_gain) = self.backward(x, Some(&Values::of(gain)?), grad)?;
        Ok((gradient(dx, x)?, gradient(d_gain, gain)?))
    }
}
