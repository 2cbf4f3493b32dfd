//! The training loop, the same on every rank of a run; rank 0 also writes, measures and tells.

mod setup;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sixpack_formats::Model;
use sixpack_formats::estimate::{self, Sizes};
use sixpack_formats::tokenizer::ByteTables;
use sixpack_runtime::cuda::{Gpu, Kind};

use crate::cuda::{self, Learner, Outcome, Rules};
use crate::engine::{CpuEngine, Sequences};
use crate::event::{self, Event};
use crate::loader::Loader;
use crate::optim::{self, Now};
use crate::params;
use crate::recipe::Recipe;
use crate::resume::State;
use crate::schedule::Progress;
use crate::together::{Word, agree, check_world, same_run, same_weights};
use crate::{Collective, Error, Params, Result, init};

pub use setup::{Setup, Sizing, Validation};

/// A training run.
#[derive(Debug)]
pub struct Trainer<'a> {
    recipe: Recipe,
    setup: Setup<'a>,
    engine: CpuEngine,
    /// Where a GPU trains; what it changes is in `state` after [`Trainer::settle`] only.
    learner: Option<Learner>,
    /// What its steps take of the GPU's memory.
    gpu_bytes: Option<u64>,
    state: State<'a>,
    /// What was estimated and what was measured when a size was last measured.
    sized: Option<[Sizes; 2]>,
    /// Step of the checkpoint that there is.
    saved: Option<u64>,
}

/// What one step did.
struct Step {
    loss: f64,
    grad_norm: f64,
    now: Now,
    recurrence: bool,
    /// Bytes of text of the targets, if the byte tables are known.
    bytes: u64,
}

/// Sums over the steps since the last event.
#[derive(Default)]
struct Since {
    steps: u64,
    tokens: u64,
    nats: f64,
    bytes: u64,
    seconds: f64,
}

impl<'a> Trainer<'a> {
    /// A run before its first step.
    ///
    /// # Errors
    /// If there are no tokens, or too few for a sequence; if the byte tables are of another vocabulary; if the ranks cannot
    /// share a step's sequences evenly, or one has another recipe or other data.
    pub fn new(recipe: Recipe, setup: Setup<'a>) -> Result<Self> {
        Self::with(recipe, setup, false, |recipe, _, engine, loader| {
            let weights = engine.pool().install(|| init(&recipe.model, recipe.seed));
            State::start(recipe, weights, loader)
        })
    }

    /// A run that goes on from the checkpoint in its folder, on however many ranks; only rank 0 reads it.
    ///
    /// # Errors
    /// As [`Trainer::new`]; if there is no state to go on from, or it is of another recipe or other data.
    pub fn resume(recipe: Recipe, setup: Setup<'a>) -> Result<Self> {
        Self::with(recipe, setup, true, |recipe, setup, _, loader| {
            let mut state = if setup.all.rank().rank == 0 {
                let folder = setup.folder.as_deref().ok_or_else(|| Error::NothingToResume(PathBuf::new()))?;
                State::load(folder, recipe, loader)?
            } else {
                State::start(recipe, params::zeros(&recipe.model), loader)?
            };
            if setup.all.rank().world > 1 {
                state.take_from_first(setup.all)?;
            }
            Ok(state)
        })
    }

    fn with(
        recipe: Recipe,
        setup: Setup<'a>,
        resumes: bool,
        state: impl FnOnce(&Recipe, &Setup<'a>, &CpuEngine, Loader<'a>) -> Result<State<'a>>,
    ) -> Result<Self> {
        let vocab = recipe.model.vocab_size;
        if let Some(tables) = setup.byte_tables.as_ref().filter(|tables| tables.len() < vocab) {
            return Err(Error::recipe(
                "model.vocab_size",
                format!("at most the tokenizer's {}", tables.len()),
                vocab.to_string(),
            ));
        }
        let engine = CpuEngine::new(&recipe.model, recipe.batch.micro_batch, setup.threads)?;
        let (sources, rank) = (setup.sources.clone(), setup.all.rank());
        check_world(&recipe, rank.world)?;
        same_run(setup.all, &recipe, &sources, resumes)?;
        let loader = Loader::new(sources, recipe.model.train_seq_len, recipe.data.clone(), recipe.seed, rank)?;
        let gpu_bytes = setup.gpu.map(|gpu| cuda::memory::room(gpu, &recipe, rank.world)).transpose()?;
        let state = state(&recipe, &setup, &engine, loader)?;
        let saved = resumes.then_some(state.step);
        let learner = setup.gpu.map(|gpu| learner(gpu, &recipe, &state)).transpose()?;
        Ok(Self { recipe, setup, engine, learner, gpu_bytes, state, sized: None, saved })
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Step of the checkpoint in the folder, once this run has written or read one.
    pub fn saved(&self) -> Option<u64> {
        self.saved
    }

    /// The weights as the last step left them.
    pub fn weights(&self) -> &Params {
        &self.state.weights
    }

    /// The moving average of the weights: what is evaluated and exported.
    pub fn average(&self) -> &Params {
        &self.state.average
    }

    /// The model of the average weights.
    ///
    /// # Errors
    /// None in practice: the tensors are those of the configuration.
    pub fn model(&self) -> Result<Model> {
        params::into_model(&self.recipe.model, self.state.average.clone(), self.setup.tokenizer.clone())
    }

    /// Trains until the budget is spent or a stop is asked for, then writes a checkpoint. Rank 0 hears the events.
    ///
    /// # Errors
    /// If a token is outside the vocabulary, the loss is no longer a number, or a checkpoint cannot be written; if a rank was
    /// lost, or its weights are no longer those of the others.
    pub fn run(&mut self, on_event: &mut dyn FnMut(&Event)) -> Result<()> {
        let all = self.setup.all;
        if self.leads() {
            on_event(&Event::Start {
                recipe: self.recipe.to_toml(),
                parameters: sixpack_runtime::count::parameters(&self.recipe.model),
                step: self.state.step,
                threads: self.setup.threads,
                gpu: self.setup.gpu.map(|gpu| gpu.facts().name.clone()),
                gpu_bytes: self.gpu_bytes,
                ranks: all.rank().world,
            });
        }
        same_weights(all, &self.state.weights, self.state.step)?;
        self.warm_up()?;
        let mut since = Since::default();
        let mut saved = Instant::now();
        let mut first = true;
        let mut stopped = self.stopped()?;
        // What agreeing on the step before took.
        let mut owed = 0.0;
        while !stopped && !self.recipe.budget.spent(self.state.step, self.state.elapsed) {
            let start = Instant::now();
            let step = self.advance()?;
            let seconds = start.elapsed().as_secs_f64() + owed;
            let interval = self.recipe.run.checkpoint_seconds;
            let save = interval > 0.0 && saved.elapsed().as_secs_f64() >= interval;
            let word = agree(all, Word { stop: self.asked_to_stop(), seconds, save, bytes: step.bytes })?;
            owed = start.elapsed().as_secs_f64() + owed - seconds;
            let step = Step { bytes: word.bytes, ..step };
            self.state.elapsed += word.seconds;
            stopped = word.stop;
            let over = stopped || self.recipe.budget.spent(self.state.step, self.state.elapsed);
            let looks = due(self.state.step, self.recipe.run.log_steps) || (word.save && !over);
            if looks {
                self.settle()?;
            }
            if self.leads() {
                since.add(&step, self.recipe.batch.tokens_per_step as u64, word.seconds);
                let size = self.setup.sizing.filter(|s| first || over || self.due_to_measure(s, word.seconds));
                if first || due(self.state.step, self.recipe.run.log_steps) || size.is_some() || over {
                    if !looks {
                        self.settle()?;
                    }
                    on_event(&Event::Step(self.progress(&step, &since, size)?));
                    first = false;
                    since = Since::default();
                }
                if let Some(validation) = self.setup.validation.filter(|v| due(self.state.step, v.every_steps)) {
                    on_event(&self.validate(validation.tokens)?);
                }
            }
            if word.save && !over {
                self.checkpoint(on_event)?;
                saved = Instant::now();
            } else if due(self.state.step, self.recipe.run.log_steps) {
                same_weights(all, &self.state.weights, self.state.step)?;
            }
        }
        self.settle()?;
        self.checkpoint(on_event)?;
        // Nobody takes the run for done before rank 0 has written its end.
        all.exchange(&[])?;
        if self.leads() {
            let State { step, tokens, elapsed, .. } = self.state;
            on_event(&Event::End { step, tokens, elapsed, stopped });
        }
        Ok(())
    }

    /// Takes one step, whatever the budget.
    fn advance(&mut self) -> Result<Step> {
        let recurrence = self.recurrence();
        let on = Engines { cpu: &self.engine, gpu: self.learner.as_mut() };
        let (step, batch) = advance(&self.recipe, on, &mut self.state, recurrence, self.setup.all)?;
        let bytes = self.setup.byte_tables.as_ref().map_or(0, |tables| text_bytes(tables, &batch));
        Ok(Step { bytes, ..step })
    }

    /// Fills caches and starts threads before the clock runs: steps on a copy of the state, which is then dropped.
    fn warm_up(&mut self) -> Result<()> {
        let mut trial = self.state.clone();
        let warmed = self.steps_on(&mut trial);
        // A GPU has one state only. Also where the run is asked to stop meanwhile.
        match &mut self.learner {
            Some(learner) => warmed.and(put(learner, &self.state)),
            None => warmed,
        }
    }

    /// Steps that leave a trace in `trial` only, and on a GPU.
    fn steps_on(&mut self, trial: &mut State<'a>) -> Result<()> {
        for recurrence in [false, true] {
            for _ in 0..self.recipe.run.warmup_steps {
                if self.stopped()? {
                    return Ok(());
                }
                let on = Engines { cpu: &self.engine, gpu: self.learner.as_mut() };
                advance(&self.recipe, on, trial, recurrence, self.setup.all)?;
            }
        }
        Ok(())
    }

    /// Takes what a GPU has changed.
    fn settle(&mut self) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        (self.state.weights, self.state.average) = (learner.weights()?, learner.average()?);
        let mut buffers = learner.buffers()?;
        self.state.optimizer.restore(learner.steps(), |name| buffers.remove(name))
    }

    /// Whether this rank writes, measures and tells.
    fn leads(&self) -> bool {
        self.setup.all.rank().rank == 0
    }

    /// Whether recurrent layers run twice at the next step.
    fn recurrence(&self) -> bool {
        self.recipe.schedule.recurrence.reached(progress(&self.recipe, &self.state))
    }

    fn asked_to_stop(&self) -> bool {
        self.setup.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Whether any rank was asked to stop; the same on all.
    fn stopped(&self) -> Result<bool> {
        Ok(agree(self.setup.all, Word { stop: self.asked_to_stop(), ..Word::default() })?.stop)
    }

    /// Whether a size is to be measured after a step that took so many seconds.
    fn due_to_measure(&self, sizing: &Sizing<'_>, seconds: f64) -> bool {
        let State { step, elapsed, .. } = self.state;
        let tenth = |step, elapsed| (10.0 * self.recipe.budget.fraction(step, elapsed)) as u64;
        match sizing.every_steps {
            Some(every) => due(step, every),
            None => tenth(step, elapsed) > tenth(step - 1, elapsed - seconds),
        }
    }

    /// The sizes of an artifact of the average weights, and whether they were measured just now.
    fn sizes(&mut self, measure: Option<Sizing<'_>>) -> Result<(Sizes, bool)> {
        let estimated = estimate::project(&self.recipe.model, |spec| &self.state.average[&spec.id]);
        if let Some(sizing) = measure
            && let Some(measured) = (sizing.measure)(&self.model()?)
        {
            self.sized = Some([estimated, measured]);
            return Ok((measured, true));
        }
        let corrected = |[e, m]: &[Sizes; 2]| estimated.corrected(e, m);
        Ok((self.sized.as_ref().map_or(estimated, corrected), false))
    }

    fn progress(&mut self, last: &Step, since: &Since, size: Option<Sizing<'_>>) -> Result<event::Progress> {
        let (sizes, measured) = self.sizes(size)?;
        let State { step, tokens, elapsed, .. } = self.state;
        let ms_per_step = 1e3 * since.seconds / since.steps.max(1) as f64;
        let budget = &self.recipe.budget;
        let by_steps = budget.steps.map(|steps| steps.saturating_sub(step) as f64 * ms_per_step / 1e3);
        let by_time = budget.training_seconds().map(|seconds| (seconds - elapsed).max(0.0));
        Ok(event::Progress {
            step,
            tokens,
            fraction: budget.fraction(step, elapsed),
            loss: since.nats / since.tokens as f64,
            bits_per_byte: bits_per_byte(since.nats, since.bytes),
            tokens_per_second: since.tokens as f64 / since.seconds,
            ms_per_step,
            lr_scale: f64::from(last.now.lr_scale),
            momentum: f64::from(last.now.momentum),
            grad_norm: last.grad_norm,
            recurrence: last.recurrence,
            projected_bytes: sizes.total(),
            projected: sizes,
            measured,
            elapsed,
            remaining: by_steps.into_iter().chain(by_time).fold(f64::INFINITY, f64::min),
        })
    }

    /// Loss of the average weights on validation tokens.
    fn validate(&self, tokens: &[u16]) -> Result<Event> {
        let len = self.recipe.model.train_seq_len;
        let ids: Vec<u32> = tokens.iter().map(|&t| u32::from(t)).collect();
        let whole = ids.len().saturating_sub(1) / len * len;
        let batch = Sequences {
            inputs: ids.get(..whole).unwrap_or_default().to_vec(),
            targets: ids.get(1..=whole).unwrap_or_default().to_vec(),
            len,
        };
        let loss = match &self.learner {
            Some(learner) => learner.loss_of_average(&batch, self.recurrence())?,
            None => self.engine.loss(&self.state.average, &batch, self.recurrence())?,
        };
        let bytes = self.setup.byte_tables.as_ref().map_or(0, |tables| text_bytes(tables, &batch));
        let bits_per_byte = bits_per_byte(loss * batch.targets.len() as f64, bytes);
        Ok(Event::Validation { step: self.state.step, loss, bits_per_byte })
    }

    /// Writes what rank 0 has and the others remember, which must belong together.
    fn checkpoint(&mut self, on_event: &mut dyn FnMut(&Event)) -> Result<()> {
        let Some(folder) = self.setup.folder.clone() else { return Ok(()) };
        same_weights(self.setup.all, &self.state.weights, self.state.step)?;
        self.state.optimizer.gather(self.setup.all)?;
        if self.leads() {
            self.state.save(&folder, &self.recipe, self.setup.tokenizer.as_deref())?;
            on_event(&Event::Checkpoint { step: self.state.step, folder });
        }
        self.saved = Some(self.state.step);
        Ok(())
    }
}

impl Since {
    fn add(&mut self, step: &Step, tokens: u64, seconds: f64) {
        self.steps += 1;
        self.tokens += tokens;
        self.nats += step.loss * tokens as f64;
        self.bytes += step.bytes;
        self.seconds += seconds;
    }
}

/// Whether something that happens every so many steps happens after this one; never for 0.
fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn progress(recipe: &Recipe, state: &State<'_>) -> Progress {
    Progress { step: state.step, fraction: recipe.budget.fraction(state.step, state.elapsed) }
}

/// What computes: a GPU if there is one, else the CPU.
struct Engines<'a> {
    cpu: &'a CpuEngine,
    gpu: Option<&'a mut Learner>,
}

/// A learner with the state of a run.
fn learner(gpu: &Arc<Gpu>, recipe: &Recipe, state: &State<'_>) -> Result<Learner> {
    let rules = Rules {
        micro_batch: recipe.batch.on_gpu(),
        grad_clip: recipe.optimizer.grad_clip,
        ema_decay: recipe.optimizer.ema_decay,
    };
    let weights = [&state.weights, &state.average];
    let mut learner = Learner::new(gpu, Kind::Bf16, &recipe.model, recipe.optimizer.groups(), rules, weights)?;
    put(&mut learner, state)?;
    Ok(learner)
}

/// Gives a learner the state of a run.
fn put(learner: &mut Learner, state: &State<'_>) -> Result<()> {
    let buffers: BTreeMap<String, &[f32]> = state.optimizer.buffers().collect();
    let take = |name: &str| buffers.get(name).map(|buffer| buffer.to_vec());
    learner.restore([&state.weights, &state.average], state.optimizer.steps(), take)
}

/// One optimizer step: batch, gradients, clip, update, average. Returns this rank's part of the batch.
fn advance(
    recipe: &Recipe,
    on: Engines<'_>,
    state: &mut State<'_>,
    recurrence: bool,
    all: &dyn Collective,
) -> Result<(Step, Sequences)> {
    let progress = progress(recipe, state);
    let batch = state.loader.next_batch(recipe.sequences_per_step());
    let now = Now {
        lr_scale: recipe.schedule.lr.value(progress) as f32,
        momentum: recipe.schedule.momentum.value(progress) as f32,
        decay_scale: recipe.schedule.weight_decay.value(progress) as f32,
    };
    let is_a_number = |loss: f64, grad_norm: f64| match loss.is_finite() && grad_norm.is_finite() {
        true => Ok(()),
        false => Err(Error::Diverged { step: state.step, loss, grad_norm }),
    };
    let (loss, grad_norm) = if let Some(learner) = on.gpu {
        let Outcome { loss, grad_norm } = learner.step_of_all(&batch, recurrence, now, all)?;
        is_a_number(loss, grad_norm)?;
        (loss, grad_norm)
    } else {
        let mut gradients = on.cpu.gradients_of_all(&state.weights, &batch, recurrence, all)?;
        let grad_norm = optim::clip(&mut gradients.of, recipe.optimizer.grad_clip);
        is_a_number(gradients.loss, grad_norm)?;
        on.cpu.pool().install(|| state.optimizer.step_of_all(&mut state.weights, &gradients.of, now, all))?;
        optim::average(&mut state.average, &state.weights, recipe.optimizer.ema_decay);
        (gradients.loss, grad_norm)
    };
    state.step += 1;
    state.tokens += recipe.batch.tokens_per_step as u64;
    Ok((Step { loss, grad_norm, now, recurrence, bytes: 0 }, batch))
}

fn text_bytes(tables: &ByteTables, batch: &Sequences) -> u64 {
    batch.inputs.iter().zip(&batch.targets).map(|(&previous, &token)| tables.bytes(previous, token)).sum()
}

fn bits_per_byte(nats: f64, bytes: u64) -> Option<f64> {
    (bytes > 0).then(|| nats / std::f64::consts::LN_2 / bytes as f64)
}
