//! What every request needs: the model, the limits, the counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::Engine;
use tokio::time::Instant;

use super::admission::Admission;
use super::metrics::Metrics;
use crate::args::Limits;

/// One server.
#[derive(Debug)]
pub(super) struct App {
    /// What is said of the model.
    pub(super) model: ModelInfo,
    /// The model, from which each run forks its own.
    engine: Mutex<Engine>,
    /// Its tokenizer.
    pub(super) tokenizer: Tokenizer,
    /// What is not gone beyond.
    pub(super) limits: Limits,
    /// Who runs.
    pub(super) admission: Admission,
    /// What is counted.
    pub(super) metrics: Metrics,
    draining: AtomicBool,
    ending: AtomicBool,
}

/// A model in `/v1/models`; OpenAI's fields first, then what this server knows more.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ModelInfo {
    #[serde(rename = "id")]
    pub(super) name: String,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) owned_by: &'static str,
    /// Size of its file.
    pub(super) bytes: u64,
    /// As measured when it was packed.
    pub(super) bits_per_byte: Option<f64>,
    /// Tokens it sees at once.
    pub(super) context: usize,
    pub(super) vocab_size: usize,
    /// Number of its weights.
    pub(super) parameters: usize,
}

impl App {
    /// A server that has not done anything, computing for `threads` requests at any moment.
    pub(super) fn new(model: ModelInfo, engine: Engine, tokenizer: Tokenizer, limits: Limits, threads: usize) -> Self {
        let metrics = Metrics::new(&model, &engine.device().to_string());
        let admission = Admission::new(&limits, threads, metrics.waiting.clone(), metrics.running.clone());
        let (draining, ending) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { model, engine: Mutex::new(engine), tokenizer, limits, admission, metrics, draining, ending }
    }

    /// An engine for one run. On the CPU it computes on the thread that runs it.
    pub(super) fn fork(&self) -> sixpack_runtime::Result<Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).fork(1)
    }

    /// Takes a run's engine back: if it has lost the GPU and gone on on the CPU, so do the next ones.
    pub(super) fn give_back(&self, run: Engine) {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if run.device() != engine.device() {
            *engine = run;
        }
    }

    /// When a request that arrived at `arrived` is too late.
    pub(super) fn deadline(&self, arrived: Instant) -> Instant {
        arrived + Duration::from_secs_f64(self.limits.timeout)
    }

    /// From now on new requests are refused.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests are refused.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on requests that run end at their next token.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether runs end at once.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
