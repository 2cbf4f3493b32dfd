//! Keys and values of the tokens a session has read, as in [`cpu`](crate::cpu), in the GPU's memory.

use std::sync::Arc;

use super::pool::Pooled;
use super::{Act, Wgpu, narrow};

/// Rows a session has room for at first.
const FIRST: usize = 256;

/// For each virtual layer the keys and values of one growing sequence.
#[derive(Debug, Default)]
pub(super) struct Cache {
    on: bool,
    past: usize,
    passes: Vec<[Option<Arc<Pooled>>; 2]>,
}

impl Cache {
    /// Switches the cache on, empty.
    pub(super) fn begin(&mut self) {
        *self = Self { on: true, ..Self::default() };
    }

    /// Switches the cache off.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Whether a session is on.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Tokens remembered: the position of the next one.
    pub(super) fn past(&self) -> usize {
        self.past
    }

    /// Ends a pass of `len` tokens.
    pub(super) fn advance(&mut self, len: usize) {
        self.past += len;
    }
}

/// Room for `more` further rows in what virtual layer `pass` remembers, keys and values.
pub(super) fn room(gpu: &mut Wgpu, pass: usize, more: usize, cols: usize) -> [Arc<Pooled>; 2] {
    let row = if gpu.machine.on.f16 { 2 } else { 4 } * cols as u64;
    let past = gpu.cache.past;
    if gpu.cache.passes.len() <= pass {
        gpu.cache.passes.resize_with(pass + 1, Default::default);
    }
    [0, 1].map(|which| {
        let old = gpu.cache.passes[pass][which].take();
        let needed = (past + more) as u64 * row;
        let kept = match old {
            Some(old) if old.room() >= needed => old,
            old => {
                let rows = (past + more).next_power_of_two().max(FIRST);
                let new = Arc::new(gpu.take(rows as u64 * row));
                if let Some(old) = old.filter(|_| past > 0) {
                    gpu.queue.copy((old.buffer(), 0), (new.buffer(), 0), (past as u64 * row).next_multiple_of(4));
                }
                new
            }
        };
        gpu.cache.passes[pass][which] = Some(Arc::clone(&kept));
        kept
    })
}

/// Remembers `k` and `v` of virtual layer `pass` and returns all keys and values of the sequence so far, for
/// [`attention::remembered`](super::attention::remembered): they are f16 where the machine keeps them so.
///
/// # Panics
/// If the pass has several sequences.
pub(super) fn extend(gpu: &mut Wgpu, pass: usize, k: &Act, v: &Act) -> [Act; 2] {
    assert_eq!(k.sequences, 1, "a session is one sequence");
    let kept = room(gpu, pass, k.len, k.cols);
    let past = gpu.cache.past;
    let mut kept = kept.into_iter().zip([k, v]).map(|(buffer, new)| {
        if gpu.machine.on.f16 {
            narrow::narrow(gpu, new, buffer.buffer(), past * new.cols);
        } else {
            let row = 4 * new.cols as u64;
            gpu.queue.copy((new.buffer.buffer(), 0), (buffer.buffer(), past as u64 * row), new.len as u64 * row);
        }
        Act { buffer, sequences: 1, len: past + new.len, cols: new.cols, start: 0 }
    });
    std::array::from_fn(|_| kept.next().expect("keys and values"))
}
