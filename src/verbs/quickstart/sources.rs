//! The default corpus: the sources of the crates in this workspace's `Cargo.lock`, as Cargo unpacked them here.
//!
//! It is real text that every machine that built this program has: no network, the same documents in the same order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Corpus;

/// The lock file this program was built from.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Larger files are tables or generated code.
const MAX_FILE: u64 = 150_000;

/// No single crate may fill the training text: the largest are lists of constants.
const MAX_TRAIN_CRATE: usize = 700_000;

/// Nor the validation text, which is small.
const MAX_VAL_CRATE: usize = 40_000;

/// One crate in this many is held out for validation.
const VAL_EVERY: u8 = 10;

/// Reads the sources of the locked crates, split by crate, from Cargo's registry folder, at most `max_train` bytes of training and
/// `max_val` of validation text.
pub(super) fn of_locked_crates(max_train: usize, max_val: usize) -> Result<Corpus> {
    let registry = cargo_home()?.join("registry/src");
    let indices = std::fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))?;
    let mut indices = indices.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
    indices.sort();
    let mut sources = Corpus { train: Vec::new(), val: Vec::new(), summary: String::new() };
    let (mut found, mut train_bytes, mut val_bytes) = (0, 0, 0);
    for (name, version) in in_corpus_order() {
        let folder = format!("{name}-{version}");
        let Some(root) = indices.iter().map(|i| i.join(&folder)).find(|p| p.is_dir()) else { continue };
        found += 1;
        let (list, bytes, max, max_crate) = if is_validation(&name) {
            (&mut sources.val, &mut val_bytes, max_val, MAX_VAL_CRATE)
        } else {
            (&mut sources.train, &mut train_bytes, max_train, MAX_TRAIN_CRATE)
        };
        let mut of_crate = 0;
        for document in documents(&root)? {
            if *bytes + document.len() > max || of_crate + document.len() > max_crate {
                continue;
            }
            *bytes += document.len();
            of_crate += document.len();
            list.push(document);
        }
    }
    if sources.train.is_empty() || sources.val.is_empty() {
        bail!(
            "{}: expected the sources of the crates in Cargo.lock, found {found} of them; \
             give a text of your own with --corpus PATH",
            registry.display()
        );
    }
    sources.summary = format!(
        "sources of {found} crates: {} training files ({train_bytes} bytes), {} validation files ({val_bytes} bytes)",
        sources.train.len(),
        sources.val.len()
    );
    Ok(sources)
}

/// Name and version of each locked crate from a registry, the highest version of each, shuffled by the hash of the
/// name: a cap then cuts a fair sample, not the end of the alphabet.
fn in_corpus_order() -> Vec<(String, String)> {
    let mut newest: BTreeMap<String, (Vec<u64>, String)> = BTreeMap::new();
    for package in LOCK.split("[[package]]") {
        let field = |key: &str| {
            let line = package.lines().find(|l| l.starts_with(key))?;
            Some(line.split('"').nth(1)?.to_owned())
        };
        let (Some(name), Some(version), Some(_)) = (field("name = "), field("version = "), field("source = ")) else {
            continue;
        };
        let order: Vec<u64> = version.split(['.', '-', '+']).map_while(|p| p.parse().ok()).collect();
        let entry = newest.entry(name).or_default();
        if order >= entry.0 {
            *entry = (order, version);
        }
    }
    let mut crates: Vec<_> = newest.into_iter().map(|(name, (_, version))| (name, version)).collect();
    crates.sort_by_key(|(name, _)| *blake3::hash(name.as_bytes()).as_bytes());
    crates
}

fn is_validation(name: &str) -> bool {
    blake3::hash(name.as_bytes()).as_bytes()[31].is_multiple_of(VAL_EVERY)
}

/// The `.rs` and `.md` files of a crate in the order of their paths, without huge and generated ones.
fn documents(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    let mut documents = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let head: String = text.chars().take(1000).collect::<String>().to_lowercase();
        if !head.contains("generated") && !text.trim().is_empty() {
            documents.push(text);
        }
    }
    Ok(documents)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file()
            && path.extension().is_some_and(|e| e == "rs" || e == "md")
            && entry.metadata()?.len() <= MAX_FILE
        {
            files.push(path);
        }
    }
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::home_dir().context("no home folder to find Cargo's registry in; set CARGO_HOME")?;
    Ok(home.join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_gives_crates_on_both_sides_of_the_split() {
        let crates = in_corpus_order();
        assert!(crates.len() > 100, "{} crates", crates.len());
        let val = crates.iter().filter(|(name, _)| is_validation(name)).count();
        assert!(val >= 3 && val * 8 < crates.len(), "{val} of {}", crates.len());
        let mut names: Vec<_> = crates.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), crates.len(), "one version of each");
    }

    #[test]
    fn the_corpus_is_the_same_twice_and_respects_its_caps() {
        let one = of_locked_crates(300_000, 50_000).expect("the dependencies this test was built from");
        let two = of_locked_crates(300_000, 50_000).expect("the dependencies this test was built from");
        assert_eq!(one.train, two.train);
        let size = |list: &[String]| list.iter().map(String::len).sum::<usize>();
        assert!(size(&one.train) <= 300_000 && size(&one.val) <= 50_000);
        assert!(size(&one.train) > 150_000, "{}", one.summary);
    }
}
