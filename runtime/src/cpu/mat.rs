//! An activation in host memory.

/// An activation `[B, T, C]`, row-major: one row of `C` channels for each position of each sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Mat {
    /// `B`.
    pub sequences: usize,
    /// `T`, positions of each sequence.
    pub len: usize,
    /// `C`.
    pub cols: usize,
    /// Position of the first row of each sequence: 0 for a whole pass, more after a tail was taken, and in a session
    /// the tokens before this pass.
    pub start: usize,
    /// `B · T · C` values.
    pub data: Vec<f32>,
}

impl Mat {
    /// All zeros, starting at position 0.
    pub fn zeros(sequences: usize, len: usize, cols: usize) -> Self {
        Self { sequences, len, cols, start: 0, data: vec![0.0; sequences * len * cols] }
    }

    /// The same sequences and positions with other values, `cols` to a row.
    ///
    /// # Panics
    /// If `data` is not `B · T · cols` values.
    pub fn like(&self, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), self.rows() * cols, "{} rows of {cols} values", self.rows());
        Self { cols, data, ..*self }
    }

    /// `B · T`.
    pub fn rows(&self) -> usize {
        self.sequences * self.len
    }

    /// Row `i` of all `B · T`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Position within its sequence of row `i`.
    pub fn position(&self, i: usize) -> usize {
        self.start + i % self.len
    }

    /// `[B, T, C]`, for messages.
    pub fn shape(&self) -> [usize; 3] {
        [self.sequences, self.len, self.cols]
    }

    /// The last `n` positions of each sequence, which stay the positions they are: `[B, n, C]`.
    ///
    /// # Panics
    /// If `n` is 0 or more than `T`.
    pub fn tail(&self, n: usize) -> Self {
        assert!((1..=self.len).contains(&n), "a tail of {n} positions of {}", self.len);
        let kept = |sequence: &[f32]| sequence[(self.len - n) * self.cols..].to_vec();
        let data = self.data.chunks_exact(self.len * self.cols).flat_map(kept).collect();
        Self { len: n, start: self.start + self.len - n, data, ..*self }
    }
}
