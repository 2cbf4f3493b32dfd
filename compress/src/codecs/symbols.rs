//! What is coded of a matrix: its codes, or where they are paths of the trellis the indices of the path's steps, which
//! take one bit less.

use std::borrow::Cow;

use sixpack_formats::QuantizedMatrix;
use sixpack_formats::trellis::State;

use crate::{Error, Result};

/// The symbols of a matrix, row-major as its codes.
///
/// # Errors
/// [`Error::NotAPath`] if the matrix says it is a path of the trellis and is not.
pub(super) fn of(matrix: &QuantizedMatrix) -> Result<Cow<'_, [i8]>> {
    if !matrix.trellis {
        return Ok(Cow::Borrowed(&matrix.codes));
    }
    let mut symbols = Vec::with_capacity(matrix.codes.len());
    for (row, codes) in matrix.codes.chunks_exact(matrix.cols.max(1)).enumerate() {
        let mut state = State::default();
        for (col, &code) in codes.iter().enumerate() {
            let index = state.index(code.into()).ok_or(Error::NotAPath { row, col, code })?;
            symbols.push(index as i8);
            state = state.next(index);
        }
    }
    Ok(Cow::Owned(symbols))
}

/// Undoes [`of`]: as many symbols as the outline has weights give its codes. `codec` is for the message.
///
/// # Errors
/// A number of symbols that is not the outline's, or a code beyond its `q_max`.
pub(super) fn into_codes(codec: &str, outline: &QuantizedMatrix, symbols: Vec<i8>) -> Result<Vec<i8>> {
    let weights = outline.rows * outline.cols;
    if symbols.len() != weights {
        return Err(wrong(codec, format!("{weights} codes"), format!("{} codes", symbols.len())));
    }
    let beyond = |code: i32| wrong(codec, format!("codes within ±{}", outline.q_max), format!("code {code}"));
    if !outline.trellis {
        return match symbols.iter().find(|s| s.unsigned_abs() > outline.q_max) {
            Some(&code) => Err(beyond(code.into())),
            None => Ok(symbols),
        };
    }
    let mut codes = symbols;
    for row in codes.chunks_exact_mut(outline.cols.max(1)) {
        let mut state = State::default();
        for symbol in row {
            let index = i32::from(*symbol);
            let code = state.code(index);
            if code.unsigned_abs() > outline.q_max.into() {
                return Err(beyond(code));
            }
            *symbol = code as i8;
            state = state.next(index);
        }
    }
    Ok(codes)
}

/// For each weight of a matrix whether its state allows odd codes: what a decoder of the trellis knows beforehand. All
/// the same without a trellis.
pub(super) fn parities(matrix: &QuantizedMatrix, symbols: &[i8]) -> Vec<bool> {
    let mut parities = vec![false; symbols.len()];
    if matrix.trellis {
        let rows = parities.chunks_exact_mut(matrix.cols.max(1)).zip(symbols.chunks_exact(matrix.cols.max(1)));
        for (parities, symbols) in rows {
            let mut state = State::default();
            for (parity, &index) in parities.iter_mut().zip(symbols) {
                *parity = state.is_odd();
                state = state.next(index.into());
            }
        }
    }
    parities
}

/// The largest magnitude that a symbol of this matrix can have.
pub(super) fn largest(outline: &QuantizedMatrix) -> u8 {
    if outline.trellis { outline.q_max.div_ceil(2) } else { outline.q_max }
}

/// A stream of `codec` that is not what was expected.
pub(super) fn wrong(codec: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    let (expected, found) = (expected.into(), found.into());
    Error::File(sixpack_formats::Error::Stream { stream: codec.to_owned(), expected, found })
}
