//! What finds the numbers: recipes, the data loader, the optimizers, the engines on the CPU and on CUDA, ranks, the training loop, experiments.
#![deny(unsafe_code)]

pub mod collective;
pub mod cuda;
pub mod engine;
pub mod error;
pub mod event;
pub mod experiment;
mod explain;
mod gradients;
pub mod init;
pub mod loader;
#[allow(unsafe_code, reason = "calls the gemm crate behind checked views")]
mod matrix;
mod ops;
pub mod optim;
pub mod params;
pub mod pytorch;
pub mod recipe;
mod resume;
pub mod schedule;
pub mod sensitivity;
mod tape;
mod together;
pub mod trainer;
mod vector;

pub use collective::{Alone, Collective};
pub use engine::{CandleOps, CpuEngine, Gradients, Sequences};
pub use error::{Error, Result};
pub use event::Event;
pub use init::init;
pub use loader::Loader;
pub use optim::Optimizer;
pub use params::Params;
pub use recipe::Recipe;
pub use together::check_world;
pub use trainer::{Setup, Trainer};
