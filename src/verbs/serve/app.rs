//! What every request needs: the model, the limits, the counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sixpack_formats::tokenizer::Tokenizer;
use sixpack_runtime::shared::{Change, Shared};
use sixpack_runtime::{Device, Engine, Error};
use tokio::sync::watch;
use tokio::time::Instant;

use super::admission::Admission;
use super::error::ApiError;
use super::metrics::Metrics;
use crate::args::Limits;

/// One server.
#[derive(Debug)]
pub(super) struct App {
    /// What is said of the model.
    pub(super) model: ModelInfo,
    /// The model, from which each run forks its own.
    engine: Shared,
    /// Its tokenizer.
    pub(super) tokenizer: Tokenizer,
    /// What is not gone beyond.
    pub(super) limits: Limits,
    /// Who runs.
    pub(super) admission: Admission,
    /// What is counted.
    pub(super) metrics: Metrics,
    draining: AtomicBool,
    ending: watch::Sender<bool>,
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
    pub(super) layers: usize,
    /// Numbers a layer hands to the next, for each token.
    pub(super) width: usize,
}

impl App {
    /// A server that has not done anything, computing for `threads` requests at any moment.
    pub(super) fn new(model: ModelInfo, engine: Engine, tokenizer: Tokenizer, limits: Limits, threads: usize) -> Self {
        let metrics = Metrics::new(&model, &engine.device().to_string());
        let admission = Admission::new(&limits, threads, &metrics);
        let (draining, ending) = (AtomicBool::new(false), watch::Sender::new(false));
        Self { model, engine: Shared::new(engine), tokenizer, limits, admission, metrics, draining, ending }
    }

    /// An engine for one run. On the CPU it computes on the thread that runs it.
    pub(super) fn fork(&self) -> sixpack_runtime::Result<Engine> {
        self.engine.fork(1)
    }

    /// What it runs on now.
    pub(super) fn device(&self) -> Device {
        self.engine.device()
    }

    /// Takes a run's engine back, with the error it ended with.
    pub(super) fn give_back(&self, run: Engine, error: Option<&Error>) {
        match self.engine.give_back(run, error) {
            Change::None => {}
            Change::Moved(device) => self.metrics.runs_on(&device.to_string()),
            Change::Failed => {
                self.metrics.failed.set(1);
                let reason = self.failed().unwrap_or_default();
                eprintln!("sixpack: {reason}; requests are refused until the server is started again");
            }
        }
    }

    /// Why a request cannot be taken, if it cannot.
    pub(super) fn takes_requests(&self) -> Result<(), ApiError> {
        match self.failed() {
            _ if self.is_draining() => Err(ApiError::draining()),
            Some(reason) => Err(ApiError::machine(reason)),
            None => Ok(()),
        }
    }

    /// Why nothing can be run any more, if nothing can.
    pub(super) fn failed(&self) -> Option<&str> {
        self.engine.failed()
    }

    /// The model, as `/v1/models` tells it.
    pub(super) fn described(&self) -> Described<'_> {
        Described { model: &self.model, device: self.device().to_string() }
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
        self.ending.send_replace(true);
    }

    /// Whether runs end at once.
    pub(super) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Until runs end at once.
    pub(super) async fn ended(&self) {
        // The sender is part of this server, so it is not gone.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }
}

/// A model and where it is.
#[derive(Debug, Serialize)]
pub(super) struct Described<'a> {
    #[serde(flatten)]
    model: &'a ModelInfo,
    /// What it runs on now.
    device: String,
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests;
