//! A text of one's own, split into what is learnt and what is scored.

use std::path::Path;

use anyhow::{Result, bail};
use sixpack_formats::corpus::Documents;

use super::Corpus;

/// One document in this many is held out.
const VAL_EVERY: usize = 20;

/// The share of a single document that is held out, from its end.
const VAL_SHARE: usize = 20;

/// Reads at most about `max_train` and `max_val` bytes. Documents are held out whole; the only document of a text is
/// cut near its end.
pub(super) fn read(path: &Path, max_train: usize, max_val: usize) -> Result<Corpus> {
    let mut documents = Vec::new();
    let mut bytes = 0;
    for document in Documents::open(path)? {
        let document = document?;
        bytes += document.len();
        documents.push(document);
        // Enough for both sides, wherever the documents fall.
        if bytes > VAL_EVERY * (max_train + max_val) {
            break;
        }
    }
    let (train, val) = split(documents);
    let (train, val) = (cap(train, max_train), cap(val, max_val));
    let size = |list: &[String]| list.iter().map(String::len).sum::<usize>();
    if size(&train) == 0 || size(&val) == 0 {
        bail!("{}: expected text to learn from and to score on, found {bytes} bytes", path.display());
    }
    let summary = format!(
        "{}: {} training documents ({} bytes), {} validation documents ({} bytes)",
        path.display(),
        train.len(),
        size(&train),
        val.len(),
        size(&val)
    );
    Ok(Corpus { train, val, summary })
}

fn split(mut documents: Vec<String>) -> (Vec<String>, Vec<String>) {
    if documents.len() < 2 {
        let Some(mut text) = documents.pop() else { return (Vec::new(), Vec::new()) };
        let at = text.floor_char_boundary(text.len() - text.len() / VAL_SHARE);
        let val = text.split_off(at);
        return (vec![text], vec![val]);
    }
    let every = VAL_EVERY.min(documents.len());
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (i, document) in documents.into_iter().enumerate() {
        if i % every == every - 1 { val.push(document) } else { train.push(document) }
    }
    (train, val)
}

/// The first documents up to `max` bytes; the one that goes beyond is cut, and the last.
fn cap(mut documents: Vec<String>, max: usize) -> Vec<String> {
    let mut room = max;
    for i in 0..documents.len() {
        if documents[i].len() >= room {
            let end = documents[i].floor_char_boundary(room);
            documents[i].truncate(end);
            documents.truncate(i + usize::from(end > 0));
            break;
        }
        room -= documents[i].len();
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_held_out_whole_and_a_single_one_is_cut() {
        let many: Vec<String> = (0..45).map(|i| format!("document {i}")).collect();
        let (train, val) = split(many);
        assert_eq!((train.len(), val), (43, vec!["document 19".to_owned(), "document 39".to_owned()]));
        let (train, val) = split(vec!["a".into(), "b".into(), "c".into()]);
        assert_eq!((train.len(), val.len()), (2, 1));
        let (train, val) = split(vec!["é".repeat(100)]);
        assert_eq!(format!("{}{}", train[0], val[0]), "é".repeat(100));
        assert_eq!(val[0].len(), 10);
    }

    #[test]
    fn the_cap_cuts_at_a_character() {
        assert_eq!(cap(vec!["abc".into(), "éé".into(), "x".into()], 6), ["abc", "é"]);
        assert_eq!(cap(vec!["abc".into(), "d".into()], 3), ["abc"]);
    }
}
