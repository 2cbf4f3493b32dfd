//! The same words and tables for all forms of the report.

use sixpack_train::experiment::statistics::MOST_SEEDS;
use sixpack_train::experiment::{BASELINE, Outcome, RULE, Results, Row, Summary};

use crate::table::{render, thousands};

/// Columns of the main table.
pub(super) const HEADER: [&str; 10] = [
    "arm",
    "runs",
    "bits per byte",
    "bytes",
    "difference",
    "95% interval",
    "smallest effect",
    "more seeds",
    "status",
    "because",
];

/// A row of the main table for each arm.
pub(super) fn rows(summary: &Summary) -> Vec<Vec<String>> {
    summary.rows.iter().map(row).collect()
}

fn row(row: &Row) -> Vec<String> {
    let none = || "–".to_owned();
    let spread = row.effect.and_then(|e| e.spread);
    let runs = match row.crashes {
        0 => row.values.len().to_string(),
        n => format!("{} + {n} crashed", row.values.len()),
    };
    vec![
        row.id(),
        runs,
        row.mean.map_or_else(none, |m| match row.deviation {
            Some(d) => format!("{m:.5} ± {d:.5}"),
            None => format!("{m:.5}"),
        }),
        row.bytes.map_or_else(none, |b| thousands(b.round() as u64)),
        row.effect.map_or_else(none, |e| format!("{:+.5}", e.mean)),
        spread.map_or_else(none, |s| format!("{:+.5} to {:+.5}", s.interval[0], s.interval[1])),
        row.effect.and_then(|e| e.smallest()).map_or_else(none, |s| format!("{s:.5}")),
        spread.map_or_else(none, |_| {
            row.effect.and_then(|e| e.more_seeds()).map_or(format!("> {MOST_SEEDS}"), |n| n.to_string())
        }),
        row.status().to_owned(),
        row.verdict.reason().to_owned(),
    ]
}

/// What the table has to be read with, a paragraph each.
pub(super) fn notes(summary: &Summary) -> Vec<String> {
    let baseline = summary.row(BASELINE, None);
    let mut notes = Vec::new();
    if let Some(row) = baseline.filter(|row| row.deviation.is_some()) {
        notes.push(format!(
            "The baseline has {:.5} bits per byte over {} seeds, with a deviation of {:.5} from seed to seed.",
            row.mean.unwrap_or_default(),
            row.values.len(),
            row.deviation.unwrap_or_default()
        ));
    }
    notes.push(
        "Bits per byte are of the validation split: of the trained model in full precision, or of the artifact named \
         after the arm. Bytes are the artifact's, or an estimate of one in scheme reference; ± is the deviation over \
         seeds. Differences are to the baseline, paired by seed; below 0 is better. Intervals are Student's. The \
         smallest effect is the true difference that these runs would have found four times in five. More seeds is how \
         many further ones would find the difference as measured, four times in five; 0 where the interval excludes 0. \
         Both are of one arm by itself: to stand among several arms takes more."
            .into(),
    );
    let intervals = summary.intervals();
    if intervals > 1 {
        notes.push(format!(
            "Of {intervals} intervals {:.1} would exclude 0 by chance if no arm did anything; that is why p-values are \
             adjusted for the number of arms before one is kept, those of each kind of artifact by themselves.",
            0.05 * intervals as f64
        ));
    }
    let given = if summary.tolerance_given { "set by the plan" } else { "the baseline's deviation over seeds" };
    notes.push(format!("{RULE} The tolerance is {:.5} bits per byte, {given}.", summary.tolerance));
    notes
}

/// What the arms are.
pub(super) fn arms(results: &Results) -> Vec<Vec<String>> {
    let row = |arm: &sixpack_train::experiment::ArmHeader| {
        let set = if arm.set.is_empty() { "–".into() } else { arm.set.join("; ") };
        let priority = format!("{:?}", arm.priority).to_lowercase();
        let complexity = format!("{:?}", arm.complexity).to_lowercase();
        vec![arm.id.clone(), arm.description.clone(), priority, complexity, set]
    };
    results.arms.iter().map(row).collect()
}

/// Columns of [`arms`].
pub(super) const ARMS: [&str; 5] = ["arm", "what it is", "priority", "complexity", "changes"];

/// Runs that came to no end.
pub(super) fn crashes(results: &Results) -> Vec<String> {
    let crash = |r: &sixpack_train::experiment::Record| match &r.outcome {
        Outcome::Crash(reason) => Some(format!("{}, seed {}: {reason}", r.id, r.seed)),
        Outcome::Trained(_) => None,
    };
    results.runs.iter().filter_map(crash).collect()
}

/// The experiment in a sentence.
pub(super) fn heading(results: &Results) -> String {
    let scale = results.scale.as_ref().map_or(String::new(), |s| format!(", scale {s}"));
    format!("{}{scale}: {} of {} runs", results.name, results.runs.len(), wanted(results))
}

fn wanted(results: &Results) -> usize {
    results.arms.iter().map(|arm| arm.seeds).sum()
}

/// The report in plain text.
pub(super) fn text(results: &Results, summary: &Summary) -> String {
    let mut out = format!("{}\n", heading(results));
    if !results.description.is_empty() {
        out.push_str(&format!("{}\n", results.description));
    }
    out.push_str(&format!("\n{}", render(&HEADER, &rows(summary))));
    for note in notes(summary) {
        out.push_str(&format!("\n{}\n", wrapped(&note)));
    }
    let crashes = crashes(results);
    if !crashes.is_empty() {
        out.push_str(&format!("\ncrashed:\n{}\n", crashes.join("\n")));
    }
    out
}

/// The report in Markdown.
pub(super) fn markdown(results: &Results, summary: &Summary) -> String {
    let mut out = format!("## {}\n\n", escaped(&heading(results)));
    if !results.description.is_empty() {
        out.push_str(&format!("{}\n\n", results.description));
    }
    out.push_str(&table(&HEADER, &rows(summary)));
    for note in notes(summary) {
        out.push_str(&format!("\n{note}\n"));
    }
    let crashes = crashes(results);
    if !crashes.is_empty() {
        out.push('\n');
        crashes.iter().for_each(|crash| out.push_str(&format!("- crashed: {}\n", escaped(crash))));
    }
    out.push_str(&format!("\n### Arms\n\n{}", table(&ARMS, &arms(results))));
    out
}

fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut out = line(header.iter().map(|h| (*h).to_owned()).collect());
    out.push_str(&line(header.iter().map(|_| "---".to_owned()).collect()));
    rows.iter().for_each(|row| out.push_str(&line(row.iter().map(|cell| escaped(cell)).collect())));
    out
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let long = word.chars().count() + 1;
        if width > 0 && width + long > 100 {
            out.push('\n');
            width = 0;
        } else if width > 0 {
            out.push(' ');
        }
        out.push_str(word);
        width += long;
    }
    out
}
