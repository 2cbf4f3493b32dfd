//! Plain tables for people: columns padded to their widest cell, numbers right-aligned.

/// Renders rows under a header; a column whose cells all start with a digit, sign or dash is right-aligned.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let width = |c: usize| {
        let cells = rows.iter().map(|r| r[c].chars().count());
        cells.chain([header[c].chars().count()]).max().unwrap_or(0)
    };
    let numeric = |c: usize| {
        let number = |s: &String| s.chars().next().is_none_or(|x| x.is_ascii_digit() || "+-−–".contains(x));
        rows.iter().all(|r| number(&r[c]))
    };
    let layout: Vec<(usize, bool)> = (0..columns).map(|c| (width(c), numeric(c))).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&layout).map(|(cell, &(width, right))| {
            let pad = " ".repeat(width - cell.chars().count());
            if right { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
        });
        let joined: Vec<String> = padded.collect();
        format!("{}\n", joined.join("  ").trim_end())
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["tok_emb".into(), "1,024".into()], vec!["x".into(), "7".into()]];
        assert_eq!(render(&["name", "n"], &rows), "name         n\ntok_emb  1,024\nx            7\n");
        assert_eq!(thousands(16_000_000), "16,000,000");
        assert_eq!(thousands(999), "999");
    }
}
