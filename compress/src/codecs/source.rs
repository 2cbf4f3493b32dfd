//! The matrices of a model that codecs are tried on.

use std::collections::BTreeMap;
use std::path::Path;

use sixpack_formats::mapped::Mapped;
use sixpack_formats::{Artifact, Error as FileError, Model, QuantClass, QuantizedMatrix, TensorData, codes};

use crate::{Error, Matrix, Result, Scheme, round};

/// Tensors with like statistics, as an artifact puts them into one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Queries, keys, values and outputs of attention.
    Attention,
    /// First matrices of the MLPs.
    MlpUp,
    /// Second matrices of the MLPs.
    MlpDown,
    /// Embeddings and everything else.
    Table,
}

impl Class {
    /// The class of a tensor of this canonical name.
    pub fn of(name: &str) -> Self {
        match name {
            name if name.contains(".attn.") => Self::Attention,
            name if name.contains(".mlp.fc.") => Self::MlpUp,
            name if name.contains(".mlp.proj.") => Self::MlpDown,
            _ => Self::Table,
        }
    }
}

/// A quantised matrix of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The tensor's canonical name.
    pub name: String,
    /// Which tensors it is alike.
    pub class: Class,
    /// Its codes.
    pub matrix: QuantizedMatrix,
}

/// Which matrices share a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// All of them.
    One,
    /// Those of a class, as in an artifact.
    #[default]
    Class,
    /// None: each has its own.
    Tensor,
}

impl Streams {
    /// The matrices of each stream, in the order they are given.
    pub fn group(self, matrices: &[Named]) -> Vec<Vec<&QuantizedMatrix>> {
        let mut streams: BTreeMap<(Option<Class>, usize), Vec<&QuantizedMatrix>> = BTreeMap::new();
        for (number, named) in matrices.iter().enumerate() {
            let key = match self {
                Self::One => (None, 0),
                Self::Class => (Some(named.class), 0),
                Self::Tensor => (None, number),
            };
            streams.entry(key).or_default().push(&named.matrix);
        }
        streams.into_values().collect()
    }
}

/// The quantised matrices of a model in the order of its tensor table. What is in full precision is quantised by rounding
/// to the nearest with the steps of the scheme `reference`: int6 for matrices of blocks, int8 for tables.
///
/// # Errors
/// A weight that is not finite or too large, by its tensor.
pub fn of_model(model: &Model) -> Result<Vec<Named>> {
    let mut matrices = Vec::new();
    for spec in model.config.tensors() {
        let name = spec.name();
        let (scheme, shape) = (Scheme::Reference, &spec.shape[..]);
        let matrix = match (&model.tensors[&spec.id], spec.class, shape) {
            (TensorData::Quantized(q), _, _) => q.clone(),
            (TensorData::F32(values), QuantClass::Attention | QuantClass::Mlp, &[rows, cols]) => {
                round::to_nearest(&Matrix::new(&name, [rows, cols], values)?, scheme, 31)?
            }
            (TensorData::F32(values), QuantClass::Embedding, &[rows, cols]) => {
                round::table(&Matrix::new(&name, [rows, cols], values)?, scheme)?
            }
            _ => continue,
        };
        matrices.push(Named { class: Class::of(&name), name, matrix });
    }
    Ok(matrices)
}

/// The quantised matrices of a file: of an artifact in the order of its tensor table, of a safetensors file of [`codes`] in
/// the order of their names.
///
/// # Errors
/// [`Error::NoCodes`] for a file that is neither; what is wrong with one that is.
pub fn of_file(path: &Path) -> Result<Vec<Named>> {
    let file = Mapped::open(path)?;
    let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
    let matrices = if Artifact::is_artifact(&file) {
        of_model(&Artifact::read(&file).map_err(FileError::in_file(path))?.model)?
    } else if is_safetensors {
        let matrices = codes::read(&file).map_err(FileError::in_file(path))?.into_iter();
        matrices.map(|(name, matrix)| Named { class: Class::of(&name), name, matrix }).collect()
    } else {
        Vec::new()
    };
    if matrices.is_empty() { Err(Error::NoCodes { path: path.to_owned() }) } else { Ok(matrices) }
}
