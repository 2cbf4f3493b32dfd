//! One model for many texts at once, from several threads, while its machine may fail.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{Device, Engine, Error, Result};

/// An [`Engine`] that each text takes a fork of and gives it back, so that what happened to one is known to the next.
#[derive(Debug)]
pub struct Shared {
    engine: Mutex<Engine>,
    failed: OnceLock<String>,
}

/// What an engine that was given back changed for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It lost the GPU and went on elsewhere: so do the next ones.
    Moved(Device),
    /// It lost the GPU and nothing may take its place: there is no next one.
    Failed,
}

impl Shared {
    /// Nobody has taken anything.
    pub fn new(engine: Engine) -> Self {
        Self { engine: Mutex::new(engine), failed: OnceLock::new() }
    }

    /// An engine for one text, on `threads` threads where it is the CPU.
    ///
    /// # Errors
    /// Those of [`Engine::fork`].
    pub fn fork(&self, threads: usize) -> Result<Engine> {
        self.engine().fork(threads)
    }

    /// Takes a fork back, with the error that its text ended with.
    pub fn give_back(&self, fork: Engine, error: Option<&Error>) -> Change {
        let mut engine = self.engine();
        if fork.device() != engine.device() {
            // Another one was ahead where all are on the CPU already.
            let moved = engine.device() != Device::Cpu;
            if moved {
                *engine = fork;
            }
            return if moved { Change::Moved(engine.device()) } else { Change::None };
        }
        match error.filter(|error| error.is_of_gpu()) {
            Some(error) if self.failed.set(error.to_string()).is_ok() => Change::Failed,
            _ => Change::None,
        }
    }

    /// What the next text would run on.
    pub fn device(&self) -> Device {
        self.engine().device()
    }

    /// Why nothing can be run any more, if nothing can.
    pub fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
