//! Activations in fixed point: 24 bits to the largest value of a row, cut into digits that integer products take.
//!
//! A product of 24-bit inputs with 8-bit codes summed in integers is exact, so its only errors are those of rounding the
//! inputs (2⁻²⁴ of the largest, what f32 has) and the result. Hence one sum for every instruction set, number of rows and
//! number of threads, to the bit. Sixteen bits would be a third faster, and 256 times coarser.

use super::pool::Pool;
use super::simd::wide;
use super::tiles::INPUTS;
use crate::cpu::Mat;

/// Digits of an input at most.
pub(super) const DIGITS: usize = 3;

/// The largest input in steps: the largest number of three signed bytes is 8,355,711, and rounding may go beyond this.
const LIMIT: f32 = 8_355_000.0;

/// Rows with no value above it are taken for zeros: their step would be denormal.
const TINY: f32 = 1e-30;

/// A signed digit of a fixed-point input.
pub(super) trait Digit: Copy + Default + Send + Sync + std::fmt::Debug {
    /// Bits of a digit.
    const BITS: u32;
    /// Digits of an input.
    const COUNT: usize;

    /// The number, which fits.
    fn from_i32(digit: i32) -> Self;
}

impl Digit for i8 {
    const BITS: u32 = 8;
    const COUNT: usize = 3;

    #[inline(always)]
    fn from_i32(digit: i32) -> Self {
        digit as i8
    }
}

/// Twelve bits of the sixteen, so that sums of [`super::dot::BLOCK`] products fit 32.
impl Digit for i16 {
    const BITS: u32 = 12;
    const COUNT: usize = 2;

    #[inline(always)]
    fn from_i32(digit: i32) -> Self {
        digit as i16
    }
}

/// Rows of fixed-point inputs, some of them beside each other so that a product reads them in one stream.
#[derive(Debug)]
pub(super) struct Fixed<D> {
    rows: usize,
    /// Rows beside each other: a power of two.
    beside: usize,
    across: usize,
    /// `[rows / beside, cols / 4, beside, digits]`, least significant digit first, filled up with 0.
    digits: Vec<[D; INPUTS]>,
    /// Sums of each digit of a row.
    sums: Vec<[i32; DIGITS]>,
    steps: Vec<f32>,
}

/// The rows of [`Fixed`] that are beside each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a, D> {
    /// `[cols / 4, rows, digits]`.
    pub(super) digits: &'a [[D; INPUTS]],
    /// Sums of each digit of each row.
    pub(super) sums: &'a [[i32; DIGITS]],
    /// What one unit of each row is worth.
    pub(super) steps: &'a [f32],
}

impl<D: Digit> Fixed<D> {
    /// The rows of `x`, at most `beside` beside each other, each value times its factor of `columns` if there are any.
    pub(super) fn new(pool: &Pool, beside: usize, x: &Mat, columns: &[f32]) -> Self {
        let (rows, across) = (x.rows(), x.cols.div_ceil(INPUTS));
        let beside = beside.min(rows.next_power_of_two());
        let blocks = rows.div_ceil(beside);
        let stride = beside * across * D::COUNT;
        let mut digits = vec![[D::default(); INPUTS]; blocks * stride];
        let (mut sums, mut steps) = (vec![[0; DIGITS]; blocks * beside], vec![0.0; blocks * beside]);
        let tile = pool.share(blocks, 4 * beside * x.cols);
        let sums_and_steps = sums.chunks_mut(tile * beside).zip(steps.chunks_mut(tile * beside));
        let tasks = digits.chunks_mut((tile * stride).max(1)).zip(sums_and_steps);
        pool.each(tasks.enumerate(), |(i, (digits, (sums, steps)))| {
            let mut scaled = vec![0.0; across * INPUTS];
            let mut cut = vec![[D::default(); INPUTS]; across * D::COUNT];
            for (j, (sums, step)) in sums.iter_mut().zip(steps).enumerate() {
                let row = i * tile * beside + j;
                if row == rows {
                    break;
                }
                scaled.fill(0.0);
                scaled[..x.cols].copy_from_slice(x.row(row));
                scaled.iter_mut().zip(columns).for_each(|(x, c)| *x *= c);
                (*sums, *step) = wide(
                    #[inline(always)]
                    || fix(&mut scaled, &mut cut, across),
                );
                let block = &mut digits[j / beside * stride..][..stride];
                for (d, cut) in cut.chunks_exact(across).enumerate() {
                    let places = block.iter_mut().skip(j % beside * D::COUNT + d).step_by(beside * D::COUNT);
                    places.zip(cut).for_each(|(place, cut)| *place = *cut);
                }
            }
        });
        Self { rows, beside, across, digits, sums, steps }
    }

    /// How many rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows from `row` on that are beside each other; the last ones may be filled up with zeros.
    ///
    /// # Panics
    /// If no block begins with `row`.
    pub(super) fn block(&self, row: usize) -> Block<'_, D> {
        assert!(row.is_multiple_of(self.beside), "row {row} in blocks of {}", self.beside);
        let stride = self.across * D::COUNT;
        let rows = row..row + self.beside;
        Block {
            digits: &self.digits[rows.start * stride..rows.end * stride],
            sums: &self.sums[rows.clone()],
            steps: &self.steps[rows],
        }
    }
}

/// The nearest integer, for sizes up to 2²³: Rust's conversion asks whether it fits, which no vector does.
#[inline(always)]
fn round(x: f32) -> i32 {
    // Adding it leaves the integer in the low bits, up to 2²²; so first twelve bits, then the rest.
    const ROUND: f32 = 12_582_912.0;
    const HIGH: f32 = 4096.0;
    let high = x * (1.0 / HIGH) + ROUND;
    let low = (x - (high - ROUND) * HIGH) + ROUND;
    let integer = |x: f32| (x.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    (integer(high) << 12) + integer(low)
}

/// Writes the digits of `x`, which it overwrites; gives their sums and the step.
#[inline(always)]
fn fix<D: Digit>(x: &mut [f32], digits: &mut [[D; INPUTS]], across: usize) -> ([i32; DIGITS], f32) {
    // As integers, since a NaN is then larger than any number.
    let largest = f32::from_bits(x.iter().fold(0, |max, x| (x.to_bits() & !(1 << 31)).max(max)));
    if !largest.is_finite() || largest < TINY {
        digits.fill([D::default(); INPUTS]);
        return ([0; DIGITS], if largest < TINY { 0.0 } else { f32::NAN });
    }
    let inverse = LIMIT / largest;
    x.iter_mut().for_each(|x| *x = f32::from_bits(round(*x * inverse) as u32));
    let half = 1 << (D::BITS - 1);
    let mut sums = [0; DIGITS];
    for (d, (out, sum)) in digits.chunks_exact_mut(across).zip(&mut sums).enumerate() {
        for (out, x) in out.as_flattened_mut().iter_mut().zip(&*x) {
            let mut rest = x.to_bits() as i32;
            // A digit is what is nearest to 0 and leaves a multiple of the next one.
            for _ in 0..d {
                rest = (rest + half) >> D::BITS;
            }
            let digit = if d + 1 == D::COUNT { rest } else { rest - ((rest + half) >> D::BITS << D::BITS) };
            *out = D::from_i32(digit);
            *sum += digit;
        }
    }
    (sums, largest / LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<D: Digit + Into<i32>>(x: &[f32]) -> Vec<f64> {
        let mat = Mat { sequences: 1, len: 1, cols: x.len(), start: 0, data: x.to_vec() };
        let fixed = Fixed::<D>::new(&Pool::new(1).unwrap(), 8, &mat, &[]);
        let row = fixed.block(0);
        let digit = |d: usize, i: usize| row.digits[i / INPUTS * D::COUNT + d][i % INPUTS].into();
        for d in 0..D::COUNT {
            let sum: i32 = (0..x.len()).map(|i| digit(d, i)).sum();
            assert_eq!(sum, row.sums[0][d]);
        }
        let value = |i| (0..D::COUNT).map(|d| i64::from(digit(d, i)) << (D::BITS * d as u32)).sum::<i64>();
        (0..x.len()).map(|i| value(i) as f64 * f64::from(row.steps[0])).collect()
    }

    #[test]
    fn rounds_to_the_nearest() {
        for x in (-8_355_712..=8_355_712).step_by(97).flat_map(|x| [x as f32, x as f32 / 16.0]) {
            assert_eq!(round(x), x.round_ties_even() as i32, "{x}");
        }
    }

    #[test]
    fn inputs_keep_24_bits() {
        for len in [1, 3, 4, 37, 2048] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32 - 50.3) * 1.37e-3).collect();
            let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for found in [back::<i8>(&x), back::<i16>(&x)] {
                for (x, found) in x.iter().zip(found) {
                    assert!((f64::from(*x) - found).abs() <= f64::from(largest) / 4.5e6, "{x} became {found}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(back::<i8>(&[1.0, bad, 2.0]).iter().all(|x| x.is_nan()));
        }
        assert_eq!(back::<i16>(&[0.0, -0.0, 1e-40]), [0.0; 3]);
        assert!(back::<i8>(&[f32::MAX, -f32::MAX]).iter().all(|x| x.is_finite()));
    }
}
