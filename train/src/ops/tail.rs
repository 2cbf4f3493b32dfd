//! The last positions of each sequence.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{Values, gradient, result, values};

/// The last so many positions of `[B, T, C]`.
pub(crate) struct Tail(pub(crate) usize);

impl CustomOp1 for Tail {
    fn name(&self) -> &'static str {
        "tail"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let &[b, t, c] = layout.dims() else { bail!("tail: expected [B, T, C], found {:?}", layout.dims()) };
        if self.0 > t {
            bail!("tail: expected at most {t} positions, found {}", self.0);
        }
        let ends = x.chunks_exact((t * c).max(1)).flat_map(|sequence| &sequence[(t - self.0) * c..]);
        result(ends.copied().collect(), (b, self.0, c))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (g, (_, t, c)) = (Values::of(grad)?, x.dims3()?);
        let mut dx = vec![0.0; x.elem_count()];
        for (dx, g) in dx.chunks_exact_mut((t * c).max(1)).zip(g.chunks_exact((self.0 * c).max(1))) {
            dx[(t - self.0) * c..].copy_from_slice(g);
        }
        gradient(dx, x)
    }
}
