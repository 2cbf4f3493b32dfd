//! Activations and parameters in a GPU's memory.

use super::memory::Buffer;

/// An activation `[B, T, C]`; clones are the same memory.
#[derive(Clone, Debug)]
pub struct Act {
    pub(super) data: Buffer,
    /// What a tape knows it by; unique within an interpreter.
    pub(super) id: u64,
    pub(super) sequences: usize,
    pub(super) len: usize,
    pub(super) cols: usize,
    /// Elements from one row to the next: as many as there are channels, but for values that are part of a product, which
    /// only attention and what excludes them read.
    pub(super) apart: usize,
    /// Position of the first row of each sequence.
    pub(super) start: usize,
}

impl Act {
    /// `B · T`.
    pub(super) fn rows(&self) -> usize {
        self.sequences * self.len
    }

    /// Rows and channels.
    pub(super) fn extent(&self) -> [usize; 2] {
        [self.rows(), self.cols]
    }

    /// Elements of a gradient.
    pub(super) fn elements(&self) -> usize {
        self.rows() * self.cols
    }

    /// Whether a tape did not keep its values.
    pub(super) fn is_forgotten(&self) -> bool {
        self.data.is_empty() && self.rows() * self.cols > 0
    }

    /// Its memory.
    pub fn buffer(&self) -> &Buffer {
        &self.data
    }
}

/// A parameter `[rows, cols]`.
#[derive(Clone, Debug)]
pub struct Weight {
    /// What kernels read: matrices and tables as activations are kept, all else in f32.
    pub(super) value: Buffer,
    /// Where its gradient is added, in f32; none if it is not wanted.
    pub(super) gradient: Option<Buffer>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Weight {
    /// A parameter whose gradient goes to `gradient`.
    ///
    /// # Panics
    /// If the memory has not `rows · cols` elements.
    pub fn new(value: Buffer, gradient: Option<Buffer>, [rows, cols]: [usize; 2]) -> Self {
        let fits = std::iter::once(&value).chain(&gradient).all(|b| b.len() == rows * cols);
        assert!(fits, "{value:?} and {gradient:?} for {rows} by {cols}");
        Self { value, gradient, rows, cols }
    }

    /// Where its gradient is added.
    pub fn gradient(&self) -> Option<&Buffer> {
        self.gradient.as_ref()
    }

    /// Matrices that follow each other as one, which has the rows of all; none where they do not, or their gradients.
    pub(super) fn joined(parts: [&Self; 3]) -> Option<Self> {
        let [first, rest @ ..] = parts;
        let join = |all: Self, next: &Self| {
            let gradient = match (&all.gradient, &next.gradient) {
                (Some(all), Some(next)) => Some(all.with(next)?),
                (None, None) => None,
                _ => return None,
            };
            let value = all.value.with(&next.value).filter(|_| all.cols == next.cols)?;
            Some(Self { value, gradient, rows: all.rows + next.rows, cols: all.cols })
        };
        rest.into_iter().try_fold(first.clone(), join)
    }

    /// Memory of row `i`, and of its gradient.
    pub(super) fn row(&self, i: usize) -> (Buffer, Option<Buffer>) {
        self.some(i * self.cols, self.cols)
    }

    /// The same of element `i`.
    pub(super) fn element(&self, i: usize) -> (Buffer, Option<Buffer>) {
        self.some(i, 1)
    }

    fn some(&self, at: usize, len: usize) -> (Buffer, Option<Buffer>) {
        (self.value.part(at..at + len), self.gradient.as_ref().map(|g| g.part(at..at + len)))
    }
}
