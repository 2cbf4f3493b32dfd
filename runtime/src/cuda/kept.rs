//! Compiled kernels kept on disk: a GPU's first start is mostly their compilation.

use std::path::PathBuf;

use sixpack_formats::{Digest, atomic};

use super::compile::{Compiled, Compiler};
use super::sources::{HEADERS, Source};
use crate::Result;

/// The kernels of a source, compiled now or by an earlier run. A disk that takes nothing is no failure: next time they
/// are compiled again.
pub(super) fn compiled(compiler: &Compiler, source: &Source, architecture: &str) -> Result<Compiled> {
    let path = path(compiler, source, architecture);
    if let Some(kept) = path.as_ref().and_then(|path| unwrap(&std::fs::read(path).ok()?)) {
        return Ok(kept);
    }
    let compiled = compiler.compile(source, architecture)?;
    if let Some((path, folder)) = path.as_ref().and_then(|path| Some((path, path.parent()?))) {
        let written = std::fs::create_dir_all(folder).map(|()| atomic::write(path, &wrap(&compiled)));
        drop(written);
    }
    Ok(compiled)
}

/// A file of its own for each source, compiler and architecture.
fn path(compiler: &Compiler, source: &Source, architecture: &str) -> Option<PathBuf> {
    let mut texts = vec![compiler.library().version.as_str(), architecture, source.text];
    texts.extend(source.kernels);
    texts.extend(HEADERS.iter().map(|(_, text)| *text));
    let digest = Digest::of(texts.join("\0").as_bytes()).short();
    Some(dirs::cache_dir()?.join("sixpack").join(format!("{}_{architecture}_{digest:016x}", source.name)))
}

/// A digest of the rest, the number of names, the names, the code.
fn wrap(compiled: &Compiled) -> Vec<u8> {
    let mut rest = (compiled.names.len() as u64).to_le_bytes().to_vec();
    for name in &compiled.names {
        rest.extend_from_slice(name.as_bytes());
        rest.push(0);
    }
    rest.extend_from_slice(&compiled.code);
    [Digest::of(&rest).as_bytes(), &rest[..]].concat()
}

fn unwrap(file: &[u8]) -> Option<Compiled> {
    let (digest, rest) = file.split_at_checked(size_of::<Digest>())?;
    let (count, mut rest) = rest.split_first_chunk::<8>().filter(|_| digest == Digest::of(rest).as_bytes())?;
    let mut names = Vec::new();
    for _ in 0..u64::from_le_bytes(*count) {
        let end = rest.iter().position(|&b| b == 0)?;
        names.push(String::from_utf8(rest[..end].to_vec()).ok()?);
        rest = &rest[end + 1..];
    }
    Some(Compiled { code: rest.to_vec(), names, log: String::new(), assembly: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again_and_what_is_damaged_is_not() {
        let names = vec!["_Z5tail".to_owned(), "_Z3add".to_owned()];
        let compiled = Compiled { code: vec![7, 0, 9], names, log: String::new(), assembly: String::new() };
        let file = wrap(&compiled);
        assert_eq!(unwrap(&file), Some(compiled));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert_eq!(unwrap(&damaged), None, "byte {at}");
            assert_eq!(unwrap(&file[..at]), None, "{at} bytes");
        }
    }
}
