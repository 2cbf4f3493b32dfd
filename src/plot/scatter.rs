//! Points in a plane: what is paid against what is got, with the Pareto front.

use super::axis::{Axis, Unit};
use super::svg::{self, Anchor};
use super::{COLOURS, document};

/// Width of the picture.
const WIDTH: f64 = 760.0;
/// Height of the part with the points.
const HEIGHT: f64 = 430.0;
/// Free space left of the points, for labels.
const LEFT: f64 = 66.0;
/// Free space right of the points.
const RIGHT: f64 = 18.0;
/// Free space above the points, for the title.
const TOP: f64 = 46.0;
/// Height of a row of the legend.
const ROW: f64 = 20.0;

/// A picture of points.
#[derive(Clone, Debug)]
pub(crate) struct Scatter {
    /// What it shows.
    pub(crate) title: String,
    /// The same for those who do not see it.
    pub(crate) description: String,
    /// What is paid.
    pub(crate) x: (String, Unit),
    /// What is got; less is better.
    pub(crate) y: (String, Unit),
    /// Names of the colours.
    pub(crate) groups: Vec<String>,
    /// Names of the shapes.
    pub(crate) kinds: Vec<String>,
    /// The points.
    pub(crate) series: Vec<Series>,
    /// The Pareto front, by increasing x.
    pub(crate) front: Vec<(f64, f64)>,
    /// A limit on x, with its name.
    pub(crate) budget: Option<(f64, String)>,
    /// A value of y to compare with, with its name.
    pub(crate) level: Option<(f64, String)>,
    /// Points of others, labelled.
    pub(crate) references: Vec<Mark>,
}

/// Points that belong together, joined by a line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Index of the colour.
    pub(crate) group: usize,
    /// Index of the shape.
    pub(crate) kind: usize,
    /// The points, in the order of the line.
    pub(crate) marks: Vec<Mark>,
}

/// One point.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// What it is.
    pub(crate) title: String,
}

impl Scatter {
    /// The picture as an SVG element; a file of its own has the style within it.
    pub(crate) fn svg(&self, style: bool) -> String {
        let marks = || self.series.iter().flat_map(|s| &s.marks).chain(&self.references);
        let bottom = TOP + HEIGHT;
        let budget = self.budget.iter().map(|b| b.0);
        let x = Axis::new(marks().map(|m| m.x).chain(budget), self.x.1, true, (LEFT, WIDTH - RIGHT));
        let level = self.level.iter().map(|l| l.0);
        let cap = cap(marks().map(|m| m.y).collect());
        let y = Axis::new(marks().map(|m| m.y).chain(level).filter(|&y| y <= cap), self.y.1, false, (bottom, TOP));
        let mut out = String::new();
        svg::text(&mut out, (8.0, 20.0), "head", Anchor::Start, &self.title);
        self.grid(&mut out, &x, &y);
        if let Some((at, name)) = &self.budget {
            svg::line(&mut out, "budget", (x.at(*at), TOP), (x.at(*at), bottom));
            svg::text(&mut out, (x.at(*at) - 6.0, TOP + 12.0), "small", Anchor::End, name);
        }
        if let Some((at, name)) = &self.level {
            svg::line(&mut out, "level", (LEFT, y.at(*at)), (WIDTH - RIGHT, y.at(*at)));
            svg::text(&mut out, (LEFT + 6.0, y.at(*at) - 5.0), "small", Anchor::Start, name);
        }
        let place = |m: &Mark| (x.at(m.x), y.at(m.y));
        if self.front.len() > 1 {
            let front: Vec<_> = self.front.iter().map(|&(a, b)| (x.at(a), y.at(b))).collect();
            below(&front, TOP).iter().for_each(|part| svg::path(&mut out, "front", part));
        }
        for series in &self.series {
            let class = format!("line s{} k{}", series.group % COLOURS, series.kind % super::SHAPES);
            let points: Vec<_> = series.marks.iter().map(place).collect();
            below(&points, TOP).iter().for_each(|part| svg::path(&mut out, &class, part));
        }
        for series in &self.series {
            let class = format!("c{}", series.group % COLOURS);
            for m in &series.marks {
                let (x, y) = place(m);
                svg::mark(&mut out, &class, series.kind, (x, y.max(TOP)), &m.title);
                if y < TOP {
                    svg::text(&mut out, (x + 8.0, TOP + 12.0), "small", Anchor::Start, &format!("↑ {:.2}", m.y));
                }
            }
        }
        self.references.iter().for_each(|m| reference(&mut out, place(m), &m.title));
        let rows = self.legend(&mut out, bottom + 56.0);
        let height = bottom + 48.0 + ROW * rows as f64 + 6.0;
        document((WIDTH, height), &self.title, &self.description, style, &out)
    }

    fn grid(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, TOP + HEIGHT);
        for (value, label) in x.ticks(7) {
            svg::line(out, "grid", (x.at(value), TOP), (x.at(value), bottom));
            svg::text(out, (x.at(value), bottom + 16.0), "small", Anchor::Middle, &label);
        }
        for (value, label) in y.ticks(6) {
            svg::line(out, "grid", (LEFT, y.at(value)), (right, y.at(value)));
            svg::text(out, (LEFT - 8.0, y.at(value) + 4.0), "small", Anchor::End, &label);
        }
        svg::path(out, "axis", &[(LEFT, TOP), (LEFT, bottom), (right, bottom)]);
        svg::text(out, ((LEFT + right) / 2.0, bottom + 34.0), "", Anchor::Middle, &x.label(&self.x.0));
        svg::text(out, (8.0, TOP - 10.0), "", Anchor::Start, &y.label(&self.y.0));
    }

    /// Colours, shapes and lines by name, from `top` down; how many rows it took.
    fn legend(&self, out: &mut String, top: f64) -> usize {
        let mut place = Flow { x: LEFT, row: 0, top };
        if self.groups.len() > 1 {
            for (i, name) in self.groups.iter().enumerate() {
                let (x, y) = place.next(name);
                svg::rect(out, &format!("c{}", i % COLOURS), (x, y - 9.0), (14.0, 9.0), "");
                svg::text(out, (x + 20.0, y), "small", Anchor::Start, name);
            }
            place.end_row();
        }
        for (i, name) in self.kinds.iter().enumerate() {
            let (x, y) = place.next(name);
            // One colour, then: the shapes in it. Several: the shapes in none.
            let (mark, line) = if self.groups.len() > 1 { ("plain", "line axis") } else { ("c0", "line s0") };
            let class = format!("{line} k{}", i % super::SHAPES);
            svg::line(out, &class, (x - 4.0, y - 4.0), (x + 16.0, y - 4.0));
            svg::mark(out, mark, i, (x + 6.0, y - 4.0), "");
            svg::text(out, (x + 20.0, y), "small", Anchor::Start, name);
        }
        if self.front.len() > 1 {
            let (x, y) = place.next("Pareto front");
            svg::line(out, "front", (x, y - 4.0), (x + 12.0, y - 4.0));
            svg::text(out, (x + 20.0, y), "small", Anchor::Start, "Pareto front");
        }
        place.end_row();
        place.row
    }
}

/// The highest value worth its place: one far above most others would press them into a line, and is drawn at the edge.
fn cap(mut values: Vec<f64>) -> f64 {
    values.retain(|y| y.is_finite());
    values.sort_by(f64::total_cmp);
    let (Some(&low), Some(&high)) = (values.first(), values.last()) else { return f64::INFINITY };
    let most = values[(values.len() - 1) * 4 / 5];
    if most > low && high - low > 5.0 * (most - low) { low + 2.0 * (most - low) } else { f64::INFINITY }
}

/// The parts of a line that are not above the picture's edge `top`, cut where they cross it.
pub(super) fn below(points: &[(f64, f64)], top: f64) -> Vec<Vec<(f64, f64)>> {
    let mut parts = vec![Vec::new()];
    let last = |parts: &mut Vec<Vec<_>>, p| parts.last_mut().expect("there is always one").push(p);
    for (i, &(x, y)) in points.iter().enumerate() {
        if let Some(&(x0, y0)) = i.checked_sub(1).map(|before| &points[before])
            && (y0 < top) != (y < top)
        {
            let cut = x0 + (x - x0) * (top - y0) / (y - y0);
            if y0 < top {
                parts.push(Vec::new());
            }
            last(&mut parts, (cut, top));
        }
        if y >= top {
            last(&mut parts, (x, y));
        }
    }
    parts.retain(|part| part.len() > 1);
    parts
}

/// A point of others: a cross and its name, to the left of it near the right edge.
fn reference(out: &mut String, (x, y): (f64, f64), name: &str) {
    svg::path(out, "cross", &[(x - 4.0, y - 4.0), (x + 4.0, y + 4.0)]);
    svg::path(out, "cross", &[(x - 4.0, y + 4.0), (x + 4.0, y - 4.0)]);
    let (at, anchor) =
        if x + 8.0 + svg::width(name) > WIDTH - RIGHT { (x - 8.0, Anchor::End) } else { (x + 8.0, Anchor::Start) };
    svg::text(out, (at, y + 4.0), "small", anchor, name);
}

/// Entries of a legend, one after the other and then on the next row.
struct Flow {
    x: f64,
    row: usize,
    top: f64,
}

impl Flow {
    /// The base line of the next entry.
    fn next(&mut self, name: &str) -> (f64, f64) {
        let wide = 38.0 + svg::width(name);
        if self.x > LEFT && self.x + wide > WIDTH - RIGHT {
            self.end_row();
        }
        let x = self.x;
        self.x += wide;
        (x, self.top + ROW * self.row as f64)
    }

    fn end_row(&mut self) {
        if self.x > LEFT {
            self.x = LEFT;
            self.row += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Scatter {
        let mark = |x: f64, y: f64| Mark { x, y, title: format!("{x} bytes & <{y}>") };
        let series = |group, kind| {
            let at = |i: i32| mark(1e6 + 1e5 * f64::from(i), 2.0 - 0.1 * f64::from(i) + 0.01 * group as f64);
            Series { group, kind, marks: (0..4).map(at).collect() }
        };
        Scatter {
            title: "Bytes & bits".into(),
            description: "A test \"picture\"".into(),
            x: ("artifact".into(), Unit::Bytes),
            y: ("bits per byte".into(), Unit::Number),
            groups: (0..3).map(|i| format!("weight decay {i}")).collect(),
            kinds: vec!["reference".into(), "rd".into()],
            series: (0..6).map(|i| series(i % 3, i / 3)).collect(),
            front: vec![(1e6, 2.0), (1.3e6, 1.7)],
            budget: Some((1.2e6, "1.2 MB".into())),
            level: Some((1.6, "full precision".into())),
            references: vec![mark(1.31e6, 1.9)],
        }
    }

    #[test]
    fn is_xml_with_all_its_points_and_nothing_from_elsewhere() {
        let text = picture().svg(true);
        let document = roxmltree::Document::parse(&text).expect("well-formed");
        let marks = |n: &roxmltree::Node<'_, '_>| {
            n.has_tag_name("path") && n.first_element_child().is_some_and(|c| c.has_tag_name("title"))
        };
        assert_eq!(document.descendants().filter(marks).count(), 24);
        let title = document.root_element().first_element_child().unwrap();
        assert_eq!((title.tag_name().name(), title.text()), ("title", Some("Bytes & bits")));
        for foreign in ["href", "url(", "@import", "<script", "NaN", "inf"] {
            assert!(!text.contains(foreign), "{foreign} in {text}");
        }
        assert_eq!(text.matches("http").count(), 1, "only the name space");
    }

    #[test]
    fn points_are_within_the_frame() {
        let text = picture().svg(false);
        assert!(!text.contains("<style"));
        let document = roxmltree::Document::parse(&text).unwrap();
        for node in document.descendants().filter(|n| n.has_tag_name("text")) {
            let number = |name| node.attribute(name).unwrap().parse::<f64>().unwrap();
            assert!((0.0..=WIDTH).contains(&number("x")) && (0.0..=620.0).contains(&number("y")), "{node:?}");
        }
    }

    #[test]
    fn a_point_far_above_the_others_is_drawn_at_the_edge() {
        let mut far = picture();
        far.series[0].marks[0].y = 9.0;
        let text = far.svg(false);
        assert!(text.contains("↑ 9.00") && !text.contains(">8</text>"), "the axis is for the others");
        assert_eq!(cap(vec![1.0, 1.1, 1.2, 1.3, 1.4]), f64::INFINITY);
        assert_eq!(cap(vec![2.0, 1.0, 9.0, 1.5, 1.25, 1.75]), 3.0);
        assert_eq!(cap(vec![]), f64::INFINITY);
        let line = [(0.0, 0.0), (2.0, 20.0), (3.0, 30.0), (4.0, 10.0), (5.0, 0.0)];
        let parts = below(&line, 10.0);
        assert_eq!(parts, [vec![(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (4.0, 10.0), (4.0, 10.0)]]);
        assert_eq!(below(&[(0.0, 20.0), (1.0, 0.0), (2.0, 20.0)], 10.0).len(), 2);
    }

    #[test]
    fn nothing_to_show_is_a_picture_too() {
        let empty =
            Scatter { series: vec![], front: vec![], budget: None, level: None, references: vec![], ..picture() };
        let text = empty.svg(true);
        assert!(roxmltree::Document::parse(&text).is_ok() && !text.contains("NaN"));
    }
}
