//! The results on disk: `results.tsv` for people and other programs, `results.json` with everything.
//!
//! Both are written as a whole after each run, atomically, in the order of the plan: what they say does not depend on
//! how often the experiment was interrupted, but for the measured values (speed, memory, seconds).

use std::path::Path;

use serde::{Deserialize, Serialize};
use sixpack_formats::atomic;

use super::plan::{Plan, Priority};
use super::record::{Conditions, Outcome, Record};
use super::summary::{Row, Summary};
use super::verdict::Complexity;
use crate::{Error, Result};

/// The table's file name.
pub const TABLE: &str = "results.tsv";
/// The file name of everything.
pub const JSON: &str = "results.json";
/// Version of `results.json`.
const VERSION: u32 = 1;

/// An experiment and its runs so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    version: u32,
    /// The plan's name.
    pub name: String,
    /// What it asks.
    pub description: String,
    /// Its scale.
    pub scale: Option<String>,
    /// What all runs share.
    pub conditions: Conditions,
    /// A difference that does not matter, where the plan says it.
    pub tolerance: Option<f64>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The baseline's recipe with the first seed.
    pub recipe: String,
    /// What is compared, the baseline first.
    pub arms: Vec<ArmHeader>,
    /// What came of the runs.
    pub runs: Vec<Record>,
}

/// What an arm is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmHeader {
    /// Its id.
    pub id: String,
    /// In words.
    pub description: String,
    /// How soon it is run.
    pub priority: Priority,
    /// What it does to the code.
    pub complexity: Complexity,
    /// So many of the seeds.
    pub seeds: usize,
    /// Its changes to the recipe.
    pub set: Vec<String>,
}

impl Results {
    /// Those of a plan before its first run.
    pub fn new(plan: &Plan, conditions: Conditions) -> Self {
        let header = |arm: &super::plan::Arm| ArmHeader {
            id: arm.id.clone(),
            description: arm.description.clone(),
            priority: arm.priority,
            complexity: arm.complexity,
            seeds: arm.seeds,
            set: arm.set.clone(),
        };
        Self {
            version: VERSION,
            name: plan.name.clone(),
            description: plan.description.clone(),
            scale: plan.scale.clone(),
            conditions,
            tolerance: plan.tolerance,
            seeds: plan.seeds.clone(),
            recipe: plan.arms[0].recipe.to_toml(),
            arms: plan.arms.iter().map(header).collect(),
            runs: Vec::new(),
        }
    }

    /// Adds what came of a run, at its place.
    pub fn add(&mut self, record: Record) {
        self.runs.push(record);
        let arm = |id: &str| self.arms.iter().position(|arm| arm.id == id);
        let seed = |seed: u64| self.seeds.iter().position(|&s| s == seed);
        self.runs.sort_by_key(|r| (arm(&r.id), seed(r.seed)));
    }

    /// Writes both files.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn write(&self, folder: &Path) -> Result<()> {
        atomic::write(folder.join(JSON), self.json().as_bytes())?;
        Ok(atomic::write(folder.join(TABLE), self.tsv().as_bytes())?)
    }

    /// Reads `results.json` from a folder.
    ///
    /// # Errors
    /// If it is not there, or not what [`Results::write`] writes.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(JSON);
        let fail = |reason: String| Error::Plan { place: path.display().to_string(), reason };
        let text = std::fs::read(&path).map_err(|e| fail(format!("cannot read: {e}")))?;
        let found: Self = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        if found.version != VERSION || found.arms.is_empty() {
            return Err(fail(format!("expected version {VERSION} with a baseline, found version {}", found.version)));
        }
        Ok(found)
    }

    /// All of it as JSON, a run a line.
    fn json(&self) -> String {
        let head = Self { runs: Vec::new(), ..self.clone() };
        let head = serde_json::to_string_pretty(&head).expect("plain structs of numbers and texts serialise");
        let line = |record| serde_json::to_string(record).expect("as above");
        let runs: Vec<String> = self.runs.iter().map(line).collect();
        let runs = if runs.is_empty() { "[]".into() } else { format!("[\n{}\n  ]", runs.join(",\n")) };
        let head = head.strip_suffix("[]\n}").expect("the runs are the last field");
        format!("{head}{runs}\n}}\n")
    }

    /// The runs as tab-separated values with a header; an artifact has a row of its own below its run's.
    pub fn tsv(&self) -> String {
        let summary = Summary::of(self);
        let mut out = "id\tseed\tval_bpb\tbytes\tpeak_memory\ttokens_per_second\tstatus\tdescription\n".to_owned();
        let mut line = |cells: [String; 8]| {
            let plain = cells.map(|cell| cell.replace(['\t', '\n', '\r'], " "));
            out.push_str(&plain.join("\t"));
            out.push('\n');
        };
        for record in &self.runs {
            let Record { id, seed, outcome } = record;
            let about = self.arms.iter().find(|arm| arm.id == *id).map_or("", |arm| &arm.description);
            let status = |variant: Option<&str>| summary.row(id, variant).map_or("discard", Row::status).to_owned();
            let (seed, none) = (seed.to_string(), String::new);
            match outcome {
                Outcome::Crash(reason) => {
                    let why = format!("{about}: {reason}");
                    line([id.clone(), seed, none(), none(), none(), none(), "crash".into(), why]);
                }
                Outcome::Trained(t) => {
                    let memory = t.measured.peak_memory.map_or_else(none, |m| m.to_string());
                    let speed = format!("{:.0}", t.measured.tokens_per_second);
                    let (bpb, bytes) = (t.bits_per_byte.to_string(), t.bytes.to_string());
                    line([id.clone(), seed.clone(), bpb, bytes, memory, speed, status(None), about.to_owned()]);
                    for artifact in &t.artifacts {
                        let name = format!("{id}/{}", artifact.id);
                        let (bpb, bytes, status, why) = match artifact.score {
                            Some((bytes, bpb)) => {
                                (bpb.to_string(), bytes.to_string(), status(Some(&artifact.id)), about.to_owned())
                            }
                            None => {
                                let why = artifact.refused.as_deref().unwrap_or_default();
                                (none(), none(), "crash".into(), format!("{about}: {why}"))
                            }
                        };
                        line([name, seed.clone(), bpb, bytes, none(), none(), status, why]);
                    }
                }
            }
        }
        out
    }
}
