//! The numbers of a model as plain slices: weights, gradients, averages, optimizer state.

use std::collections::BTreeMap;

use sixpack_formats::{Model, ModelConfig, TensorData, TensorId};

use crate::Result;

/// One f32 buffer, row-major, for each row of the tensor table.
pub type Params = BTreeMap<TensorId, Vec<f32>>;

/// The tensors of a model in f32.
pub fn of_model(model: &Model) -> Params {
    model.tensors.iter().map(|(&id, data)| (id, data.to_f32().into_owned())).collect()
}

/// A model with these tensors.
///
/// # Errors
/// If they are not those of the configuration's table.
pub fn into_model(config: &ModelConfig, params: Params, tokenizer: Option<Vec<u8>>) -> Result<Model> {
    let bytes = params.values().map(|v| 4 * v.len() as u64).sum();
    let tensors = params.into_iter().map(|(id, data)| (id, TensorData::F32(data))).collect();
    Ok(Model::new(config.clone(), tensors, tokenizer, bytes)?)
}

/// Zeros for each row of the tensor table.
pub fn zeros(config: &ModelConfig) -> Params {
    config.tensors().iter().map(|spec| (spec.id, vec![0.0; spec.elements()])).collect()
}
