//! A model on a machine: what a program holds, whatever computes.
//!
//! The machines differ in their types, which is how each keeps its own weights and activations; programs do not want
//! to know. A machine is added here with one variant.

use std::sync::{Arc, Once};

use sixpack_formats::{Model, ModelConfig};

use crate::cpu::{self, Fast};
#[cfg(not(target_family = "wasm"))]
use crate::cuda::{self, Cuda};
use crate::device::{self, Choice, Demands, Device, Opened};
use crate::generate::{self, Limits, Listener};
use crate::metric::{self, Evaluation};
use crate::once;
use crate::session::Reading;
use crate::wait::turn;
use crate::wgpu::{self, Wgpu};
use crate::{Error, Result, Sampler, Session, Weights};

/// A model, ready to run.
#[derive(Debug)]
pub struct Engine {
    config: Arc<ModelConfig>,
    machine: Machine,
    device: Device,
    choice: Option<Choice>,
    /// What to go on with when a GPU that nobody asked for is lost.
    spare: Option<Spare>,
}

#[derive(Debug)]
enum Machine {
    Cpu {
        ops: Fast,
        weights: Arc<Weights<cpu::Weight>>,
    },
    Wgpu {
        ops: Box<Wgpu>,
        weights: Arc<Weights<wgpu::Weight>>,
    },
    #[cfg(not(target_family = "wasm"))]
    Cuda {
        ops: Box<Cuda>,
        weights: Arc<Weights<cuda::Weight>>,
    },
}

#[derive(Clone, Debug)]
struct Spare {
    threads: usize,
    weights: Arc<Weights<cpu::Weight>>,
    /// That the GPU is lost is told once by all that shared it.
    told: Arc<Once>,
}

impl Spare {
    fn new(threads: usize, weights: Arc<Weights<cpu::Weight>>) -> Self {
        Self { threads, weights, told: Arc::new(Once::new()) }
    }
}

/// Runs one expression on whichever machine it is.
macro_rules! on {
    ($engine:expr, |$ops:ident, $weights:ident| $run:expr) => {
        match &mut $engine.machine {
            Machine::Cpu { ops: $ops, weights: $weights } => $run,
            Machine::Wgpu { ops, weights: $weights } => {
                let $ops = &mut **ops;
                $run
            }
            #[cfg(not(target_family = "wasm"))]
            Machine::Cuda { ops, weights: $weights } => {
                let $ops = &mut **ops;
                $run
            }
        }
    };
}

impl Engine {
    /// `model` on `device`; the CPU has `threads` threads.
    ///
    /// # Errors
    /// No threads, or more than the system gives; a device that was asked for and is not there, computes something
    /// else than the CPU, or has no room for the model.
    pub async fn open(model: &Model, device: Device, threads: usize) -> Result<Self> {
        Self::open_with(model, device, threads, &Demands::default()).await
    }

    /// As [`Engine::open`] with other demands on GPUs.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub async fn open_with(model: &Model, device: Device, threads: usize, demands: &Demands) -> Result<Self> {
        let (opened, choice) = device::open(model, device, threads, demands).await?;
        let (machine, device, spare) = match opened {
            Opened::Cpu(ops, weights) => (Machine::Cpu { ops, weights }, Device::Cpu, None),
            Opened::Wgpu(index, ops, weights, spare) => {
                let spare = spare.map(|weights| Spare::new(threads, weights));
                (Machine::Wgpu { ops, weights }, Device::Wgpu(Some(index)), spare)
            }
            #[cfg(not(target_family = "wasm"))]
            Opened::Cuda(index, ops, weights, spare) => {
                let spare = spare.map(|weights| Spare::new(threads, weights));
                (Machine::Cuda { ops, weights }, Device::Cuda(Some(index)), spare)
            }
        };
        Ok(Self { config: Arc::new(model.config.clone()), machine, device, choice, spare })
    }

    /// `model` on `threads` threads of the CPU.
    ///
    /// # Errors
    /// No threads, or more than the system gives.
    pub fn cpu(model: &Model, threads: usize) -> Result<Self> {
        let ops = Fast::new(threads)?;
        let weights = Arc::new(ops.load(model));
        let machine = Machine::Cpu { ops, weights };
        Ok(Self { config: Arc::new(model.config.clone()), machine, device: Device::Cpu, choice: None, spare: None })
    }

    /// `model` on an open GPU, which is number `index` of its kind. With `spare` it goes on on so many threads of the
    /// CPU when the GPU is lost.
    ///
    /// # Errors
    /// If the model has no room on the GPU.
    pub fn gpu(model: &Model, gpu: Wgpu, index: usize, spare: Option<usize>) -> Result<Self> {
        let weights = Arc::new(gpu.load(model)?);
        let on_cpu = || Arc::new(Weights::load(model, cpu::Weight::load));
        Ok(Self {
            config: Arc::new(model.config.clone()),
            machine: Machine::Wgpu { ops: Box::new(gpu), weights },
            device: Device::Wgpu(Some(index)),
            choice: None,
            spare: spare.map(|threads| Spare::new(threads, on_cpu())),
        })
    }

    /// The same model for another text at the same time: weights are shared, what is remembered is not. On the CPU it
    /// runs on `threads` threads of its own, on a GPU with the same device and pipelines.
    ///
    /// # Errors
    /// As [`Engine::cpu`].
    pub fn fork(&self, threads: usize) -> Result<Self> {
        let machine = match &self.machine {
            Machine::Cpu { weights, .. } => Machine::Cpu { ops: Fast::new(threads)?, weights: Arc::clone(weights) },
            Machine::Wgpu { ops, weights } => Machine::Wgpu { ops: Box::new(ops.fork()), weights: Arc::clone(weights) },
            #[cfg(not(target_family = "wasm"))]
            Machine::Cuda { ops, weights } => Machine::Cuda { ops: Box::new(ops.fork()), weights: Arc::clone(weights) },
        };
        let spare = self.spare.clone().map(|spare| Spare { threads, ..spare });
        Ok(Self { config: Arc::clone(&self.config), machine, device: self.device, choice: self.choice.clone(), spare })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What `auto` chose when it was opened, and why; nothing where a device was asked for.
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// What it runs on now.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether to go on on the CPU after `error`: it was the GPU's, which nobody had asked for.
    fn falls_back(&mut self, error: &Error) -> Result<bool> {
        if !error.is_of_gpu() {
            return Ok(false);
        }
        let Some(Spare { threads, weights, told }) = self.spare.take() else { return Ok(false) };
        told.call_once(|| device::notice(&format!("going on on the CPU: {error}")));
        self.machine = Machine::Cpu { ops: Fast::new(threads)?, weights };
        self.device = Device::Cpu;
        Ok(true)
    }

    /// As [`metric::evaluate`]. If a GPU that was not asked for is lost, the CPU starts anew.
    ///
    /// # Errors
    /// Those of [`metric::evaluate`].
    pub async fn evaluate(
        &mut self,
        text: &metric::Text<'_>,
        options: &metric::Options,
        progress: &mut dyn FnMut(metric::Progress),
    ) -> Result<Evaluation> {
        loop {
            let done =
                on!(self, |ops, weights| metric::evaluate(&self.config, weights, ops, text, options, progress).await);
            match done {
                Err(error) if self.falls_back(&error)? => {}
                done => return done,
            }
        }
    }

    /// As [`generate::generate`]. If a GPU that was not asked for is lost, the CPU goes on where it was.
    ///
    /// # Errors
    /// Those of [`generate::generate`].
    pub async fn generate(
        &mut self,
        prompt: &[u32],
        limits: &Limits<'_>,
        sampler: &mut Sampler,
        listener: &mut dyn Listener,
    ) -> Result<Reading> {
        let mut once = once::Once::new(listener);
        match self.generate_once(prompt, limits, sampler, &mut once).await {
            Err(error) if self.falls_back(&error)? => {}
            done => return done,
        }
        once.again();
        let none = Limits { max_tokens: 0, ..*limits };
        let reading = self.generate_once(prompt, &none, sampler, &mut once).await?;
        if !once.ended() {
            once.read_on();
            let text = [prompt, once.said()].concat();
            let rest = Limits { max_tokens: limits.max_tokens - once.said().len(), ..*limits };
            self.generate_once(&text, &rest, sampler, &mut once).await?;
        }
        Ok(reading)
    }

    async fn generate_once(
        &mut self,
        prompt: &[u32],
        limits: &Limits<'_>,
        sampler: &mut Sampler,
        listener: &mut dyn Listener,
    ) -> Result<Reading> {
        on!(self, |ops, weights| {
            generate::generate(&self.config, weights, ops, prompt, limits, sampler, listener).await
        })
    }

    /// Negative log-likelihood in nats of each token of `ids` but the first, read in contexts of `context` tokens of
    /// which each after the first repeats the last half of the one before, so that no token is without context.
    ///
    /// # Errors
    /// A context below 2, a token outside the vocabulary, and those of the machine.
    pub async fn score(&mut self, ids: &[u32], context: usize) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(ids.len().saturating_sub(1));
        self.score_with(ids, context, &mut |nll| {
            scores.extend_from_slice(nll);
            true
        })
        .await?;
        Ok(scores)
    }

    /// As [`Engine::score`], giving the scores of each context to `on_scores` until that says `false`. Between
    /// contexts others on this thread have their [`turn`].
    ///
    /// # Errors
    /// Those of [`Engine::score`].
    pub async fn score_with(
        &mut self,
        ids: &[u32],
        context: usize,
        on_scores: &mut dyn FnMut(&[f32]) -> bool,
    ) -> Result<()> {
        if context < 2 {
            let found = context.to_string();
            return Err(Error::Option { field: "context", expected: "at least 2 tokens".into(), found });
        }
        let mut scored = 0;
        while scored + 1 < ids.len() {
            // The window that reaches from half a context before the next target, or from the start.
            let start = if scored == 0 { 0 } else { scored + 1 - context / 2 };
            let window = &ids[start..ids.len().min(start + context)];
            let nll = on!(self, |ops, weights| Session::new(&self.config, weights, ops, context).read(window).await);
            let nll = match nll {
                Err(error) if self.falls_back(&error)? => continue,
                nll => nll?,
            };
            let new = &nll[scored - start..];
            scored += new.len();
            if !on_scores(new) {
                break;
            }
            turn().await;
        }
        Ok(())
    }
}
