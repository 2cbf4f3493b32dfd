//! Decorators: an interpreter that is watched while it runs.
//!
//! [`Watched`] forwards the plain operations and tells a [`Watch`] about each. It keeps the default of every fused
//! method, so that the operations inside are seen.

mod calibrate;
mod trace;

pub use calibrate::{Calibrate, Inputs};
pub use trace::{Divergence, Record, Records, Trace, first_divergence};

use crate::ops::{Batch, Heads, Ops, ReadBack, Rope, Site};

/// What is told about the operations of an interpreter `O`.
pub trait Watch<O: Ops> {
    /// A block begins.
    fn block(&mut self, virtual_layer: usize, layer: usize) {
        let _ = (virtual_layer, layer);
    }

    /// `x` is about to be multiplied at `site`.
    fn linear(&mut self, site: Site, x: &O::Act) {
        let _ = (site, x);
    }

    /// An operation, named as its method, gave `y`; a linear one names its site.
    ///
    /// # Errors
    /// Those of the machine, if it is asked for the values.
    fn output(&mut self, ops: &mut O, op: &'static str, site: Option<Site>, y: &O::Act) -> Result<(), O::Error> {
        let _ = (ops, op, site, y);
        Ok(())
    }
}

/// `inner`, watched.
#[derive(Debug)]
pub struct Watched<'a, O, W> {
    inner: &'a mut O,
    watch: W,
}

impl<'a, O: Ops, W: Watch<O>> Watched<'a, O, W> {
    /// Runs on `inner` and tells `watch`.
    pub fn with(inner: &'a mut O, watch: W) -> Self {
        Self { inner, watch }
    }

    /// The watch, when the run is over.
    pub fn into_watch(self) -> W {
        self.watch
    }

    fn tell(&mut self, op: &'static str, y: Result<O::Act, O::Error>) -> Result<O::Act, O::Error> {
        let y = y?;
        self.watch.output(self.inner, op, None, &y)?;
        Ok(y)
    }
}

impl<O: Ops, W: Watch<O>> Ops for Watched<'_, O, W> {
    type Act = O::Act;
    type Weight = O::Weight;
    type Error = O::Error;

    fn block(&mut self, virtual_layer: usize, layer: usize) {
        self.watch.block(virtual_layer, layer);
        self.inner.block(virtual_layer, layer);
    }

    fn embed(&mut self, table: &O::Weight, batch: &Batch<'_>) -> Result<O::Act, O::Error> {
        let y = self.inner.embed(table, batch);
        self.tell("embed", y)
    }

    fn rms_norm(&mut self, x: &O::Act, scale: f32) -> Result<O::Act, O::Error> {
        let y = self.inner.rms_norm(x, scale);
        self.tell("rms_norm", y)
    }

    fn mix(&mut self, weights: &O::Weight, x: &O::Act, x0: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.mix(weights, x, x0);
        self.tell("mix", y)
    }

    fn linear(&mut self, site: Site, w: &O::Weight, x: &O::Act) -> Result<O::Act, O::Error> {
        self.watch.linear(site, x);
        let y = self.inner.linear(site, w, x)?;
        self.watch.output(self.inner, "linear", Some(site), &y)?;
        Ok(y)
    }

    fn head_norm_rope(
        &mut self,
        x: &O::Act,
        heads: usize,
        rope: Rope,
        gain: Option<&O::Weight>,
    ) -> Result<O::Act, O::Error> {
        let y = self.inner.head_norm_rope(x, heads, rope, gain);
        self.tell("head_norm_rope", y)
    }

    fn attention(&mut self, pass: usize, heads: Heads, q: &O::Act, k: &O::Act, v: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.attention(pass, heads, q, k, v);
        self.tell("attention", y)
    }

    fn exclude_self(&mut self, heads: Heads, y: &O::Act, v: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.exclude_self(heads, y, v);
        self.tell("exclude_self", y)
    }

    fn leaky_relu_squared(&mut self, x: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.leaky_relu_squared(x);
        self.tell("leaky_relu_squared", y)
    }

    fn add_scaled(&mut self, x: &O::Act, scale: &O::Weight, y: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.add_scaled(x, scale, y);
        self.tell("add_scaled", y)
    }

    fn scale(&mut self, scale: &O::Weight, x: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.scale(scale, x);
        self.tell("scale", y)
    }

    fn gated_skip(
        &mut self,
        weights: &O::Weight,
        gates: Option<&O::Weight>,
        row: usize,
        x: &O::Act,
        skip: &O::Act,
    ) -> Result<O::Act, O::Error> {
        let y = self.inner.gated_skip(weights, gates, row, x, skip);
        self.tell("gated_skip", y)
    }

    fn update_lane(
        &mut self,
        keep: (&O::Weight, usize),
        post: (&O::Weight, usize),
        lane: &O::Act,
        y: &O::Act,
    ) -> Result<O::Act, O::Error> {
        let y = self.inner.update_lane(keep, post, lane, y);
        self.tell("update_lane", y)
    }

    fn average(&mut self, a: &O::Act, b: &O::Act) -> Result<O::Act, O::Error> {
        let y = self.inner.average(a, b);
        self.tell("average", y)
    }

    fn tail(&mut self, x: &O::Act, n: usize) -> Result<O::Act, O::Error> {
        let y = self.inner.tail(x, n);
        self.tell("tail", y)
    }

    fn softcap(&mut self, x: &O::Act, cap: f32) -> Result<O::Act, O::Error> {
        let y = self.inner.softcap(x, cap);
        self.tell("softcap", y)
    }

    fn cross_entropy(&mut self, logits: &O::Act, targets: &[u32]) -> Result<O::Act, O::Error> {
        let y = self.inner.cross_entropy(logits, targets);
        self.tell("cross_entropy", y)
    }
}

impl<O: ReadBack, W: Watch<O>> ReadBack for Watched<'_, O, W> {
    async fn read(&mut self, x: &O::Act) -> Result<Vec<f32>, O::Error> {
        self.inner.read(x).await
    }
}
