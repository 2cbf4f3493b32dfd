//! The distributions that a matrix is coded by: Gaussians, put right by what was counted.

use std::sync::LazyLock;

use super::rans::Distribution;
use super::shape::{Grid, LEVELS, Level, SYMBOLS, levels};

/// Levels that share their correction: half an octave.
const BAND: usize = 8;
const BANDS: usize = LEVELS / BAND;
/// Symbols until the first correction.
const FIRST: u32 = 512;
/// What is added to a symbol's count and to its expected count: below it, the Gaussian is believed.
const DOUBT: u64 = 8;
/// Bits of the fraction of expected counts and of corrections.
const BITS: u32 = 16;

/// Adaptive distributions for one grid.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) levels: &'static [Level; LEVELS],
    pub(super) distributions: Box<[Distribution; LEVELS]>,
    counts: Box<[[u32; SYMBOLS]; LEVELS]>,
    /// Symbols counted, and how many there must be for the next correction.
    seen: u32,
    next: u32,
}

impl Tables {
    pub(super) fn new(grid: Grid) -> Self {
        static GAUSSIANS: LazyLock<[Box<[Distribution; LEVELS]>; 2]> = LazyLock::new(|| {
            let all = |grid| Box::new(levels(grid).each_ref().map(|level| Distribution::new(&level.weights)));
            [all(Grid::Even), all(Grid::Odd)]
        });
        let (levels, distributions) = (levels(grid), GAUSSIANS[grid as usize].clone());
        Self { levels, distributions, counts: Box::new([[0; SYMBOLS]; LEVELS]), seen: 0, next: FIRST }
    }

    #[inline(always)]
    pub(super) fn count(&mut self, level: usize, symbol: usize) {
        let count = &mut self.counts[level][symbol];
        *count = count.saturating_add(1);
    }

    /// After a line of codes: corrects the distributions if a third more than last time has been counted.
    pub(super) fn end_line(&mut self, codes: usize) {
        self.seen = self.seen.saturating_add(codes as u32);
        if self.seen >= self.next {
            self.correct();
            self.next = self.seen.saturating_add(self.seen / 3);
        }
    }

    /// Makes each distribution the Gaussian times the ratio of counts to expected counts, which is taken in bands and
    /// interpolated between them.
    fn correct(&mut self) {
        let ratios: Vec<[u64; SYMBOLS]> = (0..BANDS).map(|band| self.ratios(band)).collect();
        for (l, level) in self.levels.iter().enumerate() {
            // Twice the place among the centres of the bands, in units of a level.
            let place = (2 * l + 1).saturating_sub(BAND);
            let (band, part) = ((place / (2 * BAND)).min(BANDS - 1), (place % (2 * BAND)) as u64);
            let above = &ratios[(band + 1).min(BANDS - 1)];
            let whole = 2 * BAND as u64;
            let weights = std::array::from_fn(|s| {
                let ratio = (ratios[band][s] * (whole - part) + above[s] * part) / whole;
                (level.weights[s] * ratio) >> BITS
            });
            self.distributions[l] = Distribution::new(&weights);
        }
    }

    fn ratios(&self, band: usize) -> [u64; SYMBOLS] {
        let (mut found, mut expected) = ([DOUBT << BITS; SYMBOLS], [DOUBT << BITS; SYMBOLS]);
        for l in band * BAND..(band + 1) * BAND {
            let n: u64 = self.counts[l].iter().map(|&n| u64::from(n)).sum();
            if n == 0 {
                continue;
            }
            for s in 0..SYMBOLS {
                found[s] += u64::from(self.counts[l][s]) << BITS;
                expected[s] += (n * self.levels[l].weights[s]) >> (32 - BITS);
            }
        }
        // At most 2^16 either way keeps the product with a weight within 64 bits.
        std::array::from_fn(|s| ((u128::from(found[s]) << BITS) / u128::from(expected[s])).clamp(1, 1 << 30) as u64)
    }
}
