//! A folder to run the program in. Shared by the program's tests with `mod`.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "included as a module of test crates")]
#![allow(missing_docs, reason = "test support")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

const RECIPE: &str = r#"
name = "test"
seed = 7
[model]
preset = "small"
vocab_size = 512
num_layers = 2
xsa_last_n = 2
ve_layers = [1]
recur_layers = [1]
train_seq_len = 64
eval_seq_len = 64
[batch]
tokens_per_step = 512
micro_batch = 4
[budget]
steps = 12
[schedule]
recurrence = { step = 6 }
[run]
log_steps = 1
"#;

pub struct Work {
    pub dir: tempfile::TempDir,
}

impl Work {
    pub fn new() -> Self {
        let work = Self { dir: tempfile::tempdir().expect("folder") };
        std::fs::write(work.at("recipe.toml"), RECIPE).expect("recipe");
        work
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the program in the folder; words are split at spaces.
    pub fn run(&self, line: &str) -> Output {
        self.args(&line.split(' ').collect::<Vec<_>>())
    }

    pub fn args(&self, args: &[&str]) -> Output {
        let mut command = Command::cargo_bin("sixpack").expect("the program");
        let output = command.current_dir(self.dir.path()).args(args).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Tokenizer and shards.
    pub fn with_shards() -> Self {
        let work = Self::new();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("formats/src");
        let sources = sources.to_str().expect("UTF-8");
        work.run(&format!("tokenizer train {sources} --vocab-size 512 --out tokenizer.model")).ok();
        work.run(&format!("tokenize {sources} --tokenizer tokenizer.model --val-every 10 --out shards")).ok();
        work
    }

    /// Tokenizer, shards and a trained checkpoint.
    pub fn trained() -> Self {
        let work = Self::with_shards();
        // Sizes are measured where a test asks for them: that takes longer than these few steps.
        work.run("train --recipe recipe.toml --data shards --out checkpoint --threads 2 --measure-size-every 0").ok();
        work
    }
}

#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    pub fn fails(self, code: i32, message: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(message), "expected `{message}`: {self:?}");
        self
    }

    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok().stdout).expect("one JSON object")
    }
}

#[track_caller]
pub fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} in {value}"))
}
