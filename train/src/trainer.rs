//! The training loop, the same on every rank of a run; rank 0 also writes, measures and tells.

mod ahead;
mod engines;
mod pace;
mod setup;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sixpack_formats::Model;
use sixpack_formats::estimate::{self, Sizes};
use sixpack_formats::tokenizer::ByteTables;

use crate::cuda::{self, Learner, Outcome, Ranks};
use crate::engine::{CpuEngine, Sequences};
use crate::event::{self, Event};
use crate::loader::Loader;
use crate::optim::Now;
use crate::params;
use crate::recipe::Recipe;
use crate::resume::State;
use crate::schedule::Progress;
use crate::together::{Word, agree, check_world, same_run, same_weights};
use crate::{Error, Params, Result, init};

use ahead::Ahead;
use engines::{Engines, drain, is_a_number, learner, put};
use pace::Pace;

pub use setup::{Setup, Sizing, Validation};

/// A training run.
#[derive(Debug)]
pub struct Trainer<'a> {
    recipe: Recipe,
    setup: Setup<'a>,
    engine: CpuEngine,
    /// How ranks that are GPUs give each other gradients and weights. Ends before the learner does: what waits for another
    /// rank then ends too, and memory is given back.
    ranks: Ranks<'a>,
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

/// A step that was begun.
struct Begun {
    /// Steps before it.
    before: u64,
    now: Now,
    recurrence: bool,
    /// Bytes of text of the targets of all ranks, if the byte tables are known.
    bytes: u64,
}

/// A step that is done.
struct Step {
    begun: Begun,
    loss: f64,
    grad_norm: f64,
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

/// How a run goes on: steps that were begun, and what those have found that are done.
#[derive(Default)]
struct Course {
    begun: VecDeque<Begun>,
    since: Since,
    last: Option<Step>,
    pace: Pace,
    /// Tenths of the budget that were used when the last step was begun.
    tenth: u64,
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
        same_run(setup.all, &recipe, &sources, resumes, setup.gpu.is_some())?;
        let loader = Loader::new(sources, recipe.model.train_seq_len, recipe.data.clone(), recipe.seed, rank)?;
        let gpu_bytes = setup.gpu.map(|gpu| cuda::memory::room(gpu, &recipe, rank.world)).transpose()?;
        let state = state(&recipe, &setup, &engine, loader)?;
        let saved = resumes.then_some(state.step);
        let learner = setup.gpu.map(|gpu| learner(gpu, &recipe, &state)).transpose()?;
        let ranks = setup.gpu.map_or_else(|| Ok(Ranks::alone()), |gpu| Ranks::meet(gpu, setup.all))?;
        Ok(Self { recipe, setup, engine, learner, gpu_bytes, ranks, state, sized: None, saved })
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
        let ran = self.whole(on_event);
        if let Err(error) = &ran {
            // Before anything is ended here that waits for the others.
            self.setup.all.leave(&error.to_string());
        }
        ran
    }

    fn whole(&mut self, on_event: &mut dyn FnMut(&Event)) -> Result<()> {
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
                way: self.ranks.way.clone(),
            });
        }
        same_weights(all, &self.state.weights, self.state.step)?;
        self.warm_up()?;
        let (loader, tables) = (self.state.loader.clone(), self.setup.byte_tables.clone());
        let count = self.recipe.sequences_per_step();
        let stopped = std::thread::scope(|scope| {
            let ahead = Ahead::start(scope, loader, count, tables);
            self.go_on(&ahead, on_event)
        })?;
        self.settle()?;
        self.checkpoint(on_event)?;
        // Nobody takes the run for done before rank 0 has written its checkpoint.
        all.exchange(&[])?;
        if self.leads() {
            let State { step, tokens, elapsed, .. } = self.state;
            on_event(&Event::End { step, tokens, elapsed, stopped });
        }
        Ok(())
    }

    /// Takes steps until the budget is spent or a stop is asked for; whether one was. None is in flight afterwards.
    fn go_on(&mut self, ahead: &Ahead, on_event: &mut dyn FnMut(&Event)) -> Result<bool> {
        let all = self.setup.all;
        let mut course = Course { tenth: self.tenth(0.0), ..Course::default() };
        let mut saved = Instant::now();
        let mut first = true;
        let mut stopped = self.stopped()?;
        let mut over = stopped || self.spent(&course);
        // When the clock was last read.
        let mut lap = Instant::now();
        while !over {
            let done = self.begin(ahead, &mut course)?;
            let seconds = lap.elapsed().as_secs_f64();
            lap = Instant::now();
            let log = due(self.state.step, self.recipe.run.log_steps);
            let tenth = self.tenth(seconds);
            let measures = self.setup.sizing.filter(|sizing| match sizing.every_steps {
                Some(every) => due(self.state.step, every),
                None => tenth > course.tenth,
            });
            course.tenth = tenth;
            let validates = self.setup.validation.filter(|v| due(self.state.step, v.every_steps));
            let interval = self.recipe.run.checkpoint_seconds;
            let word = Word {
                stop: self.asked_to_stop(),
                seconds,
                save: interval > 0.0 && saved.elapsed().as_secs_f64() >= interval,
                look: first || measures.is_some() || validates.is_some(),
                bytes: course.begun.back().map_or(0, |begun| begun.bytes),
                ..Word::default()
            };
            let word = self.agree(word, done.as_slice(), &mut course)?;
            stopped = word.stop;
            over = stopped || self.spent(&course);
            if log || word.save || word.look || over {
                self.wait_for_all(&mut lap, &mut course)?;
                // Now it is known what the steps in flight took.
                over = stopped || self.spent(&course);
            }
            // From here on the clock stands still.
            let owed = lap.elapsed();
            if word.save && !over {
                self.settle()?;
            } else if log && all.rank().world > 1 {
                self.settle_weights()?;
            }
            if self.leads() {
                let size = self.setup.sizing.filter(|_| first || over || measures.is_some());
                if first || log || size.is_some() || over {
                    self.settle_average()?;
                    on_event(&Event::Step(self.progress(&course, size)?));
                    first = false;
                    course.since = Since::default();
                }
                if let Some(validation) = validates {
                    on_event(&self.validate(validation.tokens)?);
                }
            }
            if word.save && !over {
                self.checkpoint(on_event)?;
                saved = Instant::now();
            } else if log {
                same_weights(all, &self.state.weights, self.state.step)?;
            }
            lap = Instant::now() - owed;
        }
        Ok(stopped)
    }

    /// Whether the budget is spent once all steps are done that were begun.
    fn spent(&self, course: &Course) -> bool {
        let to_come = course.pace.of(course.begun.len());
        self.recipe.budget.spent(self.state.step, self.state.elapsed + to_come)
    }

    /// Begins a step, whatever the budget. Returns what one has found that is done, this or one before.
    fn begin(&mut self, ahead: &Ahead, course: &mut Course) -> Result<Option<Outcome>> {
        let drawn = ahead.take();
        let before = self.state.step;
        let how = (self.recurrence(), now(&self.recipe, &self.state));
        let gpu = self.learner.as_mut().map(|learner| (learner, &self.ranks));
        let mut on = Engines { cpu: &self.engine, gpu };
        let done = on.step(&self.recipe, &mut self.state, &drawn.batch, how, self.setup.all)?;
        self.state.loader.seek(&drawn.position)?;
        let (recurrence, now) = how;
        course.begun.push_back(Begun { before, now, recurrence, bytes: drawn.bytes });
        Ok(done)
    }

    /// Waits until no step is in flight; that counts.
    fn wait_for_all(&mut self, lap: &mut Instant, course: &mut Course) -> Result<()> {
        let done = drain(self.learner.as_mut())?;
        // The same on all ranks.
        if done.is_empty() {
            return Ok(());
        }
        let seconds = lap.elapsed().as_secs_f64();
        *lap = Instant::now();
        self.agree(Word { seconds, ..Word::default() }, &done, course).map(drop)
    }

    /// Agrees on the time, and on what steps have found that are done, which every rank has as many of.
    fn agree(&mut self, mine: Word, done: &[Outcome], course: &mut Course) -> Result<Word> {
        let bits = |outcome: &Outcome| [outcome.loss, outcome.grad_norm].map(f64::to_bits);
        if !done.is_empty() {
            // What was added up on a way that has ended since is worth nothing.
            self.ranks.check()?;
        }
        let word = agree(self.setup.all, Word { found: done.iter().map(bits).collect(), ..mine })?;
        if let Some(begun) = course.begun.back_mut().filter(|_| word.bytes > 0) {
            begun.bytes = word.bytes;
        }
        self.state.elapsed += word.seconds;
        course.since.seconds += word.seconds;
        course.pace.tell(word.seconds, word.found.len());
        for found in &word.found {
            let [loss, grad_norm] = found.map(f64::from_bits);
            let begun = course.begun.pop_front().expect("a step that is done was begun");
            is_a_number(begun.before, loss, grad_norm)?;
            let step = Step { begun, loss, grad_norm };
            course.since.add(&step, self.recipe.batch.tokens_per_step as u64);
            course.last = Some(step);
        }
        Ok(word)
    }

    /// Fills caches and starts threads before the clock runs: steps on a copy of the state, which is then dropped.
    fn warm_up(&mut self) -> Result<()> {
        let mut trial = self.state.clone();
        let warmed = self.steps_on(&mut trial);
        // Also where the run is asked to stop meanwhile.
        let found = drain(self.learner.as_mut());
        warmed?;
        let found = found?;
        // A GPU has one state only.
        if let Some(learner) = &mut self.learner {
            put(learner, &self.state)?;
            learner.gpu().wait()?;
        }
        found.iter().try_for_each(|found| is_a_number(self.state.step, found.loss, found.grad_norm))
    }

    /// Steps that leave a trace in `trial` only, and on a GPU.
    fn steps_on(&mut self, trial: &mut State<'a>) -> Result<()> {
        for recurrence in [false, true] {
            for _ in 0..self.recipe.run.warmup_steps {
                if self.stopped()? {
                    return Ok(());
                }
                let batch = trial.loader.next_batch(self.recipe.sequences_per_step());
                let how = (recurrence, now(&self.recipe, trial));
                let gpu = self.learner.as_mut().map(|learner| (learner, &self.ranks));
                let mut on = Engines { cpu: &self.engine, gpu };
                let before = trial.step;
                if let Some(found) = on.step(&self.recipe, trial, &batch, how, self.setup.all)? {
                    is_a_number(before, found.loss, found.grad_norm)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the average weights as a GPU has them.
    fn settle_average(&mut self) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        self.state.average = learner.average()?;
        Ok(())
    }

    /// Takes the weights as a GPU has them.
    fn settle_weights(&mut self) -> Result<()> {
        let Some(learner) = &self.learner else { return Ok(()) };
        self.state.weights = learner.weights()?;
        Ok(())
    }

    /// Takes all that a GPU has changed.
    fn settle(&mut self) -> Result<()> {
        self.settle_average()?;
        self.settle_weights()?;
        let Some(learner) = &self.learner else { return Ok(()) };
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

    /// Tenths of the budget that are used, with so many seconds that are still to be counted.
    fn tenth(&self, seconds: f64) -> u64 {
        (10.0 * self.recipe.budget.fraction(self.state.step, self.state.elapsed + seconds)) as u64
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

    /// How the run stands when no step is in flight.
    fn progress(&mut self, course: &Course, size: Option<Sizing<'_>>) -> Result<event::Progress> {
        let (sizes, measured) = self.sizes(size)?;
        let since = &course.since;
        let Step { begun, grad_norm, .. } = course.last.as_ref().expect("a step is done");
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
            lr_scale: f64::from(begun.now.lr_scale),
            momentum: f64::from(begun.now.momentum),
            grad_norm: *grad_norm,
            recurrence: begun.recurrence,
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
    fn add(&mut self, step: &Step, tokens: u64) {
        self.steps += 1;
        self.tokens += tokens;
        self.nats += step.loss * tokens as f64;
        self.bytes += step.begun.bytes;
    }
}

/// Whether something that happens every so many steps happens after this one; never for 0.
fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

fn progress(recipe: &Recipe, state: &State<'_>) -> Progress {
    Progress { step: state.step, fraction: recipe.budget.fraction(state.step, state.elapsed) }
}

/// What the schedules say of the next step.
fn now(recipe: &Recipe, state: &State<'_>) -> Now {
    let progress = progress(recipe, state);
    Now {
        lr_scale: recipe.schedule.lr.value(progress) as f32,
        momentum: recipe.schedule.momentum.value(progress) as f32,
        decay_scale: recipe.schedule.weight_decay.value(progress) as f32,
    }
}

fn text_bytes(tables: &ByteTables, batch: &Sequences) -> u64 {
    batch.inputs.iter().zip(&batch.targets).map(|(&previous, &token)| tables.bytes(previous, token)).sum()
}

fn bits_per_byte(nats: f64, bytes: u64) -> Option<f64> {
    (bytes > 0).then(|| nats / std::f64::consts::LN_2 / bytes as f64)
}
