//! What the optimizers remember of each tensor.

use sixpack_formats::{OptimizerGroup, TensorSpec};

use super::{Matrix, NorMuon};

/// What one tensor's optimizer remembers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Muon { momentum: Vec<f32> },
    NorMuon { momentum: Vec<f32>, moment: Vec<f32> },
    AdamW { mean: Vec<f32>, square: Vec<f32> },
}

impl State {
    pub(super) fn new(spec: &TensorSpec, matrix: &Matrix) -> Self {
        let zeros = || vec![0.0; spec.elements()];
        match (spec.group, matrix) {
            (OptimizerGroup::Matrix, Matrix::Muon(_)) => Self::Muon { momentum: zeros() },
            (OptimizerGroup::Matrix, Matrix::NorMuon(_)) => {
                let moment = vec![0.0; NorMuon::moments([spec.shape[0], spec.shape[1]])];
                Self::NorMuon { momentum: zeros(), moment }
            }
            (OptimizerGroup::Matrix, Matrix::AdamW(_)) | (OptimizerGroup::Token | OptimizerGroup::Scalar, _) => {
                Self::AdamW { mean: zeros(), square: zeros() }
            }
        }
    }

    /// The first and the second moment; nothing for the second if there is none.
    pub(super) fn moments(&mut self) -> (&mut [f32], &mut [f32]) {
        match self {
            Self::Muon { momentum } => (momentum, &mut []),
            Self::NorMuon { momentum, moment } => (momentum, moment),
            Self::AdamW { mean, square } => (mean, square),
        }
    }

    /// The buffers by the names they are saved under.
    pub(super) fn buffers(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        let (first, second) = match self {
            Self::Muon { momentum } => (("momentum", momentum), None),
            Self::NorMuon { momentum, moment } => (("momentum", momentum), Some(("moment", moment))),
            Self::AdamW { mean, square } => (("mean", mean), Some(("square", square))),
        };
        std::iter::once(first).chain(second).map(|(kind, buffer)| (kind, buffer.as_slice()))
    }

    /// As [`State::buffers`], to be filled.
    pub(super) fn buffers_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Vec<f32>)> {
        let (first, second) = match self {
            Self::Muon { momentum } => (("momentum", momentum), None),
            Self::NorMuon { momentum, moment } => (("momentum", momentum), Some(("moment", moment))),
            Self::AdamW { mean, square } => (("mean", mean), Some(("square", square))),
        };
        std::iter::once(first).chain(second)
    }
}
