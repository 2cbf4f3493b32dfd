//! Curves over a common axis, each with its name.

use super::axis::{Axis, Unit};
use super::svg::{self, Anchor};
use super::{COLOURS, SHAPES, document};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 46.0;
/// Height of a row of the legend.
const ROW: f64 = 20.0;

/// A picture of curves.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// What it shows.
    pub(crate) title: String,
    /// The same for those who do not see it.
    pub(crate) description: String,
    /// What the curves go along.
    pub(crate) x: String,
    /// What they show; less is better.
    pub(crate) y: String,
    /// The curves; the first is the thickest.
    pub(crate) curves: Vec<Curve>,
}

/// One curve.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Lines {
    /// The picture as an SVG element.
    pub(crate) fn svg(&self, style: bool) -> String {
        let (right, bottom) = (WIDTH - RIGHT, TOP + HEIGHT);
        let points = || self.curves.iter().flat_map(|c| &c.points);
        let x = Axis::new(points().map(|p| p.0), Unit::Number, false, (LEFT, right));
        // A loss falls fast at first: the picture is for what comes after, and cut above it.
        let cap = self.cap();
        let y = Axis::new(points().map(|p| p.1).filter(|&y| y <= cap), Unit::Number, false, (bottom, TOP));
        let mut out = String::new();
        svg::text(&mut out, (8.0, 20.0), "head", Anchor::Start, &self.title);
        for (value, label) in x.ticks(7) {
            svg::line(&mut out, "grid", (x.at(value), TOP), (x.at(value), bottom));
            svg::text(&mut out, (x.at(value), bottom + 16.0), "small", Anchor::Middle, &label);
        }
        for (value, label) in y.ticks(6) {
            svg::line(&mut out, "grid", (LEFT, y.at(value)), (right, y.at(value)));
            svg::text(&mut out, (LEFT - 8.0, y.at(value) + 4.0), "small", Anchor::End, &label);
        }
        svg::path(&mut out, "axis", &[(LEFT, TOP), (LEFT, bottom), (right, bottom)]);
        svg::text(&mut out, ((LEFT + right) / 2.0, bottom + 34.0), "", Anchor::Middle, &self.x);
        svg::text(&mut out, (8.0, TOP - 10.0), "", Anchor::Start, &self.y);
        for (i, curve) in self.curves.iter().enumerate().rev() {
            let places: Vec<_> = curve.points.iter().map(|p| (x.at(p.0), y.at(p.1))).collect();
            super::scatter::below(&places, TOP).iter().for_each(|part| svg::path(&mut out, &class(i), part));
        }
        let height = self.legend(&mut out, bottom + 58.0);
        document((WIDTH, height), &self.title, &self.description, style, &out)
    }

    /// The highest loss that is shown: that of the tenth part of the way.
    fn cap(&self) -> f64 {
        let at_a_tenth = |c: &Curve| c.points.get(c.points.len() / 10).map(|p| p.1);
        self.curves.iter().filter_map(at_a_tenth).filter(|y| y.is_finite()).fold(f64::NEG_INFINITY, f64::max)
    }

    /// The curves by name; where the picture ends.
    fn legend(&self, out: &mut String, top: f64) -> f64 {
        let (mut at, mut y) = (LEFT, top);
        for (i, curve) in self.curves.iter().enumerate() {
            let wide = 48.0 + svg::width(&curve.name);
            if at > LEFT && at + wide > WIDTH - RIGHT {
                (at, y) = (LEFT, y + ROW);
            }
            svg::line(out, &class(i), (at, y - 4.0), (at + 24.0, y - 4.0));
            svg::text(out, (at + 30.0, y), "small", Anchor::Start, &curve.name);
            at += wide;
        }
        y + 12.0
    }
}

/// Colours start again after eight curves, with another dash.
fn class(i: usize) -> String {
    let thick = if i == 0 { " thick" } else { "" };
    format!("line{thick} s{} k{}", i % COLOURS, i / COLOURS % SHAPES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_xml_with_its_curves_whatever_they_are() {
        let curve = |i: usize| Curve {
            name: format!("arm <{i}>"),
            points: (0..20).map(|t| (f64::from(t), 9.0 / (1.0 + f64::from(t)) + 0.01 * i as f64)).collect(),
        };
        let lines = |curves| Lines {
            title: "Loss & tokens".into(),
            description: "test".into(),
            x: "tokens".into(),
            y: "nats".into(),
            curves,
        };
        let text = lines((0..12).map(curve).collect()).svg(true);
        let document = roxmltree::Document::parse(&text).expect("well-formed");
        let drawn = |n: &roxmltree::Node<'_, '_>| n.attribute("class").is_some_and(|c| c.starts_with("line"));
        assert_eq!(document.descendants().filter(drawn).count(), 24, "each curve and its place in the legend");
        assert!(!text.contains("NaN") && !text.contains(">9</text>"), "the first fall is cut");
        for odd in [
            vec![],
            vec![Curve { name: "a".into(), points: vec![] }],
            vec![Curve { name: "b".into(), points: vec![(1.0, f64::NAN)] }],
        ] {
            let text = lines(odd).svg(false);
            assert!(roxmltree::Document::parse(&text).is_ok(), "{text}");
        }
    }
}
