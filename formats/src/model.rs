//! A model at rest: configuration, tensors, tokenizer. Checkpoints and artifacts both read into it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::f16;

use crate::{Error, ModelConfig, QuantizedMatrix, Result, TensorId};

/// The numbers of one tensor, in the form they are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// Full precision, row-major.
    F32(Vec<f32>),
    /// Half precision, row-major.
    F16(Vec<f16>),
    /// Codes and row scales.
    Quantized(QuantizedMatrix),
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F16(v) => v.len(),
            Self::Quantized(q) => q.codes.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as f32, row-major; borrowed where they are f32 already.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match self {
            Self::F32(v) => Cow::Borrowed(v),
            Self::F16(v) => Cow::Owned(v.iter().map(|x| x.to_f32()).collect()),
            Self::Quantized(q) => Cow::Owned(q.dequantize()),
        }
    }
}

/// A whole model in memory: what `runtime` loads, whatever file it came from.
#[derive(Clone, Debug)]
pub struct Model {
    /// What the tensors mean.
    pub config: ModelConfig,
    /// One entry for each row of [`ModelConfig::tensors`].
    pub tensors: BTreeMap<TensorId, TensorData>,
    /// The SentencePiece model file, byte for byte, if there is one.
    pub tokenizer: Option<Vec<u8>>,
    /// Bytes the model takes on disk, for [`crate::Score`].
    pub bytes: u64,
}

impl Model {
    /// Checks that `tensors` are exactly those of the configuration's table, with the right sizes.
    pub fn new(
        config: ModelConfig,
        tensors: BTreeMap<TensorId, TensorData>,
        tokenizer: Option<Vec<u8>>,
        bytes: u64,
    ) -> Result<Self> {
        config.validate()?;
        for spec in config.tensors() {
            let expected = || format!("shape {:?}", spec.shape);
            let fail = |found: String| Err(Error::Tensor { name: spec.name(), expected: expected(), found });
            match tensors.get(&spec.id) {
                None => return fail("no such tensor".into()),
                Some(data) if data.len() != spec.elements() => return fail(format!("{} elements", data.len())),
                Some(TensorData::Quantized(q)) if spec.shape != [q.rows, q.cols] => {
                    return fail(format!("shape [{}, {}]", q.rows, q.cols));
                }
                Some(_) => {}
            }
        }
        let known = config.tensors().len();
        if tensors.len() != known {
            let extra = tensors.keys().find(|id| config.tensors().iter().all(|s| s.id != **id));
            return Err(Error::Tensor {
                name: extra.map(|id| id.to_string()).unwrap_or_default(),
                expected: "only tensors of the configuration".into(),
                found: format!("{} tensors instead of {known}", tensors.len()),
            });
        }
        Ok(Self { config, tensors, tokenizer, bytes })
    }
}
