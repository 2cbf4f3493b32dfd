//! `weights[0] ⊙ x + weights[1] ⊙ x0`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{Values, channels, gradient, result, values};

/// The residual mix; arguments are the weights `[2, C]`, the stream `x` and the embedding `x0`.
pub(crate) struct Mix;

impl CustomOp3 for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn cpu_fwd(
        &self,
        w: &CpuStorage,
        w_layout: &Layout,
        x: &CpuStorage,
        layout: &Layout,
        x0: &CpuStorage,
        x0_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (w, x, x0) = (values(w, w_layout)?, values(x, layout)?, values(x0, x0_layout)?);
        let c = channels(layout)?;
        let (keep, embed) = w.split_at(c);
        let mut out = Vec::with_capacity(x.len());
        for (x, x0) in x.chunks_exact(c).zip(x0.chunks_exact(c)) {
            out.extend(x.iter().zip(x0).zip(keep.iter().zip(embed)).map(|((x, x0), (a, b))| a * x + b * x0));
        }
        result(out, layout.shape())
    }

    fn bwd(
        &self,
        w: &Tensor,
        x: &Tensor,
        x0: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (wv, xv, x0v, g) = (Values::of(w)?, Values::of(x)?, Values::of(x0)?, Values::of(grad)?);
        let c = channels(x.layout())?;
        let (keep, embed) = wv.split_at(c);
        let mut dw = vec![0.0; 2 * c];
        let (d_keep, d_embed) = dw.split_at_mut(c);
        let (mut dx, mut dx0) = (Vec::with_capacity(g.len()), Vec::with_capacity(g.len()));
        for ((x, x0), g) in xv.chunks_exact(c).zip(x0v.chunks_exact(c)).zip(g.chunks_exact(c)) {
            for ((d, x), g) in d_keep.iter_mut().zip(x).zip(g) {
                *d += g * x;
            }
            for ((d, x0), g) in d_embed.iter_mut().zip(x0).zip(g) {
                *d += g * x0;
            }
            dx.extend(g.iter().zip(keep).map(|(g, w)| g * w));
            dx0.extend(g.iter().zip(embed).map(|(g, w)| g * w));
        }
        Ok((gradient(dw, w)?, gradient(dx, x)?, gradient(dx0, x0)?))
    }
}
