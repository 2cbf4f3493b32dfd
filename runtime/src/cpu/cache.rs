//! Keys and values of the tokens a session has read.

use super::Mat;

/// Keys and values `S` of one growing sequence for each virtual layer.
///
/// Off until a session begins. While it is on, [`Cache::past`] is the position of the first row of the running pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache<S> {
    on: bool,
    past: usize,
    passes: Vec<S>,
}

impl<S: Default> Cache<S> {
    /// Switches the cache on, empty.
    pub(super) fn begin(&mut self) {
        *self = Self { on: true, ..Self::default() };
    }

    /// Switches the cache off.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Tokens remembered: the position of the next one.
    pub(super) fn past(&self) -> usize {
        self.past
    }

    /// Ends a pass of `len` tokens.
    pub(super) fn advance(&mut self, len: usize) {
        self.past += len;
    }

    /// What virtual layer `pass` remembers of the sequence of `k`; nothing without a session. A pass that failed half way
    /// may have left rows behind [`Cache::past`].
    ///
    /// # Panics
    /// If a session's pass has several sequences.
    pub(super) fn of(&mut self, pass: usize, k: &Mat) -> Option<&mut S> {
        if !self.on {
            return None;
        }
        assert_eq!(k.sequences, 1, "a session is one sequence");
        if self.passes.len() <= pass {
            self.passes.resize_with(pass + 1, Default::default);
        }
        Some(&mut self.passes[pass])
    }
}

impl Cache<[Vec<f32>; 2]> {
    /// Remembers `k` and `v` of virtual layer `pass` and returns all keys and values of the sequence so far; without
    /// a session just the given ones.
    pub(super) fn extend<'a>(&'a mut self, pass: usize, k: &'a Mat, v: &'a Mat) -> [&'a [f32]; 2] {
        let past = self.past;
        let Some(entry) = self.of(pass, k) else { return [&k.data, &v.data] };
        for (all, new) in entry.iter_mut().zip([k, v]) {
            all.truncate(past * new.cols);
            all.extend_from_slice(&new.data);
        }
        let [keys, values] = entry;
        [keys, values]
    }
}
