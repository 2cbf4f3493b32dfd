//! Every codec there is. A new one is added here.

use super::brotli::Brotli;
use super::constriction::Constriction;
use super::ours::Ours;
use super::zstd::Zstd;
use super::{ByteCodec, Laid, Layout, MatrixCodec};
use crate::{Error, Result};

/// Every codec, byte codecs in every layout.
pub fn all() -> Vec<Box<dyn MatrixCodec>> {
    let mut all: Vec<Box<dyn MatrixCodec>> = Vec::new();
    [5, 9, 11].into_iter().for_each(|quality| in_every_layout(&mut all, || Brotli(quality)));
    [3, 19, 22].into_iter().for_each(|level| in_every_layout(&mut all, || Zstd(level)));
    all.push(Box::new(Constriction::Static));
    all.push(Box::new(Constriction::Adaptive));
    all.push(Box::new(Ours));
    all
}

/// Codecs of which all layouts are tried unless others are asked for: of these the sizes matter.
const STRONGEST: [&str; 2] = ["brotli-11", "zstd-22"];

/// The codecs of these names in these layouts. A name is that of a codec ("brotli-11"), of a family ("brotli") or of both
/// ("brotli-11/pairs"); no names are all codecs. No layouts are every one for a codec whose size is what matters, and the
/// plain one for the others.
///
/// # Errors
/// [`Error::UnknownCodec`] for a name that no codec has.
pub fn find(names: &[String], layouts: &[Layout]) -> Result<Vec<Box<dyn MatrixCodec>>> {
    let is = |codec: &dyn MatrixCodec, name: &str| {
        let (own, full) = (codec.name(), codec.full_name());
        own == name || full == name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    };
    let mut codecs = all();
    if let Some(found) = names.iter().find(|name| !codecs.iter().any(|codec| is(codec.as_ref(), name))) {
        let mut expected: Vec<String> = codecs.iter().map(|codec| codec.name()).collect();
        expected.dedup();
        return Err(Error::UnknownCodec { expected: expected.join(", "), found: found.clone() });
    }
    codecs.retain(|codec| {
        let by_full_name = names.contains(&codec.full_name());
        let named = names.is_empty() || names.iter().any(|name| is(codec.as_ref(), name));
        let laid = codec.layout().is_none_or(|layout| match layouts {
            [] => layout == Layout::Plain || STRONGEST.contains(&&codec.name()[..]),
            some => some.contains(&layout),
        });
        by_full_name || (named && laid)
    });
    Ok(codecs)
}

fn in_every_layout<C: ByteCodec + 'static>(all: &mut Vec<Box<dyn MatrixCodec>>, codec: impl Fn() -> C) {
    for layout in Layout::ALL {
        all.push(Box::new(Laid { codec: codec(), layout }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str], layouts: &[Layout]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        find(&names, layouts).unwrap().iter().map(|c| c.full_name()).collect()
    }

    #[test]
    fn names_are_different() {
        let mut all = names(&[], &Layout::ALL);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        assert_eq!(count, super::all().len());
    }

    #[test]
    fn codecs_families_and_layouts_are_found() {
        assert_eq!(names(&["brotli"], &[Layout::Plain]), ["brotli-5/plain", "brotli-9/plain", "brotli-11/plain"]);
        assert_eq!(names(&["zstd-3"], &[]), ["zstd-3/plain"]);
        assert_eq!(names(&["zstd-22"], &[]).len(), Layout::ALL.len());
        assert_eq!(names(&["zstd-3/pairs"], &[]), ["zstd-3/pairs"]);
        assert_eq!(names(&["constriction-static"], &[Layout::Pairs]), ["constriction-static"]);
        let error = find(&["lzma".to_owned()], &[]).err().unwrap().to_string();
        assert!(error.contains("brotli-11, zstd-3") && error.ends_with("found `lzma`"), "{error}");
        assert!(find(&["brot".to_owned()], &[]).is_err());
    }
}
