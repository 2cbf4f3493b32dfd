//! How codes stand in bytes before a byte codec sees them.

use sixpack_formats::QuantizedMatrix;
use sixpack_formats::codec::pairs;

use super::symbols::largest;

/// An order and a packing of the symbols of matrices that share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// One byte a code, two's complement, row-major.
    Plain,
    /// One byte a code, column-major.
    Transposed,
    /// The codes at even places of the stream, then those at odd places: the shuffle by a stride of 2 that the reference
    /// applies to its whole file. It is meant for f16, whose halves it separates; of int8 codes it takes two columns apart.
    Shuffled,
    /// Bit planes, the eight codes of a byte side by side: all signs of a matrix, then its magnitudes from the highest bit
    /// to the lowest.
    Planes,
    /// As many bits a code as the matrix needs, two's complement, lowest bit first: 6 for int6.
    Packed,
    /// Two codes within ±7 in one byte, others in three: [`pairs::pack`].
    Pairs,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 6] = [Self::Plain, Self::Transposed, Self::Shuffled, Self::Planes, Self::Packed, Self::Pairs];

    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Transposed => "transposed",
            Self::Shuffled => "shuffled",
            Self::Planes => "planes",
            Self::Packed => "packed",
            Self::Pairs => "pairs",
        }
    }

    /// The layout of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// Bytes of the symbols of these matrices.
    pub(super) fn lay<S: AsRef<[i8]>>(self, matrices: &[(&QuantizedMatrix, S)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (matrix, symbols) in matrices {
            let symbols = symbols.as_ref();
            match self {
                Self::Plain | Self::Shuffled | Self::Pairs => out.extend(symbols.iter().map(|&s| s as u8)),
                Self::Transposed => out.extend(transpose(symbols, matrix.rows, matrix.cols).map(|s| s as u8)),
                Self::Planes => planes(symbols, magnitude_bits(matrix), &mut out),
                Self::Packed => pack(symbols, magnitude_bits(matrix) + 1, &mut out),
            }
        }
        match self {
            Self::Shuffled => out.iter().step_by(2).chain(out.iter().skip(1).step_by(2)).copied().collect(),
            Self::Pairs => pairs::pack(&out),
            _ => out,
        }
    }

    /// The most bytes that [`Layout::lay`] makes for matrices of these outlines.
    pub(super) fn most(self, outlines: &[QuantizedMatrix]) -> usize {
        let total: usize = outlines.iter().map(|o| self.bytes(o)).sum();
        if self == Self::Pairs { pairs::most(total) } else { total }
    }

    /// Undoes [`Layout::lay`]: the symbols of each outline, or what is wrong with the bytes.
    pub(super) fn read(self, bytes: Vec<u8>, outlines: &[QuantizedMatrix]) -> Result<Vec<Vec<i8>>, String> {
        let expected: usize = outlines.iter().map(|o| self.bytes(o)).sum();
        let bytes = match self {
            Self::Shuffled => unshuffle(&bytes),
            Self::Pairs => pairs::unpack(&bytes, expected)?,
            _ => bytes,
        };
        if bytes.len() != expected {
            return Err(format!("{} bytes instead of {expected}", bytes.len()));
        }
        let mut rest = &bytes[..];
        let symbols = outlines.iter().map(|outline| {
            let (own, others) = rest.split_at(self.bytes(outline));
            rest = others;
            let weights = outline.rows * outline.cols;
            let bits = magnitude_bits(outline);
            match self {
                Self::Plain | Self::Shuffled | Self::Pairs => own.iter().map(|&b| b as i8).collect(),
                Self::Transposed => transpose(own, outline.cols, outline.rows).map(|b| b as i8).collect(),
                Self::Planes => unplane(own, bits, weights),
                Self::Packed => unpack(own, bits + 1, weights),
            }
        });
        Ok(symbols.collect())
    }

    /// Bytes of one matrix, pairs not yet made.
    fn bytes(self, outline: &QuantizedMatrix) -> usize {
        let weights = outline.rows * outline.cols;
        let bits = magnitude_bits(outline) as usize + 1;
        match self {
            Self::Plain | Self::Transposed | Self::Shuffled | Self::Pairs => weights,
            Self::Planes => weights.div_ceil(8) * bits,
            Self::Packed => (weights * bits).div_ceil(8),
        }
    }
}

/// Bits of the magnitude of a matrix's symbols: 5 for int6.
fn magnitude_bits(outline: &QuantizedMatrix) -> u32 {
    u8::BITS - largest(outline).leading_zeros()
}

/// A row-major `[rows, cols]` column by column.
fn transpose<T: Copy>(values: &[T], rows: usize, cols: usize) -> impl Iterator<Item = T> {
    (0..cols).flat_map(move |col| (0..rows).map(move |row| values[row * cols + col]))
}

fn unshuffle(bytes: &[u8]) -> Vec<u8> {
    let (even, odd) = bytes.split_at(bytes.len().div_ceil(2));
    (0..bytes.len()).map(|i| if i % 2 == 0 { even[i / 2] } else { odd[i / 2] }).collect()
}

/// Signs, then magnitudes from the highest bit on, each plane filled up to whole bytes.
fn planes(symbols: &[i8], bits: u32, out: &mut Vec<u8>) {
    let mut plane = |bit: &dyn Fn(i8) -> bool| {
        let byte = |eight: &[i8]| eight.iter().enumerate().fold(0, |byte, (i, &s)| byte | u8::from(bit(s)) << i);
        out.extend(symbols.chunks(8).map(byte));
    };
    plane(&|s| s < 0);
    (0..bits).rev().for_each(|k| plane(&|s| s.unsigned_abs() >> k & 1 == 1));
}

fn unplane(bytes: &[u8], bits: u32, weights: usize) -> Vec<i8> {
    let width = weights.div_ceil(8);
    let bit = |plane: usize, i: usize| bytes[plane * width + i / 8] >> (i % 8) & 1;
    let symbol = |i: usize| {
        let magnitude = (1..=bits as usize).fold(0, |m, plane| m << 1 | bit(plane, i)) as i8;
        if bit(0, i) == 1 { i8::wrapping_neg(magnitude) } else { magnitude }
    };
    (0..weights).map(symbol).collect()
}

fn pack(symbols: &[i8], bits: u32, out: &mut Vec<u8>) {
    let (mut waiting, mut held) = (0u32, 0);
    for &symbol in symbols {
        waiting |= (i32::from(symbol) as u32 & ((1 << bits) - 1)) << held;
        held += bits;
        while held >= 8 {
            out.push(waiting as u8);
            waiting >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(waiting as u8);
    }
}

fn unpack(bytes: &[u8], bits: u32, weights: usize) -> Vec<i8> {
    let (mut waiting, mut held, mut rest) = (0u32, 0, bytes.iter());
    let symbol = |_| {
        while held < bits {
            waiting |= u32::from(rest.next().copied().unwrap_or(0)) << held;
            held += 8;
        }
        let low = waiting & ((1 << bits) - 1);
        waiting >>= bits;
        held -= bits;
        // The highest of the bits is the sign.
        (low << (32 - bits)) as i32 >> (32 - bits)
    };
    (0..weights).map(symbol).map(|s| s as i8).collect()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn matrix(rows: usize, cols: usize, q_max: u8, codes: &[i8]) -> QuantizedMatrix {
        QuantizedMatrix::new("m", [rows, cols], q_max, codes.to_vec(), vec![f16::ONE; rows]).unwrap()
    }

    fn lay(layout: Layout, matrix: &QuantizedMatrix) -> Vec<u8> {
        layout.lay(&[(matrix, &matrix.codes)])
    }

    #[test]
    fn by_hand() {
        let m = matrix(2, 3, 3, &[1, -2, 3, 0, -1, 2]);
        assert_eq!(lay(Layout::Plain, &m), [1, 254, 3, 0, 255, 2]);
        assert_eq!(lay(Layout::Transposed, &m), [1, 0, 254, 255, 3, 2]);
        assert_eq!(lay(Layout::Shuffled, &m), [1, 3, 255, 254, 0, 2]);
        assert_eq!(lay(Layout::Pairs, &m), [8 * 15 + 5, 10 * 15 + 7, 6 * 15 + 9]);
        // Signs of -2 and -1; the twos of -2, 3 and 2; the ones of 1, 3 and -1.
        assert_eq!(lay(Layout::Planes, &m), [0b01_0010, 0b10_0110, 0b01_0101]);
        // Three bits each from the lowest on: 001 110 011 000 111 010.
        assert_eq!(lay(Layout::Packed, &m), [0b1111_0001, 0b0111_0000, 0b01]);
    }

    #[test]
    fn packed_codes_of_every_width_come_back() {
        for q_max in 1..=127u8 {
            let codes: Vec<i8> = (0..=2 * u16::from(q_max)).map(|i| (i as i16 - i16::from(q_max)) as i8).collect();
            let m = matrix(1, codes.len(), q_max, &codes);
            let outline = super::super::outline(&m);
            for layout in [Layout::Packed, Layout::Planes] {
                let back = layout.read(lay(layout, &m), std::slice::from_ref(&outline)).unwrap();
                assert_eq!(back[0], codes, "{layout:?} of ±{q_max}");
            }
        }
    }

    #[test]
    fn another_number_of_bytes_is_refused() {
        let m = matrix(3, 5, 31, &[1; 15]);
        let outlines = [super::super::outline(&m)];
        for layout in Layout::ALL {
            let bytes = lay(layout, &m);
            assert!(bytes.len() <= layout.most(&outlines));
            assert!(layout.read(bytes[..bytes.len() - 1].to_vec(), &outlines).is_err(), "{layout:?}");
            assert!(layout.read([&bytes[..], &[0]].concat(), &outlines).is_err(), "{layout:?}");
        }
    }
}
