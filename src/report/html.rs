//! The few elements the page is made of. It is written as XML that is HTML too, so that a test can parse it.

use crate::plot::escape;

/// The look of the page.
const STYLE: &str = include_str!("style.css");

/// A document with a title and its sections.
pub(crate) fn document(title: &str, content: &str) -> String {
    let title = escape(title);
    let plots = crate::plot::STYLE;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title}</title>\n<style>\n{plots}{STYLE}</style>\n\
         </head>\n<body>\n<main>\n{content}</main>\n</body>\n</html>\n"
    )
}

/// A part of the page under a heading.
pub(crate) fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n{content}</section>\n", escape(title))
}

/// A paragraph.
pub(crate) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// A picture, which may be wider than the screen.
pub(crate) fn figure(svg: &str) -> String {
    format!("<div class=\"wide\" tabindex=\"0\"><figure>\n{svg}</figure></div>\n")
}

/// A table; the first cell of each row is its header, numbers are set to the right.
pub(crate) fn table(caption: &str, header: &[&str], rows: &[Vec<String>]) -> String {
    let numeric = |c: usize| {
        let number = |s: &String| s.chars().next().is_none_or(|x| x.is_ascii_digit() || "+-−–÷".contains(x));
        c > 0 && rows.iter().all(|r| number(&r[c]))
    };
    let class = |c: usize| if numeric(c) { " class=\"n\"" } else { "" };
    let mut out =
        format!("<div class=\"wide\" tabindex=\"0\"><table>\n<caption>{}</caption>\n<thead><tr>", escape(caption));
    for (c, name) in header.iter().enumerate() {
        out.push_str(&format!("<th scope=\"col\"{}>{}</th>", class(c), escape(name)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (c, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            out.push_str(&match c {
                0 => format!("<th scope=\"row\">{cell}</th>"),
                _ => format!("<td{}>{cell}</td>", class(c)),
            });
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// A part that is folded until it is asked for.
pub(crate) fn details(summary: &str, content: &str) -> String {
    format!("<details><summary>{}</summary>\n{content}</details>\n", escape(summary))
}

/// Figures with their names.
pub(crate) fn figures(pairs: &[(&str, String)]) -> String {
    let pair =
        |(name, value): &(&str, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
    format!("<dl class=\"figures\">\n{}</dl>\n", pairs.iter().map(pair).collect::<String>())
}

/// Names with their values, one below the other.
pub(crate) fn list(pairs: &[(String, String)]) -> String {
    let pair = |(name, value): &(String, String)| format!("<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value));
    format!("<dl class=\"list\">\n{}</dl>\n", pairs.iter().map(pair).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_well_formed_whatever_the_text() {
        let odd = "<b> & \"it\u{1}'s\"";
        let rows = vec![vec![odd.to_owned(), "1,000".into(), "a".into()], vec!["x".into(), "+2".into(), "b".into()]];
        let content = [
            section(odd, &paragraph(odd)),
            table(odd, &[odd, "n", "t"], &rows),
            details(odd, &list(&[(odd.into(), odd.into())])),
            figures(&[(odd, odd.into())]),
        ];
        let text = document(odd, &content.concat());
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        let page = roxmltree::Document::parse_with_options(&text, options).expect("well-formed");
        let cells: Vec<_> =
            page.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/1999/xhtml", "td"))).collect();
        assert_eq!(cells.len(), 4);
        assert_eq!((cells[0].attribute("class"), cells[1].attribute("class")), (Some("n"), None));
        assert!(page.descendants().any(|n| n.text() == Some("<b> & \"it's\"")));
    }
}
