//! Library coders: those of the constriction crate (Bamler 2022, arXiv 2201.01741), each matrix with a model of its own.
//!
//! A matrix with weights is: its lowest symbol, a byte; how many more symbols there are up to the highest, a byte; and
//! where that is not 0 the model, the number of words as a [`varint`], and the words of the coder, little-endian.

mod adaptive;

use constriction::stream::model::ContiguousCategoricalEntropyModel;
use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::stack::DefaultAnsCoder;
use constriction::stream::{Decode, Encode};
use sixpack_formats::QuantizedMatrix;

use super::MatrixCodec;
use super::bytes::{read_varint, varint};
use super::symbols::{self, wrong};
use crate::Result;
use adaptive::Adaptive;

/// A library coder and the model it is given.
#[derive(Clone, Copy)]
pub(super) enum Constriction {
    /// Asymmetric numeral systems with the shares of the symbols in the matrix, in units of 1/65,536, written in front.
    Static,
    /// A range coder with shares that are learned as symbols pass.
    Adaptive,
}

/// Base-2 logarithm of the total of the static shares.
const STATIC_BITS: usize = 16;
/// Static shares.
type Shares = ContiguousCategoricalEntropyModel<u16, Vec<u16>, STATIC_BITS>;

impl MatrixCodec for Constriction {
    fn name(&self) -> String {
        match self {
            Self::Static => "constriction-static".into(),
            Self::Adaptive => "constriction-adaptive".into(),
        }
    }

    fn encode(&self, matrices: &[&QuantizedMatrix]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for matrix in matrices {
            let symbols = symbols::of(matrix)?;
            let (Some(&low), Some(&high)) = (symbols.iter().min(), symbols.iter().max()) else {
                continue;
            };
            let span = (i16::from(high) - i16::from(low)) as u8;
            out.extend([low as u8, span]);
            if span > 0 {
                let numbers = symbols.iter().map(|&s| (i16::from(s) - i16::from(low)) as usize).collect::<Vec<_>>();
                let words = match self {
                    Self::Static => encode_static(&numbers, usize::from(span) + 1, &mut out),
                    Self::Adaptive => encode_adaptive(&numbers, usize::from(span) + 1),
                };
                varint(words.len(), &mut out);
                out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            }
        }
        Ok(out)
    }

    fn decode(&self, coded: &[u8], outlines: &[QuantizedMatrix]) -> Result<Vec<Vec<i8>>> {
        let name = self.name();
        let mut rest = coded;
        let mut decoded = Vec::new();
        for outline in outlines {
            let weights = outline.rows * outline.cols;
            let expected = || format!("the codes of a matrix [{}, {}]", outline.rows, outline.cols);
            let symbols = if weights == 0 { Some(Vec::new()) } else { self.read(&mut rest, weights) };
            let symbols = symbols.ok_or_else(|| wrong(&name, expected(), "a malformed stream"))?;
            decoded.push(symbols::into_codes(&name, outline, symbols)?);
        }
        match rest {
            [] => Ok(decoded),
            more => Err(wrong(&name, "the end of the stream", format!("{} more bytes", more.len()))),
        }
    }
}

impl Constriction {
    /// Takes the symbols of one matrix off the front.
    fn read(self, rest: &mut &[u8], weights: usize) -> Option<Vec<i8>> {
        let [low, span] = *rest.split_off(..2)?.as_array()?;
        let low = low as i8;
        // Beyond this there are no symbols.
        low.checked_add_unsigned(span)?;
        if span == 0 {
            return Some(vec![low; weights]);
        }
        let count = usize::from(span) + 1;
        let shares = match self {
            Self::Static => Some(read_shares(rest, count)?),
            Self::Adaptive => None,
        };
        let words = read_varint(rest)?;
        let (words, _) = rest.split_off(..words.checked_mul(4)?)?.as_chunks();
        let words = words.iter().map(|&word| u32::from_le_bytes(word)).collect::<Vec<_>>();
        let symbol = |number: usize| low.wrapping_add_unsigned(number as u8);
        match shares {
            Some(shares) => decode_static(words, &shares, weights, symbol),
            None => decode_adaptive(words, count, weights, symbol),
        }
    }
}

fn encode_static(numbers: &[usize], count: usize, out: &mut Vec<u8>) -> Vec<u32> {
    let shares = shares(numbers, count);
    // The last one is what is left.
    shares[..count - 1].iter().for_each(|&share| varint(share.into(), out));
    let model = Shares::from_nonzero_fixed_point_probabilities(&shares, false).expect("shares above 0 that sum to 1");
    let mut coder = DefaultAnsCoder::new();
    coder.encode_iid_symbols_reverse(numbers, model.as_view()).expect("every symbol has a share");
    coder.into_compressed().unwrap_or_else(|e| match e {})
}

/// The share of each of `count` symbols, at least two, in units of 1/65,536; none is 0.
fn shares(numbers: &[usize], count: usize) -> Vec<u16> {
    const ALL: u64 = 1 << STATIC_BITS;
    let mut counts = vec![0u64; count];
    numbers.iter().for_each(|&n| counts[n] += 1);
    let total = numbers.len() as u64;
    let mut shares: Vec<u64> = counts.iter().map(|&n| ((n * ALL + total / 2) / total).max(1)).collect();
    // The largest share is at least 1/255 and takes what the rounding of at most 255 shares leaves over or short.
    let largest = (0..count).max_by_key(|&i| shares[i]).unwrap_or(0);
    let others: u64 = shares.iter().sum::<u64>() - shares[largest];
    shares[largest] = ALL - others;
    shares.into_iter().map(|share| share as u16).collect()
}

fn read_shares(rest: &mut &[u8], count: usize) -> Option<Vec<u16>> {
    let mut left = 1u32 << STATIC_BITS;
    let mut shares = Vec::with_capacity(count);
    for _ in 1..count {
        let share = u16::try_from(read_varint(rest)?).ok().filter(|&share| share > 0)?;
        left = left.checked_sub(share.into())?;
        shares.push(share);
    }
    shares.push(u16::try_from(left).ok().filter(|&share| share > 0)?);
    Some(shares)
}

fn decode_static(words: Vec<u32>, shares: &[u16], weights: usize, symbol: impl Fn(usize) -> i8) -> Option<Vec<i8>> {
    let model = Shares::from_nonzero_fixed_point_probabilities(shares, false).ok()?.to_lookup_decoder_model();
    let mut coder = DefaultAnsCoder::from_compressed(words).ok()?;
    let numbers = coder.decode_iid_symbols(weights, model.as_view());
    let symbols = numbers.map(|number| number.ok().map(&symbol)).collect::<Option<Vec<_>>>()?;
    let exhausted = coder.is_empty() && coder.bulk().is_empty();
    exhausted.then_some(symbols)
}

fn encode_adaptive(numbers: &[usize], count: usize) -> Vec<u32> {
    let mut model = Adaptive::new(count);
    let mut coder = DefaultRangeEncoder::new();
    for &number in numbers {
        coder.encode_symbol(number, &model).expect("every symbol has a share");
        model.learn(number);
    }
    coder.into_compressed().unwrap_or_else(|e| match e {})
}

fn decode_adaptive(words: Vec<u32>, count: usize, weights: usize, symbol: impl Fn(usize) -> i8) -> Option<Vec<i8>> {
    let mut model = Adaptive::new(count);
    let mut coder = DefaultRangeDecoder::from_compressed(words).unwrap_or_else(|e| match e {});
    let mut symbols = Vec::new();
    for _ in 0..weights {
        let number = coder.decode_symbol(&model).ok()?;
        model.learn(number);
        symbols.push(symbol(number));
    }
    coder.maybe_exhausted().then_some(symbols)
}
