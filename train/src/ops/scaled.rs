//! `scale ⊙ y` and `x + scale ⊙ y`, where the scale is a slice of a weight: one value per channel, or a single one.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{Values, channels, gradient, result, values};
use crate::vector::dot;

/// Which elements of a weight are the scale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    start: usize,
    len: usize,
}

impl Slice {
    /// The whole weight.
    pub(crate) fn all(weight: &Tensor) -> Self {
        Self { start: 0, len: weight.elem_count() }
    }

    /// One row of a weight `[S, C]`.
    pub(crate) fn row(weight: &Tensor, row: usize) -> Self {
        let len = weight.dims().last().copied().unwrap_or(1);
        Self { start: row * len, len }
    }

    /// A single element, by its flat index.
    pub(crate) fn element(start: usize) -> Self {
        Self { start, len: 1 }
    }

    /// The slice of the weight's values; an error unless it is one value or one per channel.
    pub(super) fn of<'a>(&self, weight: &'a [f32], channels: usize) -> Result<&'a [f32]> {
        if self.len != 1 && self.len != channels {
            bail!("expected a scale of 1 or {channels} values, found {}", self.len);
        }
        match weight.get(self.start..self.start + self.len) {
            Some(slice) => Ok(slice),
            None => bail!("expected a weight of at least {} values, found {}", self.start + self.len, weight.len()),
        }
    }

    /// The slice of the weight's gradient.
    pub(super) fn of_mut<'a>(&self, gradient: &'a mut [f32]) -> &'a mut [f32] {
        &mut gradient[self.start..self.start + self.len]
    }

    /// `dw[slice] += Σ_rows g ⊙ y`, or the sum over channels too for a single value.
    fn accumulate(&self, dw: &mut [f32], g: &[f32], y: &[f32]) {
        let dw = self.of_mut(dw);
        if let [d] = dw {
            *d += dot(g, y);
        } else {
            for ((d, g), y) in dw.iter_mut().zip(g).zip(y) {
                *d += g * y;
            }
        }
    }
}

/// `g ⊙ scale`, appended.
fn extend_scaled(out: &mut Vec<f32>, g: &[f32], scale: &[f32]) {
    match scale {
        [s] => out.extend(g.iter().map(|g| g * s)),
        _ => out.extend(g.iter().zip(scale).map(|(g, s)| g * s)),
    }
}

/// `scale ⊙ y`; arguments are the weight and `y`.
pub(crate) struct Scale(pub(crate) Slice);

impl CustomOp2 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        w_layout: &Layout,
        y: &CpuStorage,
        layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (w, y, c) = (values(w, w_layout)?, values(y, layout)?, channels(layout)?);
        let scale = self.0.of(w, c)?;
        let mut out = Vec::with_capacity(y.len());
        for y in y.chunks_exact(c) {
            extend_scaled(&mut out, y, scale);
        }
        result(out, layout.shape())
    }

    fn bwd(&self, w: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        scale_gradients(self.0, w, y, grad)
    }
}

/// `x + scale ⊙ y`; arguments are `x`, the weight and `y`.
pub(crate) struct AddScaled(pub(crate) Slice);

impl CustomOp3 for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, y) = (values(x, layout)?, values(w, w_layout)?, values(y, y_layout)?);
        let c = channels(layout)?;
        let scale = self.0.of(w, c)?;
        let mut out = Vec::with_capacity(x.len());
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact(c)) {
            match scale {
                [s] => out.extend(x.iter().zip(y).map(|(x, y)| x + s * y)),
                _ => out.extend(x.iter().zip(y).zip(scale).map(|((x, y), s)| x + s * y)),
            }
        }
        result(out, layout.shape())
    }

    fn bwd(
        &self,
        _: &Tensor,
        w: &Tensor,
        y: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dw, dy) = scale_gradients(self.0, w, y, grad)?;
        Ok((Some(grad.clone()), dw, dy))
    }
}

/// Gradients of `scale ⊙ y` for the weight and for `y`.
fn scale_gradients(slice: Slice, w: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let (wv, yv, g) = (Values::of(w)?, Values::of(y)?, Values::of(grad)?);
    let c = channels(y.layout())?;
    let scale = slice.of(&wv, c)?;
    let mut dw = vec![0.0; wv.len()];
    let mut dy = Vec::with_capacity(g.len());
    for (y, g) in yv.chunks_exact(c).zip(g.chunks_exact(c)) {
        slice.accumulate(&mut dw, g, y);
        extend_scaled(&mut dy, g, scale);
    }
    Ok((gradient(dw, w)?, gradient(dy, y)?))
}
