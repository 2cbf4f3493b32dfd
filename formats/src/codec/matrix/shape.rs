//! What codes look like before anything is known of them: a Gaussian on a grid, for every scale.
//!
//! All of it is integer arithmetic, so that every machine has the same tables.

use std::sync::LazyLock;

/// Symbols of a magnitude; the last one stands for everything from there on.
pub(super) const SYMBOLS: usize = 16;
/// Levels of scale: σ from 2^-3 to 2^7 steps, 16 in an octave.
pub(super) const LEVELS: usize = 160;
/// Bits of the fraction of a base-2 logarithm.
pub(super) const LOG_BITS: u32 = 16;
/// Bits of the fraction of a score and of its information.
pub(super) const SCORE_BITS: u32 = 8;

const LEVEL_BITS: u32 = LOG_BITS - 4;
const LOWEST: i32 = -3 << LOG_BITS;
/// Up to this level, σ = 2^2.25, a magnitude is a symbol; from there each octave keeps one bit more out of it.
const WHOLE_LEVELS: usize = 84;
/// Largest score in nats: an outlier says no more than this.
const SCORE_CAP: i64 = 8 << SCORE_BITS;

/// The grid that codes lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grid {
    /// Every multiple of the step, or of twice the step in an even state of the trellis.
    Even = 0,
    /// The odd multiples, as in an odd state of the trellis; the unit is two steps, and ±1 have the magnitude 0.
    Odd = 1,
}

/// What is known of codes of one scale.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// Probabilities of the symbols, in units of 2^-32; they sum to about 2^32.
    pub(super) weights: [u64; SYMBOLS],
    /// Derivative of the log-likelihood of each symbol by ln σ.
    pub(super) scores: [i32; SYMBOLS],
    /// Mean square of the score.
    pub(super) information: i32,
    /// Bits of a magnitude that are coded raw.
    pub(super) shift: u32,
}

/// The level of a σ given as a base-2 logarithm.
#[inline(always)]
pub(super) fn level_of(log: i32) -> usize {
    ((log - LOWEST + (1 << (LEVEL_BITS - 1))) >> LEVEL_BITS).clamp(0, LEVELS as i32 - 1) as usize
}

/// The levels of a grid.
pub(super) fn levels(grid: Grid) -> &'static [Level; LEVELS] {
    static TABLES: LazyLock<[Box<[Level; LEVELS]>; 2]> = LazyLock::new(|| [Grid::Even, Grid::Odd].map(table));
    &TABLES[grid as usize]
}

fn table(grid: Grid) -> Box<[Level; LEVELS]> {
    let levels: Vec<Level> = (0..LEVELS).map(|l| level(grid, l)).collect();
    levels.try_into().expect("one for each level")
}

/// The level `l`, with σ = 2^(l/16 - 3).
fn level(grid: Grid, l: usize) -> Level {
    let shift = if l < WHOLE_LEVELS { 0 } else { (l - WHOLE_LEVELS) as u32 / 16 + 1 };
    // Points lie at half the places `y` of code space, so that a density is h^(y²) with h = exp(-1/(8 σ²)).
    let densities = powers_of_squares(exp_negative(inverse_square(l)), (SYMBOLS << shift) * 4);
    let magnitudes = (SYMBOLS << shift) * 2 - 1;
    // Total weight, and weight times y², of each symbol and of all.
    let (mut cells, mut squares) = ([0u128; SYMBOLS], [0u128; SYMBOLS]);
    for magnitude in 0..magnitudes {
        let (place, width) = match (grid, magnitude) {
            (Grid::Even, 0) => (0, 4),
            (Grid::Even, _) => (2 * magnitude, 8),
            (Grid::Odd, _) => (2 * magnitude + 1, 8),
        };
        let symbol = (magnitude >> shift).min(SYMBOLS - 1);
        let weight = u128::from(densities[place]) * width;
        cells[symbol] += weight;
        squares[symbol] += weight * (place * place) as u128;
    }
    let total: u128 = cells.iter().sum();
    let mean = (squares.iter().sum::<u128>() << SCORE_BITS) / total;
    // A cell out of reach has the square of its first point.
    let first = |symbol: usize| ((2 * symbol) << shift) as u128;
    let square =
        |s: usize| (squares[s] << SCORE_BITS).checked_div(cells[s]).unwrap_or((first(s) * first(s)) << SCORE_BITS);
    // (y² - E y²) / (4 σ²); inverse_square is 1/(8 σ²) in units of 2^-32.
    let slope = i128::from(inverse_square(l)) * 2;
    let score = |s: usize| ((square(s) as i128 - mean as i128) * slope) >> 32;
    let scores = std::array::from_fn(|s| score(s).min(i128::from(SCORE_CAP)) as i32);
    let weights = cells.map(|cell| ((cell << 32) / total) as u64);
    let information = (0..SYMBOLS).map(|s| i128::from(weights[s]) * score(s).min(1 << 20).pow(2)).sum::<i128>();
    Level { weights, scores, information: (information >> (32 + SCORE_BITS)) as i32, shift }
}

/// 1/(8 σ²) of a level in units of 2^-32.
fn inverse_square(l: usize) -> u64 {
    /// 2^(-t/8) in units of 2^-32.
    const ROOTS: [u64; 8] = [
        4_294_967_296,
        3_938_502_376,
        3_611_622_603,
        3_311_872_529,
        3_037_000_500,
        2_784_941_738,
        2_553_802_834,
        2_341_847_524,
    ];
    (ROOTS[l % 8] << 3) >> (l / 8)
}

/// exp(-x) in units of 2^-32, for x up to 8 in units of 2^-32.
fn exp_negative(x: u64) -> u64 {
    const ONE: i128 = 1 << 60;
    let multiply = |a: i128, b: i128| (a * b) >> 60;
    // A few terms of the series at x/256, squared eight times.
    let small = i128::from(x) << 20;
    let mut sum = ONE;
    for term in (1..=6).rev() {
        sum = ONE - multiply(small, sum) / term;
    }
    for _ in 0..8 {
        sum = multiply(sum, sum);
    }
    (sum >> 28) as u64
}

/// h^(y²) for y below `n`, everything in units of 2^-32.
fn powers_of_squares(h: u64, n: usize) -> Vec<u64> {
    let multiply = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 32) as u64;
    let (mut power, mut ratio) = (1 << 32, h);
    let next = |_| {
        let this = power;
        power = multiply(power, ratio);
        ratio = multiply(multiply(ratio, h), h);
        this
    };
    (0..n).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_gaussians() {
        for l in [0, 20, 48, 70, 83, 84, 120, 159] {
            let sigma = ((l as f64 - 48.0) / 16.0).exp2();
            let level = &levels(Grid::Even)[l];
            let density = |m: f64| (-m * m / (2.0 * sigma * sigma)).exp();
            let cell = |s: usize| {
                let top = if s == SYMBOLS - 1 { 40 } else { s + 1 };
                (s << level.shift..top << level.shift)
                    .map(|m| if m == 0 { 1.0 } else { 2.0 * density(m as f64) })
                    .sum::<f64>()
            };
            let total: f64 = (0..SYMBOLS).map(cell).sum();
            for s in 0..SYMBOLS {
                let (found, exact) = (level.weights[s] as f64 / 2f64.powi(32), cell(s) / total);
                assert!((found - exact).abs() < 2e-5, "level {l}, symbol {s}: {found} is not {exact}");
            }
        }
    }

    #[test]
    fn scores_have_mean_zero_and_the_information_of_a_gaussian() {
        for grid in [Grid::Even, Grid::Odd] {
            for level in levels(grid).iter().skip(24) {
                let mean: i64 =
                    (0..SYMBOLS).map(|s| level.weights[s] as i64 * i64::from(level.scores[s])).sum::<i64>() >> 32;
                assert!(mean.abs() <= 2 << (SCORE_BITS - 6), "{level:?}");
            }
            let fine = &levels(grid)[64];
            assert!((fine.information - (2 << SCORE_BITS)).abs() < 60, "{fine:?}");
        }
    }

    #[test]
    fn logarithms_find_their_level() {
        assert_eq!([-8, -3, 0, 4, 7, 9].map(|log| level_of(log << LOG_BITS)), [0, 0, 48, 112, 159, 159]);
        assert_eq!([level_of(2000), level_of(2100), level_of(-2100)], [48, 49, 47]);
    }
}
