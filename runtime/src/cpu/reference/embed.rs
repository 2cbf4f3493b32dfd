//! Token ids to rows of a table.

use crate::cpu::{Dense, Mat};
use crate::ops::Batch;
use crate::{Error, Result};

/// Rows of `table [V, C]` by id: `[B, T, C]` from position `start` on.
pub(super) fn embed(table: &Dense, batch: &Batch<'_>, start: usize) -> Result<Mat> {
    let mut y = Mat::zeros(batch.sequences, batch.len(), table.cols);
    y.start = start;
    for (index, (row, &id)) in y.data.chunks_exact_mut(table.cols).zip(batch.ids).enumerate() {
        if id as usize >= table.rows {
            return Err(Error::Token { index, id, vocab: table.rows });
        }
        row.copy_from_slice(table.row(id as usize));
    }
    Ok(y)
}
