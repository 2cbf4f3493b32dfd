//! Where each tensor lies among all of them.

use std::collections::BTreeMap;
use std::ops::Range;

use sixpack_formats::{ModelConfig, OptimizerGroup, TensorId, TensorSpec};
use sixpack_runtime::cuda::Stack;

use crate::{Error, Params, Result};

/// Tensors begin at multiples of so many elements, 256 bytes of bf16, but for the matrices of a stack, which follow each
/// other.
const ALIGNMENT: usize = 128;

/// The order of all tensors in one piece of memory: matrices in stacks of one shape, tables, control tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    places: BTreeMap<TensorId, Place>,
    /// The matrices of each shape, and where they are.
    pub(super) stacks: Vec<(Stack, Range<usize>)>,
    /// Where all matrices are, all tables, and all control tensors.
    pub(super) groups: [Range<usize>; 3],
}

/// A tensor of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) range: Range<usize>,
    /// Rows and columns; a vector has one row.
    pub(super) shape: [usize; 2],
    pub(super) group: OptimizerGroup,
}

impl Layout {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let table = config.tensors();
        let mut layout = Self { places: BTreeMap::new(), stacks: Vec::new(), groups: std::array::from_fn(|_| 0..0) };
        let mut shapes: BTreeMap<[usize; 2], Vec<&TensorSpec>> = BTreeMap::new();
        for spec in table.iter().filter(|spec| spec.group == OptimizerGroup::Matrix) {
            shapes.entry(shape(spec)).or_default().push(spec);
        }
        let mut end = 0;
        for ([rows, cols], members) in shapes {
            let start = end;
            for spec in &members {
                end = layout.put(spec, end);
            }
            layout.stacks.push((Stack { count: members.len(), rows, cols }, start..end));
            end = end.next_multiple_of(ALIGNMENT);
        }
        layout.groups[0] = 0..end;
        for (which, group) in [(1, OptimizerGroup::Token), (2, OptimizerGroup::Scalar)] {
            let start = end;
            for spec in table.iter().filter(|spec| spec.group == group) {
                end = layout.put(spec, end).next_multiple_of(ALIGNMENT);
            }
            layout.groups[which] = start..end;
        }
        layout
    }

    fn put(&mut self, spec: &TensorSpec, at: usize) -> usize {
        let range = at..at + spec.elements();
        let end = range.end;
        self.places.insert(spec.id, Place { range, shape: shape(spec), group: spec.group });
        end
    }

    /// Elements of all, with what lies between them.
    pub(super) fn len(&self) -> usize {
        self.groups[2].end
    }

    pub(super) fn places(&self) -> &BTreeMap<TensorId, Place> {
        &self.places
    }

    pub(super) fn place(&self, id: TensorId) -> &Place {
        &self.places[&id]
    }

    /// All tensors in this order, zeros between them.
    ///
    /// # Errors
    /// A tensor that is missing, or has another number of elements.
    pub(super) fn gather(&self, params: &Params) -> Result<Vec<f32>> {
        let mut all = vec![0.0; self.len()];
        for (id, place) in &self.places {
            let values = params.get(id).ok_or_else(|| Error::MissingTensor(id.to_string()))?;
            if values.len() != place.range.len() {
                let (expected, found) = (place.range.len(), values.len());
                return Err(Error::TensorLength { name: id.to_string(), expected, found });
            }
            all[place.range.clone()].copy_from_slice(values);
        }
        Ok(all)
    }

    /// The tensors, each by itself.
    pub(super) fn scatter(&self, all: &[f32]) -> Params {
        self.places.iter().map(|(&id, place)| (id, all[place.range.clone()].to_vec())).collect()
    }
}

fn shape(spec: &TensorSpec) -> [usize; 2] {
    let cols = spec.shape.last().copied().unwrap_or(1);
    [spec.shape.iter().rev().skip(1).product(), cols]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_has_a_place_of_its_own_and_stacks_are_whole() {
        let config = ModelConfig::default();
        let layout = Layout::new(&config);
        let mut ranges: Vec<_> = layout.places.values().map(|place| place.range.clone()).collect();
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert_eq!(ranges.len(), config.tensors().len());
        for (stack, range) in &layout.stacks {
            assert_eq!(stack.elements(), range.len());
            let members = layout.places.values().filter(|p| p.range.start >= range.start && p.range.end <= range.end);
            assert_eq!(members.filter(|p| p.shape == [stack.rows, stack.cols]).count(), stack.count);
        }
        let params: Params = config
            .tensors()
            .iter()
            .enumerate()
            .map(|(i, spec)| (spec.id, (0..spec.elements()).map(|j| (i * 1000 + j % 1000) as f32).collect()))
            .collect();
        assert_eq!(layout.scatter(&layout.gather(&params).unwrap()), params);
        let missing = Params::new();
        assert!(matches!(layout.gather(&missing), Err(Error::MissingTensor(_))));
    }
}
