//! How much the loss minds an error in each output of a layer: the statistics that rate–distortion quantisation needs
//! beside the Hessians of the inputs.
//!
//! `train` makes them, by backward passes with targets that are sampled from the model itself (a Fisher diagonal);
//! `compress` reads them; they meet in the file `sensitivity.safetensors` beside the checkpoint: f32 arrays of one
//! axis, named for the tensor and the statistic (`blocks.0.attn.c_q.weight.output`, `tok_emb.weight.rows`,
//! `tok_emb.weight.columns`, `skip_weights.element`), and in the metadata `format`, `tokens` and `checkpoint`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::mapped::Mapped;
use crate::state_dict::{self, Array, Metadata, StateDict};
use crate::{Digest, Error, ModelConfig, Part, QuantClass, Result, TensorId};

/// The file's name in a checkpoint folder.
pub const FILE: &str = "sensitivity.safetensors";
/// Value of the metadata `format`.
const FORMAT: &str = "sensitivity 1";

/// The statistics of one checkpoint. All are means over tokens of squared gradients of the summed loss in nats; a
/// recurrent layer's sum over its passes. What a pass does not use has zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// For a matrix that is multiplied with: at each output, `[rows]`. For the token embedding, at the logits before
    /// the softcap.
    pub outputs: BTreeMap<TensorId, Vec<f32>>,
    /// For a table that rows are looked up in: the token embedding and the value embedding.
    pub lookups: BTreeMap<TensorId, Lookup>,
    /// For a tensor of class [`QuantClass::Half`], by element: of the gradient of one sequence's loss, per token. Small
    /// matrices and tables have these beside their `outputs` and `lookups`.
    pub elements: BTreeMap<TensorId, Vec<f32>>,
    /// Tokens that were run.
    pub tokens: u64,
    /// Hash of the weights they belong to, as [`crate::checkpoint::hash`] has it.
    pub checkpoint: Digest,
}

/// Squared gradients at the rows that were looked up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookup {
    /// By row: its share of all lookups times the mean square over columns and the tokens that took it. Above 0 for rows
    /// that were never taken too. `[rows]`
    pub rows: Vec<f32>,
    /// By column: mean over tokens. `[cols]`
    pub columns: Vec<f32>,
}

/// A statistic of a tensor: one array of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    Output,
    Rows,
    Columns,
    Element,
}

impl Statistic {
    fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Rows => "rows",
            Self::Columns => "columns",
            Self::Element => "element",
        }
    }
}

/// Every array of a configuration's file: tensor, statistic and length.
fn arrays(config: &ModelConfig) -> Vec<(TensorId, Statistic, usize)> {
    let mut all = Vec::new();
    for spec in config.tensors() {
        if is_multiplied(spec.id) {
            all.push((spec.id, Statistic::Output, spec.shape[0]));
        }
        if is_looked_up(spec.id) {
            all.push((spec.id, Statistic::Rows, spec.shape[0]));
            all.push((spec.id, Statistic::Columns, spec.shape[1]));
        }
        if spec.class == QuantClass::Half {
            all.push((spec.id, Statistic::Element, spec.elements()));
        }
    }
    all
}

/// Whether activations are multiplied with this matrix.
fn is_multiplied(id: TensorId) -> bool {
    match id {
        TensorId::TokenEmbedding | TensorId::ValueProj => true,
        TensorId::Block(_, part) => {
            matches!(part, Part::Query | Part::Key | Part::Value | Part::AttnOut | Part::MlpUp | Part::MlpDown)
        }
        _ => false,
    }
}

/// Whether rows are looked up in this table.
fn is_looked_up(id: TensorId) -> bool {
    matches!(id, TensorId::TokenEmbedding | TensorId::ValueEmbedding)
}

impl Sensitivity {
    /// Zeros for every tensor of a configuration.
    pub fn zeros(config: &ModelConfig, tokens: u64, checkpoint: Digest) -> Self {
        let (outputs, lookups, elements) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut zeros = Self { outputs, lookups, elements, tokens, checkpoint };
        for (id, statistic, len) in arrays(config) {
            *zeros.slot(id, statistic) = vec![0.0; len];
        }
        zeros
    }

    /// Where a statistic of a tensor is kept.
    fn slot(&mut self, id: TensorId, statistic: Statistic) -> &mut Vec<f32> {
        match statistic {
            Statistic::Output => self.outputs.entry(id).or_default(),
            Statistic::Rows => &mut self.lookups.entry(id).or_default().rows,
            Statistic::Columns => &mut self.lookups.entry(id).or_default().columns,
            Statistic::Element => self.elements.entry(id).or_default(),
        }
    }

    /// Refuses statistics that are not those of the configuration's tensors: one missing or too many, one of another
    /// length, a value that is negative or no number.
    ///
    /// # Errors
    /// By the name of the array.
    pub fn validate(&self, config: &ModelConfig) -> Result<()> {
        self.to_dict().and_then(|dict| Self::from_dict(config, dict, self.tokens, self.checkpoint)).map(drop)
    }

    fn to_dict(&self) -> Result<StateDict> {
        let outputs = self.outputs.iter().map(|(id, v)| (id, Statistic::Output, v));
        let elements = self.elements.iter().map(|(id, v)| (id, Statistic::Element, v));
        let rows = self.lookups.iter().map(|(id, v)| (id, Statistic::Rows, &v.rows));
        let columns = self.lookups.iter().map(|(id, v)| (id, Statistic::Columns, &v.columns));
        let all = outputs.chain(elements).chain(rows).chain(columns);
        let named = |(id, statistic, v): (&TensorId, Statistic, &Vec<f32>)| {
            (format!("{id}.{}", statistic.name()), Array::new([v.len()], v.clone()))
        };
        Ok(all.map(named).collect())
    }

    fn from_dict(config: &ModelConfig, mut dict: StateDict, tokens: u64, checkpoint: Digest) -> Result<Self> {
        let mut read = Self::zeros(config, tokens, checkpoint);
        for (id, statistic, len) in arrays(config) {
            let name = format!("{id}.{}", statistic.name());
            let expected = format!("shape [{len}]");
            let Some(array) = dict.remove(&name) else { return Err(wrong(name, expected, "no such tensor")) };
            if array.shape != [len] {
                return Err(wrong(name, expected, format!("shape {:?}", array.shape)));
            }
            if let Some(x) = array.data.iter().find(|x| !x.is_finite() || **x < 0.0) {
                return Err(wrong(name, "finite values of at least 0".into(), x.to_string()));
            }
            *read.slot(id, statistic) = array.data;
        }
        match dict.pop_first() {
            Some((name, _)) => Err(wrong(name, "no such tensor in this configuration".into(), "one")),
            None => Ok(read),
        }
    }
}

/// Where the statistics of a checkpoint folder are.
pub fn path(checkpoint: impl AsRef<Path>) -> PathBuf {
    checkpoint.as_ref().join(FILE)
}

/// Writes the statistics as a safetensors file, atomically.
///
/// # Errors
/// The system's.
pub fn write(path: impl AsRef<Path>, sensitivity: &Sensitivity) -> Result<()> {
    state_dict::write(path, &sensitivity.to_dict()?, &metadata(sensitivity))
}

fn metadata(sensitivity: &Sensitivity) -> Metadata {
    Metadata::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("tokens".to_owned(), sensitivity.tokens.to_string()),
        ("checkpoint".to_owned(), sensitivity.checkpoint.to_string()),
    ])
}

/// Reads the statistics of a model of this configuration.
///
/// Whose weights they belong to is for the caller to compare: [`Sensitivity::checkpoint`].
///
/// # Errors
/// A file that cannot be read or is malformed; metadata that is missing; an array that is missing, unknown, of another
/// shape, negative or no number, by its name.
pub fn read(path: impl AsRef<Path>, config: &ModelConfig) -> Result<Sensitivity> {
    let path = path.as_ref();
    let file = Mapped::open(path)?;
    parse(&file, config).map_err(Error::in_file(path))
}

/// Reads the statistics from the bytes of a file.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], config: &ModelConfig) -> Result<Sensitivity> {
    let metadata = state_dict::metadata(bytes)?;
    let get = |key: &str, expected: &str| metadata.get(key).ok_or_else(|| field(key, expected, "none of that name"));
    let format = get("format", FORMAT)?;
    if format != FORMAT {
        return Err(field("format", FORMAT, format));
    }
    let tokens = get("tokens", "a number")?;
    let tokens = tokens.parse().map_err(|_| field("tokens", "a number", tokens))?;
    let checkpoint = get("checkpoint", "a BLAKE3 hash")?;
    let checkpoint = checkpoint.parse().map_err(|_| field("checkpoint", "a BLAKE3 hash", checkpoint))?;
    Sensitivity::from_dict(config, state_dict::read(bytes)?, tokens, checkpoint)
}

fn wrong(name: String, expected: String, found: impl Into<String>) -> Error {
    Error::Tensor { name, expected, found: found.into() }
}

fn field(key: &str, expected: &str, found: &str) -> Error {
    let expected = format!("metadata `{key}`: {expected}");
    Error::Layout { what: "sensitivity", offset: 8, expected, found: format!("`{found}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig { vocab_size: 8, model_dim: 20, ve_dim: 4, rope_dims: 4, ..ModelConfig::small() }
    }

    fn statistics() -> Sensitivity {
        let mut some = Sensitivity::zeros(&config(), 512, Digest::of(b"weights"));
        for (k, (id, statistic, len)) in arrays(&config()).into_iter().enumerate() {
            *some.slot(id, statistic) = (0..len).map(|i| (k * 100 + i) as f32 / 7.0).collect();
        }
        some
    }

    fn message(dict: StateDict, metadata: &Metadata) -> String {
        parse(&state_dict::encode(&dict, metadata).unwrap(), &config()).unwrap_err().to_string()
    }

    #[test]
    fn round_trip_is_exact() {
        let folder = tempfile::tempdir().unwrap();
        let some = statistics();
        write(path(folder.path()), &some).unwrap();
        assert_eq!(read(path(folder.path()), &config()).unwrap(), some);
        some.validate(&config()).unwrap();
    }

    #[test]
    fn every_tensor_has_what_its_use_asks_for() {
        let some = Sensitivity::zeros(&ModelConfig::record(), 0, Digest::of(b""));
        assert_eq!(some.outputs.len(), 66 + 2, "matrices, the head and the value embedding's projection");
        assert_eq!(some.outputs[&TensorId::TokenEmbedding].len(), 4096);
        assert_eq!(some.lookups[&TensorId::ValueEmbedding].columns.len(), 128);
        for spec in ModelConfig::record().tensors() {
            let found = [
                some.outputs.contains_key(&spec.id),
                some.lookups.contains_key(&spec.id),
                some.elements.contains_key(&spec.id),
            ];
            assert_ne!(found, [false; 3], "{}", spec.name());
        }
        assert_eq!(some.elements[&TensorId::ValueProj].len(), 256 * 128, "a small matrix has both");
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let (some, name) = (statistics(), "blocks.1.attn.c_k.weight.output");
        let (dict, meta) = (some.to_dict().unwrap(), metadata(&some));
        let changed = |change: &dyn Fn(&mut StateDict)| {
            let mut dict = dict.clone();
            change(&mut dict);
            message(dict, &meta)
        };
        let gone = changed(&|d| drop(d.remove(name)));
        assert_eq!(gone, format!("tensor `{name}`: expected shape [20], found no such tensor"));
        let shape = changed(&|d| drop(d.insert(name.into(), Array::new([1, 20], vec![0.0; 20]))));
        assert!(shape.contains("expected shape [20], found shape [1, 20]"), "{shape}");
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let value = changed(&|d| d.get_mut(name).unwrap().data[7] = bad);
            assert_eq!(value, format!("tensor `{name}`: expected finite values of at least 0, found {bad}"));
        }
        let unknown = changed(&|d| drop(d.insert("lm_head.output".into(), Array::new([1], vec![0.0]))));
        assert!(unknown.contains("`lm_head.output`: expected no such tensor in this configuration"), "{unknown}");
        for (key, value) in [("format", "sensitivity 9"), ("tokens", "-3"), ("checkpoint", "abc")] {
            let mut wrong = meta.clone();
            wrong.insert(key.into(), value.into());
            let found = message(dict.clone(), &wrong);
            assert!(found.contains(&format!("metadata `{key}`")) && found.contains(value), "{found}");
            wrong.remove(key);
            assert!(message(dict.clone(), &wrong).contains("found `none of that name`"));
        }
        let folder = tempfile::tempdir().unwrap();
        let absent = read(path(folder.path()), &config()).unwrap_err().to_string();
        assert!(absent.contains("sensitivity.safetensors: cannot open"), "{absent}");
    }
}
