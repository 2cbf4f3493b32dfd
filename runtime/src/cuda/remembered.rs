//! Keys and values of the tokens a session has read, as in [`cpu`](crate::cpu), in the GPU's memory.

use super::act::Act;
use super::interpreter::Cuda;
use super::memory::Buffer;
use crate::{Remember, Result};

/// Rows a session has room for at first.
const FIRST: usize = 256;

/// For each virtual layer the keys and values of one growing sequence.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    on: bool,
    past: usize,
    passes: Vec<[Option<Buffer>; 2]>,
}

impl Remembered {
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Tokens remembered: the position of the next one.
    pub(super) fn past(&self) -> usize {
        self.past
    }
}

impl Cuda {
    /// Remembers `k` and `v` of virtual layer `pass` and returns all keys and values of the sequence so far.
    ///
    /// # Panics
    /// If the pass has several sequences.
    pub(super) fn extend(&mut self, pass: usize, k: &Act, v: &Act) -> Result<[Act; 2]> {
        assert_eq!(k.sequences, 1, "a session is one sequence");
        if self.remembered.passes.len() <= pass {
            self.remembered.passes.resize_with(pass + 1, Default::default);
        }
        Ok([self.remember(pass, 0, k)?, self.remember(pass, 1, v)?])
    }

    fn remember(&mut self, pass: usize, which: usize, new: &Act) -> Result<Act> {
        let (past, cols) = (self.remembered.past, new.cols);
        let rows = past + new.len;
        let kept = match self.remembered.passes[pass][which].take() {
            Some(kept) if kept.len() >= rows * cols => kept,
            old => {
                let room = self.gpu.empty(self.storage, rows.next_power_of_two().max(FIRST) * cols)?;
                if let Some(old) = old {
                    self.gpu.copy(&old.part(0..past * cols), &room.part(0..past * cols))?;
                }
                room
            }
        };
        self.gpu.copy(&new.data, &kept.part(past * cols..rows * cols))?;
        let all = Act { data: kept.part(0..rows * cols), len: rows, start: 0, ..new.clone() };
        self.remembered.passes[pass][which] = Some(kept);
        Ok(all)
    }
}

impl Remember for Cuda {
    fn begin(&mut self) {
        self.remembered = Remembered { on: true, ..Remembered::default() };
    }

    fn advance(&mut self, len: usize) {
        self.remembered.past += len;
    }

    fn end(&mut self) {
        self.remembered = Remembered::default();
    }
}
