//! What a model runs on: as it is said on the command line, and how it is chosen.
//!
//! `auto` takes what decodes the model fastest: the CPU, or a GPU that agrees with the CPU on a small model. What it
//! took, why, and which GPUs it passed over for another reason than their speed, is a [`Choice`] for who asked. A GPU
//! that is lost later is told in one line on standard error. A program that plays a GPU on the CPU is never taken
//! unasked.

mod check;
mod choose;
mod decide;
mod made_up;
#[cfg(not(target_family = "wasm"))]
mod nvidia;
mod probe;
mod survey;

use std::fmt;
use std::str::FromStr;

pub use choose::{Demands, present};
pub(crate) use choose::{Opened, open};
pub use decide::{Choice, PassedOver, Why};
pub use survey::{Adapter, Survey, survey};

use crate::Error;

/// What a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// What is fastest.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU through WebGPU: the one with this number, or the first that is none of software.
    Wgpu(Option<usize>),
    /// A GPU through CUDA.
    Cuda(Option<usize>),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Wgpu(None) => f.write_str("wgpu"),
            Self::Wgpu(Some(n)) => write!(f, "wgpu:{n}"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(n)) => write!(f, "cuda:{n}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Option {
            field: "device",
            expected: "auto, cpu, wgpu, cuda, or one of the last two with a number as in wgpu:0".into(),
            found: format!("`{text}`"),
        };
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("wgpu", number) => Ok(Self::Wgpu(number)),
            ("cuda", number) => Ok(Self::Cuda(number)),
            _ => Err(wrong()),
        }
    }
}

/// One line for who runs the program.
pub(crate) fn notice(line: &str) {
    eprintln!("sixpack: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["auto", "cpu", "wgpu", "wgpu:0", "wgpu:12", "cuda", "cuda:3"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        for name in ["", "gpu", "cpu:0", "auto:1", "wgpu:", "wgpu:-1", "wgpu:x", "cuda:1:2", "CPU"] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.starts_with("option `device`: expected auto, cpu, wgpu"), "{error}");
        }
    }
}
