//! Documents of text from files and folders: what is tokenised, trained on and scored.
//!
//! A `.jsonl` file (also `.jsonl.zst`) holds one document a line under the key `text`; any other file is one document.
//! A folder gives the documents of its text files, walked in the order of their names.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Result, codec};

/// Endings of the files a folder gives; a file named directly may have any.
pub const EXTENSIONS: [&str; 6] = [".txt", ".md", ".rs", ".jsonl", ".jsonl.zst", ".html"];

/// A longer line of JSON is refused, so that a file without line ends cannot take all memory.
const MAX_LINE: u64 = 1 << 30;

/// The documents of a file or a folder, in a fixed order, read one at a time.
pub struct Documents {
    files: std::vec::IntoIter<PathBuf>,
    lines: Option<JsonLines>,
}

impl Documents {
    /// Lists what is there to read.
    ///
    /// # Errors
    /// Where the path cannot be read, or is a folder without text files.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = path.metadata().map_err(Error::io(path, "read"))?;
        let mut files = Vec::new();
        if meta.is_dir() {
            walk(path, &mut files)?;
            if files.is_empty() {
                return Err(Error::Corpus {
                    path: path.into(),
                    line: None,
                    expected: format!("files ending in {}", EXTENSIONS.join(", ")),
                    found: "none".into(),
                });
            }
        } else {
            files.push(path.to_path_buf());
        }
        Ok(Self { files: files.into_iter(), lines: None })
    }

    /// Whether `path` is read as text by [`Documents::open`] (and not as token shards).
    pub fn is_text(path: &Path) -> bool {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        EXTENSIONS.iter().any(|e| name.ends_with(e))
    }
}

impl Iterator for Documents {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lines) = &mut self.lines {
                match lines.next() {
                    Some(document) => return Some(document),
                    None => self.lines = None,
                }
            }
            let path = self.files.next()?;
            let name = path.to_string_lossy();
            if name.ends_with(".jsonl") || name.ends_with(".jsonl.zst") {
                match JsonLines::open(&path) {
                    Ok(lines) => self.lines = Some(lines),
                    Err(e) => return Some(Err(e)),
                }
            } else {
                return Some(read_text(&path));
            }
        }
    }
}

/// The documents of one JSONL file.
struct JsonLines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: u64,
}

impl JsonLines {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let reader: Box<dyn BufRead> = if path.to_string_lossy().ends_with(".zst") {
            let decoder = codec::zstd::reader(file).map_err(Error::io(path, "decompress"))?;
            Box::new(BufReader::new(decoder))
        } else {
            Box::new(BufReader::new(file))
        };
        Ok(Self::over(path, reader))
    }

    fn over(path: &Path, reader: Box<dyn BufRead>) -> Self {
        Self { path: path.into(), reader, line: 0 }
    }

    fn wrong(&self, expected: &str, found: String) -> Error {
        Error::Corpus { path: self.path.clone(), line: Some(self.line), expected: expected.into(), found }
    }

    fn document(&self, line: &str) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Line {
            text: String,
        }
        let parsed: Line = serde_json::from_str(line)
            .map_err(|e| self.wrong("a JSON object with a string under `text`", e.to_string()))?;
        Ok(parsed.text)
    }
}

impl Iterator for JsonLines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut line = String::new();
            self.line += 1;
            match self.reader.by_ref().take(MAX_LINE).read_line(&mut line) {
                Ok(0) => return None,
                Ok(n) if n as u64 == MAX_LINE => {
                    return Some(Err(self.wrong("a line below 1 GiB", format!("{n} bytes without a line end"))));
                }
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) => return Some(self.document(&line)),
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    return Some(Err(self.wrong("UTF-8", e.to_string())));
                }
                Err(e) => return Some(Err(Error::io(&self.path, "read")(e))),
            }
        }
    }
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    String::from_utf8(bytes).map_err(|e| Error::Corpus {
        path: path.into(),
        line: None,
        expected: "UTF-8 text".into(),
        found: format!("an invalid byte at {}", e.utf8_error().valid_up_to()),
    })
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let mut paths =
        entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder, "read"))?;
    paths.sort();
    for path in paths {
        // Links are not followed: a loop of them would never end.
        let kind = path.symlink_metadata().map_err(Error::io(&path, "read"))?.file_type();
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file() && Documents::is_text(&path) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<Vec<String>> {
        Documents::open(path)?.collect()
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("b")).unwrap();
        std::fs::write(at("c.txt"), "last").unwrap();
        std::fs::write(at("b/x.md"), "middle").unwrap();
        std::fs::write(at("a.jsonl"), "{\"text\": \"one\"}\n\n{\"text\": \"two\", \"url\": 1}\n").unwrap();
        std::fs::write(at("ignored.png"), [0xff]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), ["one", "two", "middle", "last"]);
        let packed = zstd::encode_all("{\"text\": \"zipped\"}".as_bytes(), 3).unwrap();
        std::fs::write(at("z.jsonl.zst"), packed).unwrap();
        assert_eq!(read(&at("z.jsonl.zst")).unwrap(), ["zipped"]);
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a.jsonl"), "{\"text\": \"one\"}\n{\"txt\": 1}\n").unwrap();
        let message = read(&at("a.jsonl")).unwrap_err().to_string();
        assert!(message.contains("a.jsonl, line 2") && message.contains("`text`"), "{message}");
        std::fs::write(at("b.txt"), b"good\xffbad").unwrap();
        let message = read(&at("b.txt")).unwrap_err().to_string();
        assert!(message.contains("b.txt") && message.contains("invalid byte at 4"), "{message}");
        std::fs::create_dir(at("empty")).unwrap();
        assert!(read(&at("empty")).unwrap_err().to_string().contains("files ending in"));
        assert!(read(&at("none")).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn mutated_lines_are_documents_or_errors_with_their_line() {
        use proptest::prelude::*;
        let whole =
            b"{\"text\": \"one \\u00e9\"}\n{\"url\": [1, {}], \"text\": \"two\"}\n\n{\"text\": \"\"}\n".to_vec();
        let config = ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(changes in proptest::collection::vec((0..whole.len(), any::<u8>()), 0..4), len in 0..=whole.len())| {
            let mut bytes = whole.clone();
            changes.iter().for_each(|&(at, byte)| bytes[at] = byte);
            bytes.truncate(len);
            let lines = bytes.split(|b| *b == b'\n').count();
            let documents = JsonLines::over(Path::new("x.jsonl"), Box::new(std::io::Cursor::new(bytes)));
            let mut read = 0;
            for document in documents.take(lines + 1) {
                read += 1;
                if let Err(error) = document {
                    prop_assert!(error.to_string().starts_with("x.jsonl, line "), "{}", error);
                }
            }
            prop_assert!(read <= lines, "it ends");
        });
    }
}
