//! The few elements pictures are made of.

use std::fmt::Write;

/// A text for XML and HTML, within elements and quoted attributes. Characters that XML cannot hold are left out.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Where a text starts, is centred or ends at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A text at `(x, y)`, the left end of its base line unless anchored otherwise.
pub(super) fn text(out: &mut String, (x, y): (f64, f64), class: &str, anchor: Anchor, content: &str) {
    let anchor = match anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    put(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\"{class}{anchor}>{}</text>\n", escape(content)));
}

/// A line from one point to another.
pub(super) fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    path(out, class, &[from, to]);
}

/// A line through points.
pub(super) fn path(out: &mut String, class: &str, points: &[(f64, f64)]) {
    let mut data = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        put(&mut data, format_args!("{}{x:.1} {y:.1}", if i == 0 { "M" } else { "L" }));
    }
    put(out, format_args!("<path class=\"{class}\" d=\"{data}\"/>\n"));
}

/// A mark of shape number `shape` at a point, with a title that appears on pointing.
pub(super) fn mark(out: &mut String, class: &str, shape: usize, (x, y): (f64, f64), title: &str) {
    let data = match shape % super::SHAPES {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", x - 4.0),
        1 => format!("M{:.1} {:.1}h7.2v7.2h-7.2z", x - 3.6, y - 3.6),
        2 => format!("M{x:.1} {:.1}l4.8 8.4h-9.6z", y - 5.2),
        _ => format!("M{x:.1} {:.1}l5 5l-5 5l-5-5z", y - 5.0),
    };
    let title = if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
    put(out, format_args!("<path class=\"{class}\" d=\"{data}\">{title}</path>\n"));
}

/// A rectangle with a title.
pub(super) fn rect(out: &mut String, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), title: &str) {
    let title = if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
    put(
        out,
        format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">{title}</rect>\n"
        ),
    );
}

/// About how wide a text is in the small type of pictures.
pub(super) fn width(text: &str) -> f64 {
    6.7 * text.chars().count() as f64
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_a_text() {
        assert_eq!(escape("a<b & \"c\" 'd'>\u{1}\u{0}"), "a&lt;b &amp; &quot;c&quot; &#39;d&#39;&gt;");
        assert_eq!(escape("σ²\n"), "σ²\n");
    }
}
