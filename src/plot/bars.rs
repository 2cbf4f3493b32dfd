//! Bars that are made of parts, one below the other.

use super::axis::{Axis, Unit};
use super::svg::{self, Anchor};
use super::{COLOURS, document};

const WIDTH: f64 = 760.0;
/// Free space left of the bars, for their names.
const LEFT: f64 = 110.0;
/// Free space right of the bars, for their sums.
const RIGHT: f64 = 78.0;
const TOP: f64 = 34.0;
/// Height of a bar with the space below it.
const ROW: f64 = 24.0;

/// A picture of bars.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    /// What it shows.
    pub(crate) title: String,
    /// The same for those who do not see it.
    pub(crate) description: String,
    /// What the length of a bar counts.
    pub(crate) x: (String, Unit),
    /// Names of the parts.
    pub(crate) parts: Vec<String>,
    /// The bars.
    pub(crate) rows: Vec<Row>,
}

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What it stands for.
    pub(crate) name: String,
    /// Its parts from left to right: which, how long, and what it is.
    pub(crate) parts: Vec<(usize, f64, String)>,
    /// What is written after it.
    pub(crate) sum: String,
}

impl Bars {
    /// The picture as an SVG element.
    pub(crate) fn svg(&self, style: bool) -> String {
        let length = |row: &Row| row.parts.iter().map(|p| p.1).sum::<f64>();
        let longest = self.rows.iter().map(length).fold(0.0, f64::max);
        let x = Axis::from_zero(longest, self.x.1, (LEFT, WIDTH - RIGHT));
        let bottom = TOP + ROW * self.rows.len() as f64;
        let mut out = String::new();
        svg::text(&mut out, (8.0, 20.0), "head", Anchor::Start, &self.title);
        for (value, label) in x.ticks(6) {
            svg::line(&mut out, "grid", (x.at(value), TOP), (x.at(value), bottom));
            svg::text(&mut out, (x.at(value), bottom + 16.0), "small", Anchor::Middle, &label);
        }
        for (i, row) in self.rows.iter().enumerate() {
            let top = TOP + ROW * i as f64 + 3.0;
            svg::text(&mut out, (LEFT - 8.0, top + 13.0), "", Anchor::End, &row.name);
            let mut from = 0.0;
            for (part, value, title) in row.parts.iter().filter(|p| p.1 > 0.0) {
                let (left, right) = (x.at(from), x.at(from + value));
                // A gap between parts, but never all of a part.
                let wide = (right - left - 1.0).max(0.5);
                svg::rect(&mut out, &format!("c{}", part % COLOURS), (left, top), (wide, ROW - 7.0), title);
                from += value;
            }
            svg::text(&mut out, (x.at(from) + 6.0, top + 13.0), "small", Anchor::Start, &row.sum);
        }
        svg::text(&mut out, ((LEFT + WIDTH - RIGHT) / 2.0, bottom + 34.0), "", Anchor::Middle, &x.label(&self.x.0));
        let height = self.legend(&mut out, bottom + 58.0);
        document((WIDTH, height), &self.title, &self.description, style, &out)
    }

    /// The parts that are drawn, by name; where the picture ends.
    fn legend(&self, out: &mut String, top: f64) -> f64 {
        let (mut x, mut y) = (8.0, top);
        let drawn = |i: usize| self.rows.iter().flat_map(|row| &row.parts).any(|p| p.0 == i && p.1 > 0.0);
        for (i, name) in self.parts.iter().enumerate().filter(|&(i, _)| drawn(i)) {
            let wide = 36.0 + svg::width(name);
            if x > 8.0 && x + wide > WIDTH {
                (x, y) = (8.0, y + 20.0);
            }
            svg::rect(out, &format!("c{}", i % COLOURS), (x, y - 9.0), (14.0, 9.0), "");
            svg::text(out, (x + 20.0, y), "small", Anchor::Start, name);
            x += wide;
        }
        y + 12.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_parts() {
        let row = |name: &str, values: &[f64]| Row {
            name: name.into(),
            parts: values.iter().enumerate().map(|(i, &v)| (i, v, format!("part <{i}>"))).collect(),
            sum: "sum".into(),
        };
        let bars = Bars {
            title: "Bytes & layers".into(),
            description: "test".into(),
            x: ("bytes".into(), Unit::Bytes),
            parts: vec!["a".into(), "b".into()],
            rows: vec![row("layer 0", &[100.0, 300.0]), row("layer 1", &[200.0, 0.0])],
        };
        let text = bars.svg(true);
        let document = roxmltree::Document::parse(&text).expect("well-formed");
        let wide: Vec<f64> = document
            .descendants()
            .filter(|n| n.has_tag_name("rect") && n.first_element_child().is_some())
            .map(|n| n.attribute("width").unwrap().parse().unwrap())
            .collect();
        let full = WIDTH - RIGHT - LEFT;
        assert_eq!(wide.len(), 3, "a part of nothing is not drawn");
        for (found, share) in wide.iter().zip([0.25, 0.75, 0.5]) {
            assert!((found - (share * full - 1.0)).abs() < 0.1, "{found} for {share}");
        }
    }
}
