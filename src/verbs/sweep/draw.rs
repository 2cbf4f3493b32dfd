//! The points as a picture.

use std::collections::BTreeMap;

use sixpack_compress::sweep::{Point, front};

use super::line;
use crate::args;
use crate::plot::{Mark, Scatter, Series, Unit};
use crate::table::thousands;

/// Bytes against loss: a colour for each checkpoint, a shape for each scheme.
pub(super) fn picture(points: &[&Point], args: &args::Sweep) -> Scatter {
    let (groups, kinds) = (groups(points), kinds(points));
    let mut series: BTreeMap<(usize, usize), Vec<Mark>> = BTreeMap::new();
    for p in points {
        let group = groups.iter().position(|(key, _)| *key == checkpoint(p)).expect("made of the same points");
        let kind = kinds.iter().position(|k| *k == kind(p, true) || *k == kind(p, false)).expect("the same");
        series.entry((kind, group)).or_default().push(mark(p));
    }
    for marks in series.values_mut() {
        marks.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    }
    let plane: Vec<_> = points.iter().map(|p| (p.packed.bytes as f64, p.loss())).collect();
    let unit = if points.iter().all(|p| p.packed.bits_per_byte.is_some()) { "bits per byte" } else { "nats per token" };
    Scatter {
        title: "Size against accuracy".into(),
        description: format!("{} artifacts by their bytes and their {unit}; less is better in both.", points.len()),
        x: ("artifact".into(), Unit::Bytes),
        y: (unit.into(), Unit::Number),
        groups: groups.into_iter().map(|(_, label)| label).collect(),
        kinds,
        series: series.into_iter().map(|((kind, group), marks)| Series { group, kind, marks }).collect(),
        front: front(&plane).into_iter().map(|i| plane[i]).collect(),
        budget: args.budget.map(|b| (b as f64, format!("{} bytes", thousands(b)))),
        level: full_precision(points),
        references: args.references.iter().map(reference).collect(),
    }
}

/// The loss in full precision where all points are of one checkpoint.
fn full_precision(points: &[&Point]) -> Option<(f64, String)> {
    let first = points.first()?;
    let one = points.iter().all(|p| p.key.checkpoint == first.key.checkpoint && p.float == first.float);
    one.then(|| (first.loss() - first.gap(), "full precision".to_owned()))
}

fn mark(p: &Point) -> Mark {
    Mark { x: p.packed.bytes as f64, y: p.loss(), title: line(p) }
}

fn reference(r: &args::Reference) -> Mark {
    Mark { x: r.bytes as f64, y: r.bits_per_byte, title: r.label.clone() }
}

fn checkpoint(p: &Point) -> (String, String) {
    (p.name.clone(), p.key.checkpoint.to_string())
}

/// The checkpoints in the order of the points, by weight decay where that tells them apart, else by name.
fn groups(points: &[&Point]) -> Vec<((String, String), String)> {
    let mut seen: Vec<&Point> = Vec::new();
    for &p in points {
        if !seen.iter().any(|s| checkpoint(s) == checkpoint(p)) {
            seen.push(p);
        }
    }
    let distinct = seen.windows(2).all(|w| w[0].weight_decay != w[1].weight_decay);
    let told = seen.len() > 1 && distinct && seen.iter().all(|p| p.weight_decay.is_some());
    let label = |p: &Point| match p.weight_decay {
        Some(decay) if told => format!("weight decay {decay}"),
        _ => p.name.clone(),
    };
    seen.into_iter().map(|p| (checkpoint(p), label(p))).collect()
}

/// The schemes, with their codecs if there are several.
fn kinds(points: &[&Point]) -> Vec<String> {
    let several = points.windows(2).any(|w| w[0].key.settings.codec != w[1].key.settings.codec);
    let mut kinds: Vec<String> = Vec::new();
    for p in points {
        let kind = kind(p, several);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn kind(p: &Point, with_codec: bool) -> String {
    let settings = &p.key.settings;
    if with_codec { format!("{}, {}", settings.scheme, settings.codec) } else { settings.scheme.clone() }
}
