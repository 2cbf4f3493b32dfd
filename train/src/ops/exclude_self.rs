//! Exclusive self-attention: what a head says without the direction of its own value.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use sixpack_runtime::Heads;

use super::{Values, gradient, result, values};
use crate::vector::dot;

/// `y − (y·v̂) v̂` per head; arguments are `y [B, T, H·D]` and `v [B, T, K·D]`.
pub(crate) struct ExcludeSelf(pub(crate) Heads);

/// `1 / max(‖v‖, 1e-12)`.
fn inverse_norm(v: &[f32]) -> f32 {
    1.0 / dot(v, v).sqrt().max(1e-12)
}

impl CustomOp2 for ExcludeSelf {
    fn name(&self) -> &'static str {
        "exclude_self"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, v) = (values(y, layout)?, values(v, v_layout)?);
        let Heads { query, kv, dim } = self.0;
        if y.len() * kv != v.len() * query || !v.len().is_multiple_of(kv * dim) {
            bail!(
                "exclude_self: expected [B, T, {query}·{dim}] and [B, T, {kv}·{dim}], found {layout:?}, {v_layout:?}"
            );
        }
        let mut out = Vec::with_capacity(y.len());
        for (group, v) in y.chunks_exact(query / kv * dim).zip(v.chunks_exact(dim)) {
            let inverse = inverse_norm(v);
            for y in group.chunks_exact(dim) {
                let along = dot(y, v) * inverse * inverse;
                out.extend(y.iter().zip(v).map(|(y, v)| y - along * v));
            }
        }
        result(out, layout.shape())
    }

    fn bwd(&self, y: &Tensor, v: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (yv, vv, g) = (Values::of(y)?, Values::of(v)?, Values::of(grad)?);
        let Heads { query, kv, dim } = self.0;
        let group = query / kv * dim;
        let (mut dy, mut dv) = (Vec::with_capacity(yv.len()), vec![0.0; vv.len()]);
        let groups = yv.chunks_exact(group).zip(g.chunks_exact(group));
        for ((y, g), (v, dv)) in groups.zip(vv.chunks_exact(dim).zip(dv.chunks_exact_mut(dim))) {
            // With a = y·v̂ and b = g·v̂: dy = g − b v̂ and dv = (2ab v̂ − a g − b y) / ‖v‖.
            let inverse = inverse_norm(v);
            for (y, g) in y.chunks_exact(dim).zip(g.chunks_exact(dim)) {
                let (a, b) = (dot(y, v) * inverse, dot(g, v) * inverse);
                dy.extend(g.iter().zip(v).map(|(g, v)| g - b * inverse * v));
                let along = 2.0 * a * b * inverse;
                for (((dv, y), g), v) in dv.iter_mut().zip(y).zip(g).zip(v) {
                    *dv += (along * v - a * g - b * y) * inverse;
                }
            }
        }
        Ok((gradient(dy, y)?, gradient(dv, v)?))
    }
}
