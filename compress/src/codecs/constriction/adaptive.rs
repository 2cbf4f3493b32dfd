//! Shares of symbols that are learned as symbols pass.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};

/// Base-2 logarithm of the total of the shares.
pub(super) const BITS: usize = 24;
/// The slowest rate of learning: a symbol that passes moves its share by 1/2,048 of what is missing to 1.
const SLOWEST: u32 = 11;

/// Cumulative shares that each symbol moves a little towards itself, less and less as more have passed.
pub(super) struct Adaptive {
    /// Shares of all symbols below each, and of all at the end, in units of `2^-BITS`, beside one unit that each symbol
    /// has for certain; not falling.
    below: Vec<u32>,
    passed: u32,
}

impl Adaptive {
    /// A model of `count` symbols, at most 256, alike at first.
    pub(super) fn new(count: usize) -> Self {
        let learned = (1u64 << BITS) - count as u64;
        Self { below: (0..=count as u64).map(|i| (learned * i / count as u64) as u32).collect(), passed: 0 }
    }

    /// Gives `symbol` a larger share.
    pub(super) fn learn(&mut self, symbol: usize) {
        self.passed = self.passed.saturating_add(1);
        let rate = (self.passed.ilog2() + 1).min(SLOWEST);
        let count = self.below.len() - 1;
        let all = self.below[count];
        for below in &mut self.below[1..=symbol] {
            *below -= *below >> rate;
        }
        for below in &mut self.below[symbol + 1..count] {
            *below += (all - *below) >> rate;
        }
    }

    /// The share of all symbols below this one.
    fn start(&self, symbol: usize) -> u32 {
        self.below[symbol] + symbol as u32
    }
}

impl EntropyModel<BITS> for Adaptive {
    type Symbol = usize;
    type Probability = u32;
}

impl EncoderModel<BITS> for Adaptive {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<usize>) -> Option<(u32, NonZeroU32)> {
        let symbol = *symbol.borrow();
        let start = self.start(symbol);
        (symbol + 1 < self.below.len()).then(|| NonZeroU32::new(self.start(symbol + 1) - start).map(|p| (start, p)))?
    }
}

impl DecoderModel<BITS> for Adaptive {
    fn quantile_function(&self, quantile: u32) -> (usize, u32, NonZeroU32) {
        let count = self.below.len() - 1;
        let symbol = (1..count).take_while(|&next| self.start(next) <= quantile).count();
        let start = self.start(symbol);
        (symbol, start, NonZeroU32::new(self.start(symbol + 1) - start).expect("each symbol has at least one unit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_above_0_and_cover_all() {
        for count in [2, 3, 47, 256] {
            let mut model = Adaptive::new(count);
            for step in 0..5000 {
                // Long runs, so that the shares of the others go as far down as they can.
                model.learn((step / 2000) * 7 % count);
                assert_eq!(model.start(0), 0);
                assert_eq!(model.start(count), 1 << BITS);
                assert!((0..count).all(|s| model.start(s) < model.start(s + 1)), "{count} symbols after {step}");
            }
            for symbol in 0..count {
                let (start, share) = model.left_cumulative_and_probability(symbol).unwrap();
                for quantile in [start, start + share.get() - 1] {
                    assert_eq!(model.quantile_function(quantile), (symbol, start, share));
                }
            }
        }
    }
}
