//! How much the loss minds an error in each output of a layer: the statistics that rate–distortion quantisation needs
//! beside the Hessians of the inputs.
//!
//! `train` makes them, by backward passes with targets that are sampled from the model itself (a Fisher diagonal);
//! `compress` reads them; they meet in the file `sensitivity.safetensors` beside the checkpoint.

use std::collections::BTreeMap;

use crate::{Digest, TensorId};

/// The statistics of one checkpoint. All are means over tokens of squared gradients of the summed loss in nats; a
/// recurrent layer's sum over its passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// For a matrix that is multiplied with: at each output, `[rows]`. For the token embedding, at the logits.
    pub outputs: BTreeMap<TensorId, Vec<f32>>,
    /// For a table that rows are looked up in: the token embedding and the value embedding.
    pub lookups: BTreeMap<TensorId, Lookup>,
    /// For a tensor that is neither, by element: of the gradient of one sequence's loss, per token.
    pub elements: BTreeMap<TensorId, Vec<f32>>,
    /// Tokens that were run.
    pub tokens: u64,
    /// Hash of the weights they belong to, as [`crate::checkpoint::hash`] has it.
    pub checkpoint: Digest,
}

/// Squared gradients at the rows that were looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookup {
    /// By row: summed over the tokens that took it, mean over columns, per token run. `[rows]`
    pub rows: Vec<f32>,
    /// By column: mean over tokens. `[cols]`
    pub columns: Vec<f32>,
}
