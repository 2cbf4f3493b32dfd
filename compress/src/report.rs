//! What compression did to each tensor.

use sixpack_formats::artifact::Ledger;
use sixpack_formats::{QuantClass, TensorId};

use crate::Scheme;
use crate::gptq::Method;

/// The whole account.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How steps were chosen.
    pub scheme: Scheme,
    /// Attention and MLP matrices in int6.
    pub int6: usize,
    /// Attention and MLP matrices that are quantised; those not in int6 are in int5.
    pub matrices: usize,
    /// How the steps were found, for schemes with one knob for the whole model.
    pub solved: Option<Solved>,
    /// One row for each tensor, in the order of the tensor table.
    pub tensors: Vec<TensorReport>,
}

/// The one number that all steps of a model follow from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solved {
    /// For `rd` the constant of the steps; for `sdclip` the factor on `k`.
    pub knob: f64,
    /// Times that the model was quantised and packed to find it.
    pub passes: usize,
    /// Nats a token that one more byte would take off the loss, by the model of distortion; `None` where costs are not
    /// known in nats.
    pub nats_per_byte: Option<f64>,
}

/// One tensor's row.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Which tensor.
    pub id: TensorId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How its class is kept.
    pub class: QuantClass,
    /// Nominal bits of an element: 5, 6, 8 or 16.
    pub bits: u32,
    /// Bytes it takes in the artifact, as the artifact's ledger has it.
    pub coded_bytes: u64,
    /// Mean of `(w − ŵ)²`.
    pub mean_squared_error: f64,
    /// Geometric mean of the steps of its weights, for codes.
    pub step: Option<f64>,
    /// Rise of the loss to be expected of its errors, in nats a token; `None` where costs are not known in nats.
    pub loss: Option<f64>,
    /// What only attention and MLP matrices have.
    pub matrix: Option<MatrixReport>,
}

/// How a matrix fared under its Hessian `H`; `E = W − Ŵ`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatrixReport {
    /// How its codes were found.
    pub method: Method,
    /// `trace(H)`: the rank by it decides who gets int6. Without calibration, the number of columns.
    pub sensitivity: f64,
    /// `trace(E H Eᵀ)` of the codes that were kept, if there is a Hessian.
    pub error: Option<f64>,
    /// `trace(E H Eᵀ)` had each weight been rounded to its nearest code.
    pub nearest_error: Option<f64>,
}

impl Report {
    /// Sum of the matrices' errors in the Hessian norm, by the method used and by rounding; `None` without Hessians.
    pub fn hessian_errors(&self) -> Option<(f64, f64)> {
        let pairs = self.tensors.iter().filter_map(|t| t.matrix).filter_map(|m| m.error.zip(m.nearest_error));
        pairs.reduce(|(a, b), (c, d)| (a + c, b + d))
    }

    /// Rise of the loss to be expected in nats a token, if costs are known.
    pub fn expected_loss(&self) -> Option<f64> {
        self.tensors.iter().filter_map(|t| t.loss).reduce(|a, b| a + b)
    }

    /// Coded bits of a quantised weight, scales included.
    pub fn bits_per_weight(&self) -> f64 {
        let coded = || self.tensors.iter().filter(|t| t.step.is_some());
        let weights: usize = coded().map(|t| t.shape.iter().product::<usize>()).sum();
        8.0 * coded().map(|t| t.coded_bytes).sum::<u64>() as f64 / weights.max(1) as f64
    }

    /// Takes the coded bytes from the artifact's ledger.
    pub(crate) fn price(&mut self, ledger: &Ledger) {
        for row in &mut self.tensors {
            let bytes = ledger.tensors.iter().find(|t| t.id == row.id).map(|t| t.bytes());
            row.coded_bytes = bytes.expect("the ledger walks the same table of tensors");
        }
    }
}
