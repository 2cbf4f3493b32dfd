//! A plan as it is typed. Values that can be wrong keep their place, for the line in an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::plan::Priority;
use super::verdict::Complexity;

/// `PLAN.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typed {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) data: Data,
    /// Ids of the arms to run first; the others follow by priority.
    #[serde(default)]
    pub(super) order: Vec<Spanned<String>>,
    #[serde(default, rename = "arm")]
    pub(super) arms: Vec<Arm>,
    #[serde(default, rename = "scale")]
    pub(super) scales: BTreeMap<String, Scale>,

    // What a scale may say too: no `flatten`, which would lose the lines.
    pub(super) baseline: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) set: Vec<Spanned<String>>,
    pub(super) seeds: Option<Spanned<Seeds>>,
    pub(super) budget: Option<Spanned<Budget>>,
    pub(super) time_limit_seconds: Option<Spanned<f64>>,
    pub(super) tolerance: Option<Spanned<f64>>,
    pub(super) eval: Option<Spanned<Windows>>,
    pub(super) compress: Option<Spanned<Compress>>,
}

/// `[scale.NAME]`: what is another at this scale. Its overrides of the recipe come after the plan's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    #[serde(default)]
    pub(super) description: String,
    /// Overrides of arms, by their id, after the arm's own.
    #[serde(default)]
    pub(super) arm: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,

    pub(super) baseline: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) set: Vec<Spanned<String>>,
    pub(super) seeds: Option<Spanned<Seeds>>,
    pub(super) budget: Option<Spanned<Budget>>,
    pub(super) time_limit_seconds: Option<Spanned<f64>>,
    pub(super) tolerance: Option<Spanned<f64>>,
    pub(super) eval: Option<Spanned<Windows>>,
    pub(super) compress: Option<Spanned<Compress>>,
}

/// Overrides of arms by a scale.
pub(super) type ArmSets = Vec<(Spanned<String>, Vec<Spanned<String>>)>;

impl Scale {
    /// Puts what the scale says in the place of what the plan says; what it says of arms is left.
    pub(super) fn over(self, plan: &mut Typed) -> ArmSets {
        fn replace<T>(of_plan: &mut Option<T>, of_scale: Option<T>) {
            *of_plan = of_scale.or(of_plan.take());
        }
        if !self.description.is_empty() {
            plan.description = format!("{} {}", plan.description, self.description).trim().to_owned();
        }
        plan.set.extend(self.set);
        replace(&mut plan.baseline, self.baseline);
        replace(&mut plan.seeds, self.seeds);
        replace(&mut plan.budget, self.budget);
        replace(&mut plan.time_limit_seconds, self.time_limit_seconds);
        replace(&mut plan.tolerance, self.tolerance);
        replace(&mut plan.eval, self.eval);
        replace(&mut plan.compress, self.compress);
        self.arm.into_iter().collect()
    }
}

/// `[data]`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Data {
    /// Folder of token shards, where the command names none; relative to the plan.
    pub(super) path: Option<Spanned<PathBuf>>,
}

/// `[[arm]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arm {
    pub(super) id: Spanned<String>,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) priority: Priority,
    #[serde(default)]
    pub(super) complexity: Complexity,
    /// Overrides of the baseline's recipe, as `--set` has them.
    #[serde(default)]
    pub(super) set: Vec<Spanned<String>>,
    /// So many of the plan's seeds.
    pub(super) seeds: Option<Spanned<u64>>,
}

/// How many seeds, or which.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of seeds, or a list of them")]
pub(super) enum Seeds {
    Count(u64),
    List(Vec<u64>),
}

/// What a run may use: one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    pub(super) steps: Option<u64>,
    pub(super) tokens: Option<u64>,
    pub(super) seconds: Option<f64>,
}

/// `[eval]`: how the validation split is scored; see `sixpack eval --help`.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Windows {
    pub(super) seq_len: Option<u32>,
    pub(super) stride: Option<u32>,
    pub(super) plain: bool,
    pub(super) max_tokens: Option<u64>,
}

/// `[compress]`: artifacts of each trained model; see `sixpack sweep --help`.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Compress {
    pub(super) schemes: Vec<String>,
    pub(super) codecs: Vec<String>,
    pub(super) int6_layers: Vec<u64>,
    pub(super) bits: Vec<f64>,
    pub(super) target_bytes: Vec<u64>,
    pub(super) calibration_tokens: Option<u64>,
}

impl Windows {
    /// The same on the command line.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut out = Vec::new();
        option(&mut out, "--seq-len", self.seq_len);
        option(&mut out, "--stride", self.stride);
        if self.plain {
            out.push("--plain".into());
        }
        option(&mut out, "--max-tokens", self.max_tokens);
        out
    }
}

impl Compress {
    /// The same on the command line.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut out = Vec::new();
        list(&mut out, "--schemes", &self.schemes);
        list(&mut out, "--codecs", &self.codecs);
        list(&mut out, "--int6-layers", &self.int6_layers);
        list(&mut out, "--bits", &self.bits);
        list(&mut out, "--target-bytes", &self.target_bytes);
        option(&mut out, "--calibration-tokens", self.calibration_tokens);
        out
    }
}

fn option(out: &mut Vec<String>, name: &str, value: Option<impl ToString>) {
    out.extend(value.into_iter().flat_map(|v| [name.to_owned(), v.to_string()]));
}

fn list(out: &mut Vec<String>, name: &str, values: &[impl ToString]) {
    if !values.is_empty() {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        out.extend([name.to_owned(), values.join(",")]);
    }
}
