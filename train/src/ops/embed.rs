//! Rows of a table by token id.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{Values, channels, gradient, result, values};
use crate::vector::add;

/// `[B, T, C]` rows of a table `[V, C]`. The gradient adds rows in the order of the tokens: always the same sum.
pub(crate) struct Embed {
    pub(crate) ids: Vec<u32>,
    pub(crate) sequences: usize,
}

impl CustomOp1 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (table, c) = (values(table, layout)?, channels(layout)?);
        let mut out = Vec::with_capacity(self.ids.len() * c);
        for &id in &self.ids {
            let start = id as usize * c;
            let Some(row) = table.get(start..start + c) else {
                bail!("expected token ids below {}, found {id}", table.len() / c);
            };
            out.extend_from_slice(row);
        }
        result(out, (self.sequences, self.ids.len() / self.sequences, c))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (g, c) = (Values::of(grad)?, channels(table.layout())?);
        let mut d = vec![0.0; table.elem_count()];
        for (&id, g) in self.ids.iter().zip(g.chunks_exact(c)) {
            let start = id as usize * c;
            add(&mut d[start..start + c], g);
        }
        gradient(d, table)
    }
}
