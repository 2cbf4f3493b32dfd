//! `experiment report`: what the runs say, in words, tables and pictures. It needs `results.json` and nothing else.

mod page;
mod pictures;
mod tables;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use sixpack_formats::atomic;
use sixpack_train::experiment::{Results, Row, Summary};

use crate::args::{self, ReportFormat};
use crate::misuse::misuse;
use crate::say::say;

pub(super) fn run(args: &args::ExperimentReport) -> Result<()> {
    let results = Results::read(&args.folder).map_err(misuse)?;
    if args.json {
        say!("{}", json(&results)?);
        return Ok(());
    }
    let ends = args.out.as_deref().and_then(Path::extension).map(|e| e.to_string_lossy().to_ascii_lowercase());
    let format = args.format.unwrap_or(match ends.as_deref() {
        Some("html" | "htm") => ReportFormat::Html,
        Some("md") => ReportFormat::Markdown,
        _ => ReportFormat::Text,
    });
    let content = match format {
        ReportFormat::Html => page::html(&results),
        ReportFormat::Text => text(&results),
        ReportFormat::Markdown => tables::markdown(&results, &Summary::of(&results)),
    };
    match &args.out {
        Some(path) => atomic::write(path, content.as_bytes())?,
        None => crate::say::write(format_args!("{content}")),
    }
    Ok(())
}

/// The report as plain tables.
pub(super) fn text(results: &Results) -> String {
    tables::text(results, &Summary::of(results))
}

/// The report as one line of JSON.
pub(super) fn json(results: &Results) -> Result<String> {
    let summary = Summary::of(results);
    let json = Json {
        name: &results.name,
        scale: results.scale.as_deref(),
        tolerance: summary.tolerance,
        tolerance_given: summary.tolerance_given,
        intervals: summary.intervals(),
        rows: summary.rows.iter().map(JsonRow::new).collect(),
    };
    Ok(serde_json::to_string(&json)?)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Json<'a> {
    name: &'a str,
    scale: Option<&'a str>,
    tolerance: f64,
    tolerance_given: bool,
    intervals: usize,
    rows: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    id: String,
    description: &'a str,
    runs: usize,
    crashes: usize,
    bits_per_byte: Option<f64>,
    deviation: Option<f64>,
    bytes: Option<f64>,
    tokens_per_second: Option<f64>,
    pairs: u64,
    difference: Option<f64>,
    interval: Option<[f64; 2]>,
    p: Option<f64>,
    p_adjusted: Option<f64>,
    smallest_effect: Option<f64>,
    /// `null` for more than can be told; 0 if the sign is settled.
    more_seeds: Option<u64>,
    status: &'static str,
    reason: &'static str,
}

impl<'a> JsonRow<'a> {
    fn new(row: &'a Row) -> Self {
        let spread = row.effect.and_then(|e| e.spread);
        Self {
            id: row.id(),
            description: &row.description,
            runs: row.values.len(),
            crashes: row.crashes,
            bits_per_byte: row.mean,
            deviation: row.deviation,
            bytes: row.bytes,
            tokens_per_second: row.tokens_per_second,
            pairs: row.effect.map_or(0, |e| e.pairs),
            difference: row.effect.map(|e| e.mean),
            interval: spread.map(|s| s.interval),
            p: spread.map(|s| s.p),
            p_adjusted: row.adjusted,
            smallest_effect: row.effect.and_then(|e| e.smallest()),
            more_seeds: row.effect.and_then(|e| e.more_seeds()),
            status: row.status(),
            reason: row.verdict.reason(),
        }
    }
}
