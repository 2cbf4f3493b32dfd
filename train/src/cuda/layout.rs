//! Where each tensor lies among all of them, in two orders.
//!
//! Muon goes through the matrices of one shape at once, so weights, their average and the optimizers' state have them in
//! stacks. Gradients, and what passes read, have them as a pass comes by: a block's queries, keys and values are one
//! matrix, and those come first whose gradients are there first. Tables and control tensors lie alike in both.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use sixpack_formats::{ModelConfig, OptimizerGroup, Part, TensorId, TensorSpec};
use sixpack_runtime::cuda::Stack;

use crate::{Error, Params, Result};

/// Tensors begin at multiples of so many elements, 256 bytes of bf16, but for the matrices of a stack, and keys and values
/// among gradients, which follow each other.
pub(super) const ALIGNMENT: usize = 128;

/// The orders of all tensors in one piece of memory: matrices, tables, control tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    places: BTreeMap<TensorId, Place>,
    /// The matrices of each shape, and where they are as a stack.
    pub(super) stacks: Vec<(Stack, Range<usize>)>,
    /// Where all matrices are, all tables, and all control tensors.
    pub(super) groups: [Range<usize>; 3],
}

/// A tensor of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Among weights, their average, and the optimizers' state.
    pub(super) range: Range<usize>,
    /// Among gradients, and what passes read.
    pub(super) passed: Range<usize>,
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
        let passed = passed(&table);
        let mut end = 0;
        for ([rows, cols], members) in shapes {
            let start = end;
            for spec in &members {
                end = layout.put(spec, end, passed[&spec.id].clone());
            }
            layout.stacks.push((Stack { count: members.len(), rows, cols }, start..end));
            end = end.next_multiple_of(ALIGNMENT);
        }
        // What follows begins where both orders have ended.
        let ends = passed.values().map(|range| range.end.next_multiple_of(ALIGNMENT));
        end = ends.fold(end, usize::max);
        layout.groups[0] = 0..end;
        for (which, group) in [(1, OptimizerGroup::Token), (2, OptimizerGroup::Scalar)] {
            let start = end;
            for spec in table.iter().filter(|spec| spec.group == group) {
                end = layout.put(spec, end, end..end + spec.elements()).next_multiple_of(ALIGNMENT);
            }
            layout.groups[which] = start..end;
        }
        layout
    }

    fn put(&mut self, spec: &TensorSpec, at: usize, passed: Range<usize>) -> usize {
        let range = at..at + spec.elements();
        let end = range.end;
        self.places.insert(spec.id, Place { range, passed, shape: shape(spec), group: spec.group });
        end
    }

    /// Elements of all, with what lies between them.
    pub(super) fn len(&self) -> usize {
        self.groups[2].end
    }

    /// Elements of what passes read but for control tensors.
    pub(super) fn read(&self) -> usize {
        self.groups[1].end
    }

    pub(super) fn places(&self) -> &BTreeMap<TensorId, Place> {
        &self.places
    }

    pub(super) fn place(&self, id: TensorId) -> &Place {
        &self.places[&id]
    }

    /// Where the matrices of a stack begin among gradients, and what passes read.
    pub(super) fn starts(&self, stack: &Range<usize>) -> Vec<usize> {
        self.members(stack).into_iter().map(|id| self.places[&id].passed.start).collect()
    }

    /// The matrices of a stack, in its order.
    pub(super) fn members(&self, stack: &Range<usize>) -> Vec<TensorId> {
        let within = |p: &Place| p.group == OptimizerGroup::Matrix && stack.contains(&p.range.start);
        let mut members: Vec<_> = self.places.iter().filter(|(_, place)| within(place)).collect();
        members.sort_by_key(|(_, place)| place.range.start);
        members.into_iter().map(|(&id, _)| id).collect()
    }

    /// Where all tensors are among gradients.
    pub(super) fn passed(&self) -> Vec<Range<usize>> {
        self.places.values().map(|place| place.passed.clone()).collect()
    }

    /// All tensors in one of the orders, zeros between them.
    ///
    /// # Errors
    /// A tensor that is missing, or has another number of elements.
    pub(super) fn gather(&self, params: &Params, order: fn(&Place) -> &Range<usize>) -> Result<Vec<f32>> {
        let mut all = vec![0.0; self.len()];
        for (id, place) in &self.places {
            let values = params.get(id).ok_or_else(|| Error::MissingTensor(id.to_string()))?;
            if values.len() != place.range.len() {
                let (expected, found) = (place.range.len(), values.len());
                return Err(Error::TensorLength { name: id.to_string(), expected, found });
            }
            all[order(place).clone()].copy_from_slice(values);
        }
        Ok(all)
    }

    /// The tensors, each by itself.
    pub(super) fn scatter(&self, all: &[f32], order: fn(&Place) -> &Range<usize>) -> Params {
        self.places.iter().map(|(&id, place)| (id, all[order(place).clone()].to_vec())).collect()
    }
}

impl Place {
    /// The order of weights.
    pub(super) fn range(&self) -> &Range<usize> {
        &self.range
    }

    /// The order of gradients.
    pub(super) fn passed(&self) -> &Range<usize> {
        &self.passed
    }
}

/// Where matrices are among gradients: from the last block to the first, as backward is done with them.
fn passed(table: &[TensorSpec]) -> BTreeMap<TensorId, Range<usize>> {
    let rank = |id: TensorId| match id {
        TensorId::Block(layer, part) => {
            let backward = [Part::MlpDown, Part::MlpUp, Part::AttnOut, Part::Query, Part::Key, Part::Value]
                .iter()
                .position(|&p| p == part);
            (Reverse(Some(layer)), backward)
        }
        _ => (Reverse(None), None),
    };
    let mut matrices: Vec<&TensorSpec> = table.iter().filter(|s| s.group == OptimizerGroup::Matrix).collect();
    matrices.sort_by_key(|spec| rank(spec.id));
    let mut end: usize = 0;
    let place = |spec: &TensorSpec| {
        let follows = matches!(spec.id, TensorId::Block(_, Part::Key | Part::Value));
        let start = if follows { end } else { end.next_multiple_of(ALIGNMENT) };
        end = start + spec.elements();
        (spec.id, start..end)
    };
    matrices.into_iter().map(place).collect()
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
        for order in [Place::range, Place::passed] {
            let mut ranges: Vec<_> = layout.places.values().map(|place| order(place).clone()).collect();
            ranges.sort_by_key(|range| range.start);
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(ranges.last().unwrap().end <= layout.len());
            assert_eq!(ranges.len(), config.tensors().len());
        }
        for place in layout.places.values().filter(|place| place.group != OptimizerGroup::Matrix) {
            assert_eq!(place.range, place.passed);
        }
        for (stack, range) in &layout.stacks {
            assert_eq!(stack.elements(), range.len());
            let members = layout.places.values().filter(|p| p.range.start >= range.start && p.range.end <= range.end);
            assert_eq!(members.filter(|p| p.shape == [stack.rows, stack.cols]).count(), stack.count);
            assert_eq!(layout.starts(range).len(), stack.count);
        }
        let params: Params = config
            .tensors()
            .iter()
            .enumerate()
            .map(|(i, spec)| (spec.id, (0..spec.elements()).map(|j| (i * 1000 + j % 1000) as f32).collect()))
            .collect();
        for order in [Place::range, Place::passed] {
            assert_eq!(layout.scatter(&layout.gather(&params, order).unwrap(), order), params);
        }
        let missing = Params::new();
        assert!(matches!(layout.gather(&missing, Place::range), Err(Error::MissingTensor(_))));
    }

    #[test]
    fn gradients_of_a_block_lie_as_backward_finds_them() {
        let config = ModelConfig::record();
        let layout = Layout::new(&config);
        let at = |layer, part| layout.place(TensorId::block(layer, part)).passed.clone();
        for layer in 0..config.num_layers {
            let [q, k, v] = [Part::Query, Part::Key, Part::Value].map(|part| at(layer, part));
            assert!(q.start.is_multiple_of(ALIGNMENT) && q.end == k.start && k.end == v.start);
            assert!(at(layer, Part::MlpDown).end <= at(layer, Part::MlpUp).start);
            assert!(at(layer, Part::AttnOut).end <= q.start);
            assert!(layer == 0 || v.end <= at(layer - 1, Part::MlpDown).start);
        }
        assert!(layout.place(TensorId::ValueProj).passed.start >= at(0, Part::Value).end);
    }
}
