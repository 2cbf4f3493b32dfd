//! The pictures of the page.

use std::collections::BTreeMap;

use sixpack_compress::report::TensorReport;
use sixpack_compress::sweep::front;
use sixpack_formats::{Part, TensorId};

use super::page::Page;
use crate::plot::{Bars, Mark, Row, Scatter, Series, Unit};
use crate::table::thousands;

/// The parts of a layer, in the order they are drawn.
const PARTS: [&str; 7] = ["queries", "keys", "values", "attention out", "MLP up", "MLP down", "other"];

/// The artifact among the points of a sweep that are measured alike, if there are any.
pub(super) fn trade_off(page: &Page<'_>) -> Scatter {
    let (float, packed) = (&page.outcome.float, &page.outcome.packed);
    let loss = |s: &sixpack_formats::Score| s.bits_per_byte.unwrap_or(s.nats_per_token);
    let this = (packed.bytes as f64, loss(packed));
    let title = format!("{}: {} bytes, {:.5}", page.name, thousands(packed.bytes), loss(packed));
    let mut series = vec![Series { group: 0, kind: 0, marks: vec![Mark { x: this.0, y: this.1, title }] }];
    let mut groups = vec!["this artifact".to_owned()];
    // The float score is the same only where checkpoint and text are.
    let alike: Vec<_> = page.points.iter().filter(|p| p.float == *float).collect();
    if !alike.is_empty() {
        groups.push("the same checkpoint in a sweep beside it".into());
        let mut schemes: BTreeMap<&str, Vec<Mark>> = BTreeMap::new();
        for p in &alike {
            let settings = &p.key.settings;
            let title = format!("{}: {} bytes, {:.5}", settings.scheme, thousands(p.packed.bytes), p.loss());
            let mark = Mark { x: p.packed.bytes as f64, y: p.loss(), title };
            schemes.entry(&settings.scheme).or_default().push(mark);
        }
        series.extend(schemes.into_values().enumerate().map(|(kind, mut marks)| {
            marks.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series { group: 1, kind: kind + 1, marks }
        }));
    }
    let mut kinds: Vec<String> = vec![page.outcome.report.scheme.name().to_owned()];
    let mut names: Vec<&str> = alike.iter().map(|p| &p.key.settings.scheme[..]).collect();
    names.sort_unstable();
    names.dedup();
    kinds.extend(names.iter().map(|n| format!("{n} (sweep)")));
    let plane: Vec<_> = std::iter::once(this).chain(alike.iter().map(|p| (p.packed.bytes as f64, p.loss()))).collect();
    let unit = if packed.bits_per_byte.is_some() { "bits per byte" } else { "nats per token" };
    Scatter {
        title: format!("Bytes and {unit}"),
        description: format!("The artifact at {} bytes and {:.5} {unit}.", thousands(packed.bytes), loss(packed)),
        x: ("artifact".into(), Unit::Bytes),
        y: (unit.into(), Unit::Number),
        groups,
        kinds,
        series,
        front: front(&plane).into_iter().map(|i| plane[i]).collect(),
        budget: None,
        level: Some((loss(float), "full precision".into())),
        references: Vec::new(),
    }
}

/// Bytes of the tensors, layer by layer.
pub(super) fn bytes(tensors: &[TensorReport]) -> Bars {
    let value = |t: &TensorReport| t.coded_bytes as f64;
    Bars {
        title: "Bytes by layer".into(),
        description: "A bar for each layer, made of its tensors.".into(),
        x: ("coded size".into(), Unit::Bytes),
        parts: PARTS.map(str::to_owned).to_vec(),
        rows: rows(tensors, value, |v| format!("{} B", thousands(v as u64))),
    }
}

/// Errors layer by layer: what they are expected to cost in nats, of all tensors, where that is known; else those of the
/// matrices in the Hessian norm, or squared.
pub(super) fn errors(tensors: &[TensorReport]) -> Bars {
    let any = |known: fn(&TensorReport) -> bool| tensors.iter().any(known);
    let (title, x, value): (_, _, fn(&TensorReport) -> f64) = if any(|t| t.loss.is_some()) {
        ("Expected rise of the loss", "nats per token", |t| t.loss.unwrap_or(0.0))
    } else if any(|t| hessian_error(t).is_some()) {
        ("Error in the Hessian norm", "trace(E H Eᵀ)", |t| hessian_error(t).unwrap_or(0.0))
    } else {
        let squared = |t: &TensorReport| t.mean_squared_error * t.shape.iter().product::<usize>() as f64;
        ("Squared error", "sum of squared errors", squared)
    };
    let sum = |v: f64| match v {
        _ if v >= 1000.0 => thousands(v.round() as u64),
        _ if v >= 0.1 => format!("{v:.3}"),
        _ => format!("{v:.2e}"),
    };
    let mut rows = rows(tensors, value, sum);
    rows.retain(|row| row.parts.iter().any(|p| p.1 > 0.0));
    Bars {
        title: title.into(),
        description: "A bar for each layer, made of its tensors.".into(),
        x: (x.into(), Unit::Number),
        parts: PARTS.map(str::to_owned).to_vec(),
        rows,
    }
}

fn hessian_error(t: &TensorReport) -> Option<f64> {
    t.matrix.and_then(|m| m.error)
}

/// A bar for each layer, and one for the tensors of no layer.
fn rows(tensors: &[TensorReport], value: impl Fn(&TensorReport) -> f64, sum: impl Fn(f64) -> String) -> Vec<Row> {
    let mut layers: BTreeMap<usize, Vec<&TensorReport>> = BTreeMap::new();
    for t in tensors {
        let layer = if let TensorId::Block(layer, _) = t.id { usize::from(layer) } else { usize::MAX };
        layers.entry(layer).or_default().push(t);
    }
    let row = |(layer, tensors): (usize, Vec<&TensorReport>)| {
        let mut parts: Vec<_> =
            tensors.iter().map(|t| (part(t.id), value(t), format!("{}: {}", t.id, sum(value(t))))).collect();
        parts.sort_by_key(|p| p.0);
        let total = parts.iter().map(|p| p.1).sum();
        let name = if layer == usize::MAX { "tables, other".to_owned() } else { format!("layer {layer}") };
        Row { name, sum: sum(total), parts }
    };
    layers.into_iter().map(row).collect()
}

/// The index in [`PARTS`].
fn part(id: TensorId) -> usize {
    match id {
        TensorId::Block(_, Part::Query) => 0,
        TensorId::Block(_, Part::Key) => 1,
        TensorId::Block(_, Part::Value) => 2,
        TensorId::Block(_, Part::AttnOut) => 3,
        TensorId::Block(_, Part::MlpUp) => 4,
        TensorId::Block(_, Part::MlpDown) => 5,
        _ => 6,
    }
}
