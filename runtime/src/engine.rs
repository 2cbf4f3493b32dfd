//! A model on a machine: what a program holds, whatever computes.
//!
//! The machines differ in their types, which is how each keeps its own weights and activations; programs do not want
//! to know. A machine is added here with one variant.

use std::sync::Arc;

use sixpack_formats::{Model, ModelConfig};

use crate::cpu::{Fast, Weight};
use crate::generate::{self, Limits};
use crate::metric::{self, Evaluation};
use crate::session::Reading;
use crate::{Error, Result, Sampler, Session, Weights};

/// A model, ready to run.
#[derive(Debug)]
pub struct Engine {
    config: Arc<ModelConfig>,
    machine: Machine,
}

#[derive(Debug)]
enum Machine {
    Cpu { ops: Fast, weights: Arc<Weights<Weight>> },
}

/// Runs one expression on whichever machine it is.
macro_rules! on {
    ($engine:expr, |$ops:ident, $weights:ident| $run:expr) => {
        match &mut $engine.machine {
            Machine::Cpu { ops: $ops, weights: $weights } => $run,
        }
    };
}

impl Engine {
    /// `model` on `threads` threads of the CPU.
    ///
    /// # Errors
    /// No threads, or more than the system gives.
    pub fn cpu(model: &Model, threads: usize) -> Result<Self> {
        let ops = Fast::new(threads)?;
        let weights = Arc::new(ops.load(model));
        Ok(Self { config: Arc::new(model.config.clone()), machine: Machine::Cpu { ops, weights } })
    }

    /// The same model for another text at the same time: weights are shared, what is remembered is not. On the CPU it
    /// runs on `threads` threads of its own.
    ///
    /// # Errors
    /// As [`Engine::cpu`].
    pub fn fork(&self, threads: usize) -> Result<Self> {
        let machine = match &self.machine {
            Machine::Cpu { weights, .. } => Machine::Cpu { ops: Fast::new(threads)?, weights: Arc::clone(weights) },
        };
        Ok(Self { config: Arc::clone(&self.config), machine })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What it runs on, in the words of the command line.
    pub fn device(&self) -> &str {
        match &self.machine {
            Machine::Cpu { .. } => "cpu",
        }
    }

    /// As [`metric::evaluate`].
    ///
    /// # Errors
    /// Those of [`metric::evaluate`].
    pub async fn evaluate(
        &mut self,
        text: &metric::Text<'_>,
        options: &metric::Options,
        progress: &mut dyn FnMut(metric::Progress),
    ) -> Result<Evaluation> {
        on!(self, |ops, weights| metric::evaluate(&self.config, weights, ops, text, options, progress).await)
    }

    /// As [`generate::generate`].
    ///
    /// # Errors
    /// Those of [`generate::generate`].
    pub async fn generate(
        &mut self,
        prompt: &[u32],
        limits: &Limits<'_>,
        sampler: &mut Sampler,
        on_token: &mut dyn FnMut(u32) -> bool,
    ) -> Result<Reading> {
        on!(self, |ops, weights| {
            generate::generate(&self.config, weights, ops, prompt, limits, sampler, on_token).await
        })
    }

    /// Negative log-likelihood in nats of each token of `ids` but the first, read in contexts of `context` tokens of
    /// which each after the first repeats the last half of the one before, so that no token is without context.
    ///
    /// # Errors
    /// A context below 2, a token outside the vocabulary, and those of the machine.
    pub async fn score(&mut self, ids: &[u32], context: usize) -> Result<Vec<f32>> {
        if context < 2 {
            let found = context.to_string();
            return Err(Error::Option { field: "context", expected: "at least 2 tokens".into(), found });
        }
        let mut scores = Vec::with_capacity(ids.len().saturating_sub(1));
        while scores.len() + 1 < ids.len() {
            // The window that reaches from half a context before the next target, or from the start.
            let start = if scores.is_empty() { 0 } else { scores.len() + 1 - context / 2 };
            let window = &ids[start..ids.len().min(start + context)];
            let nll =
                on!(self, |ops, weights| { Session::new(&self.config, weights, ops, context).read(window).await? });
            scores.extend_from_slice(&nll[scores.len() - start..]);
        }
        Ok(scores)
    }
}
