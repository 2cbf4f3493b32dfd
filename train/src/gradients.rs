//! Adds up the gradients of micro-batches, and hands them to the other ranks while others are still computed.
//!
//! Gradients are added in the order of the micro-batches, whoever is done first. Those of the last ones go into buckets,
//! in about the order in which backward is done with the tensors; a bucket starts on its way when all it holds is
//! there. Buckets start in one order, as every rank must start the same operation.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sixpack_formats::{ModelConfig, TensorId, TensorSpec};

use crate::collective::Pending;
use crate::params::Params;
use crate::vector::add;
use crate::{Collective, Result};

/// Elements of a bucket, at most, where no tensor alone has more.
const BUCKET: usize = 1 << 20;

/// A small model too has so many buckets, at least about, of which the first travel early.
const BUCKETS: usize = 8;

/// The sums of gradients, being added up.
#[derive(Debug)]
pub(crate) struct Sums<'a> {
    all: &'a dyn Collective,
    slots: BTreeMap<TensorId, Mutex<Slot>>,
    /// The tensors of each bucket; none where there is nobody to share with.
    plan: Vec<Vec<TensorId>>,
    outbox: Mutex<Outbox>,
}

/// One tensor's gradient.
#[derive(Debug)]
struct Slot {
    sum: Vec<f32>,
    /// What each micro-batch at work gave.
    parts: Vec<Option<Vec<f32>>>,
    missing: usize,
}

/// The buckets of the last micro-batches.
#[derive(Debug)]
struct Outbox {
    /// Whether what is complete now is complete for good.
    last: bool,
    /// Tensors that are not there yet, by bucket.
    missing: Vec<usize>,
    /// On their way, in order.
    started: Vec<Pending>,
    failed: Option<crate::Error>,
}

impl<'a> Sums<'a> {
    pub(crate) fn new(config: &ModelConfig, all: &'a dyn Collective) -> Self {
        let table = config.tensors();
        let slot = |spec: &TensorSpec| Slot { sum: vec![0.0; spec.elements()], parts: Vec::new(), missing: 0 };
        let plan = if all.rank().world > 1 { plan(&table) } else { Vec::new() };
        let missing = plan.iter().map(Vec::len).collect();
        Self {
            all,
            slots: table.iter().map(|spec| (spec.id, Mutex::new(slot(spec)))).collect(),
            plan,
            outbox: Mutex::new(Outbox { last: false, missing, started: Vec::new(), failed: None }),
        }
    }

    /// Expects the gradients of so many micro-batches, the last ones or not.
    pub(crate) fn expect(&mut self, micro_batches: usize, last: bool) {
        self.outbox.get_mut().unwrap_or_else(PoisonError::into_inner).last = last;
        for slot in self.slots.values_mut() {
            let slot = slot.get_mut().unwrap_or_else(PoisonError::into_inner);
            slot.parts = vec![None; micro_batches];
            slot.missing = micro_batches;
        }
    }

    /// Takes the gradient of one tensor of a micro-batch, or hears that it has none.
    pub(crate) fn give(&self, micro_batch: usize, id: TensorId, gradient: Option<Vec<f32>>) {
        let mut slot = lock(&self.slots[&id]);
        slot.parts[micro_batch] = gradient;
        slot.missing -= 1;
        if slot.missing > 0 {
            return;
        }
        let Slot { sum, parts, .. } = &mut *slot;
        parts.drain(..).flatten().for_each(|part| add(sum, &part));
        drop(slot);
        self.complete(id);
    }

    /// Starts the buckets that are full now.
    fn complete(&self, id: TensorId) {
        let mut outbox = lock(&self.outbox);
        let Some(bucket) = self.plan.iter().position(|ids| ids.contains(&id)).filter(|_| outbox.last) else { return };
        outbox.missing[bucket] -= 1;
        while outbox.failed.is_none() && outbox.missing.get(outbox.started.len()) == Some(&0) {
            let ids = &self.plan[outbox.started.len()];
            let bucket = ids.iter().flat_map(|id| lock(&self.slots[id]).sum.clone()).collect();
            match self.all.sum(bucket) {
                Ok(started) => outbox.started.push(started),
                Err(error) => outbox.failed = Some(error),
            }
        }
    }

    /// The sums over all micro-batches of all ranks.
    ///
    /// # Errors
    /// If a rank was lost.
    pub(crate) fn finish(self) -> Result<Params> {
        let outbox = self.outbox.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = outbox.failed {
            return Err(error);
        }
        let slots = self.slots.into_iter();
        let mut sums: Params =
            slots.map(|(id, slot)| (id, slot.into_inner().unwrap_or_else(PoisonError::into_inner).sum)).collect();
        for (ids, started) in self.plan.iter().zip(outbox.started) {
            let bucket = started.wait()?;
            let mut rest = bucket.as_slice();
            for id in ids {
                let sum = sums.get_mut(id).expect("plans are of the table");
                let (these, after) = rest.split_at(sum.len());
                sum.copy_from_slice(these);
                rest = after;
            }
        }
        Ok(sums)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the step anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts the table into buckets: the last block first, as backward goes; then what several blocks use; the embedding, which
/// is the first thing used, at the end.
fn plan(table: &[TensorSpec]) -> Vec<Vec<TensorId>> {
    let when = |spec: &&TensorSpec| match spec.id {
        TensorId::Block(layer, _) => (0, u16::MAX - layer),
        TensorId::TokenEmbedding => (2, 0),
        _ => (1, 0),
    };
    let mut order: Vec<_> = table.iter().collect();
    order.sort_by_key(when);
    let size = (table.iter().map(TensorSpec::elements).sum::<usize>() / BUCKETS).clamp(1, BUCKET);
    let mut plan: Vec<Vec<TensorId>> = Vec::new();
    let mut filled = usize::MAX;
    for spec in order {
        if filled.saturating_add(spec.elements()) > size {
            plan.push(Vec::new());
            filled = 0;
        }
        filled += spec.elements();
        plan.last_mut().expect("begun with the first").push(spec.id);
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::collective::Hear;
    use crate::loader::Rank;

    /// One rank of two, of which the other one has the same gradients.
    #[derive(Debug, Default)]
    struct Doubling {
        started: Arc<AtomicUsize>,
    }

    impl Collective for Doubling {
        fn rank(&self) -> Rank {
            Rank { rank: 0, world: 2 }
        }

        fn sum(&self, bucket: Vec<f32>) -> Result<Pending> {
            self.started.fetch_add(1, Ordering::Relaxed);
            Ok(Pending::new(|| Ok(bucket.into_iter().map(|x| 2.0 * x).collect())))
        }

        fn broadcast(&self, _: usize, _: Vec<f32>) -> Result<Pending> {
            unreachable!("gradients are only added")
        }

        fn gather(&self, _: Vec<Vec<f32>>) -> Result<Pending<Vec<Vec<f32>>>> {
            unreachable!("gradients are only added")
        }

        fn exchange(&self, _: &[u8]) -> Result<Vec<Vec<u8>>> {
            unreachable!("gradients are only added")
        }

        fn leave(&self, _: &str) {}

        fn on_loss(&self, _: Hear) {}
    }

    #[test]
    fn every_tensor_is_in_one_bucket_and_the_last_block_in_the_first() {
        for config in [ModelConfig::small(), ModelConfig::record()] {
            let table = config.tensors();
            let plan = plan(&table);
            let mut planned: Vec<_> = plan.concat();
            assert!(matches!(plan[0][0], TensorId::Block(layer, _) if usize::from(layer) == config.num_layers - 1));
            assert_eq!(planned.last(), Some(&TensorId::TokenEmbedding));
            planned.sort();
            let mut ids: Vec<_> = table.iter().map(|spec| spec.id).collect();
            ids.sort();
            assert_eq!(planned, ids);
            assert!(plan.len() >= BUCKETS && plan.iter().all(|bucket| !bucket.is_empty()), "{}", plan.len());
        }
    }

    #[test]
    fn buckets_start_in_order_when_their_last_part_is_there() {
        let config = ModelConfig { vocab_size: 32, ..ModelConfig::small() };
        let all = Doubling::default();
        let mut sums = Sums::new(&config, &all);
        let plan = sums.plan.clone();
        let lengths: BTreeMap<_, _> = config.tensors().into_iter().map(|spec| (spec.id, spec.elements())).collect();
        let started = || all.started.load(Ordering::Relaxed);
        let gradient = |id: &TensorId, x| Some(vec![x; lengths[id]]);
        sums.expect(1, false);
        plan.iter().flatten().for_each(|id| sums.give(0, *id, gradient(id, 1.0)));
        assert_eq!(started(), 0, "more is to come");
        sums.expect(2, true);
        plan.iter().flatten().for_each(|id| sums.give(1, *id, gradient(id, 0.25)));
        assert_eq!(started(), 0, "the first micro-batch is missing");
        // The second bucket is complete first, and waits for the first.
        plan[1].iter().for_each(|id| sums.give(0, *id, None));
        assert_eq!(started(), 0);
        plan[0].iter().for_each(|id| sums.give(0, *id, None));
        assert_eq!(started(), 2);
        plan[2..].iter().flatten().for_each(|id| sums.give(0, *id, None));
        assert_eq!(started(), plan.len());
        assert!(sums.finish().unwrap().values().flatten().all(|&x| x == 2.5));
    }
}
