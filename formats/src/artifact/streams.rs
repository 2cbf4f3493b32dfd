//! Which stream a tensor lies in, and where in it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::container::Kind;
use crate::{Error, Model, ModelConfig, Part, QuantizedMatrix, Result, TensorData, TensorId, TensorSpec};

/// How a tensor is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// f16 values.
    Half,
    /// Codes and row scales.
    Codes {
        /// Codes are within ± this.
        q_max: u8,
        /// Whether there are column factors.
        columns: bool,
        /// Whether the codes are paths of the trellis.
        trellis: bool,
    },
}

/// Flag of codes with column factors.
const COLUMNS: u8 = 1;
/// Flag of codes that are paths of the trellis.
const TRELLIS: u8 = 2;

impl Form {
    /// What stands for it in a file.
    pub(super) fn id(self) -> [u8; 2] {
        match self {
            Self::Half => [0, 0],
            Self::Codes { q_max, columns, trellis } => {
                [q_max, (u8::from(columns) * COLUMNS) | (u8::from(trellis) * TRELLIS)]
            }
        }
    }

    fn from_id([q_max, flags]: [u8; 2]) -> Option<Self> {
        match (q_max, flags) {
            (0, 0) => Some(Self::Half),
            (1..=127, 0..4) => {
                Some(Self::Codes { q_max, columns: flags & COLUMNS != 0, trellis: flags & TRELLIS != 0 })
            }
            _ => None,
        }
    }
}

/// Where the bytes of one tensor lie.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placement {
    pub(super) spec: TensorSpec,
    pub(super) form: Form,
    /// Stream and range of the codes or of the f16 values.
    pub(super) values: (Kind, Range<usize>),
    /// Range in the stream of scales, rows before columns; empty for f16 values.
    pub(super) scales: Range<usize>,
}

/// The stream of a tensor's codes: tensors with like statistics share one.
pub(super) fn stream_of(id: TensorId) -> Kind {
    match id {
        TensorId::Block(_, Part::Query | Part::Key | Part::Value | Part::AttnOut) => Kind::Attention,
        TensorId::Block(_, Part::MlpUp) => Kind::MlpUp,
        TensorId::Block(_, Part::MlpDown) => Kind::MlpDown,
        _ => Kind::Tables,
    }
}

/// Whether a stream's matrices stand column by column. Hidden units of an MLP differ more from each other than its
/// outputs do, so its second matrix codes smaller with the weights of each unit together.
pub(super) fn column_major(kind: Kind) -> bool {
    kind == Kind::MlpDown
}

/// Places every tensor of the configuration; `forms` has two bytes for each row of the tensor table.
pub(super) fn place(config: &ModelConfig, forms: &[u8]) -> Result<Vec<Placement>> {
    let table = config.tensors();
    let (forms, rest) = forms.as_chunks::<2>();
    if forms.len() != table.len() || !rest.is_empty() {
        let expected = format!("{} tensors of 2 bytes, as the configuration has", table.len());
        let found = format!("{} bytes", 2 * forms.len() + rest.len());
        return Err(Error::Stream { stream: Kind::Forms.name().into(), expected, found });
    }
    let mut ends = BTreeMap::new();
    let mut take = |spec: &TensorSpec, kind: Kind, size: Option<usize>| {
        let start = *ends.get(&kind).unwrap_or(&0);
        let end = size.and_then(|size| size.checked_add(start));
        let end = end.ok_or_else(|| wrong(spec, "a size that fits into memory", format!("shape {:?}", spec.shape)))?;
        ends.insert(kind, end);
        Ok(start..end)
    };
    let place = |(spec, &id): (TensorSpec, &[u8; 2])| {
        let form = Form::from_id(id).ok_or_else(|| {
            wrong(&spec, "form 0, 0 (f16) or 1 to 127 (codes up to this) with flags 0 to 3", format!("form {id:?}"))
        })?;
        let elements = spec.shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        let (values, scales) = match form {
            Form::Half => ((Kind::Halves, take(&spec, Kind::Halves, elements.and_then(|n| n.checked_mul(2)))?), 0..0),
            Form::Codes { columns, .. } => {
                let [rows, cols] = spec.shape[..] else {
                    return Err(wrong(&spec, "f16, as for all but matrices", format!("form {id:?}")));
                };
                let kind = stream_of(spec.id);
                let codes = take(&spec, kind, elements)?;
                let scales = rows.checked_add(if columns { cols } else { 0 }).and_then(|n| n.checked_mul(2));
                ((kind, codes), take(&spec, Kind::Scales, scales)?)
            }
        };
        Ok(Placement { spec, form, values, scales })
    };
    table.into_iter().zip(forms).map(place).collect()
}

/// Size of each stream that these tensors fill.
pub(super) fn sizes(placements: &[Placement]) -> BTreeMap<Kind, usize> {
    let mut sizes = BTreeMap::new();
    for placement in placements {
        sizes.insert(placement.values.0, placement.values.1.end);
        if !placement.scales.is_empty() {
            sizes.insert(Kind::Scales, placement.scales.end);
        }
    }
    sizes.retain(|_, size| *size > 0);
    sizes
}

/// The form of each tensor of a model, after a check that an artifact can hold it.
pub(super) fn forms(model: &Model) -> Result<Vec<u8>> {
    let form = |spec: TensorSpec| {
        let shape = || format!("shape {:?}", spec.shape);
        match model.tensors.get(&spec.id) {
            None => Err(wrong(&spec, shape(), "no such tensor")),
            Some(TensorData::F32(_)) => Err(wrong(&spec, "f16 values or codes", "f32 values")),
            Some(TensorData::F16(v)) if v.len() == spec.elements() => Ok(Form::Half),
            Some(TensorData::F16(v)) => Err(wrong(&spec, shape(), format!("{} elements", v.len()))),
            Some(TensorData::Quantized(q)) => check_matrix(&spec, q),
        }
    };
    let forms = model.config.tensors().into_iter().map(|spec| form(spec).map(Form::id)).collect::<Result<Vec<_>>>()?;
    Ok(forms.concat())
}

fn check_matrix(spec: &TensorSpec, q: &QuantizedMatrix) -> Result<Form> {
    if !q.columns.is_empty() && q.columns.len() != q.cols {
        return Err(wrong(spec, format!("{} column factors or none", q.cols), q.columns.len().to_string()));
    }
    if spec.shape != [q.rows, q.cols] || q.codes.len() != spec.elements() || q.scales.len() != q.rows {
        let found = format!("{} codes and {} scales as [{}, {}]", q.codes.len(), q.scales.len(), q.rows, q.cols);
        return Err(wrong(spec, format!("codes and row scales of shape {:?}", spec.shape), found));
    }
    if !(1..=127).contains(&q.q_max) || q.codes.iter().any(|c| c.unsigned_abs() > q.q_max) {
        let top = q.codes.iter().map(|c| c.unsigned_abs()).max().unwrap_or(0);
        return Err(wrong(
            spec,
            "codes within ±q_max of at most 127",
            format!("q_max {} and codes up to {top}", q.q_max),
        ));
    }
    Ok(Form::Codes { q_max: q.q_max, columns: !q.columns.is_empty(), trellis: q.trellis })
}

fn wrong(spec: &TensorSpec, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Tensor { name: spec.name(), expected: expected.into(), found: found.into() }
}
