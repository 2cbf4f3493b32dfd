//! Opening what was asked for.

use std::sync::Arc;

use sixpack_formats::{Model, ModelConfig};

use super::{Device, check, notice, probe};
use crate::cpu::{self, Fast};
use crate::wgpu::{self, Wgpu, adapters};
use crate::{Error, Result, Weights, count};

/// Below so many multiplications a token a GPU cannot win: starting its kernels takes longer than the CPU does.
const TOO_FEW: u64 = 4_000_000;

/// A machine with a model in it.
pub(crate) enum Opened {
    /// The CPU.
    Cpu(Fast, Arc<Weights<cpu::Weight>>),
    /// The GPU with this number; where it was not asked for, what to go on with on the CPU when it is lost.
    Wgpu(usize, Box<Wgpu>, Arc<Weights<wgpu::Weight>>, Option<Arc<Weights<cpu::Weight>>>),
}

/// Opens `device` and loads `model`.
///
/// # Errors
/// No threads, or a device that was asked for and is not there, differs from the CPU, or cannot hold the model.
pub(crate) async fn open(model: &Model, device: Device, threads: usize) -> Result<Opened> {
    match device {
        Device::Auto => auto(model, threads).await,
        Device::Cpu => on_cpu(model, threads),
        Device::Wgpu(wanted) => {
            let adapters = adapters().await;
            let index = pick(&adapters, wanted)?;
            let mut gpu = ready(&adapters[index]).await?;
            let weights = gpu.load(model)?;
            gpu.settle().await?;
            Ok(Opened::Wgpu(index, Box::new(gpu), Arc::new(weights), None))
        }
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
            ready(&adapters[pick(&adapters, wanted)?]).await.map(drop)
        }
        Device::Cuda(_) => Err(no_cuda(device)),
    }
}

/// Why there is none: what is missing of CUDA, or that this version has no interpreter for it.
fn no_cuda(device: Device) -> Error {
    #[cfg(not(target_family = "wasm"))]
    let missing = crate::cuda::Libraries::find(&crate::cuda::Places::usual()).why_not();
    #[cfg(target_family = "wasm")]
    let missing: Option<String> = None;
    let reason = missing.unwrap_or_else(|| "this version has no CUDA machine yet".into());
    Error::NoDevice { wanted: device.to_string(), reason }
}

fn on_cpu(model: &Model, threads: usize) -> Result<Opened> {
    let ops = Fast::new(threads)?;
    let weights = Arc::new(ops.load(model));
    Ok(Opened::Cpu(ops, weights))
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
pub(super) async fn ready(adapter: &wgpu::Adapter) -> Result<Wgpu> {
    let mut gpu = Wgpu::new(adapter).await?;
    check::check(&mut gpu, |gpu, config, w| gpu.copy(config, w)).await?;
    Ok(gpu)
}

async fn auto(model: &Model, threads: usize) -> Result<Opened> {
    let mut ops = Fast::new(threads)?;
    let weights = Arc::new(ops.load(model));
    if is_small(&model.config) {
        return Ok(Opened::Cpu(ops, weights));
    }
    let adapters = adapters().await;
    let real = adapters.iter().enumerate().filter(|(_, adapter)| !adapter.is_software());
    let gpus = real.map(|(index, adapter)| (adapter.name(), timed(model, index, adapter)));
    let best = fastest(gpus, probe::speed(&model.config, &weights, &mut ops)).await?;
    Ok(match best {
        Some((index, gpu, on_gpu)) => Opened::Wgpu(index, Box::new(gpu), Arc::new(on_gpu), Some(weights)),
        None => Opened::Cpu(ops, weights),
    })
}

/// The fastest of the GPUs that can be had, if the CPU is slower, whose speed is asked only if there is one.
async fn fastest<G>(
    gpus: impl IntoIterator<Item = (String, impl Future<Output = Result<(f64, G)>>)>,
    cpu: impl Future<Output = Result<f64>>,
) -> Result<Option<G>> {
    let mut best = None;
    for (name, timed) in gpus {
        match timed.await {
            Ok((speed, gpu)) if best.as_ref().is_none_or(|(most, _)| speed > *most) => best = Some((speed, gpu)),
            Ok(_) => {}
            Err(error) => notice(&format!("passing over the GPU `{name}`: {error}")),
        }
    }
    match best {
        Some((speed, gpu)) if speed > cpu.await? => Ok(Some(gpu)),
        _ => Ok(None),
    }
}

/// Whether no GPU is worth a look.
pub(super) fn is_small(config: &ModelConfig) -> bool {
    count::matmul_parameters(config, true) < TOO_FEW
}

/// A GPU with a model in it: its number, itself and the weights.
type Loaded = (usize, Wgpu, Weights<wgpu::Weight>);

/// Tokens a second that a GPU decodes, and it.
async fn timed(model: &Model, index: usize, adapter: &wgpu::Adapter) -> Result<(f64, Loaded)> {
    let mut gpu = ready(adapter).await?;
    let weights = gpu.load(model)?;
    let speed = probe::speed(&model.config, &weights, &mut gpu).await?;
    Ok((speed, (index, gpu, weights)))
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::now;

    #[test]
    fn a_gpu_is_taken_if_it_is_faster_than_the_cpu() {
        let take = |gpus: &[(&'static str, Option<f64>)], cpu: f64| {
            let failed = || Error::SelfCheck { found: "made up".into() };
            let gpus = gpus
                .iter()
                .map(|&(name, speed)| (name.to_owned(), ready(speed.map(|speed| (speed, name)).ok_or_else(failed))));
            now(fastest(gpus, ready(Ok(cpu)))).unwrap()
        };
        let gpus = [("slow", Some(20.0)), ("wrong", None), ("fast", Some(30.0)), ("middling", Some(25.0))];
        assert_eq!(take(&gpus, 29.0), Some("fast"));
        assert_eq!(take(&gpus, 30.0), None);
        assert_eq!(take(&gpus[..2], 1.0), Some("slow"));
        assert_eq!(take(&gpus[1..2], 1.0), None);
        // Then nobody asks the CPU.
        let wrong = ready(Err::<(f64, ()), _>(Error::SelfCheck { found: "made up".into() }));
        let cpu = async { unreachable!("there is nothing to compare it with") };
        assert_eq!(now(fastest([("wrong".to_owned(), wrong)], cpu)).unwrap(), None);
    }
}
