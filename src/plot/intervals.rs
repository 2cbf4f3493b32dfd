//! Means with their intervals, one below the other, about zero.

use super::axis::{Axis, Unit};
use super::document;
use super::svg::{self, Anchor};

const WIDTH: f64 = 760.0;
/// Free space right of the intervals, for notes.
const RIGHT: f64 = 78.0;
const TOP: f64 = 34.0;
/// Height of an interval with the space below it.
const ROW: f64 = 26.0;
/// Widest space for names.
const NAMES: f64 = 260.0;

/// A picture of intervals.
#[derive(Clone, Debug)]
pub(crate) struct Intervals {
    /// What it shows.
    pub(crate) title: String,
    /// The same for those who do not see it.
    pub(crate) description: String,
    /// What is on the axis.
    pub(crate) x: String,
    /// Half the width of a band about zero.
    pub(crate) band: Option<f64>,
    /// The intervals.
    pub(crate) rows: Vec<Interval>,
}

/// One interval.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) name: String,
    pub(crate) mean: f64,
    /// `None` where there is a mean only.
    pub(crate) ends: Option<[f64; 2]>,
    /// What it is the mean of, each with a title.
    pub(crate) values: Vec<(f64, String)>,
    /// Whether it stands out.
    pub(crate) strong: bool,
    /// What is written after it.
    pub(crate) note: String,
}

impl Intervals {
    /// The picture as an SVG element.
    pub(crate) fn svg(&self, style: bool) -> String {
        let left = self.rows.iter().map(|r| svg::width(&r.name) + 24.0).fold(60.0, f64::max).min(NAMES);
        let numbers =
            self.rows.iter().flat_map(|r| r.ends.iter().flatten().copied().chain(r.values.iter().map(|v| v.0)));
        let band = self.band.into_iter().flat_map(|b| [-b, b]);
        let x = Axis::new(numbers.chain(band).chain([0.0]), Unit::Number, false, (left, WIDTH - RIGHT));
        let bottom = TOP + ROW * self.rows.len() as f64;
        let mut out = String::new();
        svg::text(&mut out, (8.0, 20.0), "head", Anchor::Start, &self.title);
        if let Some(band) = self.band {
            let (from, to) = (x.at(-band), x.at(band));
            svg::rect(&mut out, "band", (from, TOP), (to - from, bottom - TOP), "tolerance");
        }
        for (value, label) in x.ticks(6) {
            svg::line(&mut out, "grid", (x.at(value), TOP), (x.at(value), bottom));
            svg::text(&mut out, (x.at(value), bottom + 16.0), "small", Anchor::Middle, &label);
        }
        svg::line(&mut out, "axis", (x.at(0.0), TOP), (x.at(0.0), bottom));
        for (i, row) in self.rows.iter().enumerate() {
            row.draw(&mut out, &x, left, TOP + ROW * (i as f64 + 0.5));
        }
        svg::text(&mut out, ((left + WIDTH - RIGHT) / 2.0, bottom + 34.0), "", Anchor::Middle, &self.x);
        document((WIDTH, bottom + 44.0), &self.title, &self.description, style, &out)
    }
}

impl Interval {
    fn draw(&self, out: &mut String, x: &Axis, left: f64, y: f64) {
        let colour = if self.strong { 2 } else { 7 };
        svg::text(out, (left - 8.0, y + 4.0), "", Anchor::End, &self.name);
        if let Some([low, high]) = self.ends {
            let class = format!("line thick s{colour}");
            svg::line(out, &class, (x.at(low), y), (x.at(high), y));
            for end in [low, high] {
                svg::line(out, &class, (x.at(end), y - 4.0), (x.at(end), y + 4.0));
            }
        }
        for (value, title) in &self.values {
            svg::rect(out, "plain", (x.at(*value) - 0.75, y + 6.0), (1.5, 4.0), title);
        }
        let title = format!("{}: {:+.5}", self.name, self.mean);
        svg::mark(out, &format!("c{colour}"), 0, (x.at(self.mean), y), &title);
        svg::text(out, (WIDTH - RIGHT + 8.0, y + 4.0), "small", Anchor::Start, &self.note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_about_zero() {
        let row = |name: &str, mean: f64, half: Option<f64>| Interval {
            name: name.into(),
            mean,
            ends: half.map(|h| [mean - h, mean + h]),
            values: vec![(mean, "seed <1>".into())],
            strong: mean < 0.0,
            note: "keep".into(),
        };
        let picture = Intervals {
            title: "Differences & intervals".into(),
            description: "test".into(),
            x: "bits per byte".into(),
            band: Some(0.01),
            rows: vec![row("a", -0.02, Some(0.01)), row("b", 0.04, Some(0.05)), row("c", 0.0, None)],
        };
        let text = picture.svg(true);
        let document = roxmltree::Document::parse(&text).expect("well-formed");
        let marks = document.descendants().filter(|n| n.has_tag_name("path") && n.first_element_child().is_some());
        assert_eq!(marks.count(), 3);
        let thick = |n: &roxmltree::Node<'_, '_>| n.attribute("class").is_some_and(|c| c.contains("thick"));
        assert_eq!(document.descendants().filter(thick).count(), 6, "a line and its ends, for two of three");
        let empty = Intervals { rows: vec![], band: None, ..picture };
        assert!(roxmltree::Document::parse(&empty.svg(false)).is_ok());
    }
}
