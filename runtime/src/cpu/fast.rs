//! The fast interpreter: the user's threads, matrix products by `gemm`, loops compiled for the widest vectors, fused
//! operations where they save a pass over memory.
//!
//! One file for each operation, named as in [`reference`](super::reference), its plain twin.

mod add_scaled;
mod attention;
mod dot;
mod embed;
mod exclude_self;
mod fixed;
mod gated_skip;
mod head_norm_rope;
mod linear;
mod matmul;
mod mix;
mod mlp;
mod nll;
mod pointwise;
mod pool;
mod product;
mod remembered;
mod rms_norm;
mod simd;
mod team;
mod tiles;
mod weight;

use sixpack_formats::Model;

pub use weight::{Int8, Weight};

use self::dot::Kernel;
use self::head_norm_rope::Angles;
use self::pool::Pool;
use self::remembered::{Remembered, Seen};
use self::weight::Panel;
use super::Mat;
use super::cache::Cache;
use crate::ops::{Batch, Heads, Ops, ReadBack, Remember, Rope, Site};
use crate::{Result, Weights};

/// The fast interpreter.
#[derive(Debug)]
pub struct Fast {
    pool: Pool,
    kernel: Kernel,
    cache: Cache<Remembered>,
    angles: Angles,
    panels: [Panel; 2],
}

impl Fast {
    /// An interpreter on `threads` threads, without a session. One thread is the caller's own.
    ///
    /// # Errors
    /// If `threads` is 0 or the system gives no more threads.
    pub fn new(threads: usize) -> Result<Self> {
        let pool = Pool::new(threads)?;
        let (cache, angles) = Default::default();
        Ok(Self { pool, kernel: Kernel::best(), cache, angles, panels: Default::default() })
    }

    /// The model's tensors, quantised ones as they are.
    pub fn load(&self, model: &Model) -> Weights<Weight> {
        Weights::load(model, Weight::load)
    }
}

impl Ops for Fast {
    type Act = Mat;
    type Weight = Weight;
    type Error = crate::Error;

    fn embed(&mut self, table: &Weight, batch: &Batch<'_>) -> Result<Mat> {
        embed::embed(table, batch, self.cache.past())
    }

    fn rms_norm(&mut self, x: &Mat, scale: f32) -> Result<Mat> {
        Ok(rms_norm::rms_norm(&self.pool, x, scale))
    }

    fn mix(&mut self, weights: &Weight, x: &Mat, x0: &Mat) -> Result<Mat> {
        Ok(mix::mix(&self.pool, weights, x, x0))
    }

    fn mix_norm(&mut self, weights: &Weight, x: &Mat, x0: &Mat, scale: f32) -> Result<(Mat, Mat)> {
        Ok(mix::mix_norm(&self.pool, weights, x, x0, scale))
    }

    fn linear(&mut self, _: Site, w: &Weight, x: &Mat) -> Result<Mat> {
        Ok(linear::linear(&self.pool, self.kernel, &mut self.panels[0], w, x))
    }

    fn head_norm_rope(&mut self, x: &Mat, heads: usize, rope: Rope, gain: Option<&Weight>) -> Result<Mat> {
        let gain = gain.map(Weight::to_f32);
        let angles = self.angles.of(rope, x.start + x.len);
        Ok(head_norm_rope::head_norm_rope(&self.pool, x, heads, angles, gain.as_deref()))
    }

    fn attention(&mut self, pass: usize, heads: Heads, q: &Mat, k: &Mat, v: &Mat) -> Result<Mat> {
        let past = self.cache.past();
        let remembered = self.cache.of(pass, k).map(|all| all.extend(past, heads, k, v));
        Ok(attention::attention(&self.pool, heads, q, &Seen::new(remembered, heads, k, v)))
    }

    fn exclude_self(&mut self, heads: Heads, y: &Mat, v: &Mat) -> Result<Mat> {
        Ok(exclude_self::exclude_self(&self.pool, heads, y, v))
    }

    fn leaky_relu_squared(&mut self, x: &Mat) -> Result<Mat> {
        Ok(mlp::leaky_relu_squared(&self.pool, x))
    }

    fn mlp(&mut self, _: usize, up: &Weight, down: &Weight, x: &Mat) -> Result<Mat> {
        Ok(mlp::mlp(&self.pool, self.kernel, &mut self.panels, up, down, x))
    }

    fn add_scaled(&mut self, x: &Mat, scale: &Weight, y: &Mat) -> Result<Mat> {
        Ok(add_scaled::add_scaled(&self.pool, x, scale, y))
    }

    fn add_scaled_norm(&mut self, x: &Mat, weights: &Weight, y: &Mat, scale: f32) -> Result<(Mat, Mat)> {
        Ok(add_scaled::add_scaled_norm(&self.pool, x, weights, y, scale))
    }

    fn scale(&mut self, scale: &Weight, x: &Mat) -> Result<Mat> {
        Ok(pointwise::scale(&self.pool, scale, x))
    }

    fn gated_skip(&mut self, weights: &Weight, gates: Option<&Weight>, row: usize, x: &Mat, skip: &Mat) -> Result<Mat> {
        Ok(gated_skip::gated_skip(&self.pool, weights, gates, row, x, skip))
    }

    fn update_lane(&mut self, keep: (&Weight, usize), post: (&Weight, usize), lane: &Mat, y: &Mat) -> Result<Mat> {
        let (keep, post) = (keep.0.to_f32()[keep.1], post.0.to_f32()[post.1]);
        Ok(pointwise::combine(&self.pool, (keep, lane), (post, y)))
    }

    fn average(&mut self, a: &Mat, b: &Mat) -> Result<Mat> {
        Ok(pointwise::combine(&self.pool, (0.5, a), (0.5, b)))
    }

    fn tail(&mut self, x: &Mat, n: usize) -> Result<Mat> {
        Ok(x.tail(n))
    }

    fn softcap(&mut self, x: &Mat, cap: f32) -> Result<Mat> {
        Ok(pointwise::softcap(&self.pool, x, cap))
    }

    fn cross_entropy(&mut self, logits: &Mat, targets: &[u32]) -> Result<Mat> {
        nll::cross_entropy(&self.pool, logits, targets)
    }

    fn nll(&mut self, table: &Weight, h: &Mat, cap: f32, targets: &[u32]) -> Result<Mat> {
        nll::nll(&self.pool, self.kernel, &mut self.panels[0], table, h, (cap, targets))
    }
}

impl ReadBack for Fast {
    async fn read(&mut self, x: &Mat) -> Result<Vec<f32>> {
        Ok(x.data.clone())
    }
}

impl Remember for Fast {
    fn begin(&mut self) {
        self.cache.begin();
    }

    fn advance(&mut self, len: usize) {
        self.cache.advance(len);
    }

    fn end(&mut self) {
        self.cache.end();
    }
}
