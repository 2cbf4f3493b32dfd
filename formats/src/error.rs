//! The one error type of this crate: a variant per way a file or a configuration can be wrong.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with the files and configurations of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the model configuration has a value the model cannot have.
    #[error("config field `{field}`: expected {expected}, found {found}")]
    Config {
        /// The field as it is written in `config.json`.
        field: &'static str,
        /// What the field must satisfy.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A JSON document could not be read (syntax, an unknown key, a wrong type).
    #[error("{what}: {source}")]
    Json {
        /// Which document.
        what: String,
        /// The parser's message, with line and column.
        source: serde_json::Error,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: "read", "write", "rename".
        action: &'static str,
        /// The system's message.
        source: std::io::Error,
    },
    /// An error inside a file, with the file's name.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<Error>,
    },
    /// The tensors of a file are not those of the configuration.
    #[error("tensor `{name}`: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's canonical name.
        name: String,
        /// Shape, dtype or presence expected.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// Text that cannot be read as documents.
    #[error("{}{}: expected {expected}, found {found}", path.display(), line.map(|n| format!(", line {n}")).unwrap_or_default())]
    Corpus {
        /// The file or folder.
        path: PathBuf,
        /// The line, counted from 1, where the file has lines.
        line: Option<u64>,
        /// What a document must be.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A tokenizer that cannot be used, or not be trained.
    #[error("tokenizer, {field}: expected {expected}, found {found}")]
    Tokenizer {
        /// The field or the piece of the model, or the option of the training.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Bytes that do not follow the layout of their format.
    #[error("{what} at byte {offset}: expected {expected}, found {found}")]
    Layout {
        /// The format and the part of it: "token shard header", "artifact section table".
        what: &'static str,
        /// Where in the input.
        offset: u64,
        /// What the layout demands there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A dataset's manifest, or what it says of the files beside it, is not right.
    #[error("manifest `{field}`: expected {expected}, found {found}")]
    Manifest {
        /// The key, or what it speaks of.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Data that must only be measured on was to be trained or calibrated on.
    #[error("{}: refused as training data: {reason}", path.display())]
    Leak {
        /// The file or folder.
        path: PathBuf,
        /// How it is known to be for validation.
        reason: String,
    },
    /// A coded stream does not decode to what the file says it holds.
    #[error("stream `{stream}`: expected {expected}, found {found}")]
    Stream {
        /// Which stream.
        stream: String,
        /// Length and codec.
        expected: String,
        /// What decoding met.
        found: String,
    },
}

impl Error {
    /// Wraps an I/O error with the file and the verb.
    pub fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }

    /// Names the file an error was found in.
    pub fn in_file(path: impl Into<PathBuf>) -> impl FnOnce(Self) -> Self {
        let path = path.into();
        move |source| Self::File { path, source: Box::new(source) }
    }
}
