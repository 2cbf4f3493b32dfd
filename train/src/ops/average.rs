//! `(a + b) / 2`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{Values, gradient, result, values};

/// The mean of two lanes.
pub(crate) struct Average;

impl CustomOp2 for Average {
    fn name(&self) -> &'static str {
        "average"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (values(a, layout)?, values(b, b_layout)?);
        result(a.iter().zip(b).map(|(a, b)| 0.5 * (a + b)).collect(), layout.shape())
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = Values::of(grad)?;
        let half = || g.iter().map(|g| 0.5 * g).collect();
        Ok((gradient(half(), a)?, gradient(half(), b)?))
    }
}
