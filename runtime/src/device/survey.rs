//! All devices of a machine, tried.

use super::{Device, check, choose, made_up, probe};
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
    /// What `auto` takes for a model like the one tried.
    pub choice: Device,
    /// Why.
    pub why: String,
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
    let (choice, why) = choice(cpu, &found, choose::is_small(config));
    Ok(Survey { cpu, threads, adapters: found, choice, why })
}

async fn attempt(
    index: usize,
    adapter: &wgpu::Adapter,
    config: &ModelConfig,
    weights: &Weights<cpu::Weight>,
) -> Adapter {
    let tried = async {
        let mut gpu = Wgpu::new(adapter).await?;
        let worst = check::check(&mut gpu, |gpu, config, w| gpu.copy(config, w)).await?;
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

/// What `auto` takes, and why.
fn choice(cpu: f64, adapters: &[Adapter], small: bool) -> (Device, String) {
    if small {
        return (Device::Cpu, "on a model this small starting a GPU's kernels takes longer than the CPU does".into());
    }
    let speed = |a: &Adapter| a.speed.as_ref().and_then(|s| s.as_ref().ok().copied());
    let hardware = adapters.iter().filter(|a| !a.facts.software);
    let best = hardware.filter_map(|a| Some((a, speed(a)?))).max_by(|a, b| a.1.total_cmp(&b.1));
    match best {
        None if adapters.is_empty() => (Device::Cpu, "there is no GPU".into()),
        None if adapters.iter().all(|a| a.facts.software) => {
            (Device::Cpu, "the only adapters are software on the CPU, which is never taken unasked".into())
        }
        None => (Device::Cpu, "no GPU passed the self-check and the probe".into()),
        Some((a, gpu)) if gpu > cpu => (a.device, format!("it decodes {gpu:.0} tokens/s, the CPU {cpu:.0}")),
        Some((a, gpu)) => (Device::Cpu, format!("it decodes {cpu:.0} tokens/s, {} {gpu:.0}", a.device)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, software: bool, speed: Option<f64>) -> Adapter {
        let check = speed.map(|_| 1e-6).ok_or_else(|| "the self-check failed".to_owned());
        let facts = Facts { software, ..Facts::default() };
        Adapter { device: Device::Wgpu(Some(index)), facts, check, speed: speed.map(Ok) }
    }

    #[test]
    fn the_fastest_that_is_right_and_real_is_taken() {
        let take = |adapters: &[Adapter]| choice(100.0, adapters, false).0;
        assert_eq!(take(&[]), Device::Cpu);
        assert_eq!(take(&[adapter(0, true, Some(900.0))]), Device::Cpu);
        assert_eq!(take(&[adapter(0, false, None)]), Device::Cpu);
        assert_eq!(take(&[adapter(0, false, Some(99.0))]), Device::Cpu);
        let all = [adapter(0, true, Some(900.0)), adapter(1, false, Some(200.0)), adapter(2, false, Some(300.0))];
        assert_eq!(take(&all), Device::Wgpu(Some(2)));
        assert_eq!(choice(100.0, &all, false).1, "it decodes 300 tokens/s, the CPU 100");
        assert_eq!(choice(100.0, &all, true).0, Device::Cpu);
    }
}
