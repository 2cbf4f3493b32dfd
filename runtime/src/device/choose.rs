//! Opening what was asked for.

use std::sync::Arc;

use sixpack_formats::{Model, ModelConfig};

use super::decide::{Choice, Tried, Why, decide};
use super::{Device, check, probe};
use crate::cpu::{self, Fast};
#[cfg(not(target_family = "wasm"))]
use crate::cuda;
use crate::wgpu::{self, Wgpu, adapters};
use crate::{Error, Result, Weights, count};

/// What is asked of a GPU before a model is given to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demands {
    /// Largest difference of a logit from the CPU's on a small model.
    pub tolerance: f32,
    /// `auto` takes no GPU for a model of fewer multiplications a token: starting its kernels takes longer than the
    /// CPU does.
    pub multiplications: u64,
    /// `auto` takes no program that plays a GPU on the CPU.
    pub hardware: bool,
}

impl Default for Demands {
    fn default() -> Self {
        Self { tolerance: check::TOLERANCE, multiplications: 4_000_000, hardware: true }
    }
}

impl Demands {
    /// Whether no GPU is worth a look.
    pub(super) fn is_small(&self, config: &ModelConfig) -> bool {
        count::matmul_parameters(config, true) < self.multiplications
    }
}

/// A machine with a model in it.
pub(crate) enum Opened {
    /// The CPU.
    Cpu(Fast, Arc<Weights<cpu::Weight>>),
    /// The GPU with this number; where it was not asked for, what to go on with on the CPU when it is lost.
    Wgpu(usize, Box<Wgpu>, Arc<Weights<wgpu::Weight>>, Option<Arc<Weights<cpu::Weight>>>),
    /// The same through CUDA.
    #[cfg(not(target_family = "wasm"))]
    Cuda(usize, Box<cuda::Cuda>, Arc<Weights<cuda::Weight>>, Option<Arc<Weights<cpu::Weight>>>),
}

/// Opens `device` and loads `model`; with what was chosen, where that was left open.
///
/// # Errors
/// No threads, or a device that was asked for and is not there, differs from the CPU, or cannot hold the model.
pub(crate) async fn open(
    model: &Model,
    device: Device,
    threads: usize,
    demands: &Demands,
) -> Result<(Opened, Option<Choice>)> {
    match device {
        Device::Auto => auto(model, threads, demands).await.map(|(opened, choice)| (opened, Some(choice))),
        Device::Cpu => {
            let ops = Fast::new(threads)?;
            let weights = Arc::new(ops.load(model));
            Ok((Opened::Cpu(ops, weights), None))
        }
        Device::Wgpu(wanted) => {
            let adapters = adapters().await;
            let index = pick(&adapters, wanted)?;
            let mut gpu = ready(&adapters[index], demands.tolerance).await?;
            let weights = gpu.load(model)?;
            gpu.settle().await?;
            Ok((Opened::Wgpu(index, Box::new(gpu), Arc::new(weights), None), None))
        }
        #[cfg(not(target_family = "wasm"))]
        Device::Cuda(wanted) => {
            let index = wanted.unwrap_or(0);
            let gpu = super::nvidia::ready(index, demands.tolerance).await.map_err(|e| as_asked(device, e))?;
            let weights = gpu.load(model)?;
            Ok((Opened::Cuda(index, Box::new(gpu), Arc::new(weights), None), None))
        }
        #[cfg(target_family = "wasm")]
        Device::Cuda(_) => Err(no_cuda(device)),
    }
}

/// Whether `device` can be had: it is there, and computes what the CPU does. `auto` always can.
///
/// # Errors
/// Why it cannot.
pub async fn present(device: Device) -> Result<()> {
    match device {
        Device::Auto | Device::Cpu => Ok(()),
        Device::Wgpu(wanted) => {
            let adapters = adapters().await;
            ready(&adapters[pick(&adapters, wanted)?], check::TOLERANCE).await.map(drop)
        }
        #[cfg(not(target_family = "wasm"))]
        Device::Cuda(wanted) => {
            let ready = super::nvidia::ready(wanted.unwrap_or(0), check::TOLERANCE).await;
            ready.map(drop).map_err(|e| as_asked(device, e))
        }
        #[cfg(target_family = "wasm")]
        Device::Cuda(_) => Err(no_cuda(device)),
    }
}

/// Names a device that is not there as it was asked for.
#[cfg(not(target_family = "wasm"))]
fn as_asked(device: Device, error: Error) -> Error {
    match error {
        Error::NoDevice { reason, .. } => Error::NoDevice { wanted: device.to_string(), reason },
        other => other,
    }
}

/// There is none in a browser.
#[cfg(target_family = "wasm")]
fn no_cuda(device: Device) -> Error {
    Error::NoDevice { wanted: device.to_string(), reason: "a browser has no CUDA".into() }
}

/// The number of the GPU that is meant.
fn pick(adapters: &[wgpu::Adapter], wanted: Option<usize>) -> Result<usize> {
    let found = match wanted {
        Some(index) => (index < adapters.len()).then_some(index),
        None => adapters.iter().position(|a| !a.is_software()).or((!adapters.is_empty()).then_some(0)),
    };
    found.ok_or_else(|| Error::NoDevice {
        wanted: Device::Wgpu(wanted).to_string(),
        reason: match adapters.len() {
            0 => "no driver for Vulkan, Metal, DirectX 12 or WebGPU gives an adapter".into(),
            n => format!("there are {n}, counted from 0"),
        },
    })
}

/// An interpreter on a GPU that computes what the CPU does.
async fn ready(adapter: &wgpu::Adapter, tolerance: f32) -> Result<Wgpu> {
    let mut gpu = Wgpu::new(adapter).await?;
    check::check(&mut gpu, tolerance, |gpu, config, w| gpu.copy(config, w)).await?;
    Ok(gpu)
}

async fn auto(model: &Model, threads: usize, demands: &Demands) -> Result<(Opened, Choice)> {
    let mut ops = Fast::new(threads)?;
    let weights = Arc::new(ops.load(model));
    let small = demands.is_small(&model.config);
    // A browser says at once that it has none; elsewhere drivers take longer to start than a small model to run.
    let look = !small || cfg!(target_family = "wasm");
    let adapters = if look { adapters().await } else { Vec::new() };
    if small && !(look && adapters.is_empty()) {
        let choice = Choice { device: Device::Cpu, why: Why::Small, passed_over: Vec::new() };
        return Ok((Opened::Cpu(ops, weights), choice));
    }
    let (mut tried, mut best) = (Vec::new(), None);
    // Only the fastest keeps its memory.
    let mut keep = |timed: Option<(f64, Opened)>| {
        let both = [best.take(), timed].into_iter().flatten();
        best = both.reduce(|a, b| if b.0 > a.0 { b } else { a });
    };
    for (index, adapter) in adapters.iter().enumerate() {
        if demands.hardware && adapter.is_software() {
            tried.push(Tried::Software);
            continue;
        }
        let timed = timed(model, adapter, demands.tolerance).await;
        let speed = timed.as_ref().map(|(speed, ..)| *speed).map_err(ToString::to_string);
        tried.push(Tried::new(Device::Wgpu(Some(index)), adapter.name(), speed));
        let opened = |(speed, gpu, on_gpu)| {
            (speed, Opened::Wgpu(index, Box::new(gpu), Arc::new(on_gpu), Some(Arc::clone(&weights))))
        };
        keep(timed.ok().map(opened));
    }
    #[cfg(not(target_family = "wasm"))]
    for (index, facts) in super::nvidia::gpus().into_iter().enumerate() {
        let timed = super::nvidia::timed(model, index, demands.tolerance).await;
        let speed = timed.as_ref().map(|(speed, ..)| *speed).map_err(ToString::to_string);
        tried.push(Tried::new(Device::Cuda(Some(index)), facts.name, speed));
        let opened = |(speed, gpu, on_gpu)| {
            (speed, Opened::Cuda(index, Box::new(gpu), Arc::new(on_gpu), Some(Arc::clone(&weights))))
        };
        keep(timed.ok().map(opened));
    }
    let choice = decide(false, &tried, probe::speed(&model.config, &weights, &mut ops)).await?;
    let opened = match best {
        Some((_, opened)) if choice.device != Device::Cpu => opened,
        _ => Opened::Cpu(ops, weights),
    };
    Ok((opened, choice))
}

/// Tokens a second that a GPU decodes, and it with the model.
async fn timed(model: &Model, adapter: &wgpu::Adapter, tolerance: f32) -> Result<(f64, Wgpu, Weights<wgpu::Weight>)> {
    let mut gpu = ready(adapter, tolerance).await?;
    let weights = gpu.load(model)?;
    let speed = probe::speed(&model.config, &weights, &mut gpu).await?;
    Ok((speed, gpu, weights))
}
