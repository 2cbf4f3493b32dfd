//! What a pass costs: the roofline numbers of every report, found by running [`forward`] on shapes.
//!
//! [`Count`] is an interpreter that computes nothing: activations and weights are their sizes. It keeps the default of
//! every fused method, so elements are counted as the plain operations would move them; a machine that fuses moves
//! fewer.

use std::collections::BTreeMap;
use std::convert::Infallible;

use sixpack_formats::ModelConfig;

use crate::model;
use crate::ops::{Batch, Heads, Ops, Rope, Site};
use crate::{Pass, Weights, forward};

/// The size of an activation `[B, T, C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    sequences: usize,
    len: usize,
    cols: usize,
}

impl Shape {
    fn elements(self) -> u64 {
        (self.sequences * self.len * self.cols) as u64
    }
}

/// What an operation has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How often it ran.
    pub calls: u64,
    /// Multiplications and additions of its matrix products.
    pub flops: u64,
    /// Elements of weights read.
    pub weights: u64,
    /// Elements of activations read and written.
    pub moved: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.flops += other.flops;
        self.weights += other.weights;
        self.moved += other.moved;
    }
}

/// The cost of each operation, by its name and, for matrix products with a weight, its site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All that ran.
    pub tallies: BTreeMap<(&'static str, Option<Site>), Tally>,
}

impl Count {
    /// The cost of a forward pass of `sequences` sequences of `len` tokens and of the loss at every position wanted.
    ///
    /// # Panics
    /// If there are no tokens.
    pub fn forward(config: &ModelConfig, sequences: usize, len: usize, pass: Pass) -> Self {
        let mut count = Self::default();
        let Ok(weights) = Weights::build(config, |spec| Ok::<_, Infallible>(spec.shape.clone()));
        let ids = vec![0; sequences * len];
        let Ok(h) = forward(config, &weights, &mut count, &Batch::new(&ids, sequences), pass);
        let Ok(_) = model::nll(config, &weights, &mut count, &h, &vec![0; sequences * h.len]);
        count
    }

    /// The sum over all operations.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.tallies.values().for_each(|tally| total += *tally);
        total
    }

    /// Bytes moved with elements of 4 bytes.
    pub fn bytes(&self) -> u64 {
        let total = self.total();
        4 * (total.weights + total.moved)
    }

    fn add(&mut self, op: &'static str, inputs: &[Shape], output: Shape, tally: Tally) -> Result<Shape, Infallible> {
        self.add_at((op, None), inputs, output, tally)
    }

    fn add_at(
        &mut self,
        key: (&'static str, Option<Site>),
        inputs: &[Shape],
        output: Shape,
        tally: Tally,
    ) -> Result<Shape, Infallible> {
        let moved = inputs.iter().map(|x| x.elements()).sum::<u64>() + output.elements();
        *self.tallies.entry(key).or_default() += Tally { calls: 1, moved, ..tally };
        Ok(output)
    }
}

/// Number of parameters.
pub fn parameters(config: &ModelConfig) -> u64 {
    config.tensors().iter().map(|spec| spec.elements() as u64).sum()
}

/// Elements of the matrices a token is multiplied by, each as often as it runs: with recurrence a recurrent layer's
/// count twice. The tied head counts, looking up an embedding does not.
pub fn matmul_parameters(config: &ModelConfig, recurrence: bool) -> u64 {
    let count = Count::forward(config, 1, 1, Pass { recurrence, last: None });
    count.tallies.iter().filter(|((op, _), _)| *op == "linear").map(|(_, tally)| tally.flops / 2).sum()
}

/// The usual estimate of a training run, `6 · N · tokens`, with [`matmul_parameters`] as `N`; attention is left out.
pub fn training_flops(config: &ModelConfig, recurrence: bool, tokens: u64) -> f64 {
    6.0 * matmul_parameters(config, recurrence) as f64 * tokens as f64
}

/// Elements of a weight.
fn read(weight: &[usize]) -> Tally {
    Tally { weights: weight.iter().product::<usize>() as u64, ..Tally::default() }
}

/// Elements of some rows of weights.
fn read_elements(elements: usize) -> Tally {
    Tally { weights: elements as u64, ..Tally::default() }
}

impl Ops for Count {
    type Act = Shape;
    type Weight = Vec<usize>;
    type Error = Infallible;

    fn embed(&mut self, table: &Vec<usize>, batch: &Batch<'_>) -> Result<Shape, Infallible> {
        let y = Shape { sequences: batch.sequences, len: batch.len(), cols: table[1] };
        self.add("embed", &[], y, read_elements(batch.ids.len() * table[1]))
    }

    fn rms_norm(&mut self, x: &Shape, _: f32) -> Result<Shape, Infallible> {
        self.add("rms_norm", &[*x], *x, Tally::default())
    }

    fn mix(&mut self, weights: &Vec<usize>, x: &Shape, x0: &Shape) -> Result<Shape, Infallible> {
        self.add("mix", &[*x, *x0], *x, read(weights))
    }

    fn linear(&mut self, site: Site, w: &Vec<usize>, x: &Shape) -> Result<Shape, Infallible> {
        let flops = 2 * (x.sequences * x.len * w[0] * w[1]) as u64;
        self.add_at(("linear", Some(site)), &[*x], Shape { cols: w[0], ..*x }, Tally { flops, ..read(w) })
    }

    fn head_norm_rope(&mut self, x: &Shape, _: usize, _: Rope, gain: Option<&Vec<usize>>) -> Result<Shape, Infallible> {
        self.add("head_norm_rope", &[*x], *x, gain.map_or(Tally::default(), |gain| read(gain)))
    }

    fn attention(&mut self, _: usize, heads: Heads, q: &Shape, k: &Shape, v: &Shape) -> Result<Shape, Infallible> {
        // A query at position p sees p + 1 keys; a product with each key, and one with each value.
        let pairs: usize = (k.len - q.len..k.len).map(|position| position + 1).sum();
        let flops = 4 * (q.sequences * pairs * heads.query * heads.dim) as u64;
        self.add("attention", &[*q, *k, *v], *q, Tally { flops, ..Tally::default() })
    }

    fn exclude_self(&mut self, _: Heads, y: &Shape, v: &Shape) -> Result<Shape, Infallible> {
        self.add("exclude_self", &[*y, *v], *y, Tally::default())
    }

    fn leaky_relu_squared(&mut self, x: &Shape) -> Result<Shape, Infallible> {
        self.add("leaky_relu_squared", &[*x], *x, Tally::default())
    }

    fn add_scaled(&mut self, x: &Shape, scale: &Vec<usize>, y: &Shape) -> Result<Shape, Infallible> {
        self.add("add_scaled", &[*x, *y], *x, read(scale))
    }

    fn scale(&mut self, scale: &Vec<usize>, x: &Shape) -> Result<Shape, Infallible> {
        self.add("scale", &[*x], *x, read(scale))
    }

    fn gated_skip(
        &mut self,
        _: &Vec<usize>,
        gates: Option<&Vec<usize>>,
        _: usize,
        x: &Shape,
        skip: &Shape,
    ) -> Result<Shape, Infallible> {
        let rows = 1 + usize::from(gates.is_some());
        self.add("gated_skip", &[*x, *skip], *x, read_elements(rows * x.cols))
    }

    fn update_lane(
        &mut self,
        _: (&Vec<usize>, usize),
        _: (&Vec<usize>, usize),
        lane: &Shape,
        y: &Shape,
    ) -> Result<Shape, Infallible> {
        self.add("update_lane", &[*lane, *y], *lane, read_elements(2))
    }

    fn average(&mut self, a: &Shape, b: &Shape) -> Result<Shape, Infallible> {
        self.add("average", &[*a, *b], *a, Tally::default())
    }

    fn tail(&mut self, x: &Shape, n: usize) -> Result<Shape, Infallible> {
        let y = Shape { len: n, ..*x };
        self.add("tail", &[y], y, Tally::default())
    }

    fn softcap(&mut self, x: &Shape, _: f32) -> Result<Shape, Infallible> {
        self.add("softcap", &[*x], *x, Tally::default())
    }

    fn cross_entropy(&mut self, logits: &Shape, _: &[u32]) -> Result<Shape, Infallible> {
        self.add("cross_entropy", &[*logits], Shape { cols: 1, ..*logits }, Tally::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn the_record_by_hand() {
        let config = ModelConfig::record();
        assert_eq!(parameters(&config), 34_401_371);
        let block = 512 * (512 + 256 + 256 + 512) + 2 * 512 * 2048;
        let shared = 4096 * 512 + 256 * 128;
        assert_eq!(matmul_parameters(&config, false), 11 * block + shared);
        assert_eq!(matmul_parameters(&config, true), 13 * block + shared);
        assert_eq!(training_flops(&config, true, 10), 60.0 * (13 * block + shared) as f64);
    }

    #[test]
    fn flops_by_site_and_attention() {
        let config = ModelConfig::record();
        let count = Count::forward(&config, 3, 16, Pass::FULL);
        let at = |layer, role| count.tallies[&("linear", Some(Site { layer, role }))];
        assert_eq!(
            at(0, Role::MlpUp),
            Tally { calls: 1, flops: 2 * 48 * 512 * 2048, weights: 512 * 2048, moved: 48 * (512 + 2048) }
        );
        assert_eq!(at(4, Role::Key).calls, 2);
        let attention = count.tallies[&("attention", None)];
        assert_eq!((attention.calls, attention.flops), (13, 13 * 3 * 4 * 136 * 512));
        let linear = 2 * 48 * matmul_parameters(&config, true);
        assert_eq!(count.total().flops, linear + attention.flops);
        assert_eq!(count.bytes(), 4 * (count.total().weights + count.total().moved));
    }

    #[test]
    fn fewer_positions_cost_less_in_the_last_block_and_the_head() {
        let config = ModelConfig::record();
        let all = Count::forward(&config, 1, 16, Pass::FULL);
        let last = Count::forward(&config, 1, 16, Pass { last: Some(4), ..Pass::FULL });
        let flops = |count: &Count, layer, role| count.tallies[&("linear", Some(Site { layer, role }))].flops;
        for (layer, role) in [(10, Role::Query), (10, Role::MlpUp), (10, Role::MlpDown), (0, Role::Head)] {
            assert_eq!(4 * flops(&last, layer, role), flops(&all, layer, role), "{role:?}");
        }
        for (layer, role) in [(10, Role::Key), (10, Role::Value), (9, Role::MlpUp)] {
            assert_eq!(flops(&last, layer, role), flops(&all, layer, role), "{role:?}");
        }
    }
}
