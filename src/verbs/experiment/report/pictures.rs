//! The pictures of the page.

use std::collections::BTreeMap;

use sixpack_train::experiment::{CurvePoint, Outcome, Results, Row, Summary};

use crate::plot::{Curve, Interval, Intervals, Lines, Mark, Scatter, Series, Unit};
use crate::table::thousands;

/// The difference of each arm to the baseline with its interval.
pub(super) fn intervals(summary: &Summary) -> Intervals {
    let row = |row: &Row| {
        let effect = row.effect?;
        Some(Interval {
            name: row.id(),
            mean: effect.mean,
            ends: effect.spread.map(|s| s.interval),
            values: row.differences.iter().map(|(seed, d)| (*d, format!("seed {seed}: {d:+.5}"))).collect(),
            strong: row.status() == "keep",
            note: row.status().to_owned(),
        })
    };
    let rows: Vec<Interval> = summary.rows.iter().filter_map(row).collect();
    Intervals {
        title: "Difference to the baseline".into(),
        description: format!(
            "The mean difference in bits per byte of {} arms with its 95% interval, and the difference of each seed; \
             less is better.",
            rows.len()
        ),
        x: "bits per byte".into(),
        band: (summary.tolerance > 0.0).then_some(summary.tolerance),
        rows,
    }
}

/// Bytes against bits per byte: the mean of each arm, joined over the kinds of artifacts.
pub(super) fn trade_off(summary: &Summary) -> Scatter {
    let packed = summary.rows.iter().any(|row| row.variant.is_some());
    let shown = || summary.rows.iter().filter(move |row| row.variant.is_some() == packed);
    let mut arms: Vec<&str> = Vec::new();
    for row in shown() {
        if !arms.contains(&row.arm.as_str()) {
            arms.push(&row.arm);
        }
    }
    let mark = |row: &Row| {
        let (bytes, bpb) = (row.bytes?, row.mean?);
        Some(Mark { x: bytes, y: bpb, title: format!("{}: {} bytes, {bpb:.5}", row.id(), thousands(bytes as u64)) })
    };
    let series = arms.iter().enumerate().map(|(group, arm)| {
        let mut marks: Vec<Mark> = shown().filter(|row| row.arm == *arm).filter_map(mark).collect();
        marks.sort_by(|a, b| a.x.total_cmp(&b.x));
        // Colours start again after eight, so shapes tell the rest apart.
        Series { group, kind: group / crate::plot::COLOURS, marks }
    });
    let series: Vec<Series> = series.collect();
    let plane: Vec<(f64, f64)> = series.iter().flat_map(|s| &s.marks).map(|m| (m.x, m.y)).collect();
    let what = if packed { "artifact" } else { "estimated artifact" };
    Scatter {
        title: "Size against accuracy".into(),
        description: format!("Mean {what} bytes and bits per byte of each arm; less is better in both."),
        x: (what.into(), Unit::Bytes),
        y: ("bits per byte".into(), Unit::Number),
        groups: arms.iter().map(|arm| (*arm).to_owned()).collect(),
        kinds: Vec::new(),
        front: sixpack_compress::sweep::front(&plane).into_iter().map(|i| plane[i]).collect(),
        series,
        budget: None,
        level: None,
        references: Vec::new(),
    }
}

/// Training loss against tokens, and against seconds.
pub(super) fn curves(results: &Results) -> [Lines; 2] {
    let of = |what: &str, x: &str, at: fn(&CurvePoint) -> f64| Lines {
        title: format!("Training loss against {what}"),
        description: format!("The mean over seeds of the training loss of each arm against {what}; less is better."),
        x: x.into(),
        y: "nats per token".into(),
        curves: results.arms.iter().filter_map(|arm| curve(results, &arm.id, at)).collect(),
    };
    [of("tokens", "millions of tokens", |p| p.0 as f64 / 1e6), of("seconds of training", "seconds", |p| p.1)]
}

/// The mean of an arm's curves, point by point as far as all of them go.
fn curve(results: &Results, id: &str, at: fn(&CurvePoint) -> f64) -> Option<Curve> {
    let mut sums: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
    let mut seeds = 0;
    for record in results.runs.iter().filter(|r| r.id == id) {
        if let Outcome::Trained(trained) = &record.outcome {
            seeds += 1;
            for (i, point) in trained.curve.iter().enumerate() {
                let sum = sums.entry(i).or_default();
                *sum = (sum.0 + at(point), sum.1 + point.2, sum.2 + 1.0);
            }
        }
    }
    let all = sums.into_values().filter(|s| s.2 == f64::from(seeds));
    let points: Vec<_> = all.map(|(x, y, n)| (x / n, y / n)).collect();
    (seeds > 0).then(|| Curve { name: id.to_owned(), points })
}
