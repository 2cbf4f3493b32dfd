//! Codes of a quantised matrix, by an adaptive model of their scales.
//!
//! Byte layout of a coded matrix; all numbers little-endian. A matrix without codes has no bytes.
//!
//! 1. byte 0: flags: bit 0 "transposed", the others are 0;
//! 2. byte 1: what is known of the rows (low half) and of the columns before the first code: the logarithm of a factor
//!    has the variance 2^-n;
//! 3. bytes 2–3: base-2 logarithm of the typical weight, an i16 in units of 1/256;
//! 4. bytes 4–7: the coder's state, a u32 of at least 2^16;
//! 5. from there on 16-bit words of the symbols, in the order they are read; from the end backwards the bytes of the raw
//!    bits, lowest bit first. They meet; bits that fill up the last byte are 0.
//!
//! The model. Shape, row scales, column factors, `q_max` and the trellis flag are known. Codes are taken line by line:
//! rows from the first to the last, or columns when transposed. Where the codes are paths of the
//! trellis, its index is coded instead of the code. A code is seen as one of a Gaussian
//! on a grid with σ = typical weight / (row scale · column factor) · (factor of its row) · (factor of its column). Both
//! factors start at 1 and follow what is coded, by the score of each symbol ([`scale`]). σ in sixteenths of an octave
//! chooses the distribution of the magnitude: the Gaussian's ([`shape`]), put right by counts ([`tables`]). Magnitudes
//! of 15 on are written with an Elias gamma code of what is above 14, signs and the low bits of large scales as they
//! are. Symbols are coded by [`rans`].

mod rans;
mod scale;
mod shape;
mod tables;

use crate::trellis::State;
use crate::{Error, QuantizedMatrix, Result};
use rans::{Decoder, Distribution, Encoder};
use scale::Factor;
use shape::{Grid, SYMBOLS, level_of};
use tables::Tables;

/// Bytes before the coder's state.
const HEAD: usize = 4;
/// Flag of a matrix taken column by column.
const TRANSPOSED: u8 = 1;
/// The most zeros that start an Elias gamma code: magnitudes are below 256.
const MOST_ZEROS: u32 = 8;

/// What stands before the symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    transposed: bool,
    rows: u8,
    columns: u8,
    typical: i16,
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD] {
        let [low, high] = self.typical.to_le_bytes();
        [u8::from(self.transposed) * TRANSPOSED, self.rows | self.columns << 4, low, high]
    }

    fn from_bytes([flags, known, low, high]: [u8; HEAD]) -> Result<Self, String> {
        if flags & !TRANSPOSED != 0 {
            return Err(format!("flags {flags}"));
        }
        let typical = i16::from_le_bytes([low, high]);
        Ok(Self { transposed: flags != 0, rows: known & 15, columns: known >> 4, typical })
    }
}

/// The codes of `matrix`, coded. Its scales and column factors are not part of it: the decoder must know them.
/// Both orders are tried and the smaller is kept. The same matrix always gives the same bytes, as many as in an artifact.
///
/// # Errors
/// A trellis matrix of which the codes are not paths; `name` is for the message.
pub fn encode(matrix: &QuantizedMatrix, name: &str) -> Result<Vec<u8>> {
    let head = choose(matrix);
    let by_rows = encode_as(matrix, name, &head)?;
    let by_columns = encode_as(matrix, name, &Head { transposed: true, ..head })?;
    Ok(if by_columns.len() < by_rows.len() { by_columns } else { by_rows })
}

fn encode_as(matrix: &QuantizedMatrix, name: &str, head: &Head) -> Result<Vec<u8>> {
    if matrix.codes.is_empty() {
        return Ok(Vec::new());
    }
    let walk = Walk::new(matrix, head.transposed);
    let mut codes = walk.taken(&matrix.codes);
    let mut writer = Writer(Encoder::with_capacity(codes.len()));
    let wrong = |at: usize| {
        let (row, column) = walk.place(at);
        let expected = "codes that are a path of the trellis in each row".into();
        Error::Tensor { name: name.into(), expected, found: format!("another code at row {row}, column {column}") }
    };
    pass(&mut writer, matrix, head, &mut codes).map_err(wrong)?;
    Ok(writer.0.finish(&head.to_bytes()))
}

/// `frame` with the codes that `coded` holds; its own codes are not looked at. `stream` names the stream in errors.
///
/// # Errors
/// Bytes that no matrix of this frame gives.
pub fn decode(coded: &[u8], frame: QuantizedMatrix, stream: &str) -> Result<QuantizedMatrix> {
    let fail = |found: String| {
        let expected = format!("coded codes of shape [{}, {}] within ±{}", frame.rows, frame.cols, frame.q_max);
        Error::Stream { stream: stream.into(), expected, found }
    };
    let n = frame.rows.checked_mul(frame.cols).ok_or_else(|| fail("more than fit into memory".into()))?;
    if n == 0 {
        return match coded {
            [] => Ok(QuantizedMatrix { codes: Vec::new(), ..frame }),
            _ => Err(fail(format!("{} bytes for no codes", coded.len()))),
        };
    }
    if n > super::most_values(coded.len()) {
        return Err(fail(format!("{} coded bytes, too few", coded.len())));
    }
    let (head, body) = coded.split_first_chunk().ok_or_else(|| fail(format!("{} bytes", coded.len())))?;
    let head = Head::from_bytes(*head).map_err(fail)?;
    let walk = Walk::new(&frame, head.transposed);
    let mut reader = Reader(Decoder::new(body).map_err(fail)?);
    let mut codes = vec![0; n];
    let passed = pass(&mut reader, &frame, &head, &mut codes);
    passed.map_err(|at| fail(format!("a code beyond ± its most at {at}")))?;
    reader.0.check().map_err(fail)?;
    if let Some(code) = codes.iter().find(|code| code.unsigned_abs() > frame.q_max) {
        return Err(fail(format!("code {code}")));
    }
    let codes = walk.put_back(&codes);
    Ok(QuantizedMatrix { codes, ..frame })
}

/// The order in which codes are taken: by lines, and places within a line.
#[derive(Clone, Copy, Debug)]
struct Walk {
    transposed: bool,
    rows: usize,
    columns: usize,
}

impl Walk {
    fn new(matrix: &QuantizedMatrix, transposed: bool) -> Self {
        Self { transposed, rows: matrix.rows, columns: matrix.cols }
    }

    /// Row and column of the code taken as number `at`.
    fn place(&self, at: usize) -> (usize, usize) {
        match self.transposed {
            true => (at % self.rows, at / self.rows),
            false => (at / self.columns, at % self.columns),
        }
    }

    /// Row-major codes in the order they are taken.
    fn taken(&self, codes: &[i8]) -> Vec<i8> {
        if !self.transposed {
            return codes.to_vec();
        }
        let at = |(row, column)| codes[row * self.columns + column];
        (0..codes.len()).map(|i| at(self.place(i))).collect()
    }

    /// Undoes [`Walk::taken`].
    fn put_back(&self, taken: &[i8]) -> Vec<i8> {
        if !self.transposed {
            return taken.to_vec();
        }
        let mut codes = vec![0; taken.len()];
        for (i, &code) in taken.iter().enumerate() {
            let (row, column) = self.place(i);
            codes[row * self.columns + column] = code;
        }
        codes
    }
}

/// One way through the coder: what is known of an index, and what comes of it.
trait Channel {
    /// The index of `code` in `state`: none if there is no such index; anything where the code is yet to be read.
    fn known(&self, code: i8, state: Option<State>) -> Option<i32>;
    /// Codes a symbol and returns it.
    fn symbol(&mut self, distribution: &Distribution, symbol: usize) -> usize;
    /// Codes the lowest `n` bits of a value and returns them.
    fn raw(&mut self, value: u32, n: u32) -> u32;
}

struct Writer(Encoder);

impl Channel for Writer {
    #[inline(always)]
    fn known(&self, code: i8, state: Option<State>) -> Option<i32> {
        let code = i32::from(code);
        state.map_or(Some(code), |state| state.index(code))
    }

    #[inline(always)]
    fn symbol(&mut self, distribution: &Distribution, symbol: usize) -> usize {
        self.0.symbol(distribution, symbol);
        symbol
    }

    #[inline(always)]
    fn raw(&mut self, value: u32, n: u32) -> u32 {
        let value = value & ((1u64 << n) - 1) as u32;
        self.0.raw(value, n);
        value
    }
}

struct Reader<'a>(Decoder<'a>);

impl Channel for Reader<'_> {
    #[inline(always)]
    fn known(&self, _: i8, _: Option<State>) -> Option<i32> {
        Some(0)
    }

    #[inline(always)]
    fn symbol(&mut self, distribution: &Distribution, _: usize) -> usize {
        self.0.symbol(distribution)
    }

    #[inline(always)]
    fn raw(&mut self, _: u32, n: u32) -> u32 {
        self.0.raw(n)
    }
}

/// Takes all codes through the channel. Fails with the number of a code that has no index or is out of every range.
fn pass<C: Channel>(channel: &mut C, matrix: &QuantizedMatrix, head: &Head, codes: &mut [i8]) -> Result<(), usize> {
    let typical = i32::from(head.typical) << (shape::LOG_BITS - 8);
    let rows: Vec<i32> = matrix.scales.iter().map(|&s| -scale::log2(s)).collect();
    let column = |c: usize| matrix.columns.get(c).map_or(0, |&factor| -scale::log2(factor));
    let columns: Vec<i32> = (0..matrix.cols).map(column).collect();
    let (lines, places, line_doubt, place_doubt) = match head.transposed {
        true => (&columns, &rows, head.columns, head.rows),
        false => (&rows, &columns, head.rows, head.columns),
    };
    let mut places: Vec<Factor> = places.iter().map(|&log| Factor::new(log, place_doubt)).collect();
    let n = places.len();
    let starts = lines.iter().map(|&log| Factor::new(typical + log, line_doubt));
    if matrix.trellis {
        let mut tables = [Tables::new(Grid::Even), Tables::new(Grid::Odd)];
        let mut states = vec![State::default(); if head.transposed { n } else { 0 }];
        for (i, (line, start)) in codes.chunks_exact_mut(n).zip(starts).enumerate() {
            let mut row = State::default();
            let mut factor = start;
            for (j, (code, place)) in line.iter_mut().zip(&mut places).enumerate() {
                let state = if head.transposed { &mut states[j] } else { &mut row };
                let tables = &mut tables[usize::from(state.is_odd())];
                let known = channel.known(*code, Some(*state)).ok_or(i * n + j)?;
                let odd = i32::from(state.is_odd());
                let index = take(channel, tables, [&mut factor, place], known, odd);
                *code = narrow(state.code(index));
                *state = state.next(index);
            }
            tables.iter_mut().for_each(|t| t.end_line(n));
        }
    } else {
        let mut tables = Tables::new(Grid::Even);
        for (i, (line, start)) in codes.chunks_exact_mut(n).zip(starts).enumerate() {
            let mut factor = start;
            for (j, (code, place)) in line.iter_mut().zip(&mut places).enumerate() {
                let known = channel.known(*code, None).ok_or(i * n + j)?;
                *code = narrow(take(channel, &mut tables, [&mut factor, place], known, 0));
            }
            tables.end_line(n);
        }
    }
    Ok(())
}

/// A code as it is kept; one that no matrix can have becomes -128, which is refused later.
#[inline(always)]
fn narrow(code: i32) -> i8 {
    i8::try_from(code).unwrap_or(i8::MIN)
}

/// Takes one index through the channel and learns from it. `odd` is 1 in odd states of the trellis, where the negative
/// of `index` is `-1 - index`, and 0 elsewhere.
#[inline(always)]
fn take<C: Channel>(
    channel: &mut C,
    tables: &mut Tables,
    [line, place]: [&mut Factor; 2],
    known: i32,
    odd: i32,
) -> i32 {
    let l = level_of(line.log + place.log);
    let level = &tables.levels[l];
    let magnitude = if known < 0 { -odd - known } else { known } as u32;
    let symbol = channel.symbol(&tables.distributions[l], (magnitude as usize >> level.shift).min(SYMBOLS - 1));
    line.learn(level.scores[symbol], level.information);
    place.learn(level.scores[symbol], level.information);
    tables.count(l, symbol);
    let mut found = symbol as u32;
    if symbol == SYMBOLS - 1 {
        found += gamma(channel, (magnitude >> level.shift).wrapping_sub(found));
    }
    if level.shift > 0 {
        found = found << level.shift | channel.raw(magnitude, level.shift);
    }
    let negative = channel.raw(u32::from(known < 0), u32::from(found > 0) | odd as u32) as i32;
    (found as i32 ^ -negative) + (negative & !odd)
}

/// A number from 0 on by the Elias gamma code of the number above it.
#[cold]
fn gamma<C: Channel>(channel: &mut C, value: u32) -> u32 {
    let length = value.wrapping_add(1).checked_ilog2().unwrap_or(0);
    let mut zeros = 0;
    while zeros < MOST_ZEROS && channel.raw(u32::from(zeros == length), 1) == 0 {
        zeros += 1;
    }
    (1 << zeros | channel.raw(value.wrapping_add(1), zeros)) - 1
}

/// What to write at the head of a matrix, found from the spread of its rows and columns.
fn choose(matrix: &QuantizedMatrix) -> Head {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let square = |x: f64| x * x;
    let columns: Vec<f64> = (0..cols).map(|c| matrix.columns.get(c).map_or(1.0, |x| square(x.to_f64()))).collect();
    let (mut of_rows, mut of_columns) = (vec![0.0; rows], vec![0.0; cols]);
    for (i, (line, scale)) in matrix.codes.chunks_exact(cols.max(1)).zip(&matrix.scales).enumerate() {
        let scale = square(scale.to_f64());
        for (j, &code) in line.iter().enumerate() {
            let energy = f64::from(i32::from(code) * i32::from(code)) * scale * columns[j];
            of_rows[i] += energy;
            of_columns[j] += energy;
        }
    }
    let ((mean, rows), (_, columns)) = (spread(&of_rows, cols), spread(&of_columns, rows));
    let typical = (mean >> 8).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
    let typical = if matrix.trellis { typical.saturating_sub(256) } else { typical };
    Head { transposed: false, rows, columns, typical }
}

/// Mean base-2 logarithm of σ, in units of 2^-16, and -log2 of the variance of ln σ, of lines with these sums of `n`
/// squares each.
fn spread(sums: &[f64], n: usize) -> (i32, u8) {
    let logs: Vec<i64> =
        sums.iter().filter(|&&sum| sum > 0.0).map(|&sum| i64::from(scale::log2_f64(sum / n as f64)) / 2).collect();
    if logs.is_empty() {
        return (-8 << 16, 15);
    }
    let count = logs.len() as i64;
    let mean = logs.iter().sum::<i64>() / count;
    // ln² is log2² · 0.4805. Half a sample's inverse is what the logarithm of a sum of squares varies by chance.
    let variance = logs.iter().map(|log| (log - mean).pow(2)).sum::<i64>() / count;
    let variance = variance as f64 / 65536.0 / 65536.0 * 0.480_453 - 0.5 / n as f64;
    let doubt = (0..15).find(|&doubt| variance * f64::from(1 << doubt) > 0.7).unwrap_or(15);
    (mean as i32, doubt)
}

#[cfg(test)]
mod tests;
