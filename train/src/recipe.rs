//! Recipes: everything that decides a training run, as a TOML file.
//!
//! Two types: what was typed ([`toml::Table`], with `--set` overrides applied), and what it means ([`Recipe`],
//! resolved and validated once). A key that is absent takes the record's value (but an optimizer's group that is given
//! has to say its `lr` and `weight_decay`); a key that does not exist is an error.

mod optimizers;

use std::path::Path;

use serde::{Deserialize, Serialize};
use sixpack_formats::ModelConfig;
use sixpack_runtime::cuda::Recompute;
use toml::{Table, Value};

use crate::loader::Mixing;
use crate::schedule::{Schedule, When};
use crate::{Error, Result};

pub use optimizers::Optimizers;

/// The recipes that are part of the program, by name.
pub const EMBEDDED: [(&str, &str); 2] =
    [("record", include_str!("../../recipes/record.toml")), ("small", include_str!("../../recipes/small.toml"))];

/// The key that names the rule of the matrix group.
const KIND: &str = "optimizer.matrix.kind";

/// A resolved recipe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// What the run is called.
    pub name: String,
    /// Decides start values and data order.
    pub seed: u64,
    /// The model.
    pub model: ModelConfig,
    /// Tokens of a step.
    pub batch: BatchSize,
    /// When the run ends.
    pub budget: Budget,
    /// The optimizers.
    pub optimizer: Optimizers,
    /// What changes over the run.
    pub schedule: Schedules,
    /// How batches are drawn from shards.
    pub data: Mixing,
    /// What does not change the result.
    pub run: Run,
    /// Whether the run ends with an artifact, and which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack: Option<Pack>,
}

/// Tokens of a step, and how they are cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSize {
    /// Tokens of an optimizer step over all ranks; a multiple of the model's `train_seq_len`.
    pub tokens_per_step: usize,
    /// Sequences that one thread or device runs at once. It decides the order of sums, so the last bits of a result.
    pub micro_batch: usize,
    /// The same of a GPU, where that is another number: it wants many at once, and has the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_micro_batch: Option<usize>,
}

impl BatchSize {
    /// Sequences that a GPU runs at once.
    pub fn on_gpu(&self) -> usize {
        self.gpu_micro_batch.unwrap_or(self.micro_batch)
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { tokens_per_step: 786_432, micro_batch: 8, gpu_micro_batch: None }
    }
}

/// When a run ends: whichever limit comes first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// Optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Seconds of training, warm-up and validation not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Seconds of those kept back at the end.
    pub reserve_seconds: f64,
}

impl Budget {
    /// Seconds of optimizer steps, if time is a limit.
    pub fn training_seconds(&self) -> Option<f64> {
        self.seconds.map(|s| s - self.reserve_seconds)
    }

    /// The share of the budget used: of the time or of the steps, whichever limit is nearer.
    pub fn fraction(&self, step: u64, elapsed: f64) -> f64 {
        let time = self.training_seconds().map_or(0.0, |seconds| elapsed / seconds);
        let steps = self.steps.map_or(0.0, |steps| step as f64 / steps as f64);
        time.max(steps).clamp(0.0, 1.0)
    }

    /// Whether the run is over.
    pub fn spent(&self, step: u64, elapsed: f64) -> bool {
        self.steps.is_some_and(|steps| step >= steps) || self.training_seconds().is_some_and(|s| elapsed >= s)
    }
}

/// The budget as it is typed.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TypedBudget {
    steps: Option<u64>,
    minutes: Option<f64>,
    seconds: Option<f64>,
    reserve_seconds: f64,
}

/// What changes over a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedules {
    /// Factor on every learning rate.
    pub lr: Schedule,
    /// Muon's and NorMuon's momentum.
    pub momentum: Schedule,
    /// Factor on every group's weight decay, beside the learning rate's.
    pub weight_decay: Schedule,
    /// When recurrent layers start to run twice.
    pub recurrence: When,
}

impl Default for Schedules {
    fn default() -> Self {
        Self {
            lr: Schedule::fractions(&[(0.0, 1.0), (0.333, 1.0), (1.0, 0.0)]),
            momentum: Schedule::steps(&[(0, 0.92), (1500, 0.99)]),
            weight_decay: Schedule::constant(1.0),
            recurrence: When::Step(3000),
        }
    }
}

/// What does not change the result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Steps before the clock starts, without recurrence and as many with it; they leave no trace.
    pub warmup_steps: u64,
    /// Steps between log lines.
    pub log_steps: u64,
    /// Seconds between checkpoints; 0 for one at the end only.
    pub checkpoint_seconds: f64,
    /// What a GPU computes again in backward instead of keeping it: `none`, `all`, or names between commas.
    #[serde(with = "recompute", skip_serializing_if = "is_none")]
    pub recompute: Recompute,
}

fn is_none(recompute: &Recompute) -> bool {
    *recompute == Recompute::NONE
}

/// [`Recompute`] as it is typed.
mod recompute {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use sixpack_runtime::cuda::Recompute;

    pub(super) fn serialize<S: Serializer>(set: &Recompute, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(set)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Recompute, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Default for Run {
    fn default() -> Self {
        Self { warmup_steps: 20, log_steps: 50, checkpoint_seconds: 120.0, recompute: Recompute::NONE }
    }
}

/// The artifact that a run ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pack {
    /// Bytes that it may have at most; without, the smallest loss that its scheme takes by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bytes: Option<u64>,
    /// Tokens that its quantiser is calibrated on.
    pub calibration_tokens: usize,
}

impl Default for Pack {
    fn default() -> Self {
        Self { target_bytes: None, calibration_tokens: 393_216 }
    }
}

/// A whole recipe as it is typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    #[serde(default = "unnamed")]
    name: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    model: Table,
    #[serde(default)]
    batch: BatchSize,
    #[serde(default)]
    budget: TypedBudget,
    #[serde(default)]
    optimizer: optimizers::Typed,
    #[serde(default)]
    schedule: Schedules,
    #[serde(default)]
    data: Mixing,
    #[serde(default)]
    run: Run,
    #[serde(default)]
    pack: Option<Pack>,
}

fn unnamed() -> String {
    "unnamed".into()
}

impl Recipe {
    /// Reads a recipe: one of [`EMBEDDED`] by its name, else a file. `overrides` are `KEY=VALUE` with dotted keys and
    /// TOML values; a value that is no TOML is taken as a string.
    ///
    /// # Errors
    /// If the file cannot be read; an unknown key, with its line; a value the recipe cannot have, by its dotted key.
    pub fn load(name_or_path: &str, overrides: &[impl AsRef<str>]) -> Result<Self> {
        if let Some((_, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text, overrides);
        }
        let path = Path::new(name_or_path);
        let text = std::fs::read_to_string(path).map_err(|source| Error::RecipeFile {
            path: path.into(),
            known: EMBEDDED.map(|(name, _)| name),
            source,
        })?;
        Self::parse(&text, overrides)
    }

    /// Reads a recipe from its text; see [`Recipe::load`].
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn parse(text: &str, overrides: &[impl AsRef<str>]) -> Result<Self> {
        // The text by itself first: its errors have lines.
        let typed: Typed =
            toml::from_str(text).map_err(|e| Error::RecipeSyntax(e.to_string().trim_end().to_owned()))?;
        resolve_model(&typed.model).map_err(|e| at_line(text, e))?;
        typed.optimizer.resolve().map_err(|e| at_line(text, e))?;
        let mut table: Table = toml::from_str(text).map_err(|e| Error::RecipeSyntax(e.to_string()))?;
        // Whole groups, so that an override may change one value of a group the text leaves out.
        table.insert("optimizer".into(), Value::try_from(typed.optimizer).expect("plain numbers serialise"));
        // A rule's name first, as the file's settings of another rule go with it, but not those of other overrides.
        let (kinds, others): (Vec<_>, Vec<_>) =
            overrides.iter().map(AsRef::as_ref).partition(|text: &&str| text.trim_start().starts_with(KIND));
        for text in kinds.into_iter().chain(others) {
            apply(&mut table, text)?;
        }
        let typed = Value::Table(table).try_into().map_err(|e: toml::de::Error| syntax(&e))?;
        Self::resolve(typed)
    }

    fn resolve(typed: Typed) -> Result<Self> {
        let Typed { name, seed, model, batch, budget, optimizer, schedule, data, run, pack } = typed;
        let mut model = resolve_model(&model)?;
        if let When::Step(step) = schedule.recurrence {
            model.recur_start_step = step as usize;
        }
        let seconds = match (budget.seconds, budget.minutes) {
            (Some(_), Some(_)) => return Err(Error::recipe("budget", "either `seconds` or `minutes`", "both")),
            (seconds, minutes) => seconds.or(minutes.map(|m| 60.0 * m)),
        };
        let optimizer = optimizer.resolve()?;
        let budget = Budget { steps: budget.steps, seconds, reserve_seconds: budget.reserve_seconds };
        let recipe = Self { name, seed, model, batch, budget, optimizer, schedule, data, run, pack };
        recipe.validate()?;
        Ok(recipe)
    }

    /// Sequences of an optimizer step over all ranks.
    pub fn sequences_per_step(&self) -> usize {
        self.batch.tokens_per_step / self.model.train_seq_len
    }

    /// The resolved recipe as TOML, without presets: what a checkpoint and an artifact record.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain tables of numbers serialise")
    }

    fn validate(&self) -> Result<()> {
        self.model.validate()?;
        let (tokens, len) = (self.batch.tokens_per_step, self.model.train_seq_len);
        if tokens == 0 || !tokens.is_multiple_of(len) {
            let expected = format!("a multiple of model.train_seq_len {len}");
            return Err(Error::recipe("batch.tokens_per_step", expected, tokens.to_string()));
        }
        range("batch.tokens_per_step", tokens as f64, 1.0, 1e10)?;
        range("batch.micro_batch", self.batch.micro_batch as f64, 1.0, 1e6)?;
        range("batch.gpu_micro_batch", self.batch.on_gpu() as f64, 1.0, 1e6)?;
        let Budget { steps, seconds, reserve_seconds } = self.budget;
        if steps.is_none() && seconds.is_none() {
            return Err(Error::recipe("budget", "`steps`, `minutes` or `seconds`", "none of them"));
        }
        range("budget.steps", steps.unwrap_or(1) as f64, 1.0, 1e12)?;
        range("budget.reserve_seconds", reserve_seconds, 0.0, 1e9)?;
        if seconds.is_some_and(|s| !(s > reserve_seconds && s <= 1e9)) {
            let expected = format!("above budget.reserve_seconds {reserve_seconds}, at most 1e9");
            return Err(Error::recipe("budget.seconds", expected, seconds.unwrap_or_default().to_string()));
        }
        self.optimizer.validate()?;
        self.schedule.lr.validate("schedule.lr", 0.0, 1e3)?;
        self.schedule.momentum.validate("schedule.momentum", 0.0, 0.9999)?;
        self.schedule.weight_decay.validate("schedule.weight_decay", 0.0, 1e3)?;
        self.schedule.recurrence.validate("schedule.recurrence")?;
        self.data.shards.validate("data.shards", 1.0, 1e6)?;
        self.data.alpha.validate("data.alpha", 0.0, 10.0)?;
        range("run.log_steps", self.run.log_steps as f64, 1.0, 1e12)?;
        range("run.checkpoint_seconds", self.run.checkpoint_seconds, 0.0, 1e9)?;
        let pack = self.pack.unwrap_or_default();
        range("pack.target_bytes", pack.target_bytes.unwrap_or(1) as f64, 1.0, 1e12)?;
        range("pack.calibration_tokens", pack.calibration_tokens as f64, 1.0, 1e10)
    }
}

fn range(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::recipe(key, format!("{low} to {high}"), value.to_string()))
}

/// `[model]`: a preset, with fields over it.
fn resolve_model(typed: &Table) -> Result<ModelConfig> {
    let mut fields = typed.clone();
    let preset = match fields.remove("preset") {
        None => ModelConfig::record(),
        Some(Value::String(name)) => ModelConfig::preset(&name)?,
        Some(other) => return Err(Error::recipe("model.preset", "a string", other.type_str())),
    };
    let mut merged = Table::try_from(preset).expect("a plain struct of numbers serialises");
    for (key, value) in fields {
        if !merged.contains_key(&key) {
            let known = merged.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::recipe(format!("model.{key}"), format!("one of preset, {known}"), "an unknown key"));
        }
        merged.insert(key, value);
    }
    let config: ModelConfig = Value::Table(merged).try_into().map_err(|e: toml::de::Error| syntax(&e))?;
    config.validate()?;
    Ok(config)
}

fn syntax(error: &toml::de::Error) -> Error {
    Error::RecipeSyntax(error.to_string().trim_end().to_owned())
}

/// Adds the line on which a recipe's text sets the key an error names.
fn at_line(text: &str, error: Error) -> Error {
    let Error::Recipe { key, expected, found } = error else { return error };
    let mut section = String::new();
    let mut sets = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{}.", header.trim());
        }
        line.split_once('=').is_some_and(|(name, _)| format!("{section}{}", name.trim()) == key)
    };
    let found = match text.lines().position(&mut sets) {
        Some(line) => format!("{found} on line {}", line + 1),
        None => found,
    };
    Error::Recipe { key, expected, found }
}

/// Applies `KEY=VALUE` to what was typed, and names the key if the result is no recipe.
fn apply(table: &mut Table, text: &str) -> Result<()> {
    let (path, value) = text.split_once('=').ok_or_else(|| Error::recipe(text, "KEY=VALUE", "no `=`"))?;
    let (path, value) = (path.trim(), value.trim());
    let value = match toml::from_str::<Table>(&format!("value = {value}")) {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("value").expect("the one key"),
        _ => Value::String(value.to_owned()),
    };
    let mut keys: Vec<&str> = path.split('.').collect();
    let last = keys.pop().expect("split gives at least one part");
    let mut here = &mut *table;
    for key in keys {
        let entry = here.entry(key).or_insert_with(|| Value::Table(Table::new()));
        let found = entry.type_str();
        here = entry.as_table_mut().ok_or_else(|| Error::recipe(path, format!("a table at `{key}`"), found))?;
    }
    let both_clocks = path == "budget.minutes" || path == "budget.seconds";
    if both_clocks {
        // The file may have said it in the other unit.
        here.remove("minutes");
        here.remove("seconds");
    }
    if path == KIND && here.get("kind").and_then(Value::as_str) != value.as_str() {
        // What the file sets for one rule is not meant for another.
        here.retain(|key, _| matches!(key, "lr" | "weight_decay"));
    }
    here.insert(last.to_owned(), value);
    let checked: Result<Typed, _> = Value::Table(table.clone()).try_into();
    let typed = checked.map_err(|e| Error::recipe(path, "a recipe's key and value", e.message()))?;
    resolve_model(&typed.model).map(drop)
}
