//! A plan as it is meant: every recipe resolved, every number checked, before anything runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::verdict::Complexity;
use crate::recipe::Recipe;

/// The id of what the arms are compared with.
pub const BASELINE: &str = "baseline";

/// How soon an arm is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// First.
    High,
    /// Then.
    #[default]
    Medium,
    /// Last.
    Low,
}

/// An experiment: a baseline and what is compared with it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// What it asks, with the scale's own words.
    pub description: String,
    /// The scale that was chosen.
    pub scale: Option<String>,
    /// Where the data are if the command does not say, and on which line the plan does.
    pub data: Option<(PathBuf, usize)>,
    /// The seeds, in the order they are run.
    pub seeds: Vec<u64>,
    /// Seconds after which a run is stopped, with all that belongs to it.
    pub time_limit: f64,
    /// A difference that does not matter, in bits per byte; by default the baseline's deviation over seeds.
    pub tolerance: Option<f64>,
    /// How models are scored, as arguments of `eval`.
    pub eval: Vec<String>,
    /// The line of those.
    pub eval_line: Option<usize>,
    /// How they are compressed, as arguments of `sweep`, and on which line the plan says so.
    pub compress: Option<(Vec<String>, usize)>,
    /// The baseline, then the others in the order they are run.
    pub arms: Vec<Arm>,
    /// The file, for messages.
    pub(super) path: PathBuf,
}

/// A recipe to be compared.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Its name, and that of its folder.
    pub id: String,
    /// What it is.
    pub description: String,
    /// How soon it is run.
    pub priority: Priority,
    /// What it does to the code.
    pub complexity: Complexity,
    /// So many of the first seeds.
    pub seeds: usize,
    /// Its changes to the baseline's recipe.
    pub set: Vec<String>,
    /// The recipe with the first seed.
    pub recipe: Recipe,
}

/// One training to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the arm.
    pub arm: usize,
    /// The seed.
    pub seed: u64,
}

impl Plan {
    /// All runs, the first seed of all arms before the second of any: an experiment that is interrupted has as many runs
    /// of one arm as of another.
    pub fn runs(&self) -> Vec<Run> {
        let of_seed = |(i, &seed): (usize, &u64)| {
            let has = move |(_, arm): &(usize, &Arm)| i < arm.seeds;
            self.arms.iter().enumerate().filter(has).map(move |(arm, _)| Run { arm, seed }).collect::<Vec<_>>()
        };
        self.seeds.iter().enumerate().flat_map(of_seed).collect()
    }

    /// The arm of a run.
    pub fn arm(&self, run: Run) -> &Arm {
        &self.arms[run.arm]
    }

    /// The recipe of a run: the seed decides start values and the order of data, in all arms alike.
    pub fn recipe(&self, run: Run) -> Recipe {
        let arm = self.arm(run);
        Recipe { name: format!("{} seed {}", arm.id, run.seed), seed: run.seed, ..arm.recipe.clone() }
    }

    /// The plan's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
