//! What the runs say of each arm.

use super::record::{Outcome, Record, Trained};
use super::results::Results;
use super::statistics::{Effect, holm, mean_and_deviation};
use super::verdict::{Complexity, Verdict};

/// The tolerance where the plan has none and the baseline has no deviation yet.
const TOLERANCE: f64 = 0.0;

/// An experiment in rows: the trained models, and each kind of artifact that was made of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The rows, those of the trained models first, the baseline the first of its kind.
    pub rows: Vec<Row>,
    /// A difference that does not matter.
    pub tolerance: f64,
    /// Whether the plan says so; else it is the deviation of the baseline over its seeds.
    pub tolerance_given: bool,
}

/// An arm, as trained or as one kind of artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The arm's id.
    pub arm: String,
    /// The kind of artifact; `None` for the trained model.
    pub variant: Option<String>,
    /// What the arm is.
    pub description: String,
    /// What it does to the code.
    pub complexity: Complexity,
    /// Bits per byte by seed.
    pub values: Vec<(u64, f64)>,
    /// Runs without a result.
    pub crashes: usize,
    /// Mean bits per byte.
    pub mean: Option<f64>,
    /// Their standard deviation over seeds.
    pub deviation: Option<f64>,
    /// Mean bytes.
    pub bytes: Option<f64>,
    /// Mean tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Bits per byte less than the baseline's of the same seed, by seed.
    pub differences: Vec<(u64, f64)>,
    /// What they say.
    pub effect: Option<Effect>,
    /// The p-value adjusted for the arms of the same variant.
    pub adjusted: Option<f64>,
    /// What becomes of the arm.
    pub verdict: Verdict,
}

impl Row {
    /// `keep`, `discard` or `crash`.
    pub fn status(&self) -> &'static str {
        self.verdict.status()
    }

    /// The arm's id with the kind of artifact.
    pub fn id(&self) -> String {
        self.variant.as_ref().map_or_else(|| self.arm.clone(), |v| format!("{}/{v}", self.arm))
    }
}

impl Summary {
    /// The summary of what there is so far.
    pub fn of(results: &Results) -> Self {
        let mut variants: Vec<Option<String>> = vec![None];
        for trained in results.runs.iter().filter_map(trained) {
            for artifact in &trained.artifacts {
                if !variants.iter().any(|v| v.as_ref() == Some(&artifact.id)) {
                    variants.push(Some(artifact.id.clone()));
                }
            }
        }
        let of_baseline: Vec<f64> = values(results, &results.arms[0].id, None).iter().map(|v| v.1).collect();
        let deviation = mean_and_deviation(&of_baseline).and_then(|(_, deviation)| deviation);
        let tolerance = results.tolerance.or(deviation).unwrap_or(TOLERANCE);
        let mut rows = Vec::new();
        for variant in &variants {
            rows.extend(family(results, variant.as_deref(), tolerance));
        }
        Self { rows, tolerance, tolerance_given: results.tolerance.is_some() }
    }

    /// The row of an arm as trained, or as a kind of artifact.
    pub fn row(&self, arm: &str, variant: Option<&str>) -> Option<&Row> {
        self.rows.iter().find(|row| row.arm == arm && row.variant.as_deref() == variant)
    }

    /// Intervals of differences: of so many, one in twenty excludes the true difference by chance.
    pub fn intervals(&self) -> usize {
        self.rows.iter().filter(|row| row.effect.is_some_and(|e| e.spread.is_some())).count()
    }
}

/// The rows of one variant: arms that have a run.
fn family(results: &Results, variant: Option<&str>, tolerance: f64) -> Vec<Row> {
    let baseline = values(results, &results.arms[0].id, variant);
    let mut rows: Vec<Row> = Vec::new();
    for (i, arm) in results.arms.iter().enumerate() {
        let runs: Vec<&Record> = results.runs.iter().filter(|r| r.id == arm.id).collect();
        if runs.is_empty() {
            continue;
        }
        let values = values(results, &arm.id, variant);
        let pair = |&(seed, value): &(u64, f64)| {
            baseline.iter().find(|(s, _)| *s == seed).map(|(_, of_baseline)| (seed, value - of_baseline))
        };
        let differences: Vec<_> = if i == 0 { Vec::new() } else { values.iter().filter_map(pair).collect() };
        let mean = |of: &dyn Fn(&Trained) -> Option<f64>| {
            let found: Vec<f64> = runs.iter().filter_map(|&r| of(trained(r)?)).collect();
            mean_and_deviation(&found).map(|(mean, _)| mean)
        };
        let (_, deviation) = mean_and_deviation(&values.iter().map(|v| v.1).collect::<Vec<_>>()).unzip();
        rows.push(Row {
            arm: arm.id.clone(),
            variant: variant.map(str::to_owned),
            description: arm.description.clone(),
            complexity: arm.complexity,
            crashes: runs.len() - values.len(),
            mean: mean(&|t| score(t, variant).map(|s| s.1)),
            deviation: deviation.flatten(),
            bytes: mean(&|t| score(t, variant).map(|s| s.0 as f64)),
            tokens_per_second: mean(&|t| variant.is_none().then_some(t.measured.tokens_per_second)),
            effect: Effect::of(&differences.iter().map(|d| d.1).collect::<Vec<_>>()),
            differences,
            adjusted: None,
            verdict: match (i, values.is_empty()) {
                (_, true) => Verdict::Crash,
                (0, _) => Verdict::Baseline,
                _ => Verdict::DiscardUndecided,
            },
            values,
        });
    }
    judge(&mut rows, tolerance);
    for row in rows.iter_mut().skip(1) {
        // Of the seeds that are left it says too much: those that were hardest are missing.
        let has = |seed: u64| row.values.iter().any(|v| v.0 == seed);
        let crashed = |r: &Record| r.id == row.arm && !has(r.seed) && baseline.iter().any(|v| v.0 == r.seed);
        if row.verdict != Verdict::Crash && results.runs.iter().any(crashed) {
            row.verdict = Verdict::DiscardCrashes;
        }
    }
    rows
}

/// Adjusts the p-values of a family and gives each arm its verdict.
fn judge(rows: &mut [Row], tolerance: f64) {
    let mut tested: Vec<&mut Row> = rows.iter_mut().filter(|row| row.verdict == Verdict::DiscardUndecided).collect();
    let spread = |row: &Row| row.effect.and_then(|e| e.spread);
    let p: Vec<f64> = tested.iter().filter_map(|row| spread(row)).map(|s| s.p).collect();
    let mut adjusted = holm(&p).into_iter();
    for row in &mut tested {
        row.adjusted = spread(row).and_then(|_| adjusted.next());
        row.verdict = Verdict::of(row.effect.as_ref(), row.adjusted, row.complexity, tolerance);
    }
}

fn trained(record: &Record) -> Option<&Trained> {
    if let Outcome::Trained(trained) = &record.outcome { Some(trained) } else { None }
}

/// Bytes and bits per byte.
fn score(trained: &Trained, variant: Option<&str>) -> Option<(u64, f64)> {
    match variant {
        None => Some((trained.bytes, trained.bits_per_byte)),
        Some(id) => trained.artifacts.iter().find(|a| a.id == id)?.score,
    }
}

/// Bits per byte of an arm by seed.
fn values(results: &Results, arm: &str, variant: Option<&str>) -> Vec<(u64, f64)> {
    let of_arm = results.runs.iter().filter(|r| r.id == arm);
    of_arm.filter_map(|r| Some((r.seed, score(trained(r)?, variant)?.1))).collect()
}
