//! Tensors as streams of bytes and back.

use std::collections::BTreeMap;

use half::f16;

use super::container::Kind;
use super::jobs::{self, Run};
use super::streams::{Form, Placement, column_major, stream_of};
use crate::codec::matrix;
use crate::{Model, QuantizedMatrix, Result, TensorData, TensorId};

/// A stream of tensors.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stream<'a> {
    /// Its bytes before coding. Scales and halves are pairs of bytes here, not split into planes.
    Bytes(Vec<u8>),
    /// The matrices of codes in it, each coded for itself.
    Matrices(Vec<&'a [u8]>),
}

/// Every stream that is not empty.
pub(super) type Streams<'a> = BTreeMap<Kind, Stream<'a>>;

/// The bytes of the streams of a model whose [`forms`](super::streams::forms) are known to be in order; codes for those
/// kinds only that `codes` asks for.
pub(super) fn split(model: &Model, codes: impl Fn(Kind) -> bool) -> BTreeMap<Kind, Vec<u8>> {
    let mut streams = BTreeMap::<Kind, Vec<u8>>::new();
    let halves = |values: &[f16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    for spec in model.config.tensors() {
        match &model.tensors[&spec.id] {
            TensorData::F32(_) => unreachable!("`forms` refuses f32"),
            TensorData::F16(values) => streams.entry(Kind::Halves).or_default().extend(halves(values)),
            TensorData::Quantized(q) => {
                let kind = stream_of(spec.id);
                if codes(kind) {
                    let codes: &[u8] = bytemuck::cast_slice(&q.codes);
                    let stream = streams.entry(kind).or_default();
                    match column_major(kind) {
                        true => stream.extend(transpose(codes, q.rows, q.cols)),
                        false => stream.extend(codes),
                    }
                }
                let scales = streams.entry(Kind::Scales).or_default();
                scales.extend(halves(&q.scales).into_iter().chain(halves(&q.columns)));
            }
        }
    }
    streams
}

/// The tensors that lie at `placements` in streams of the [`sizes`](super::streams::sizes) of these placements.
pub(super) fn join<'p>(
    placements: &'p [Placement],
    streams: &Streams<'_>,
    run: &Run<'_>,
) -> Result<BTreeMap<TensorId, TensorData>> {
    let mut taken = BTreeMap::<Kind, usize>::new();
    let part = |placement: &'p Placement| {
        let Placement { values: (kind, range), .. } = placement;
        let part = match streams.get(kind) {
            None => Part::Bytes(&[]),
            Some(Stream::Bytes(bytes)) => Part::Bytes(&bytes[range.clone()]),
            Some(Stream::Matrices(coded)) => {
                let next = taken.entry(*kind).or_default();
                *next += 1;
                Part::Coded(coded[*next - 1])
            }
        };
        (placement, part)
    };
    let parts = placements.iter().map(part).collect();
    jobs::map(parts, |(placement, part)| Ok((placement.spec.id, tensor(placement, part, streams)?)), run)
        .into_iter()
        .collect()
}

/// What one tensor has of a stream.
enum Part<'a> {
    Bytes(&'a [u8]),
    /// A matrix coded by [`matrix`].
    Coded(&'a [u8]),
}

fn tensor(placement: &Placement, part: Part<'_>, streams: &Streams<'_>) -> Result<TensorData> {
    let Placement { spec, form, values: (kind, _), scales } = placement;
    let halves = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&pair| f16::from_le_bytes(pair)).collect::<Vec<_>>();
    let (q_max, trellis, shape) = match (*form, &spec.shape[..], &part) {
        (Form::Codes { q_max, trellis, .. }, &[rows, cols], _) => (q_max, trellis, [rows, cols]),
        (_, _, Part::Bytes(bytes)) => return Ok(TensorData::F16(halves(bytes))),
        (_, _, Part::Coded(_)) => unreachable!("only streams of codes hold matrices, and `place` gives those matrices"),
    };
    let mut scales = match streams.get(&Kind::Scales) {
        Some(Stream::Bytes(bytes)) => halves(&bytes[scales.clone()]),
        _ => Vec::new(),
    };
    let columns = scales.split_off(shape[0].min(scales.len()));
    let ([rows, cols], name) = (shape, spec.name());
    let codes = match part {
        Part::Coded(coded) => {
            let (scales, columns) = (scales.clone(), columns.clone());
            let frame = QuantizedMatrix { rows, cols, q_max, codes: Vec::new(), scales, columns, trellis };
            matrix::decode(coded, frame, &name)?.codes
        }
        Part::Bytes(bytes) if column_major(*kind) => signed(&transpose(bytes, cols, rows)),
        Part::Bytes(bytes) => signed(bytes),
    };
    let matrix = QuantizedMatrix::new(&name, shape, q_max, codes, scales)?.with_columns(&name, columns)?;
    Ok(TensorData::Quantized(QuantizedMatrix { trellis, ..matrix }))
}

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|&byte| byte as i8).collect()
}

/// A row-major `[rows, cols]` as column-major.
fn transpose(bytes: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| bytes[row * cols + col])).collect()
}

/// Pairs of bytes as all first bytes, then all second ones.
pub(super) fn to_planes(pairs: &[u8]) -> Vec<u8> {
    pairs.iter().step_by(2).chain(pairs.iter().skip(1).step_by(2)).copied().collect()
}

/// Undoes [`to_planes`].
pub(super) fn from_planes(planes: &[u8]) -> Vec<u8> {
    let (low, high) = planes.split_at(planes.len().div_ceil(2));
    low.iter().zip(high).flat_map(|(&low, &high)| [low, high]).collect()
}

/// Whether a stream is split into planes when it is coded.
pub(super) fn in_planes(kind: Kind) -> bool {
    matches!(kind, Kind::Scales | Kind::Halves)
}
