//! Batches forward and backward.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use sixpack_formats::ModelConfig;
use sixpack_runtime::cuda::{
    Act, Buffer, Cuda, Elsewhere, Feed, Gpu, Kind, Pinned, Recorded, Stack, Weight, is_control,
};
use sixpack_runtime::{Batch, Pass, Weights, forward, model};

use super::layout::{ALIGNMENT, Layout, Place};
use super::ranks::{Bucket, Ranks};
use super::update::Update;
use crate::collective::Pending;
use crate::optim::{Groups, Now};
use crate::{Alone, Error, Params, Result, Sequences};

/// Elements of a bucket of gradients, about: at most where no tensor alone has more.
const BUCKET: usize = 1 << 22;

/// A small model too has so many buckets, at least about, of which the first travel early.
const BUCKETS: usize = 8;

/// Steps that may be queued and not done: the next one's work is there when a step ends, and the host never waits for the
/// last one.
pub const IN_FLIGHT: usize = 2;

/// What a run does to gradients and averages, beside its optimizers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Sequences that run at once.
    pub micro_batch: usize,
    /// Largest global norm of gradients.
    pub grad_clip: f64,
    /// What the average of weights keeps at each step.
    pub ema_decay: f64,
}

/// What one step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean loss in nats per token, before the update. Of several ranks the part of this one: they add up to the mean.
    pub loss: f64,
    /// Global norm of the gradients, before they were clipped.
    pub grad_norm: f64,
}

/// A model that learns on a GPU.
#[derive(Debug)]
pub struct Learner {
    /// With memory of its own, for what is recorded.
    gpu: Arc<Gpu>,
    /// With memory of its own, for what stays from step to step.
    kept: Arc<Gpu>,
    storage: Kind,
    config: ModelConfig,
    layout: Layout,
    rules: Rules,
    tensors: Tensors,
    weights: Weights<Weight>,
    update: Update,
    /// By recurrence, number of tokens, length of a sequence, and whether gradients travel meanwhile.
    passes: HashMap<(bool, usize, usize, bool), Running>,
    /// Sum of the losses of a step's targets.
    loss: Buffer,
    /// What brings tokens.
    feed: Feed,
    /// What steps say, in turns: the sum of losses and the norm of gradients.
    said: [Pinned; IN_FLIGHT],
    /// Of the steps that are queued, where they say it, and the number of targets of all ranks.
    queued: VecDeque<(usize, usize)>,
}

/// All tensors, in the orders of the layout.
#[derive(Debug)]
pub(super) struct Tensors {
    /// In f32.
    pub(super) weights: Buffer,
    pub(super) average: Buffer,
    /// Matrices and tables as passes read them, in the order of gradients.
    pub(super) read: Buffer,
    pub(super) gradients: Buffer,
    /// Where the matrices of each stack are among those.
    pub(super) elsewhere: Vec<Elsewhere>,
}

/// A pass over a micro-batch of one length: what it runs with, whose memory stays, and its record.
#[derive(Debug)]
struct Running {
    ops: Cuda,
    /// The gradient of each loss.
    seed: Buffer,
    /// What `seed` holds.
    share: f32,
    /// Whether it has run once: kernels are loaded, memory is there.
    ran: bool,
    recorded: Option<Recorded>,
    /// Where gradients travel meanwhile: in the order in which they are complete, each with an event for that.
    buckets: Vec<Bucket>,
}

impl Learner {
    /// A model before its first step, from its weights and their average. Activations and matrices are kept as `storage`.
    ///
    /// # Errors
    /// Tensors that are not the configuration's, coefficients for another number of iterations, and a GPU without room.
    pub fn new(
        gpu: &Arc<Gpu>,
        storage: Kind,
        config: &ModelConfig,
        groups: Groups,
        rules: Rules,
        [weights, average]: [&Params; 2],
    ) -> Result<Self> {
        let (gpu, kept) = (gpu.apart(), gpu.apart());
        let layout = Layout::new(config);
        let elsewhere =
            |(stack, range): &(Stack, _)| Elsewhere::new(&kept, &layout.starts(range), stack.rows * stack.cols);
        let tensors = Tensors {
            weights: kept.floats(Kind::F32, &layout.gather(weights, Place::range)?)?,
            average: kept.floats(Kind::F32, &layout.gather(average, Place::range)?)?,
            read: kept.floats(storage, &layout.gather(weights, Place::passed)?[..layout.read()])?,
            gradients: kept.zeros(Kind::F32, layout.len())?,
            elsewhere: layout.stacks.iter().map(elsewhere).collect::<Result<_, _>>()?,
        };
        let weights = built(config, &layout, [&tensors.weights, &tensors.read], Some(&tensors.gradients));
        let update = Update::new(&kept, storage, groups, &layout)?;
        let loss = kept.zeros(Kind::F32, 1)?;
        let (config, passes, queued) = (config.clone(), HashMap::new(), VecDeque::new());
        let (feed, said) = (Feed::new(&kept, Kind::Int)?, [kept.pinned(2)?, kept.pinned(2)?]);
        Ok(Self {
            gpu,
            kept,
            storage,
            config,
            layout,
            rules,
            tensors,
            weights,
            update,
            passes,
            loss,
            feed,
            said,
            queued,
        })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.update.steps()
    }

    /// One step on a batch: gradients, clip, update, average. Waits for it.
    ///
    /// # Errors
    /// An empty batch, a token outside the vocabulary, and what the driver says.
    ///
    /// # Panics
    /// If other steps are in flight.
    pub fn step(&mut self, batch: &Sequences, recurrence: bool, now: Now) -> Result<Outcome> {
        assert!(self.queued.is_empty(), "a step that waits comes after none that is in flight");
        self.queue(batch, recurrence, now, &Ranks::alone())?;
        Ok(self.finish()?.expect("a step was queued"))
    }

    /// Queues a step on the batches of all ranks, which are of one size, and does not wait for it: gradients are added up on
    /// the way, and every rank then has the same weights.
    ///
    /// # Errors
    /// As [`Learner::step`]; if a rank was lost.
    ///
    /// # Panics
    /// If [`IN_FLIGHT`] steps are: [`Learner::finish`] makes room.
    pub fn queue(&mut self, batch: &Sequences, recurrence: bool, now: Now, ranks: &Ranks<'_>) -> Result<()> {
        assert!(self.in_flight() < IN_FLIGHT, "a step was queued before the one before the last was waited for");
        let world = ranks.all.rank().world;
        let buckets = self.run(batch, recurrence, world, ranks.overlap)?;
        if world > 1 {
            // All are started before the first is waited for.
            let started: Vec<Pending<Bucket>> =
                buckets.into_iter().map(|bucket| ranks.all.sum(bucket)).collect::<Result<_>>()?;
            started.into_iter().try_for_each(|sum| sum.wait().map(drop))?;
        }
        if ranks.share && !self.update.is_shared() {
            self.update.share(&self.kept, &self.layout, &self.tensors, &self.config.tensors(), ranks.all.rank())?;
        }
        self.update.step((&self.gpu, self.rules), &self.layout, &self.tensors, now, &*ranks.all)?;
        let slot = self.steps() as usize % IN_FLIGHT;
        let said = &mut self.said[slot];
        said.copy_from(&self.loss, 0, None)?;
        said.copy_from(&self.update.grad_norm(), 1, None)?;
        self.queued.push_back((slot, batch.targets.len() * world));
        Ok(())
    }

    /// Steps that are queued, and whose outcomes nobody has taken.
    pub fn in_flight(&self) -> usize {
        self.queued.len()
    }

    /// Waits for the first of the steps in flight, if there are any.
    ///
    /// # Errors
    /// What the driver says of it.
    pub fn finish(&mut self) -> Result<Option<Outcome>> {
        let Some((slot, targets)) = self.queued.pop_front() else { return Ok(None) };
        let [loss, grad_norm] = [0, 1].map(|i| self.said[slot].words().map(|words| f32::from_bits(words[i])));
        let loss = f64::from(loss?) / targets as f64;
        Ok(Some(Outcome { loss, grad_norm: f64::from(grad_norm?) }))
    }

    /// Mean loss of a batch, and its gradients before they are clipped; nothing is updated.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub fn gradients(&mut self, batch: &Sequences, recurrence: bool) -> Result<(f64, Params)> {
        self.pass(batch, recurrence, 1)?;
        let loss = f64::from(self.gpu.read(&self.loss)?[0]) / batch.targets.len() as f64;
        Ok((loss, self.layout.scatter(&self.gpu.read(&self.tensors.gradients)?, Place::passed)))
    }

    /// Queues the update by the gradients there are, which is the second part of a step.
    ///
    /// # Errors
    /// What the driver says.
    pub fn update(&mut self, now: Now) -> Result<()> {
        self.update.step((&self.gpu, self.rules), &self.layout, &self.tensors, now, &Alone)
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Queues the gradients of the mean loss of the batches of `world` ranks, as far as this batch goes: the first part of
    /// a step.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub fn pass(&mut self, batch: &Sequences, recurrence: bool, world: usize) -> Result<()> {
        self.run(batch, recurrence, world, false).map(drop)
    }

    /// As [`Learner::pass`]; the gradients in buckets. With `overlap` they are in the order in which they are complete, and
    /// may travel while the last micro-batch goes on.
    fn run(&mut self, batch: &Sequences, recurrence: bool, world: usize, overlap: bool) -> Result<Vec<Bucket>> {
        if batch.inputs.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let size = self.rules.micro_batch * batch.len;
        let vocab = self.config.vocab_size;
        let parts = || batch.inputs.chunks(size).zip(batch.targets.chunks(size));
        let words = |inputs: &[u32]| Cuda::words(inputs.len(), vocab);
        let brought = self.feed.bring(parts().map(|(inputs, _)| words(inputs)).sum(), |mut to| {
            parts().try_for_each(|(inputs, targets)| {
                let (own, later) = std::mem::take(&mut to).split_at_mut(words(inputs));
                to = later;
                Cuda::write_tokens(inputs, targets, vocab, own)
            })
        })?;
        self.gpu.zero(&self.tensors.gradients)?;
        self.gpu.zero(&self.loss)?;
        let share = 1.0 / (batch.targets.len() * world) as f32;
        let mut at = 0;
        let mut buckets = Vec::new();
        let mut micro_batches = parts().peekable();
        while let Some((inputs, targets)) = micro_batches.next() {
            let own = brought.part(at..at + words(inputs));
            at += own.len();
            let travel = overlap && micro_batches.peek().is_none();
            let key = (recurrence, inputs.len(), batch.len, travel);
            self.micro_batch([inputs, targets], &own, key, share)?;
            buckets.clone_from(&self.passes[&key].buckets);
        }
        if !overlap {
            let gradients = &self.tensors.gradients;
            let ranges = (0..gradients.len()).step_by(BUCKET).map(|at| at..gradients.len().min(at + BUCKET));
            buckets = ranges.map(|range| Bucket { parts: vec![gradients.part(range)], ready: None }).collect();
        }
        Ok(buckets)
    }

    fn micro_batch(
        &mut self,
        [inputs, targets]: [&[u32]; 2],
        brought: &Buffer,
        key: (bool, usize, usize, bool),
        share: f32,
    ) -> Result<()> {
        let Self { gpu, kept, storage, config, layout, tensors, weights, passes, loss, .. } = self;
        let (recurrence, _, len, travel) = key;
        let running = match passes.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let (ops, seed) = (Cuda::new(gpu, *storage), kept.floats(Kind::F32, &vec![share; targets.len()])?);
                new.insert(Running { ops, seed, share, ran: false, recorded: None, buckets: Vec::new() })
            }
        };
        if running.share != share {
            gpu.write(&running.seed, &vec![share; targets.len()])?;
            running.share = share;
        }
        let Running { ops, seed, ran, recorded, buckets, .. } = running;
        ops.take(inputs, targets, config.vocab_size, brought)?;
        if let Some(recorded) = recorded {
            return Ok(gpu.replay(recorded)?);
        }
        let batch = Batch::new(inputs, inputs.len() / len);
        let places = if travel { layout.passed() } else { Vec::new() };
        let gradients: Vec<Buffer> = places.iter().map(|range| tensors.gradients.part(range.clone())).collect();
        let mut pass = || -> sixpack_runtime::Result<()> {
            ops.start_tape()?;
            let nll = nll(config, weights, ops, &batch, targets, recurrence)?;
            gpu.add_up(nll.buffer(), loss)?;
            // The gradient of a result is consumed by the tape: a copy of what stays.
            let dy = gpu.empty(Kind::F32, seed.len())?;
            gpu.copy(seed, &dy)?;
            let (mut complete, mut elements, mut closed) = (Vec::new(), 0, 0);
            ops.backward_told(&nll, dy, &[], &gradients, &mut |number| {
                elements += gradients[number].len();
                complete.push(places[number].clone());
                if elements >= BUCKET.min(tensors.gradients.len() / BUCKETS) {
                    close(gpu, &tensors.gradients, std::mem::take(&mut complete), buckets, closed)?;
                    (elements, closed) = (0, closed + 1);
                }
                Ok(())
            })?;
            if complete.is_empty() { Ok(()) } else { close(gpu, &tensors.gradients, complete, buckets, closed) }
        };
        // The first time loads kernels and takes memory; the second is written down.
        if !*ran || !gpu.settings().reuse {
            pass()?;
            *ran = true;
            return Ok(());
        }
        let done = gpu.record(pass)?;
        Ok(gpu.replay(recorded.insert(done))?)
    }

    /// Mean loss of a batch under the average weights, without gradients.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub fn loss_of_average(&self, batch: &Sequences, recurrence: bool) -> Result<f64> {
        if batch.inputs.is_empty() {
            return Err(Error::EmptyBatch);
        }
        // Apart again: what is recorded is not to be in the way.
        let gpu = self.gpu.apart();
        let Tensors { average, elsewhere, .. } = &self.tensors;
        let read = gpu.empty(self.storage, self.layout.read())?;
        for ((_, range), elsewhere) in self.layout.stacks.iter().zip(elsewhere) {
            gpu.convert(&average.part(range.clone()), Some(elsewhere), &read)?;
        }
        let tables = self.layout.groups[1].clone();
        gpu.convert(&average.part(tables.clone()), None, &read.part(tables))?;
        let weights = built(&self.config, &self.layout, [average, &read], None);
        let (mut ops, sum) = (Cuda::new(&gpu, self.storage), gpu.zeros(Kind::F32, 1)?);
        let size = self.rules.micro_batch * batch.len;
        for (inputs, targets) in batch.inputs.chunks(size).zip(batch.targets.chunks(size)) {
            let batch = Batch::new(inputs, inputs.len() / batch.len);
            let nll = nll(&self.config, &weights, &mut ops, &batch, targets, recurrence)?;
            gpu.add_up(nll.buffer(), &sum)?;
        }
        Ok(f64::from(gpu.read(&sum)?[0]) / batch.targets.len() as f64)
    }

    /// Takes weights, their average and the optimizers' state as they were after so many steps: `take` gives the buffer of a
    /// name, as [`Optimizer::buffers`] names them.
    ///
    /// # Errors
    /// Tensors that are missing, or of another length; what the driver says.
    ///
    /// [`Optimizer::buffers`]: crate::Optimizer::buffers
    pub fn restore(
        &mut self,
        [weights, average]: [&Params; 2],
        steps: u64,
        take: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<()> {
        let (layout, tensors) = (&self.layout, &self.tensors);
        self.gpu.write(&tensors.weights, &layout.gather(weights, Place::range)?)?;
        self.gpu.write(&tensors.average, &layout.gather(average, Place::range)?)?;
        self.gpu.write(&tensors.read, &layout.gather(weights, Place::passed)?[..layout.read()])?;
        self.update.restore(&self.gpu, &self.layout, steps, take)
    }

    /// The optimizers' state, as [`Optimizer::buffers`] names it.
    ///
    /// # Errors
    /// What the driver says.
    ///
    /// [`Optimizer::buffers`]: crate::Optimizer::buffers
    pub fn buffers(&self) -> Result<BTreeMap<String, Vec<f32>>> {
        self.update.buffers(&self.gpu, &self.layout)
    }

    /// The weights.
    ///
    /// # Errors
    /// What the driver says.
    pub fn weights(&self) -> Result<Params> {
        Ok(self.layout.scatter(&self.gpu.read(&self.tensors.weights)?, Place::range))
    }

    /// Their moving average.
    ///
    /// # Errors
    /// What the driver says.
    pub fn average(&self) -> Result<Params> {
        Ok(self.layout.scatter(&self.gpu.read(&self.tensors.average)?, Place::range))
    }
}

/// Makes a bucket of gradients that are complete here, the one of this number: its event is there from the second time on.
fn close(
    gpu: &Gpu,
    gradients: &Buffer,
    mut complete: Vec<Range<usize>>,
    buckets: &mut Vec<Bucket>,
    number: usize,
) -> sixpack_runtime::Result<()> {
    if buckets.len() <= number {
        complete.sort_by_key(|range| range.start);
        let mut parts: Vec<Range<usize>> = Vec::new();
        for range in complete {
            match parts.last_mut() {
                // Between neighbours there are zeros.
                Some(last) if range.start - last.end < ALIGNMENT => last.end = range.end,
                _ => parts.push(range),
            }
        }
        let parts = parts.into_iter().map(|range| gradients.part(range)).collect();
        buckets.push(Bucket { parts, ready: Some(Arc::new(gpu.event()?)) });
    }
    let ready = buckets[number].ready.as_ref().expect("it was just made");
    gpu.mark_for_others(ready)
}

/// Losses `[B, T, 1]`.
fn nll(
    config: &ModelConfig,
    weights: &Weights<Weight>,
    ops: &mut Cuda,
    batch: &Batch<'_>,
    targets: &[u32],
    recurrence: bool,
) -> sixpack_runtime::Result<Act> {
    let h = forward(config, weights, ops, batch, Pass { recurrence, last: None })?;
    model::nll(config, weights, ops, &h, targets)
}

/// The tensors as parts of what holds all of them: control tensors are read in f32.
fn built(
    config: &ModelConfig,
    layout: &Layout,
    [weights, read]: [&Buffer; 2],
    gradients: Option<&Buffer>,
) -> Weights<Weight> {
    let weights = Weights::build(config, |spec| {
        let place = layout.place(spec.id);
        let part = |all: &Buffer| all.part(place.passed.clone());
        // These lie alike in both orders.
        let value = if is_control(spec) { weights } else { read };
        Ok::<_, std::convert::Infallible>(Weight::new(part(value), gradients.map(part), place.shape))
    });
    match weights {
        Ok(weights) => weights,
        Err(never) => match never {},
    }
}
