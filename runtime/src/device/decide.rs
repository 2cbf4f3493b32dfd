//! What `auto` takes of what was tried, and why.

use std::fmt;

use super::Device;
use crate::Result;

/// What `auto` took.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The CPU or a GPU.
    pub device: Device,
    /// Why that one.
    pub why: Why,
    /// GPUs that were no candidates for another reason than their speed.
    pub passed_over: Vec<PassedOver>,
}

/// Why `auto` took what it took. Speeds are in tokens a second.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// On so small a model no GPU is worth a look.
    Small,
    /// There is no GPU.
    NoGpu,
    /// All GPUs are programs that play one on the CPU.
    Software,
    /// None passed the self-check and the probe.
    NonePassed,
    /// A GPU is faster than the CPU.
    Faster {
        /// The GPU's speed.
        gpu: f64,
        /// The CPU's.
        cpu: f64,
    },
    /// The CPU is at least as fast as the fastest GPU.
    Slower {
        /// That GPU.
        device: Device,
        /// Its speed.
        gpu: f64,
        /// The CPU's.
        cpu: f64,
    },
}

/// A GPU that cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub struct PassedOver {
    /// Its name.
    pub name: String,
    /// What went wrong.
    pub reason: String,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small => f.write_str("on a model this small starting a GPU's kernels takes longer than the CPU does"),
            Self::NoGpu if cfg!(target_family = "wasm") => f.write_str("this browser offers no WebGPU"),
            Self::NoGpu => f.write_str("there is no GPU"),
            Self::Software => f.write_str("the only adapters are software on the CPU, which is never taken unasked"),
            Self::NonePassed => f.write_str("no GPU passed the self-check and the probe"),
            Self::Faster { gpu, cpu } => write!(f, "it decodes {gpu:.0} tokens/s, the CPU {cpu:.0}"),
            Self::Slower { device, gpu, cpu } => write!(f, "it decodes {cpu:.0} tokens/s, {device} {gpu:.0}"),
        }
    }
}

/// The reason, and what went wrong with GPUs that were passed over, in one line.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)?;
        self.passed_over.iter().try_for_each(|p| write!(f, "; the GPU `{}` was passed over: {}", p.name, p.reason))
    }
}

/// What became of a GPU.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tried {
    /// It is a program, and no candidate.
    Software,
    /// It cannot be used.
    Failed(PassedOver),
    /// It computes what the CPU does, so many tokens a second.
    Passed(Device, f64),
}

impl Tried {
    /// What became of a GPU that is one.
    pub(super) fn new<E: ToString>(device: Device, name: String, speed: Result<f64, E>) -> Self {
        match speed {
            Ok(speed) => Self::Passed(device, speed),
            Err(error) => Self::Failed(PassedOver { name, reason: error.to_string() }),
        }
    }
}

/// The fastest, the first of equals. The CPU's speed is asked only if a GPU is there to compare it with.
///
/// # Errors
/// The CPU's.
pub(super) async fn decide(small: bool, tried: &[Tried], cpu: impl Future<Output = Result<f64>>) -> Result<Choice> {
    let passed_over = tried.iter().filter_map(|t| if let Tried::Failed(p) = t { Some(p.clone()) } else { None });
    let passed_over: Vec<_> = passed_over.collect();
    let mut best: Option<(Device, f64)> = None;
    for tried in tried {
        if let Tried::Passed(device, speed) = *tried
            && best.is_none_or(|(_, most)| speed > most)
        {
            best = Some((device, speed));
        }
    }
    let (device, why) = match best {
        _ if small => (Device::Cpu, Why::Small),
        None if tried.is_empty() => (Device::Cpu, Why::NoGpu),
        None if passed_over.is_empty() => (Device::Cpu, Why::Software),
        None => (Device::Cpu, Why::NonePassed),
        Some((device, gpu)) => match cpu.await? {
            cpu if gpu > cpu => (device, Why::Faster { gpu, cpu }),
            cpu => (Device::Cpu, Why::Slower { device, gpu, cpu }),
        },
    };
    Ok(Choice { device, why, passed_over })
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::{Error, now};

    fn gpu(index: usize, speed: Option<f64>) -> Tried {
        let failed = || Error::SelfCheck { found: "made-up numbers".into() };
        Tried::new(Device::Wgpu(Some(index)), format!("number {index}"), speed.ok_or_else(failed))
    }

    fn on_cpu(tried: &[Tried]) -> Choice {
        let cpu = async { unreachable!("there is nothing to compare it with") };
        let choice = now(decide(false, tried, cpu)).unwrap();
        assert_eq!(choice.device, Device::Cpu);
        choice
    }

    #[test]
    fn the_fastest_that_is_right_and_real_is_taken() {
        let take = |tried: &[Tried], cpu: f64| now(decide(false, tried, ready(Ok(cpu)))).unwrap();
        let all = [gpu(0, Some(20.0)), gpu(1, None), gpu(2, Some(30.0)), Tried::Software, gpu(4, Some(30.0))];
        let choice = take(&all, 29.0);
        assert_eq!(choice.device, Device::Wgpu(Some(2)));
        assert_eq!(
            choice.to_string(),
            "it decodes 30 tokens/s, the CPU 29; the GPU `number 1` was passed over: the self-check failed: it gives \
             made-up numbers"
        );
        let choice = take(&all[..1], 20.0);
        assert_eq!((choice.device, choice.to_string().as_str()), (Device::Cpu, "it decodes 20 tokens/s, wgpu:0 20"));
        assert_eq!(now(decide(true, &all, ready(Ok(1.0)))).unwrap().device, Device::Cpu);
    }

    /// A GPU that failed is not one that is slow.
    #[test]
    fn the_reason_is_the_true_one() {
        assert_eq!(on_cpu(&[]).why, Why::NoGpu);
        assert_eq!(on_cpu(&[Tried::Software]).why, Why::Software);
        assert_eq!(
            on_cpu(&[Tried::Software, gpu(1, None)]).to_string(),
            "no GPU passed the self-check and the probe; the GPU `number 1` was passed over: the self-check failed: \
             it gives made-up numbers"
        );
    }
}
