//! An asymmetric numeral system over one buffer: symbols from its front, raw bits from its back.
//!
//! Duda 2009, in the range variant. Symbols must be coded last to first, so the encoder keeps them until the end.

use crate::codec::matrix::shape::SYMBOLS;

/// Probabilities are multiples of 2^-15.
pub(super) const PROBABILITY_BITS: u32 = 15;
/// Their sum.
pub(super) const WHOLE: u32 = 1 << PROBABILITY_BITS;
/// The state stays in `LOW..2^32`, filled up by 16 bits at a time.
const LOW: u32 = 1 << 16;

/// A distribution of symbols: the sum of the frequencies before each one, and the frequencies. They sum to [`WHOLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Distribution {
    pub(super) starts: [i16; SYMBOLS],
    pub(super) frequencies: [u16; SYMBOLS],
}

impl Distribution {
    /// The distribution closest to these weights with no frequency 0; what rounding leaves goes to the largest.
    pub(super) fn new(weights: &[u64; SYMBOLS]) -> Self {
        let sum = weights.iter().sum::<u64>().max(1);
        let spare = u64::from(WHOLE) - SYMBOLS as u64;
        let mut frequencies = weights.map(|weight| 1 + (weight * spare / sum) as u16);
        let total: u32 = frequencies.iter().map(|&f| u32::from(f)).sum();
        let largest = (0..SYMBOLS).fold(0, |best, s| if frequencies[s] > frequencies[best] { s } else { best });
        frequencies[largest] += (WHOLE - total) as u16;
        let mut starts = [0; SYMBOLS];
        let mut start = 0;
        for (at, &frequency) in starts.iter_mut().zip(&frequencies) {
            *at = start as i16;
            start += u32::from(frequency);
        }
        Self { starts, frequencies }
    }

    /// The symbol that holds `slot`, below [`WHOLE`]: every start is compared, which takes a few vector instructions.
    #[inline(always)]
    fn find(&self, slot: u32) -> usize {
        let slot = slot as i16;
        let above: i16 = self.starts.iter().map(|&start| i16::from(start > slot)).sum();
        (SYMBOLS as i16 - 1 - above) as usize & (SYMBOLS - 1)
    }
}

/// Collects symbols and bits.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// Start and frequency of each symbol, in order.
    symbols: Vec<[u16; 2]>,
    /// Whole bytes of raw bits, in order.
    bits: Vec<u8>,
    hold: u64,
    held: u32,
}

impl Encoder {
    /// With room for `n` symbols.
    pub(super) fn with_capacity(n: usize) -> Self {
        Self { symbols: Vec::with_capacity(n), ..Self::default() }
    }

    pub(super) fn symbol(&mut self, distribution: &Distribution, symbol: usize) {
        self.symbols.push([distribution.starts[symbol] as u16, distribution.frequencies[symbol]]);
    }

    /// The lowest `n` ≤ 32 bits of `value`.
    pub(super) fn raw(&mut self, value: u32, n: u32) {
        self.hold |= u64::from(value) << self.held;
        self.held += n;
        while self.held >= 8 {
            self.bits.push(self.hold as u8);
            self.hold >>= 8;
            self.held -= 8;
        }
    }

    /// Everything coded, behind `head`.
    pub(super) fn finish(mut self, head: &[u8]) -> Vec<u8> {
        if self.held > 0 {
            self.bits.push(self.hold as u8);
        }
        let mut words = Vec::with_capacity(self.symbols.len() / 4);
        let mut state = LOW;
        for &[start, frequency] in self.symbols.iter().rev() {
            let frequency = u32::from(frequency);
            // Room below 2^32 for the symbol: the quotient must stay below 2^17.
            if state >> (32 - PROBABILITY_BITS) >= frequency {
                words.push(state as u16);
                state >>= 16;
            }
            state = ((state / frequency) << PROBABILITY_BITS) + state % frequency + u32::from(start);
        }
        let mut coded = Vec::with_capacity(head.len() + 4 + 2 * words.len() + self.bits.len());
        coded.extend(head);
        coded.extend(state.to_le_bytes());
        coded.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
        coded.extend(self.bits.iter().rev());
        coded
    }
}

/// Reads what an [`Encoder`] collected. Past the end it reads zeros; [`Decoder::check`] tells.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    coded: &'a [u8],
    /// The next word of symbols.
    front: usize,
    /// Bytes of raw bits taken from the back.
    taken: usize,
    state: u32,
    hold: u64,
    held: u32,
}

impl<'a> Decoder<'a> {
    /// Starts behind the head; at least the state must follow.
    pub(super) fn new(coded: &'a [u8]) -> Result<Self, String> {
        let Some(state) = coded.first_chunk::<4>() else { return Err("its end before the first symbol".into()) };
        let state = u32::from_le_bytes(*state);
        if state < LOW {
            return Err(format!("a coder that starts at {state}"));
        }
        Ok(Self { coded, front: 4, taken: 0, state, hold: 0, held: 0 })
    }

    /// The next symbol, by its distribution.
    #[inline(always)]
    pub(super) fn symbol(&mut self, distribution: &Distribution) -> usize {
        let slot = self.state & (WHOLE - 1);
        let symbol = distribution.find(slot);
        let (start, frequency) = (distribution.starts[symbol] as u32, u32::from(distribution.frequencies[symbol]));
        // Never out of range: a frequency is at most 2^15, and the slot is not below its symbol's start.
        let above = frequency.wrapping_mul(self.state >> PROBABILITY_BITS);
        self.state = above.wrapping_add(slot.wrapping_sub(start));
        if self.state < LOW {
            let word = self.coded.get(self.front..self.front + 2).map_or(0, |w| u16::from_le_bytes([w[0], w[1]]));
            self.state = self.state << 16 | u32::from(word);
            self.front = self.front.wrapping_add(2);
        }
        symbol
    }

    /// The next `n` ≤ 32 raw bits.
    #[inline(always)]
    pub(super) fn raw(&mut self, n: u32) -> u32 {
        if self.held < n {
            self.refill();
        }
        let value = (self.hold & !(u64::MAX << (n & 63))) as u32;
        self.hold >>= n & 63;
        self.held = self.held.wrapping_sub(n);
        value
    }

    fn refill(&mut self) {
        while self.held <= 56 {
            self.taken += 1;
            let byte = self.coded.len().checked_sub(self.taken).map_or(0, |at| self.coded[at]);
            self.hold |= u64::from(byte) << self.held;
            self.held += 8;
        }
    }

    /// Whether symbols and bits end where they meet, as they do at the end of a good stream only.
    pub(super) fn check(&self) -> Result<(), String> {
        let (whole, rest) = (self.held as usize / 8, self.held % 8);
        let used = self.front + self.taken - whole;
        if used != self.coded.len() {
            return Err(format!("{used} coded bytes in use"));
        }
        if self.state != LOW || self.hold & ((1 << rest) - 1) != 0 {
            return Err("a coder that ends in another state".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_sum_to_the_whole() {
        for weights in [[0; SYMBOLS], [1; SYMBOLS], [u64::MAX >> 20; SYMBOLS], std::array::from_fn(|i| 1 << (2 * i))] {
            let d = Distribution::new(&weights);
            assert_eq!(d.frequencies.iter().map(|&f| u32::from(f)).sum::<u32>(), WHOLE);
            assert!(d.frequencies.iter().all(|&f| f > 0));
            for slot in 0..WHOLE {
                // The plain way: the last symbol that starts no later.
                let plain = (0..SYMBOLS).rev().find(|&s| d.starts[s] as u32 <= slot);
                assert_eq!(Some(d.find(slot)), plain);
            }
        }
    }

    #[test]
    fn symbols_and_bits_come_back_and_no_byte_is_left() {
        let d = Distribution::new(&std::array::from_fn(|i| 1 << (15 - i)));
        for n in [0, 1, 2, 7, 1000] {
            let mut encoder = Encoder::with_capacity(n);
            let value = |i: usize| (i * i % 31) as u32;
            for i in 0..n {
                encoder.symbol(&d, i * 7 % 16);
                encoder.raw(value(i), 5);
                encoder.raw(value(i) << 27, 32);
            }
            let coded = encoder.finish(b"");
            let read = |coded: &[u8]| {
                let mut decoder = Decoder::new(coded)?;
                for i in 0..n {
                    let good = decoder.symbol(&d) == i * 7 % 16;
                    if !(good & (decoder.raw(5) == value(i)) & (decoder.raw(32) == value(i) << 27)) {
                        return Err("other values".to_owned());
                    }
                }
                decoder.check()
            };
            read(&coded).unwrap();
            assert!(read(&[&coded[..], &[0]].concat()).is_err());
            assert!(read(&[&[0], &coded[..]].concat()).is_err());
            assert!(read(&coded[1..]).is_err());
            assert!(read(&coded[..coded.len() - 1]).is_err());
        }
    }
}
