//! `x Wᵀ` for `W [out, in]`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::{Values, channels, gradient, result, values};
use crate::matrix::{Mat, product};

/// A linear layer without bias; arguments are `x [B, T, in]` and `W [out, in]`. No transpose is ever made.
pub(crate) struct Linear {
    /// Whether the gradient of `W` is wanted: a third of the arithmetic.
    pub(crate) train: bool,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, cols) = (values(x, layout)?, values(w, w_layout)?, channels(layout)?);
        if channels(w_layout)? != cols {
            bail!("linear: expected a weight of {cols} columns, found shape {:?}", w_layout.dims());
        }
        let rows = w.len() / cols;
        let out = product(Mat::new(x, x.len() / cols, cols), Mat::new(w, rows, cols).t());
        let mut shape = layout.dims().to_vec();
        shape.pop();
        shape.push(rows);
        result(out, shape)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (xv, wv, g) = (Values::of(x)?, Values::of(w)?, Values::of(grad)?);
        let (cols, tokens) = (channels(w.layout())?, xv.len() / channels(w.layout())?);
        let rows = wv.len() / cols;
        let g = Mat::new(&g, tokens, rows);
        let dx = product(g, Mat::new(&wv, rows, cols));
        if !self.train {
            return Ok((gradient(dx, x)?, None));
        }
        let dw = product(g.t(), Mat::new(&xv, tokens, cols));
        Ok((gradient(dx, x)?, gradient(dw, w)?))
    }
}
