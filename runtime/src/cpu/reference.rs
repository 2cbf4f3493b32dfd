//! The plain interpreter: one thread, no tricks, the twin every other one is tested against. Never optimised.
//!
//! One file for each operation; sums are in f64.

mod add_scaled;
mod attention;
mod average;
mod cross_entropy;
mod embed;
mod exclude_self;
mod gated_skip;
mod head_norm_rope;
mod leaky_relu_squared;
mod linear;
mod mix;
mod rms_norm;
mod scale;
mod softcap;
mod update_lane;

use sixpack_formats::Model;

use super::cache::Cache;
use super::{Dense, Mat};
use crate::ops::{Batch, Heads, Ops, ReadBack, Remember, Rope, Site};
use crate::{Result, Weights};

/// The plain interpreter.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    cache: Cache<[Vec<f32>; 2]>,
}

impl Reference {
    /// An interpreter without a session.
    pub fn new() -> Self {
        Self::default()
    }

    /// The model's tensors in f32.
    pub fn load(&self, model: &Model) -> Weights<Dense> {
        Weights::load(model, Dense::load)
    }
}

impl Ops for Reference {
    type Act = Mat;
    type Weight = Dense;
    type Error = crate::Error;

    fn embed(&mut self, table: &Dense, batch: &Batch<'_>) -> Result<Mat> {
        embed::embed(table, batch, self.cache.past())
    }

    fn rms_norm(&mut self, x: &Mat, scale: f32) -> Result<Mat> {
        Ok(rms_norm::rms_norm(x, scale))
    }

    fn mix(&mut self, weights: &Dense, x: &Mat, x0: &Mat) -> Result<Mat> {
        Ok(mix::mix(weights, x, x0))
    }

    fn linear(&mut self, _: Site, w: &Dense, x: &Mat) -> Result<Mat> {
        Ok(linear::linear(w, x))
    }

    fn head_norm_rope(&mut self, x: &Mat, heads: usize, rope: Rope, gain: Option<&Dense>) -> Result<Mat> {
        Ok(head_norm_rope::head_norm_rope(x, heads, rope, gain))
    }

    fn attention(&mut self, pass: usize, heads: Heads, q: &Mat, k: &Mat, v: &Mat) -> Result<Mat> {
        let [keys, values] = self.cache.extend(pass, k, v);
        Ok(attention::attention(heads, q, keys, values))
    }

    fn exclude_self(&mut self, heads: Heads, y: &Mat, v: &Mat) -> Result<Mat> {
        Ok(exclude_self::exclude_self(heads, y, v))
    }

    fn leaky_relu_squared(&mut self, x: &Mat) -> Result<Mat> {
        Ok(leaky_relu_squared::leaky_relu_squared(x))
    }

    fn add_scaled(&mut self, x: &Mat, scale: &Dense, y: &Mat) -> Result<Mat> {
        Ok(add_scaled::add_scaled(x, scale, y))
    }

    fn scale(&mut self, scale: &Dense, x: &Mat) -> Result<Mat> {
        Ok(scale::scale(scale, x))
    }

    fn gated_skip(&mut self, weights: &Dense, gates: Option<&Dense>, row: usize, x: &Mat, skip: &Mat) -> Result<Mat> {
        Ok(gated_skip::gated_skip(weights, gates, row, x, skip))
    }

    fn update_lane(&mut self, keep: (&Dense, usize), post: (&Dense, usize), lane: &Mat, y: &Mat) -> Result<Mat> {
        Ok(update_lane::update_lane(keep.0.data[keep.1], post.0.data[post.1], lane, y))
    }

    fn average(&mut self, a: &Mat, b: &Mat) -> Result<Mat> {
        Ok(average::average(a, b))
    }

    fn tail(&mut self, x: &Mat, n: usize) -> Result<Mat> {
        Ok(x.tail(n))
    }

    fn softcap(&mut self, x: &Mat, cap: f32) -> Result<Mat> {
        Ok(softcap::softcap(x, cap))
    }

    fn cross_entropy(&mut self, logits: &Mat, targets: &[u32]) -> Result<Mat> {
        cross_entropy::cross_entropy(logits, targets)
    }
}

impl ReadBack for Reference {
    async fn read(&mut self, x: &Mat) -> Result<Vec<f32>> {
        Ok(x.data.clone())
    }
}

impl Remember for Reference {
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
