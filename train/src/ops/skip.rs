//! The gate of a U-Net skip: `s + g ⊙ (x − s)` with `g = sigmoid(gates[row])`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::scaled::Slice;
use super::{Values, channels, gradient, result, values};
use crate::vector::exp;

/// Interpolation from `s` to `x` by a sigmoid gate per channel; arguments are the gates, `x` and `s`.
pub(crate) struct Gate(pub(crate) Slice);

impl Gate {
    fn open(&self, gates: &[f32], c: usize) -> Result<Vec<f32>> {
        Ok(self.0.of(gates, c)?.iter().map(|&g| 1.0 / (1.0 + exp(-g))).collect())
    }
}

impl CustomOp3 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        gates: &CpuStorage,
        gates_layout: &Layout,
        x: &CpuStorage,
        layout: &Layout,
        s: &CpuStorage,
        s_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gates, x, s) = (values(gates, gates_layout)?, values(x, layout)?, values(s, s_layout)?);
        let c = channels(layout)?;
        let open = self.open(gates, c)?;
        let mut out = Vec::with_capacity(x.len());
        for (x, s) in x.chunks_exact(c).zip(s.chunks_exact(c)) {
            out.extend(x.iter().zip(s).zip(&open).map(|((x, s), g)| s + g * (x - s)));
        }
        result(out, layout.shape())
    }

    fn bwd(
        &self,
        gates: &Tensor,
        x: &Tensor,
        s: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (gv, xv, sv, d) = (Values::of(gates)?, Values::of(x)?, Values::of(s)?, Values::of(grad)?);
        let c = channels(x.layout())?;
        let open = self.open(&gv, c)?;
        let mut moved = vec![0.0; c];
        let (mut dx, mut ds) = (Vec::with_capacity(d.len()), Vec::with_capacity(d.len()));
        for ((x, s), d) in xv.chunks_exact(c).zip(sv.chunks_exact(c)).zip(d.chunks_exact(c)) {
            for (((m, x), s), d) in moved.iter_mut().zip(x).zip(s).zip(d) {
                *m += d * (x - s);
            }
            dx.extend(d.iter().zip(&open).map(|(d, g)| d * g));
            ds.extend(d.iter().zip(&open).map(|(d, g)| d * (1.0 - g)));
        }
        let mut d_gates = vec![0.0; gv.len()];
        for ((d, m), g) in self.0.of_mut(&mut d_gates).iter_mut().zip(&moved).zip(&open) {
            *d = m * g * (1.0 - g);
        }
        Ok((gradient(d_gates, gates)?, gradient(dx, x)?, gradient(ds, s)?))
    }
}
