//! `scale · x / sqrt(mean(x²) + eps)` over channels.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{Values, channels, gradient, result, values};
use crate::vector::dot;

/// Root-mean-square norm without a weight, times a constant.
pub(crate) struct RmsNorm {
    pub(crate) scale: f32,
}

/// `1 / sqrt(mean(x²) + eps)`.
pub(super) fn inverse_rms(x: &[f32]) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + f32::EPSILON).sqrt()
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, c) = (values(x, layout)?, channels(layout)?);
        let mut out = Vec::with_capacity(x.len());
        for x in x.chunks_exact(c) {
            let factor = self.scale * inverse_rms(x);
            out.extend(x.iter().map(|x| factor * x));
        }
        result(out, layout.shape())
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (x, g, c) = (Values::of(arg)?, Values::of(grad)?, channels(arg.layout())?);
        let mut dx = Vec::with_capacity(x.len());
        for (x, g) in x.chunks_exact(c).zip(g.chunks_exact(c)) {
            // With r = 1/rms: dx = s·r·(g − x · r² · mean(x ⊙ g)).
            let r = inverse_rms(x);
            let along = r * r * dot(x, g) / c as f32;
            let factor = self.scale * r;
            dx.extend(x.iter().zip(g).map(|(x, g)| factor * (g - along * x)));
        }
        gradient(dx, arg)
    }
}
