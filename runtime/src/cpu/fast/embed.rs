//! Token ids to rows of a table.

use super::Weight;
use crate::cpu::Mat;
use crate::ops::Batch;
use crate::{Error, Result};

/// Rows of `table [V, C]` by id: `[B, T, C]` from position `start` on.
pub(super) fn embed(table: &Weight, batch: &Batch<'_>, start: usize) -> Result<Mat> {
    let (vocab, cols) = (table.rows(), table.cols());
    let mut y = Mat::zeros(batch.sequences, batch.len(), cols);
    y.start = start;
    for (index, (row, &id)) in y.data.chunks_exact_mut(cols).zip(batch.ids).enumerate() {
        if id as usize >= vocab {
            return Err(Error::Token { index, id, vocab });
        }
        table.read_row(id as usize, row);
    }
    Ok(y)
}
