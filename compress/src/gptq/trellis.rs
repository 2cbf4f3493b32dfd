//! Trellis-coded rounding column by column: of all paths of a row through the trellis, about the one that costs least.
//!
//! A Viterbi search along the columns in the order of rounding. Each survivor carries what its own errors have made of
//! the later weights, so a path is judged by the very sum that GPTQ adds up: the squares of `(w − q) / U[j, j]`.
//! Survivors merge quickly as one looks back, so the codes of a block of columns are settled when the next block has
//! been searched. Rows are independent, and so many of them as a register holds are searched together.

use sixpack_formats::trellis::{NEXT, STATES};

use super::price::Prices;
use crate::product::{View, ViewMut, add_product};

/// Columns of a block. Survivors are kept apart within it and one block back.
const BLOCK: usize = 32;
/// Rows that are searched together.
const LANES: usize = 16;
/// Rows whose settled errors are passed on to later columns in one matrix product.
const CHUNK: usize = 8 * LANES;

/// A value of each row.
type Lanes<T> = [T; LANES];

/// Codes `[rows, cols]` of `w [rows, cols]`, which is in units of the steps and in the order of rounding, as is `factor
/// [cols, cols]` and the prices. `q_max` is at least 2.
pub(super) fn quantize_columns(mut w: Vec<f32>, factor: &[f32], prices: &Prices, q_max: u8) -> Vec<i8> {
    let cols = prices.columns.len();
    let mut codes = vec![0i8; w.len()];
    let blocks = (0..cols).step_by(BLOCK).map(|start| Block::new(factor, &prices.columns, start, q_max));
    let blocks: Vec<Block> = blocks.collect();
    let mut scratch = Scratch::default();
    let chunks = w.chunks_mut(CHUNK * cols).zip(codes.chunks_mut(CHUNK * cols));
    for ((w, codes), prices) in chunks.zip(prices.rows.chunks(CHUNK)) {
        quantize_rows((w, prices), codes, &blocks, factor, &mut scratch);
    }
    codes
}

/// Some rows, by all blocks of columns.
fn quantize_rows(
    (w, prices): (&mut [f32], &[f32]),
    codes: &mut [i8],
    blocks: &[Block],
    factor: &[f32],
    scratch: &mut Scratch,
) {
    let cols = blocks.last().map_or(0, |block| block.start + block.width);
    let rows = w.len() / cols;
    let mut groups: Vec<Group> = prices.chunks(LANES).map(Group::new).collect();
    let mut settled = vec![0.0f32; rows * BLOCK];
    for block in blocks {
        let (start, end) = (block.start, block.start + block.width);
        let parts = w.chunks(LANES * cols).zip(codes.chunks_mut(LANES * cols)).zip(settled.chunks_mut(LANES * BLOCK));
        for (group, ((w, codes), settled)) in groups.iter_mut().zip(parts) {
            pulp::Arch::new().dispatch(|| {
                block.approach(w, cols, &group.errors, scratch);
                block.search(group, scratch);
                block.settle(group, scratch, settled, codes, cols);
            });
        }
        if start > 0 && end < cols {
            let mut rest = ViewMut::with_stride(&mut w[end..], rows, cols - end, cols);
            let spread = View::with_stride(&factor[(start - BLOCK) * cols + end..], BLOCK, cols - end, cols);
            add_product(&mut rest, -1.0, View::row_major(&settled, rows, BLOCK), spread);
        }
    }
    if let Some(last) = blocks.last() {
        for (group, codes) in groups.iter().zip(codes.chunks_mut(LANES * cols)) {
            group.finish(last, codes, cols);
        }
    }
}

/// The survivors of a group of rows after a block.
#[derive(Clone)]
struct Group {
    prices: Lanes<f32>,
    /// Cost of each, the least of a row 0.
    costs: [Lanes<f32>; STATES],
    /// Errors in the block, over `U[j, j]`.
    errors: Box<[[Lanes<f32>; BLOCK]; STATES]>,
    /// Codes in the block.
    codes: Box<[[Lanes<i8>; BLOCK]; STATES]>,
}

impl Group {
    fn new(of_rows: &[f32]) -> Self {
        let mut prices = [0.0; LANES];
        prices[..of_rows.len()].copy_from_slice(of_rows);
        let mut costs = [[f32::INFINITY; LANES]; STATES];
        costs[0] = [0.0; LANES];
        let errors = Box::new([[[0.0; LANES]; BLOCK]; STATES]);
        Self { prices, costs, errors, codes: Box::new([[[0; LANES]; BLOCK]; STATES]) }
    }

    /// The survivor of least cost in a row, the first of equals.
    #[inline(always)]
    fn best(&self, lane: usize) -> usize {
        (1..STATES).fold(0, |best, t| if self.costs[t][lane] < self.costs[best][lane] { t } else { best })
    }

    /// Settles the last block.
    fn finish(&self, last: &Block, codes: &mut [i8], cols: usize) {
        for (lane, codes) in codes.chunks_exact_mut(cols).enumerate() {
            let best = &self.codes[self.best(lane)];
            codes[last.start..].iter_mut().zip(best).for_each(|(code, lanes)| *code = lanes[lane]);
        }
    }
}

/// What the search of a block writes down.
struct Scratch {
    /// By survivor and column: the weights less what the survivor's errors have made of them. Two, to go from one to
    /// the other.
    near: [Box<[[Lanes<f32>; BLOCK]; STATES]>; 2],
    /// The steps from column to column.
    steps: Box<[Step; BLOCK]>,
}

impl Default for Scratch {
    fn default() -> Self {
        let near = || Box::new([[[0.0; LANES]; BLOCK]; STATES]);
        Self { near: [near(), near()], steps: Box::new([Step::default(); BLOCK]) }
    }
}

/// The step to each state.
#[derive(Clone, Copy, Default)]
struct Step {
    /// The state before.
    before: [Lanes<u8>; STATES],
    codes: [Lanes<i8>; STATES],
    /// Over `U[j, j]`.
    errors: [Lanes<f32>; STATES],
}

/// The two ways into each state: the state before and the upper bit of the subset.
const WAYS: [[(usize, usize); 2]; STATES] = ways();

const fn ways() -> [[(usize, usize); 2]; STATES] {
    let mut ways = [[(usize::MAX, 0); 2]; STATES];
    let mut i = 0;
    while i < 2 * STATES {
        let (from, upper) = (i / 2, i % 2);
        let to = NEXT[from][upper] as usize;
        let second = if ways[to][0].0 == usize::MAX { 0 } else { 1 };
        ways[to][second] = (from, upper);
        i += 1;
    }
    ways
}

/// A block of columns.
struct Block {
    start: usize,
    width: usize,
    /// `U` from the columns of the block before to those of this one; none for the first.
    spread: Vec<[f32; BLOCK]>,
    /// `U` within the block.
    within: Vec<[f32; BLOCK]>,
    /// The least and largest code of each subset.
    limits: [[f32; 2]; 4],
    prices: Vec<f32>,
}

impl Block {
    fn new(factor: &[f32], prices: &[f32], start: usize, q_max: u8) -> Self {
        let cols = prices.len();
        let width = BLOCK.min(cols - start);
        let row = |j: usize| {
            let mut row = [0.0; BLOCK];
            row[..width].copy_from_slice(&factor[j * cols + start..][..width]);
            row
        };
        let spread = (start.saturating_sub(BLOCK)..start).map(row).collect();
        let within = (start..start + width).map(row).collect();
        let q_max = i32::from(q_max);
        let limits = [0, 1, 2, 3].map(|subset| {
            let largest = q_max - (q_max - subset).rem_euclid(4);
            let least = -q_max + (subset + q_max).rem_euclid(4);
            [least as f32, largest as f32]
        });
        Self { start, width, spread, within, limits, prices: prices[start..start + width].to_vec() }
    }

    /// For each row and survivor the weights of the block: `w` less what the errors of the block before make of them.
    #[inline(always)]
    fn approach(&self, w: &[f32], cols: usize, errors: &[[Lanes<f32>; BLOCK]; STATES], scratch: &mut Scratch) {
        let mut weights = [[0.0; LANES]; BLOCK];
        for (lane, row) in w.chunks_exact(cols).enumerate() {
            let row = &row[self.start..self.start + self.width];
            weights.iter_mut().zip(row).for_each(|(lanes, &w)| lanes[lane] = w);
        }
        for (near, errors) in scratch.near[0].iter_mut().zip(errors) {
            for (k, near) in near.iter_mut().enumerate() {
                let mut sum = weights[k];
                for (u, error) in self.spread.iter().zip(errors) {
                    for lane in 0..LANES {
                        sum[lane] -= error[lane] * u[k];
                    }
                }
                *near = sum;
            }
        }
    }

    /// The best way to each state, column by column.
    #[inline(always)]
    fn search(&self, group: &mut Group, scratch: &mut Scratch) {
        let [from, to] = &mut scratch.near;
        for (k, step) in scratch.steps[..self.width].iter_mut().enumerate() {
            let factor = &self.within[k];
            let masks = self.step(k, from, group, step);
            for (t, to) in to.iter_mut().enumerate() {
                let [a, b] = WAYS[t].map(|(before, _)| &from[before]);
                let (mask, error) = (&masks[t], &step.errors[t]);
                for j in k + 1..self.width {
                    for lane in 0..LANES {
                        let chosen = choose(mask[lane], a[j][lane], b[j][lane]);
                        to[j][lane] = chosen - error[lane] * factor[j];
                    }
                }
            }
            std::mem::swap(from, to);
        }
    }

    /// The best way into each state at column `k`. The survivors' costs are those before and become those
    /// after. Returns whether the
    /// second way was taken, as a mask of all bits.
    #[inline(always)]
    fn step(
        &self,
        k: usize,
        near: &[[Lanes<f32>; BLOCK]; STATES],
        group: &mut Group,
        step: &mut Step,
    ) -> [Lanes<u32>; STATES] {
        let inverse = 1.0 / self.within[k][k];
        let Group { costs, prices, .. } = group;
        let prices = prices.map(|price| price * self.prices[k]);
        let shares = prices.map(|price| 0.25 / (1.0 + price));
        let mut codes = [[[0.0f32; LANES]; 2]; STATES];
        let mut totals = [[[0.0f32; LANES]; 2]; STATES];
        for s in 0..STATES {
            for upper in 0..2 {
                let subset = (s & 1) + 2 * upper;
                let [least, largest] = self.limits[subset];
                let offset = subset as f32;
                for lane in 0..LANES {
                    let x = near[s][k][lane];
                    // The least of (x − code)² + price · code².
                    let code = 4.0 * (x * shares[lane] - offset * 0.25).round_ties_even() + offset;
                    let code = code.max(least).min(largest);
                    let (error, bits) = ((x - code) * inverse, code * inverse);
                    codes[s][upper][lane] = code;
                    totals[s][upper][lane] = costs[s][lane] + error * error + prices[lane] * bits * bits;
                }
            }
        }
        let mut masks = [[0; LANES]; STATES];
        for t in 0..STATES {
            let [(a, upper_a), (b, upper_b)] = WAYS[t];
            for lane in 0..LANES {
                let (cost_a, cost_b) = (totals[a][upper_a][lane], totals[b][upper_b][lane]);
                let mask = if cost_b < cost_a { u32::MAX } else { 0 };
                let code = choose(mask, codes[a][upper_a][lane], codes[b][upper_b][lane]);
                let x = choose(mask, near[a][k][lane], near[b][k][lane]);
                masks[t][lane] = mask;
                costs[t][lane] = cost_a.min(cost_b);
                step.errors[t][lane] = (x - code) * inverse;
                step.codes[t][lane] = code as i32 as i8;
                step.before[t][lane] = if mask == 0 { a } else { b } as u8;
            }
        }
        masks
    }

    /// Follows the survivors back to the start of the block and settles the block before as the best of them has it.
    #[inline(always)]
    fn settle(&self, group: &mut Group, scratch: &Scratch, settled: &mut [f32], codes: &mut [i8], cols: usize) {
        let steps = &scratch.steps[..self.width];
        for (lane, (settled, codes)) in settled.chunks_exact_mut(BLOCK).zip(codes.chunks_exact_mut(cols)).enumerate() {
            let best = group.best(lane);
            let origins: [usize; STATES] =
                std::array::from_fn(|t| steps.iter().rev().fold(t, |t, step| usize::from(step.before[t][lane])));
            let origin = origins[best];
            if self.start > 0 {
                let before = &mut codes[self.start - BLOCK..self.start];
                before.iter_mut().zip(&group.codes[origin]).for_each(|(code, lanes)| *code = lanes[lane]);
                settled.iter_mut().zip(&group.errors[origin]).for_each(|(error, lanes)| *error = lanes[lane]);
            }
            let least = group.costs[best][lane];
            for (t, from) in origins.into_iter().enumerate() {
                let cost = &mut group.costs[t][lane];
                *cost = if from == origin { *cost - least } else { f32::INFINITY };
                let mut state = t;
                for (k, step) in steps.iter().enumerate().rev() {
                    group.codes[t][k][lane] = step.codes[state][lane];
                    group.errors[t][k][lane] = step.errors[state][lane];
                    state = usize::from(step.before[state][lane]);
                }
            }
        }
    }
}

/// `b` where the mask is all ones, `a` where it is 0.
#[inline(always)]
fn choose(mask: u32, a: f32, b: f32) -> f32 {
    f32::from_bits((b.to_bits() & mask) | (a.to_bits() & !mask))
}

#[cfg(test)]
mod tests;
