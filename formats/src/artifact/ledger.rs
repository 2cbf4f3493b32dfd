//! What the bytes of an artifact are for.

use std::ops::Range;

use super::container::{HEADER, Kind, ROW, Section};
use super::context;
use super::streams::{Form, Placement};
use super::tensors::{Stream, Streams, in_planes};
use crate::{Codec, TensorId};

/// Every byte of a file by its purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// The header.
    pub header: u64,
    /// The section table.
    pub table: u64,
    /// The sections, in the order of the file.
    pub sections: Vec<SectionBytes>,
    /// The tensors' shares of the streams, in the order of the tensor table. They sum to the streams' sizes.
    pub tensors: Vec<TensorBytes>,
}

/// A section's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct SectionBytes {
    /// What it holds; `None` for a kind of a later version.
    pub kind: Option<Kind>,
    /// How it is coded; `None` for a codec of a later version.
    pub codec: Option<Codec>,
    /// Size when decoded.
    pub raw: u64,
    /// Size in the file.
    pub bytes: u64,
}

impl SectionBytes {
    /// The name of what it holds.
    pub fn name(&self) -> &'static str {
        self.kind.map_or("unknown", Kind::name)
    }
}

/// A tensor's bytes.
///
/// Matrices in [`Codec::Context`] are coded each for itself: these are its bytes, with those of its length. Other tensors
/// of one stream are coded together, so a tensor has no bytes of its own: its share is the stream's size in proportion
/// to the order-0 entropy of the tensors' bytes, rounded so that the shares sum to the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorBytes {
    /// Which tensor.
    pub id: TensorId,
    /// Largest magnitude of its codes; `None` for f16.
    pub q_max: Option<u8>,
    /// Number of elements.
    pub elements: u64,
    /// Share of the stream of its codes or f16 values.
    pub values: u64,
    /// Share of the stream of scales.
    pub scales: u64,
}

impl TensorBytes {
    /// Bytes of the tensor in the file.
    pub fn bytes(&self) -> u64 {
        self.values + self.scales
    }

    /// Coded bits of one element.
    pub fn bits_per_element(&self) -> f64 {
        8.0 * self.bytes() as f64 / self.elements.max(1) as f64
    }
}

impl Ledger {
    /// The size of the file.
    pub fn total(&self) -> u64 {
        self.header + self.table + self.sections.iter().map(|s| s.bytes).sum::<u64>()
    }

    /// Bytes of one section; 0 where the file has none of this kind.
    pub fn section(&self, kind: Kind) -> u64 {
        self.sections.iter().find(|s| s.kind == Some(kind)).map_or(0, |s| s.bytes)
    }

    /// Bytes that are neither coded tensors nor the tokenizer.
    pub fn overhead(&self) -> u64 {
        let tensors: u64 = Kind::STREAMS.iter().map(|&kind| self.section(kind)).sum();
        self.total() - tensors - self.section(Kind::Tokenizer)
    }

    /// The ledger of a file of these sections, with streams as they are before coding.
    pub(super) fn new(sections: &[Section<'_>], placements: &[Placement], streams: &Streams<'_>) -> Self {
        let row = |s: &Section<'_>| SectionBytes {
            kind: s.kind,
            codec: Codec::from_id(s.codec),
            raw: s.raw,
            bytes: s.coded.len() as u64,
        };
        let mut ledger = Self {
            header: HEADER as u64,
            table: (ROW * sections.len()) as u64,
            sections: sections.iter().map(row).collect(),
            tensors: placements.iter().map(unpriced).collect(),
        };
        for kind in Kind::STREAMS {
            ledger.attribute(kind, placements, streams);
        }
        ledger
    }

    /// Shares a stream's size out among its tensors.
    fn attribute(&mut self, kind: Kind, placements: &[Placement], streams: &Streams<'_>) {
        let stream = match streams.get(&kind) {
            None => return,
            Some(Stream::Bytes(stream)) => stream,
            Some(Stream::Matrices(matrices)) => {
                let rows = self.tensors.iter_mut().zip(placements).filter(|(_, p)| p.values.0 == kind);
                rows.zip(matrices).for_each(|((row, _), coded)| row.values = (context::LENGTH + coded.len()) as u64);
                return;
            }
        };
        let range = |p: &Placement| match kind {
            Kind::Scales => p.scales.clone(),
            _ if p.values.0 == kind => p.values.1.clone(),
            _ => 0..0,
        };
        let weights: Vec<f64> = placements.iter().map(|p| information(stream, range(p), in_planes(kind))).collect();
        let shares = apportion(self.section(kind), &weights);
        for (row, share) in self.tensors.iter_mut().zip(shares) {
            *(if kind == Kind::Scales { &mut row.scales } else { &mut row.values }) += share;
        }
    }
}

fn unpriced(placement: &Placement) -> TensorBytes {
    let q_max = match placement.form {
        Form::Half => None,
        Form::Codes { q_max, .. } => Some(q_max),
    };
    let elements = placement.spec.elements() as u64;
    TensorBytes { id: placement.spec.id, q_max, elements, values: 0, scales: 0 }
}

/// Bits of a part of a stream by the order-0 entropy of its bytes, each plane for itself; never 0 for a part that is
/// not empty, so that a constant tensor bears something of a stream of constants.
fn information(stream: &[u8], range: Range<usize>, planes: bool) -> f64 {
    let part = &stream[range];
    let floor = part.len() as f64 * 1e-6;
    let planes = if planes { 2 } else { 1 };
    floor + (0..planes).map(|plane| entropy(part.iter().skip(plane).step_by(planes))).sum::<f64>()
}

/// Total bits of these bytes at their order-0 entropy.
fn entropy<'a>(bytes: impl Iterator<Item = &'a u8>) -> f64 {
    let mut counts = [0u64; 256];
    let mut total = 0u64;
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
        total += 1;
    }
    counts.iter().filter(|&&n| n > 0).map(|&n| n as f64 * (total as f64 / n as f64).log2()).sum()
}

/// Splits `total` in proportion to `weights`; rounded down, what is left over going to the largest remainders.
fn apportion(total: u64, weights: &[f64]) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return vec![0; weights.len()];
    }
    let exact: Vec<f64> = weights.iter().map(|w| total as f64 * (w / sum)).collect();
    let mut shares: Vec<u64> = exact.iter().map(|x| x.floor() as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let left = total.saturating_sub(shares.iter().sum());
    for i in order.iter().cycle().take(left as usize) {
        shares[*i] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_the_whole() {
        assert_eq!(apportion(10, &[1.0, 1.0, 1.0]), [4, 3, 3]);
        assert_eq!(apportion(7, &[0.0, 3.0, 0.5]), [0, 6, 1]);
        assert_eq!(apportion(7, &[0.0, 0.0]), [0, 0]);
        assert_eq!(apportion(0, &[1.0]), [0]);
        let weights: Vec<f64> = (1..100).map(|i| f64::from(i).sqrt()).collect();
        assert_eq!(apportion(1_000_003, &weights).iter().sum::<u64>(), 1_000_003);
    }

    #[test]
    fn information_is_the_entropy() {
        let even: Vec<u8> = (0..=255).collect();
        assert!((information(&even, 0..256, false) - 2048.0).abs() < 0.01);
        assert!(information(&[7; 100], 0..100, false) < 0.01);
        // One plane is constant, the other has two values.
        let pairs: Vec<u8> = (0..100).flat_map(|i| [9, i % 2]).collect();
        assert!((information(&pairs, 0..200, true) - 100.0).abs() < 0.01);
        assert_eq!(information(&even, 3..3, false), 0.0);
    }
}
