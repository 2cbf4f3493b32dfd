//! Pictures: SVG without scripts, fonts or anything from elsewhere, readable in light and dark.

mod axis;
mod bars;
mod intervals;
mod lines;
mod scatter;
mod svg;

pub(crate) use axis::Unit;
pub(crate) use bars::{Bars, Row};
pub(crate) use intervals::{Interval, Intervals};
pub(crate) use lines::{Curve, Lines};
pub(crate) use scatter::{Mark, Scatter, Series};
pub(crate) use svg::escape;

/// Colours of groups; a picture with more of them starts again. Told apart by people with any usual colour vision.
pub(crate) const COLOURS: usize = 8;

/// Shapes of marks; a picture with more kinds starts again.
pub(crate) const SHAPES: usize = 4;

/// The look of all pictures. A page with several of them has it once, a picture of its own within itself.
pub(crate) const STYLE: &str = include_str!("style.css");

/// An SVG element with its title and description for those who do not see it; `style` within it or not.
fn document(size: (f64, f64), title: &str, description: &str, style: bool, content: &str) -> String {
    let (width, height) = size;
    let style = if style { format!("<style>\n{STYLE}</style>\n") } else { String::new() };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n\
         <title>{}</title>\n<desc>{}</desc>\n{style}<rect class=\"bg\" width=\"{width:.0}\" height=\"{height:.0}\"/>\n\
         {content}</svg>\n",
        escape(title),
        escape(description),
    )
}
