//! Who orthogonalises what: each matrix is one rank's, which gives the others the updated weights.
//!
//! What the rule remembers of a matrix is up to date on its owner alone, until it is gathered for a checkpoint.

use std::collections::BTreeMap;

use sixpack_formats::{OptimizerGroup, TensorId, TensorSpec};

use super::{Matrix, Now, Optimizer};
use crate::loader::Rank;
use crate::params::Params;
use crate::{Collective, Result};

/// The owner of each matrix whose update is orthogonalised. Of the matrices of one shape, in the order of the table, each
/// rank has some that follow each other, so that it may compute them at once; the ranks have about the same work.
pub fn owners(table: &[TensorSpec], rule: &Matrix, world: usize) -> BTreeMap<TensorId, usize> {
    if matches!(rule, Matrix::AdamW(_)) {
        return BTreeMap::new();
    }
    let mut shapes: BTreeMap<&[usize], Vec<TensorId>> = BTreeMap::new();
    for spec in table.iter().filter(|spec| spec.group == OptimizerGroup::Matrix) {
        shapes.entry(&spec.shape).or_default().push(spec.id);
    }
    // Multiplications of an iteration are in proportion to this.
    let work = |shape: &[usize]| shape[0] * shape[1] * shape[0].min(shape[1]);
    let mut shapes: Vec<_> = shapes.into_iter().collect();
    shapes.sort_by_key(|(shape, _)| std::cmp::Reverse(work(shape)));
    // The largest first, each to the rank with the least work.
    let mut loads = vec![0; world];
    let mut owners = BTreeMap::new();
    for (shape, members) in shapes {
        let mut counts = vec![0; world];
        for _ in &members {
            let owner = (0..world).min_by_key(|&rank| loads[rank]).expect("a run has ranks");
            loads[owner] += work(shape);
            counts[owner] += 1;
        }
        let in_order = counts.into_iter().enumerate().flat_map(|(rank, count)| std::iter::repeat_n(rank, count));
        owners.extend(members.into_iter().zip(in_order));
    }
    owners
}

impl Optimizer {
    /// As [`Optimizer::step`], on every rank with the same parameters and gradients, which then have the same parameters
    /// again: matrices are orthogonalised by their owners only, everything else by all.
    ///
    /// # Errors
    /// If a rank was lost.
    ///
    /// # Panics
    /// As [`Optimizer::step`].
    pub fn step_of_all(
        &mut self,
        params: &mut Params,
        gradients: &Params,
        now: Now,
        all: &dyn Collective,
    ) -> Result<()> {
        let me = all.rank();
        if me.world == 1 {
            self.step(params, gradients, now);
            return Ok(());
        }
        let owners = owners(&self.table, &self.groups.matrix, me.world);
        self.steps += 1;
        self.update(params, gradients, now, |id| owners.get(&id) == Some(&me.rank));
        // They travel while the rest is updated.
        let mut parts = Parts::new(me);
        owners.iter().for_each(|(id, &owner)| parts.add(owner, &params[id]));
        let updated = all.gather(parts.whole())?;
        self.update(params, gradients, now, |id| !owners.contains_key(&id));
        let updated = updated.wait()?;
        let mut rest: Vec<&[f32]> = updated.iter().map(Vec::as_slice).collect();
        for (id, &owner) in &owners {
            take(&mut rest[owner], params.get_mut(id).expect("a matrix of the table"));
        }
        Ok(())
    }

    /// Makes what this rank remembers whole, by what the owners of matrices remember.
    ///
    /// # Errors
    /// If a rank was lost.
    pub fn gather(&mut self, all: &dyn Collective) -> Result<()> {
        let me = all.rank();
        if me.world == 1 {
            return Ok(());
        }
        let owners = owners(&self.table, &self.groups.matrix, me.world);
        let mut parts = Parts::new(me);
        for (id, &owner) in &owners {
            self.states[id].buffers().for_each(|(_, buffer)| parts.add(owner, buffer));
        }
        let gathered = all.gather(parts.whole())?.wait()?;
        let mut rest: Vec<&[f32]> = gathered.iter().map(Vec::as_slice).collect();
        for (id, &owner) in &owners {
            for (_, buffer) in self.states.get_mut(id).expect("a matrix of the table").buffers_mut() {
                take(&mut rest[owner], buffer);
            }
        }
        Ok(())
    }
}

/// What the ranks have: this one's numbers, and how many the others'.
struct Parts {
    rank: usize,
    mine: Vec<f32>,
    lengths: Vec<usize>,
}

impl Parts {
    fn new(me: Rank) -> Self {
        Self { rank: me.rank, mine: Vec::new(), lengths: vec![0; me.world] }
    }

    fn add(&mut self, owner: usize, values: &[f32]) {
        self.lengths[owner] += values.len();
        if owner == self.rank {
            self.mine.extend_from_slice(values);
        }
    }

    fn whole(self) -> Vec<Vec<f32>> {
        let mut whole: Vec<Vec<f32>> = self.lengths.into_iter().map(|length| vec![0.0; length]).collect();
        whole[self.rank] = self.mine;
        whole
    }
}

/// Fills a buffer with what comes next.
fn take(rest: &mut &[f32], buffer: &mut [f32]) {
    let (these, after) = rest.split_at(buffer.len());
    buffer.copy_from_slice(these);
    *rest = after;
}

#[cfg(test)]
mod tests {
    use sixpack_formats::ModelConfig;

    use super::*;
    use crate::optim::{AdamW, Muon, NorMuon};

    #[test]
    fn every_matrix_has_one_owner_and_the_work_is_shared_evenly() {
        let table = ModelConfig::record().tensors();
        let matrices = table.iter().filter(|spec| spec.group == OptimizerGroup::Matrix);
        let work: BTreeMap<_, _> = matrices.map(|s| (s.id, s.elements() * s.shape[0].min(s.shape[1]))).collect();
        for world in [1, 2, 3, 8] {
            let owners = owners(&table, &Matrix::Muon(Muon::default()), world);
            for shape in table.iter().map(|spec| &spec.shape).filter(|shape| shape.len() == 2) {
                let members = table.iter().filter(|spec| spec.shape == *shape && owners.contains_key(&spec.id));
                let ranks: Vec<usize> = members.map(|spec| owners[&spec.id]).collect();
                assert!(ranks.is_sorted(), "{shape:?} of {world} ranks: {ranks:?}");
            }
            assert!(owners.keys().eq(work.keys()));
            let mut loads = vec![0; world];
            owners.iter().for_each(|(id, &owner)| loads[owner] += work[id]);
            let (least, most) = (*loads.iter().min().unwrap() as f64, *loads.iter().max().unwrap() as f64);
            assert!(most < 1.15 * least, "{world} ranks: {loads:?}");
        }
        assert_eq!(owners(&table, &Matrix::NorMuon(NorMuon::default()), 2).len(), work.len());
        let adamw = AdamW { lr: 0.1, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.0 };
        assert!(owners(&table, &Matrix::AdamW(adamw), 2).is_empty());
    }
}
