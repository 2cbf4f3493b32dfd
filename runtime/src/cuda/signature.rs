//! What kernels take, read from their sources: so that nothing starts a kernel with arguments of other types.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::memory::Kind;
use super::sources::{SOURCES, Source};

/// What a kernel takes for one of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Memory that it reads.
    In(Kind),
    /// Memory that it writes, and may read.
    Out(Kind),
    /// A count of 32 bits.
    Int,
    /// A factor.
    Float,
}

/// A kernel: an instance of one of a source's templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The file it is in.
    pub source: &'static Source,
    /// Its arguments.
    pub takes: Vec<Takes>,
}

impl std::fmt::Display for Takes {
    /// As C++ writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::In(kind) => write!(f, "const {kind} *"),
            Self::Out(kind) => write!(f, "{kind} *"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
        }
    }
}

/// That of a kernel, as `rms_norm<bf16>`.
pub fn of(kernel: &str) -> Option<&'static Signature> {
    static ALL: OnceLock<HashMap<&'static str, Signature>> = OnceLock::new();
    ALL.get_or_init(|| SOURCES.iter().flat_map(|s| s.kernels.iter().map(move |k| (*k, read(s, k)))).collect())
        .get(kernel)
}

/// Reads a kernel's declaration.
///
/// # Panics
/// If the source has none that reads as those of this project do, which a test says of all.
fn read(source: &'static Source, kernel: &str) -> Signature {
    let (name, given) = match kernel.split_once('<') {
        Some((name, given)) => (name, given.trim_end_matches('>').split(", ").collect()),
        None => (kernel, Vec::new()),
    };
    let text = source.text;
    let declaration = text.match_indices(&format!("{name}(")).find_map(|(at, _)| {
        // Between the kernel's bounds and its name there are only spaces.
        let before = text[..at].trim_end();
        let start = before.rfind("__global__ void __launch_bounds__(")?;
        before[start..].ends_with(')').then_some((start, at + name.len() + 1))
    });
    let (start, at) = declaration.unwrap_or_else(|| panic!("{}.cu has no kernel {name}", source.name));
    let arguments = &text[at..at + text[at..].find(')').expect("a declaration ends")];
    let line = text[..start].trim_end().lines().last().unwrap_or_default();
    let names: Vec<&str> = match line.strip_prefix("template <").and_then(|l| l.strip_suffix('>')) {
        Some(list) => list.split(", ").filter_map(|p| p.split(' ').nth(1)).collect(),
        None => Vec::new(),
    };
    assert_eq!(names.len(), given.len(), "{}.cu: {kernel} has {line}", source.name);
    let kind = |word: &str| {
        let word = names.iter().position(|n| *n == word).map_or(word, |i| given[i]);
        match word {
            "float" => Kind::F32,
            "bf16" => Kind::Bf16,
            "int" => Kind::Int,
            other => panic!("{}.cu: {kernel} takes {other}", source.name),
        }
    };
    let takes = arguments.split(',').map(|argument| {
        let words: Vec<&str> = argument.split_whitespace().collect();
        match words[..] {
            ["const", word, name] if name.starts_with('*') => Takes::In(kind(word)),
            [word, name] if name.starts_with('*') => Takes::Out(kind(word)),
            ["int", _] => Takes::Int,
            ["float", _] => Takes::Float,
            _ => panic!("{}.cu: {kernel} takes {argument}", source.name),
        }
    });
    Signature { source, takes: takes.collect() }
}
