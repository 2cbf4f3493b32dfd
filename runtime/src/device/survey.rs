//! All devices of a machine, tried.

use std::future::ready;

use super::decide::{Tried, decide};
#[cfg(not(target_family = "wasm"))]
use super::nvidia;
use super::{Choice, Demands, Device, check, made_up, probe};
use crate::cpu::Fast;
use crate::wgpu::{self, Facts, Wgpu, adapters};
use crate::{Result, Weights, cpu};

use sixpack_formats::ModelConfig;

/// What there is to run on.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Tokens a second that the CPU decodes.
    pub cpu: f64,
    /// Its threads.
    pub threads: usize,
    /// GPUs, in the order of their numbers.
    pub adapters: Vec<Adapter>,
    /// What `auto` takes for a model like the one tried, and why.
    pub choice: Choice,
}

/// A GPU, tried.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// How to ask for it.
    pub device: Device,
    /// What it says of itself.
    pub facts: Facts,
    /// Largest difference of a logit from the CPU's on a small model, or what went wrong.
    pub check: Result<f32, String>,
    /// Tokens a second that it decodes, if it passed the check, or what went wrong.
    pub speed: Option<Result<f64, String>>,
}

/// Tries all devices with a model of `config`'s shape and made-up numbers, the CPU on `threads` threads.
///
/// # Errors
/// Those of the CPU; what goes wrong on a GPU is part of the survey.
pub async fn survey(config: &ModelConfig, threads: usize) -> Result<Survey> {
    let weights = made_up::weights(config);
    let mut fast = Fast::new(threads)?;
    let cpu = probe::speed(config, &weights, &mut fast).await?;
    let mut found = Vec::new();
    for (index, adapter) in adapters().await.iter().enumerate() {
        found.push(attempt(index, adapter, config, &weights).await);
    }
    #[cfg(not(target_family = "wasm"))]
    for (index, facts) in nvidia::gpus().into_iter().enumerate() {
        found.push(attempt_cuda(index, facts, config, &weights).await);
    }
    let tried: Vec<_> = found.iter().map(Adapter::tried).collect();
    let choice = decide(Demands::default().is_small(config), &tried, ready(Ok(cpu))).await?;
    Ok(Survey { cpu, threads, adapters: found, choice })
}

impl Adapter {
    /// What it is to `auto`.
    fn tried(&self) -> Tried {
        let speed = match (&self.check, &self.speed) {
            _ if self.facts.software => return Tried::Software,
            (Err(error), _) | (Ok(_), Some(Err(error))) => Err(error),
            (Ok(_), Some(Ok(speed))) => Ok(*speed),
            (Ok(_), None) => unreachable!("one that passed was timed"),
        };
        Tried::new(self.device, self.facts.name.clone(), speed)
    }
}

async fn attempt(
    index: usize,
    adapter: &wgpu::Adapter,
    config: &ModelConfig,
    weights: &Weights<cpu::Weight>,
) -> Adapter {
    let tried = async {
        let mut gpu = Wgpu::new(adapter).await?;
        let worst = check::check(&mut gpu, check::TOLERANCE, |gpu, config, w| gpu.copy(config, w)).await?;
        Ok::<_, crate::Error>((gpu, worst))
    };
    let (check, speed) = match tried.await {
        Ok((mut gpu, worst)) => {
            let speed = match gpu.copy(config, weights) {
                Ok(weights) => probe::speed(config, &weights, &mut gpu).await,
                Err(error) => Err(error),
            };
            (Ok(worst), Some(speed.map_err(|e| e.to_string())))
        }
        Err(error) => (Err(error.to_string()), None),
    };
    Adapter { device: Device::Wgpu(Some(index)), facts: adapter.facts(), check, speed }
}

/// The same through CUDA.
#[cfg(not(target_family = "wasm"))]
async fn attempt_cuda(
    index: usize,
    facts: crate::cuda::Facts,
    config: &ModelConfig,
    weights: &Weights<cpu::Weight>,
) -> Adapter {
    let (check, speed) = match nvidia::difference(index).await {
        Ok((worst, mut gpu)) => {
            let speed = match gpu.bring_weights(config, weights) {
                Ok(weights) => probe::speed(config, &weights, &mut gpu).await,
                Err(error) => Err(error),
            };
            (Ok(worst), Some(speed.map_err(|e| e.to_string())))
        }
        Err(error) => (Err(error.to_string()), None),
    };
    // What is of WebGPU stays empty.
    let facts = Facts {
        name: facts.name,
        backend: "cuda".into(),
        kind: "discrete".into(),
        driver: facts.driver,
        ..Facts::default()
    };
    Adapter { device: Device::Cuda(Some(index)), facts, check, speed }
}
