//! PyTorch's `.pt` files: reads a `state_dict` without PyTorch, and without running what a pickle may ask for.
//!
//! A `.pt` file is a zip archive of stored entries (PyTorch 1.6 and later): `NAME/data.pkl` is a pickle that describes
//! tensors as views into storages, `NAME/data/KEY` holds the values of a storage, little-endian. Only what state dicts
//! are made of is understood; any other object in the pickle is passed over.
//!
//! candle-core has a reader too; it takes a view's offset for bytes where it counts elements, and panics on some
//! malformed pickles, so this one is our own.

mod archive;
mod pickle;

use std::path::Path;

use half::{bf16, f16};
use sixpack_formats::mapped::Mapped;
use sixpack_formats::state_dict::{Array, StateDict};
use sixpack_formats::{Error, Model, Result, checkpoint};

use archive::Archive;
use pickle::{DType, Pickle, Tensor, Value};

/// Keys under which training scripts keep the state dict beside other things.
const WRAPPERS: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];
/// All tensors together may be this many times as large as the file (in f32, with tensors that share a storage).
const MAX_GROWTH: usize = 16;

/// The tensors of a `.pt` file, in f32.
///
/// # Errors
/// If the file cannot be read or is no state dict; see [`parse`].
pub fn read(path: impl AsRef<Path>) -> Result<StateDict> {
    let path = path.as_ref();
    let file = Mapped::open(path)?;
    parse(&file).map_err(Error::in_file(path))
}

/// A model from a checkpoint folder's `config.json` and tokenizer, and a `.pt` file's weights.
///
/// # Errors
/// As [`read`]; if the tensors are not those of the configuration, by name. The prefixes `module.` and `_orig_mod.` of
/// wrapped modules are taken off.
pub fn read_checkpoint(folder: impl AsRef<Path>, weights: impl AsRef<Path>) -> crate::Result<Model> {
    let (folder, weights) = (folder.as_ref(), weights.as_ref());
    let config = checkpoint::read_config(folder)?;
    let tokenizer = checkpoint::read_tokenizer(folder)?;
    let size = std::fs::metadata(weights).map_err(Error::io(weights, "open"))?.len();
    let dict = read(weights)?;
    Ok(Model::from_state_dict(config, dict, tokenizer, size).map_err(Error::in_file(weights))?)
}

/// The tensors of a `.pt` file's content, in f32. Where the pickle is a dict without tensors of its own, the state dict
/// is looked for under the usual keys (`model`, `state_dict`, …).
///
/// # Errors
/// If the archive or the pickle is malformed, or holds no tensors; a tensor of integers, or one that reaches outside
/// its storage, by its name.
pub fn parse(file: &[u8]) -> Result<StateDict> {
    let archive = Archive::parse(file)?;
    let pickle = Pickle::parse(archive.get("data.pkl")?)?;
    if let Ok(order) = archive.get("byteorder")
        && order != b"little"
    {
        return Err(wrong("byte order", 0, "little", String::from_utf8_lossy(order)));
    }
    let mut tensors = named_tensors(&pickle, &pickle.root);
    for key in WRAPPERS {
        if tensors.is_empty()
            && let Some(inner) = pickle.entry(&pickle.root, key)
        {
            tensors = named_tensors(&pickle, inner);
        }
    }
    if tensors.is_empty() {
        return Err(wrong("pickle", 0, "a dict of tensors", "none"));
    }
    let mut room = file.len().saturating_mul(MAX_GROWTH) / 4;
    let mut dict = StateDict::new();
    for (name, tensor) in tensors {
        let array = values(&archive, name, tensor, &mut room)?;
        dict.insert(name.to_owned(), array);
    }
    Ok(dict)
}

/// The tensors of a dict by name; entries of other kinds are not tensors of the model.
fn named_tensors<'p>(pickle: &'p Pickle<'_>, dict: &Value<'_>) -> Vec<(&'p str, &'p Tensor)> {
    let entries = pickle.entries(dict).iter();
    entries.filter_map(|(key, value)| Some((pickle.text(key)?, pickle.tensor(value)?))).collect()
}

/// Gathers a tensor from its storage. `room` is the number of elements that may still be read.
fn values(archive: &Archive<'_>, name: &str, tensor: &Tensor, room: &mut usize) -> Result<Array> {
    let fail = |expected: String, found: String| Error::Tensor { name: name.to_owned(), expected, found };
    let DType::Float(size) = tensor.storage.dtype else {
        let DType::Other(class) = &tensor.storage.dtype else { unreachable!("a dtype is one or the other") };
        return Err(fail("a tensor of floats".into(), class.clone()));
    };
    let storage = archive.get(&format!("data/{}", tensor.storage.key))?;
    let stored = storage.len() / size.bytes();
    let count = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.filter(|&n| n <= *room).ok_or_else(|| {
        fail(format!("at most {room} elements in a file of this size"), format!("shape {:?}", tensor.shape))
    })?;
    *room -= count;
    if tensor.shape.len() != tensor.stride.len() || last_index(tensor, count).is_none_or(|last| last > stored) {
        let found = format!("offset {}, shape {:?}, strides {:?}", tensor.offset, tensor.shape, tensor.stride);
        return Err(fail(format!("a view within the {stored} elements of its storage"), found));
    }
    let mut data = Vec::with_capacity(count);
    let mut index = vec![0; tensor.shape.len()];
    for _ in 0..count {
        let at = tensor.offset + index.iter().zip(&tensor.stride).map(|(i, s)| i * s).sum::<usize>();
        data.push(size.read(&storage[at * size.bytes()..]));
        for (i, &d) in index.iter_mut().zip(&tensor.shape).rev() {
            *i += 1;
            if *i < d {
                break;
            }
            *i = 0;
        }
    }
    Ok(Array { shape: tensor.shape.clone(), data })
}

/// One more than the largest index into the storage; `None` if it is no number of this machine.
fn last_index(tensor: &Tensor, count: usize) -> Option<usize> {
    if count == 0 {
        return Some(0);
    }
    let steps = tensor.shape.iter().zip(&tensor.stride).map(|(&d, &s)| (d - 1).checked_mul(s));
    steps.chain([Some(tensor.offset), Some(1)]).try_fold(0usize, |sum, step| sum.checked_add(step?))
}

/// The floating-point formats of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Float {
    F16,
    Bf16,
    F32,
    F64,
}

impl Float {
    fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The value at the start of `raw`, which is long enough.
    fn read(self, raw: &[u8]) -> f32 {
        match self {
            Self::F16 => f16::from_le_bytes([raw[0], raw[1]]).to_f32(),
            Self::Bf16 => bf16::from_le_bytes([raw[0], raw[1]]).to_f32(),
            Self::F32 => f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]),
            Self::F64 => f64::from_le_bytes(std::array::from_fn(|i| raw[i])) as f32,
        }
    }
}

fn wrong(what: &'static str, offset: usize, expected: impl Into<String>, found: impl ToString) -> Error {
    Error::Layout { what, offset: offset as u64, expected: expected.into(), found: found.to_string() }
}
