//! The report as a page: nothing from elsewhere and nothing to run.

use sixpack_train::experiment::{Results, Summary};

use super::pictures;
use super::tables::{ARMS, HEADER, arms, crashes, heading, notes, rows};
use crate::plot::escape;
use crate::report::html::{details, document, figure, figures, list, paragraph, section, table};

/// The whole page.
pub(super) fn html(results: &Results) -> String {
    let summary = Summary::of(results);
    let mut content = format!("<h1>{}</h1>\n", escape(&heading(results)));
    if !results.description.is_empty() {
        content.push_str(&paragraph(&results.description));
    }
    content.push_str(&figures(&numbers(&summary)));
    let caption = "Each arm against the baseline, paired by seed; below 0 is better";
    let mut effects = figure(&pictures::intervals(&summary).svg(false));
    effects.push_str(&table(caption, &HEADER, &rows(&summary)));
    notes(&summary).iter().for_each(|note| effects.push_str(&paragraph(note)));
    content.push_str(&section("Effects", &effects));
    content.push_str(&section("Bytes against bits per byte", &figure(&pictures::trade_off(&summary).svg(false))));
    let [tokens, seconds] = pictures::curves(results);
    let mut curves = paragraph("Mean training loss over the seeds of each arm.");
    curves.push_str(&figure(&tokens.svg(false)));
    curves.push_str(&figure(&seconds.svg(false)));
    content.push_str(&section("Loss on the way", &curves));
    content.push_str(&section("Arms", &table("Changes to the baseline's recipe", &ARMS, &arms(results))));
    let crashes = crashes(results);
    if !crashes.is_empty() {
        let crashes: String = crashes.iter().map(|crash| paragraph(crash)).collect();
        content.push_str(&section("Crashed", &crashes));
    }
    content.push_str(&section("Provenance", &provenance(results)));
    document(&format!("{} – experiment", results.name), &content)
}

/// The figures that matter most.
fn numbers(summary: &Summary) -> Vec<(&'static str, String)> {
    let count = |status: &str| summary.rows.iter().filter(|r| r.variant.is_none() && r.status() == status).count();
    let baseline = summary.rows.first();
    let bpb = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.5}"));
    vec![
        ("bits per byte, baseline", bpb(baseline.and_then(|r| r.mean))),
        ("deviation over seeds", bpb(baseline.and_then(|r| r.deviation))),
        ("arms kept", count("keep").saturating_sub(1).to_string()),
        ("arms discarded", count("discard").to_string()),
        ("tolerance", format!("{:.5}", summary.tolerance)),
    ]
}

fn provenance(results: &Results) -> String {
    let c = &results.conditions;
    let pairs = [
        ("made by", c.tool.clone()),
        ("training data", c.training_data.join("\n")),
        ("validation data", c.validation_data.join("\n")),
        ("scored with", c.eval.join(" ")),
        ("compressed with", c.compress.join(" ")),
        ("seeds", results.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    ];
    let pairs: Vec<_> = pairs.into_iter().filter(|p| !p.1.is_empty()).map(|(name, v)| (name.to_owned(), v)).collect();
    let recipe = details("The baseline's recipe", &list(&[("recipe".to_owned(), results.recipe.clone())]));
    format!("{}{recipe}", list(&pairs))
}
