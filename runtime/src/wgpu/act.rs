//! An activation in the GPU's memory.

use std::sync::Arc;

use super::pool::Pooled;
use super::queue::Slice;

/// An activation `[B, T, C]`, row-major, as [`Mat`](crate::cpu::Mat) is one in the host's memory.
#[derive(Clone, Debug)]
pub struct Act {
    pub(super) buffer: Arc<Pooled>,
    /// `B`.
    pub sequences: usize,
    /// `T`.
    pub len: usize,
    /// `C`.
    pub cols: usize,
    /// Position of the first row of each sequence.
    pub start: usize,
}

impl Act {
    /// `B · T`.
    pub fn rows(&self) -> usize {
        self.sequences * self.len
    }

    /// `[B, T, C]`, for messages.
    pub fn shape(&self) -> [usize; 3] {
        [self.sequences, self.len, self.cols]
    }

    /// `B · T · C`.
    pub(super) fn elements(&self) -> usize {
        self.rows() * self.cols
    }

    /// All values; with the zone behind them, where there is one, so that a kernel that writes there is seen.
    pub(super) fn all(&self) -> Slice {
        Slice::whole(self.buffer.buffer())
    }

    /// `rows` rows from `first` on, which must begin at a multiple of 256 bytes.
    pub(super) fn part(&self, first: usize, rows: usize) -> Slice {
        if (first, rows) == (0, self.rows()) {
            return self.all();
        }
        let row = 4 * self.cols as u64;
        Slice { buffer: self.buffer.buffer().clone(), offset: first as u64 * row, size: rows as u64 * row }
    }
}

/// Rows `(first, number)` of parts of `rows` rows of at most `widest` values, none larger than `limit` bytes, each
/// beginning where a binding may.
pub(super) fn parts(rows: usize, widest: usize, limit: u64) -> impl Iterator<Item = (usize, usize)> {
    let fit = (limit / (4 * widest.max(1)) as u64) as usize;
    let each = if fit >= rows { rows.max(1) } else { (fit / 64 * 64).max(64) };
    (0..rows).step_by(each).map(move |first| (first, each.min(rows - first)))
}
