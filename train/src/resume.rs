//! What a run needs to go on from a checkpoint with the same bits as if it had never stopped.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sixpack_formats::Digest;
use sixpack_formats::checkpoint::{self, Resume};
use sixpack_formats::state_dict::{Array, Metadata, StateDict};
use toml::{Table, Value};

use crate::loader::{Loader, Position, Source};
use crate::optim::Optimizer;
use crate::params::{self, Params};
use crate::recipe::Recipe;
use crate::{Collective, Error, Result, collective};

/// Everything that changes while a run goes on.
#[derive(Clone, Debug)]
pub(crate) struct State<'a> {
    pub(crate) weights: Params,
    /// The moving average of the weights: what is evaluated and exported.
    pub(crate) average: Params,
    pub(crate) optimizer: Optimizer,
    pub(crate) loader: Loader<'a>,
    /// Steps taken.
    pub(crate) step: u64,
    /// Tokens seen.
    pub(crate) tokens: u64,
    /// Seconds of training.
    pub(crate) elapsed: f64,
}

/// The part of the state that is not arrays, and what it belongs to.
#[derive(Serialize, Deserialize)]
struct Saved {
    recipe: Table,
    shards: Vec<SavedShard>,
    step: u64,
    tokens: u64,
    elapsed: f64,
    optimizer_steps: u64,
    loader: Position,
}

/// What of the state is not arrays, from rank 0 to the others.
#[derive(Serialize, Deserialize)]
struct Counters {
    step: u64,
    tokens: u64,
    elapsed: f64,
    optimizer_steps: u64,
    loader: Position,
}

/// A shard, as far as two runs must have the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedShard {
    name: String,
    content: String,
    tokens: usize,
}

/// What the training data were: the content of the only source, else the hash of all.
fn content(sources: &[Source<'_>]) -> String {
    match sources {
        [one] => one.content.to_owned(),
        many => Digest::of(many.iter().map(|s| s.content).collect::<String>().as_bytes()).to_string(),
    }
}

impl<'a> State<'a> {
    /// The state before the first step.
    ///
    /// # Errors
    /// As [`Optimizer::new`].
    pub(crate) fn start(recipe: &Recipe, weights: Params, loader: Loader<'a>) -> Result<Self> {
        let optimizer = Optimizer::new(&recipe.model, recipe.optimizer.groups())?;
        Ok(Self { average: weights.clone(), weights, optimizer, loader, step: 0, tokens: 0, elapsed: 0.0 })
    }

    /// Takes rank 0's state, which the others need not have on their disks.
    ///
    /// # Errors
    /// If a rank was lost.
    pub(crate) fn take_from_first(&mut self, all: &dyn Collective) -> Result<()> {
        let Self { step, tokens, elapsed, .. } = *self;
        let (optimizer_steps, loader) = (self.optimizer.steps(), self.loader.position());
        let counters = collective::exchange(all, &Counters { step, tokens, elapsed, optimizer_steps, loader })?;
        let Counters { step, tokens, elapsed, optimizer_steps, loader } =
            counters.into_iter().next().expect("there is a rank 0");
        (self.step, self.tokens, self.elapsed) = (step, tokens, elapsed);
        self.loader.seek(&loader)?;
        for params in [&mut self.weights, &mut self.average] {
            let started: Vec<_> = params.values_mut().map(|v| all.broadcast(0, std::mem::take(v))).collect();
            for (values, started) in params.values_mut().zip(started) {
                *values = started?.wait()?;
            }
        }
        let started = self.optimizer.buffers().map(|(name, v)| Ok((name, all.broadcast(0, v.to_vec())?)));
        let started: Vec<_> = started.collect::<Result<_>>()?;
        let mut buffers = BTreeMap::new();
        for (name, started) in started {
            buffers.insert(name, started.wait()?);
        }
        self.optimizer.restore(optimizer_steps, |name| buffers.remove(name))
    }

    /// Writes the average weights as the checkpoint's model, then the state.
    pub(crate) fn save(&self, folder: &Path, recipe: &Recipe, tokenizer: Option<&[u8]>) -> Result<()> {
        let model = params::into_model(&recipe.model, self.average.clone(), tokenizer.map(<[u8]>::to_vec))?;
        let metadata = Metadata::from([
            ("recipe".to_owned(), recipe.to_toml()),
            ("step".into(), self.step.to_string()),
            ("training_data".into(), content(self.loader.sources())),
        ]);
        checkpoint::write(folder, &model, &metadata)?;
        drop(model);
        let mut arrays = StateDict::new();
        for (kind, params) in [("weights", &self.weights), ("average", &self.average)] {
            arrays.extend(params.iter().map(|(id, v)| (format!("{kind}.{id}"), Array::new([v.len()], v.clone()))));
        }
        arrays.extend(self.optimizer.buffers().map(|(name, v)| (name, Array::new([v.len()], v.to_vec()))));
        let state = Saved {
            recipe: decisive(recipe),
            shards: self.loader.sources().iter().map(SavedShard::of).collect(),
            step: self.step,
            tokens: self.tokens,
            elapsed: self.elapsed,
            optimizer_steps: self.optimizer.steps(),
            loader: self.loader.position(),
        };
        Ok(checkpoint::write_resume(folder, &Resume { arrays, state })?)
    }

    /// Reads the state back.
    ///
    /// # Errors
    /// If there is none; if the recipe or the data differ from those it was saved with, naming what differs.
    pub(crate) fn load(folder: &Path, recipe: &Recipe, mut loader: Loader<'a>) -> Result<Self> {
        let resume = checkpoint::read_resume::<Saved>(folder)?;
        let Resume { mut arrays, state } = resume.ok_or_else(|| Error::NothingToResume(folder.into()))?;
        // As a recipe again: one saved before a key was thought of means what that key says by itself.
        let saved = toml::to_string(&state.recipe).expect("a table that was read serialises");
        same_recipe(&decisive(&Recipe::parse(&saved, &[""; 0])?), &decisive(recipe))?;
        same_shards(&state.shards, loader.sources())?;
        loader.seek(&state.loader)?;
        let mut take = |name: &str| arrays.remove(name).map(|array| array.data);
        let mut read = |kind: &str| -> Result<Params> {
            let mut params = params::zeros(&recipe.model);
            for (id, values) in &mut params {
                let name = format!("{kind}.{id}");
                let found = take(&name).ok_or_else(|| Error::MissingTensor(name.clone()))?;
                if found.len() != values.len() {
                    return Err(Error::TensorLength { name, expected: values.len(), found: found.len() });
                }
                *values = found;
            }
            Ok(params)
        };
        let (weights, average) = (read("weights")?, read("average")?);
        let mut optimizer = Optimizer::new(&recipe.model, recipe.optimizer.groups())?;
        optimizer.restore(state.optimizer_steps, take)?;
        let Saved { step, tokens, elapsed, .. } = state;
        Ok(Self { weights, average, optimizer, loader, step, tokens, elapsed })
    }
}

impl SavedShard {
    pub(crate) fn of(source: &Source<'_>) -> Self {
        Self { name: source.name.into(), content: source.content.into(), tokens: source.tokens.len() }
    }
}

/// The recipe without what does not change the result.
fn decisive(recipe: &Recipe) -> Table {
    let mut table = Table::try_from(recipe).expect("plain tables of numbers serialise");
    table.remove("run");
    table.remove("pack");
    if let Some(Value::Table(batch)) = table.get_mut("batch") {
        // A run may also go on elsewhere, and end with other last bits.
        batch.remove("gpu_micro_batch");
    }
    table
}

/// Names the first key in which two recipes differ.
fn same_recipe(saved: &Table, now: &Table) -> Result<()> {
    match difference("", saved, now) {
        None => Ok(()),
        Some((key, saved, now)) => Err(Error::ResumeDiffers { what: format!("recipe key `{key}`"), saved, now }),
    }
}

/// The first key in which two tables differ, and what they have there.
pub(crate) fn difference(path: &str, saved: &Table, now: &Table) -> Option<(String, String, String)> {
    let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    for key in saved.keys().chain(now.keys()) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let (a, b) = (saved.get(key), now.get(key));
        let found = match (a, b) {
            (Some(Value::Table(a)), Some(Value::Table(b))) => difference(&path, a, b),
            _ if a == b => None,
            _ => Some((path, show(a), show(b))),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn same_shards(saved: &[SavedShard], now: &[Source<'_>]) -> Result<()> {
    let now: Vec<_> = now.iter().map(SavedShard::of).collect();
    match shard_difference(saved, &now) {
        None => Ok(()),
        Some((what, saved, now)) => Err(Error::ResumeDiffers { what, saved, now }),
    }
}

/// The first shard in which two lists differ, and what they have there.
pub(crate) fn shard_difference(saved: &[SavedShard], now: &[SavedShard]) -> Option<(String, String, String)> {
    let show = |shard: Option<&SavedShard>| match shard {
        Some(SavedShard { name, content, tokens }) => format!("`{name}` of {tokens} tokens, content `{content}`"),
        None => "no shard".into(),
    };
    let i = (0..saved.len().max(now.len())).find(|&i| saved.get(i) != now.get(i))?;
    Some((format!("shard {i}"), show(saved.get(i)), show(now.get(i))))
}
