//! What a run is given beside its recipe.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sixpack_formats::Model;
use sixpack_formats::estimate::Sizes;
use sixpack_formats::tokenizer::ByteTables;
use sixpack_runtime::cuda::Gpu;

use crate::loader::Source;
use crate::{Alone, Collective};

/// What a run is given beside its recipe. [`Setup::new`] has the least; set the other fields as needed.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Training tokens.
    pub sources: Vec<Source<'a>>,
    /// Threads of the CPU engine. They change the speed, not the result.
    pub threads: usize,
    /// Checkpoint folder; without one nothing is written.
    pub folder: Option<PathBuf>,
    /// The SentencePiece model, for the checkpoint.
    pub tokenizer: Option<Vec<u8>>,
    /// Bytes of tokens, for bits per byte.
    pub byte_tables: Option<ByteTables>,
    /// Validation while training.
    pub validation: Option<Validation<'a>>,
    /// Measures what an artifact of the average weights would take; the estimates of all lines follow it.
    pub sizing: Option<Sizing<'a>>,
    /// Set from outside, on any rank, it ends the run after the steps at work, with a checkpoint.
    pub stop: Option<&'a AtomicBool>,
    /// The ranks of the run.
    pub all: &'a dyn Collective,
    /// The GPU that trains; without one the CPU does.
    pub gpu: Option<&'a Arc<Gpu>>,
}

/// Validation tokens and how often they are run.
#[derive(Clone, Copy, Debug)]
pub struct Validation<'a> {
    /// Tokens, cut into whole sequences.
    pub tokens: &'a [u16],
    /// Steps between validations.
    pub every_steps: u64,
}

/// A way to measure a model's coded size, and how often it is used: at the first line of a run and at its end, and
/// between them
#[derive(Clone, Copy)]
pub struct Sizing<'a> {
    /// every so many steps; `None` for every tenth of the budget.
    pub every_steps: Option<u64>,
    /// Quantises and codes a model; `None` if it cannot.
    pub measure: &'a dyn Fn(&Model) -> Option<Sizes>,
}

impl std::fmt::Debug for Sizing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sizing").field("every_steps", &self.every_steps).finish_non_exhaustive()
    }
}

impl<'a> Setup<'a> {
    /// These tokens on so many threads, and nothing else.
    pub fn new(sources: Vec<Source<'a>>, threads: usize) -> Self {
        Self {
            sources,
            threads,
            folder: None,
            tokenizer: None,
            byte_tables: None,
            validation: None,
            sizing: None,
            stop: None,
            all: &Alone,
            gpu: None,
        }
    }
}
