//! Causal grouped-query attention, a tile of queries at a time.
//!
//! The forward pass keeps the log-sum-exp of each query's scores; the backward pass computes the probabilities again
//! from it. No tile looks at keys after its last query.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use sixpack_runtime::Heads;

use super::{Values, gradient, result, values};
use crate::matrix::{Mat, MatMut, Write, multiply};
use crate::vector::{dot, exp, max, sum};

/// Queries of a tile: large enough for the matrix product, small enough to waste little above the diagonal.
const TILE: usize = 64;

/// Attention; arguments are `q [B, Tq, H·D]`, `k` and `v [B, T, K·D]`, the queries being the last positions.
pub(crate) struct Attention {
    heads: Heads,
    /// Log-sum-exp of each query's scores, `[B, H, Tq]`.
    log_sum: OnceLock<Vec<f32>>,
}

/// Sizes of one call.
struct Sizes {
    sequences: usize,
    queries: usize,
    keys: usize,
    heads: Heads,
}

/// A run of queries of one head of one sequence.
struct Tile {
    /// Index of the first query in `q`, and of the first key in `k` and `v`.
    q_start: usize,
    kv_start: usize,
    /// Index of the first query in the log-sum-exps.
    row: usize,
    /// Number of queries.
    queries: usize,
    /// Position of the first query; it sees the keys up to its own position.
    position: usize,
}

impl Tile {
    /// Keys that any query of the tile sees.
    fn keys(&self) -> usize {
        self.position + self.queries
    }
}

impl Sizes {
    fn scale(&self) -> f32 {
        1.0 / (self.heads.dim as f32).sqrt()
    }

    fn q_stride(&self) -> usize {
        self.heads.query * self.heads.dim
    }

    fn kv_stride(&self) -> usize {
        self.heads.kv * self.heads.dim
    }

    fn tiles(&self) -> impl Iterator<Item = Tile> {
        let Heads { query, kv, dim } = self.heads;
        let heads = (0..self.sequences).flat_map(move |b| (0..query).map(move |h| (b, h)));
        heads.flat_map(move |(b, h)| {
            (0..self.queries).step_by(TILE).map(move |first| Tile {
                q_start: (b * self.queries + first) * self.q_stride() + h * dim,
                kv_start: b * self.keys * self.kv_stride() + h / (query / kv) * dim,
                row: (b * query + h) * self.queries + first,
                queries: TILE.min(self.queries - first),
                position: self.keys - self.queries + first,
            })
        })
    }

    /// The queries (or outputs, or their gradients) of a tile.
    fn rows<'a>(&self, q: &'a [f32], tile: &Tile) -> Mat<'a> {
        Mat::strided(&q[tile.q_start..], tile.queries, self.heads.dim, self.q_stride())
    }

    /// The keys or values a tile sees.
    fn seen<'a>(&self, k: &'a [f32], tile: &Tile) -> Mat<'a> {
        Mat::strided(&k[tile.kv_start..], tile.keys(), self.heads.dim, self.kv_stride())
    }
}

impl Attention {
    pub(crate) fn new(heads: Heads) -> Self {
        Self { heads, log_sum: OnceLock::new() }
    }

    fn sizes(&self, q: &Layout, k: &Layout, v: &Layout) -> Result<Sizes> {
        let heads = self.heads;
        let (&[b, queries, q_dim], &[kb, keys, k_dim]) = (q.dims(), k.dims()) else {
            bail!("attention: expected three dimensions, found {:?} and {:?}", q.dims(), k.dims());
        };
        let widths = (heads.query * heads.dim, heads.kv * heads.dim);
        if b != kb || k.dims() != v.dims() || queries > keys || (q_dim, k_dim) != widths {
            let found = (q.dims(), k.dims(), v.dims());
            bail!("attention: expected [B, Tq, {}] and twice [B, T, {}], found {found:?}", widths.0, widths.1);
        }
        Ok(Sizes { sequences: b, queries, keys, heads })
    }
}

/// Scores become probabilities in place, zero after the query's own position; returns nothing but fills `log_sum`.
fn softmax(scores: &mut [f32], tile: &Tile, log_sum: &mut [f32]) {
    for (i, (row, log_sum)) in scores.chunks_exact_mut(tile.keys()).zip(log_sum).enumerate() {
        let (seen, hidden) = row.split_at_mut(tile.position + i + 1);
        let top = max(seen);
        seen.iter_mut().for_each(|s| *s = exp(*s - top));
        let total = sum(seen);
        let inverse = 1.0 / total;
        seen.iter_mut().for_each(|s| *s *= inverse);
        hidden.fill(0.0);
        *log_sum = top + total.ln();
    }
}

/// Scores become probabilities in place, by the log-sum-exps of the forward pass.
fn probabilities(scores: &mut [f32], tile: &Tile, log_sum: &[f32]) {
    for (i, (row, log_sum)) in scores.chunks_exact_mut(tile.keys()).zip(log_sum).enumerate() {
        let (seen, hidden) = row.split_at_mut(tile.position + i + 1);
        seen.iter_mut().for_each(|s| *s = exp(*s - log_sum));
        hidden.fill(0.0);
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (values(q, q_layout)?, values(k, k_layout)?, values(v, v_layout)?);
        let sizes = self.sizes(q_layout, k_layout, v_layout)?;
        let mut out = vec![0.0; q.len()];
        let mut log_sum = vec![0.0; sizes.sequences * sizes.heads.query * sizes.queries];
        let mut scratch = vec![0.0; TILE.min(sizes.queries) * sizes.keys];
        for tile in sizes.tiles() {
            let scores = &mut scratch[..tile.queries * tile.keys()];
            let keys = sizes.seen(k, &tile).t();
            multiply(MatMut::new(scores, tile.keys()), Write::Set, sizes.scale(), sizes.rows(q, &tile), keys);
            softmax(scores, &tile, &mut log_sum[tile.row..tile.row + tile.queries]);
            let dst = MatMut::new(&mut out[tile.q_start..], sizes.q_stride());
            multiply(dst, Write::Set, 1.0, Mat::new(scores, tile.queries, tile.keys()), sizes.seen(v, &tile));
        }
        // Each op value runs forward once.
        let _ = self.log_sum.set(log_sum);
        result(out, q_layout.shape())
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(q.layout(), k.layout(), v.layout())?;
        let Some(log_sum) = self.log_sum.get() else { bail!("attention: backward without a forward") };
        let (qv, kv, vv) = (Values::of(q)?, Values::of(k)?, Values::of(v)?);
        let (out, g) = (Values::of(out)?, Values::of(grad)?);
        let (mut dq, mut dk, mut dv) = (vec![0.0; qv.len()], vec![0.0; kv.len()], vec![0.0; vv.len()]);
        let room = TILE.min(sizes.queries) * sizes.keys;
        let (mut p_room, mut ds_room) = (vec![0.0; room], vec![0.0; room]);
        for tile in sizes.tiles() {
            let (n, keys, scale) = (tile.queries, tile.keys(), sizes.scale());
            let (p, ds) = (&mut p_room[..n * keys], &mut ds_room[..n * keys]);
            let (queries, g_rows) = (sizes.rows(&qv, &tile), sizes.rows(&g, &tile));
            multiply(MatMut::new(p, keys), Write::Set, scale, queries, sizes.seen(&kv, &tile).t());
            probabilities(p, &tile, &log_sum[tile.row..tile.row + n]);
            multiply(MatMut::new(ds, keys), Write::Set, 1.0, g_rows, sizes.seen(&vv, &tile).t());
            // dS = P ⊙ (dP − Σ out ⊙ grad), the sum over the head.
            for (i, (ds, p)) in ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).enumerate() {
                let at = tile.q_start + i * sizes.q_stride();
                let shift = dot(&out[at..at + sizes.heads.dim], &g[at..at + sizes.heads.dim]);
                for (ds, p) in ds.iter_mut().zip(p) {
                    *ds = p * (*ds - shift);
                }
            }
            let (p, ds) = (Mat::new(p, n, keys), Mat::new(ds, n, keys));
            let (q_stride, kv_stride) = (sizes.q_stride(), sizes.kv_stride());
            let dq = MatMut::new(&mut dq[tile.q_start..], q_stride);
            multiply(dq, Write::Set, scale, ds, sizes.seen(&kv, &tile));
            multiply(MatMut::new(&mut dk[tile.kv_start..], kv_stride), Write::Add, scale, ds.t(), queries);
            multiply(MatMut::new(&mut dv[tile.kv_start..], kv_stride), Write::Add, 1.0, p.t(), g_rows);
        }
        Ok((gradient(dq, q)?, gradient(dk, k)?, gradient(dv, v)?))
    }
}
