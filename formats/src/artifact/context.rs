//! Sections of tensors in [`Codec::Context`](crate::Codec): what lies in them.

use half::f16;

use super::container::Kind;
use super::jobs::{self, Run};
use super::streams::{Form, Placement, stream_of};
use crate::codec::halves::{self, Class};
use crate::codec::matrix;
use crate::{Error, Model, Result, TensorData, TensorId};

/// Bytes of the length of a coded matrix.
pub(super) const LENGTH: usize = 4;

/// Codes every matrix of a stream of codes: their lengths, then the matrices.
pub(super) fn encode_codes(kind: Kind, model: &Model, run: &Run<'_>) -> Result<Vec<u8>> {
    let table = model.config.tensors();
    let of_stream = |id: TensorId| match &model.tensors[&id] {
        TensorData::Quantized(q) if stream_of(id) == kind => Some((id, q)),
        _ => None,
    };
    let matrices = table.iter().filter_map(|spec| of_stream(spec.id)).collect();
    let coded = jobs::map(matrices, |(id, q): (TensorId, &_)| matrix::encode(q, &id.to_string()), run);
    let coded = coded.into_iter().collect::<Result<Vec<_>>>()?;
    let length = |matrix: &Vec<u8>| u32::try_from(matrix.len()).expect("a matrix below 4 GiB").to_le_bytes();
    let lengths = coded.iter().flat_map(length);
    Ok(lengths.chain(coded.iter().flatten().copied()).collect())
}

/// The coded matrices of a stream of codes with `n` of them.
pub(super) fn split_codes(kind: Kind, coded: &[u8], n: usize) -> Result<Vec<&[u8]>> {
    let fail = |expected, found| Error::Stream { stream: kind.name().into(), expected, found };
    let short = || fail(format!("the lengths of {n} matrices"), format!("{} bytes", coded.len()));
    let (lengths, mut rest) = n.checked_mul(LENGTH).and_then(|at| coded.split_at_checked(at)).ok_or_else(short)?;
    let mut matrices = Vec::with_capacity(n);
    for length in lengths.as_chunks::<LENGTH>().0 {
        let length = u32::from_le_bytes(*length);
        let part = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let (matrix, left) =
            part.ok_or_else(|| fail(format!("a matrix of {length} bytes"), format!("{} bytes", rest.len())))?;
        matrices.push(matrix);
        rest = left;
    }
    if !rest.is_empty() {
        return Err(fail("the end after the last matrix".into(), format!("{} bytes", rest.len())));
    }
    Ok(matrices)
}

/// Class and length of each list in a stream of f16 values: of scales, rows before columns.
fn lists(kind: Kind, placements: &[Placement]) -> Vec<(Class, usize)> {
    let of = |placement: &Placement| -> Vec<(Class, usize)> {
        match placement.form {
            Form::Codes { .. } if kind == Kind::Scales => {
                let (rows, all) = (placement.spec.shape[0], placement.scales.len() / 2);
                vec![(Class::Steps(0), rows), (Class::Steps(1), all - rows)]
            }
            Form::Half if kind == Kind::Halves => {
                vec![(Class::Values(role(placement.spec.id)), placement.values.1.len() / 2)]
            }
            _ => Vec::new(),
        }
    };
    placements.iter().flat_map(of).filter(|&(_, n)| n > 0).collect()
}

/// A number for tensors with like values.
fn role(id: TensorId) -> u8 {
    match id {
        TensorId::Block(_, part) => part as u8,
        TensorId::TokenEmbedding => 16,
        TensorId::SkipWeights => 17,
        TensorId::SkipGates => 18,
        TensorId::ValueEmbedding => 19,
        TensorId::ValueProj => 20,
        TensorId::ValueScale | TensorId::ValueLayerScale(_) => 21,
        TensorId::LaneKeep | TensorId::LanePost => 22,
    }
}

/// Codes a stream of f16 values, given as pairs of bytes.
pub(super) fn encode_halves(kind: Kind, pairs: &[u8], placements: &[Placement]) -> Vec<u8> {
    let values: Vec<f16> = pairs.as_chunks().0.iter().map(|&pair| f16::from_le_bytes(pair)).collect();
    let mut rest = &values[..];
    let list = |(class, n)| {
        let (list, left) = rest.split_at(n);
        rest = left;
        (class, list)
    };
    halves::encode(lists(kind, placements).into_iter().map(list))
}

/// Undoes [`encode_halves`].
pub(super) fn decode_halves(kind: Kind, coded: &[u8], placements: &[Placement]) -> Result<Vec<u8>> {
    let lists = lists(kind, placements);
    let fail = |found| {
        let values: usize = lists.iter().map(|&(_, n)| n).sum();
        Error::Stream { stream: kind.name().into(), expected: format!("{values} coded f16 values"), found }
    };
    let decoded = halves::decode(coded, lists.iter().copied()).map_err(fail)?;
    Ok(decoded.iter().flatten().flat_map(|value| value.to_le_bytes()).collect())
}
