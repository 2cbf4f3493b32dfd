//! The tensors of a model in the form one machine holds them.

use std::collections::BTreeMap;

use sixpack_formats::{Model, ModelConfig, TensorData, TensorId, TensorSpec};

/// One `W` for each row of the tensor table.
#[derive(Clone, Debug)]
pub struct Weights<W> {
    tensors: BTreeMap<TensorId, W>,
}

impl<W> Weights<W> {
    /// Makes each tensor of the configuration's table with `make`.
    ///
    /// # Errors
    /// The first error of `make`.
    pub fn build<E>(config: &ModelConfig, mut make: impl FnMut(&TensorSpec) -> Result<W, E>) -> Result<Self, E> {
        let tensors = config.tensors().iter().map(|spec| Ok((spec.id, make(spec)?))).collect::<Result<_, E>>()?;
        Ok(Self { tensors })
    }

    /// Makes each tensor of a model with `make`.
    pub fn load(model: &Model, mut make: impl FnMut(&TensorSpec, &TensorData) -> W) -> Self {
        let tensors = model.config.tensors();
        Self { tensors: tensors.iter().map(|spec| (spec.id, make(spec, &model.tensors[&spec.id]))).collect() }
    }

    /// The same tensors in another form.
    pub fn map<V>(&self, mut f: impl FnMut(&W) -> V) -> Weights<V> {
        Weights { tensors: self.tensors.iter().map(|(id, w)| (*id, f(w))).collect() }
    }

    /// The tensor, if the configuration has it.
    pub fn find(&self, id: TensorId) -> Option<&W> {
        self.tensors.get(&id)
    }

    /// All tensors in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (TensorId, &W)> {
        self.tensors.iter().map(|(id, w)| (*id, w))
    }
}

impl<W> std::ops::Index<TensorId> for Weights<W> {
    type Output = W;

    /// # Panics
    /// If the configuration these weights were built for has no such tensor.
    fn index(&self, id: TensorId) -> &W {
        self.tensors.get(&id).unwrap_or_else(|| panic!("these weights have no tensor `{id}`"))
    }
}
