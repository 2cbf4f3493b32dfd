//! Adaptive binary arithmetic coding: the range coder of LZMA, with probabilities that learn fast at first.

/// Probabilities are multiples of 2^-16, of which the coder sees the upper 15 bits.
const PROBABILITY_BITS: u32 = 15;
/// Below this the range is widened by a byte.
const BOTTOM: u32 = 1 << 24;
/// A bit learns as if it had been seen no more often than this.
const MEMORY: u8 = 160;

/// What is known of a bit in one context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bit {
    /// Probability of a 0.
    zero: u16,
    seen: u8,
}

impl Bit {
    /// Nothing.
    pub(super) const NEW: Self = Self { zero: 1 << 15, seen: 0 };

    /// The part of `range` that stands for a 0: never nothing, never all.
    fn bound(self, range: u32) -> u32 {
        (range >> PROBABILITY_BITS) * (u32::from(self.zero >> 1)).clamp(16, (1 << PROBABILITY_BITS) - 16)
    }

    /// Moves towards what came: all the observations so far weigh the same, until there are too many.
    fn learn(&mut self, bit: bool) {
        let target = if bit { 0 } else { 0xffff };
        let step = (target - i32::from(self.zero)) * 2 / (2 * i32::from(self.seen) + 3);
        self.zero = (i32::from(self.zero) + step) as u16;
        self.seen = (self.seen + 1).min(MEMORY);
    }
}

/// Writes bits.
#[derive(Debug)]
pub(super) struct Encoder {
    low: u64,
    range: u32,
    coded: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, range: u32::MAX, coded: Vec::new() }
    }

    pub(super) fn bit(&mut self, context: &mut Bit, bit: bool) {
        let bound = context.bound(self.range);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        context.learn(bit);
        self.widen();
    }

    /// A bit of which nothing is known.
    pub(super) fn even(&mut self, bit: bool) {
        self.range >>= 1;
        self.low += u64::from(self.range) * u64::from(bit);
        self.widen();
    }

    fn widen(&mut self) {
        while self.range < BOTTOM {
            self.shift();
            self.range <<= 8;
        }
    }

    /// Moves the top byte out, with the carry it may have.
    fn shift(&mut self) {
        if self.low >> 32 != 0 {
            // All numbers are below 1: the first byte takes the last carry.
            for byte in self.coded.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
            self.low &= 0xffff_ffff;
        }
        self.coded.push((self.low >> 24) as u8);
        self.low = (self.low << 8) & 0xffff_ffff;
    }

    /// The bytes: one for each that the decoder will look at.
    pub(super) fn finish(mut self) -> Vec<u8> {
        (0..4).for_each(|_| self.shift());
        self.coded
    }
}

/// Reads what an [`Encoder`] wrote; past its end, zeros, of which [`Decoder::check`] tells.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    coded: &'a [u8],
    at: usize,
    code: u32,
    range: u32,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(coded: &'a [u8]) -> Self {
        let mut decoder = Self { coded, at: 0, code: 0, range: u32::MAX };
        (0..4).for_each(|_| decoder.shift());
        decoder
    }

    pub(super) fn bit(&mut self, context: &mut Bit) -> bool {
        let bound = context.bound(self.range);
        let bit = self.code >= bound;
        if bit {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        context.learn(bit);
        self.widen();
        bit
    }

    /// A bit of which nothing is known.
    pub(super) fn even(&mut self) -> bool {
        self.range >>= 1;
        let bit = self.code >= self.range;
        self.code -= if bit { self.range } else { 0 };
        self.widen();
        bit
    }

    fn widen(&mut self) {
        while self.range < BOTTOM {
            self.shift();
            self.range <<= 8;
        }
    }

    fn shift(&mut self) {
        self.code = self.code << 8 | u32::from(self.coded.get(self.at).copied().unwrap_or(0));
        self.at += 1;
    }

    /// Whether all the bytes were looked at and none beyond.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.at.checked_sub(self.coded.len()) {
            Some(0) => Ok(()),
            Some(_) => Err(format!("its end after {} coded bytes", self.coded.len())),
            None => Err(format!("{} bytes after the stream", self.coded.len() - self.at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(n: usize) -> impl Iterator<Item = (usize, bool)> {
        // Contexts of very different odds: always, nearly always, one in three, even.
        (0..n).map(|i| match i % 4 {
            0 => (0, true),
            1 => (1, i % 397 == 1),
            2 => (2, i * i % 3 == 0),
            _ => (3, (i as u32).wrapping_mul(2_654_435_761) >> 31 == 1),
        })
    }

    #[test]
    fn bits_come_back() {
        for n in [0, 1, 2, 9, 100, 50_000] {
            let mut encoder = Encoder::new();
            let mut contexts = [Bit::NEW; 4];
            for (context, bit) in bits(n) {
                encoder.bit(&mut contexts[context], bit);
                encoder.even(bit);
            }
            let coded = encoder.finish();
            let read = |coded: &[u8]| {
                let (mut decoder, mut contexts) = (Decoder::new(coded), [Bit::NEW; 4]);
                let same =
                    bits(n).all(|(context, bit)| decoder.bit(&mut contexts[context]) == bit && decoder.even() == bit);
                if same { decoder.check() } else { Err("other bits".into()) }
            };
            read(&coded).unwrap();
            assert!(read(&[&coded[..], &[0]].concat()).is_err());
            assert!(read(&coded[..coded.len() - 1]).is_err());
        }
    }

    #[test]
    fn known_bits_cost_little() {
        let mut encoder = Encoder::new();
        let mut context = Bit::NEW;
        (0..10_000).for_each(|_| encoder.bit(&mut context, true));
        assert!(encoder.finish().len() < 20);
    }
}
