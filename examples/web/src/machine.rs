//! What a model runs on here, and why.

use sixpack_formats::Model;
use sixpack_runtime::device::Device;
use sixpack_runtime::{Engine, Error};

use crate::failure::Failure;

/// A machine with a model in it.
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    /// Why this machine, where nobody asked for it.
    pub(crate) why: Option<String>,
}

/// Loads `model` into what is `wanted`: `cpu`, `webgpu`, or else the faster one.
pub(crate) async fn open(model: &Model, wanted: &str) -> Result<Opened, Failure> {
    let device = match wanted {
        "cpu" => Device::Cpu,
        "webgpu" => Device::Wgpu(None),
        _ => Device::Auto,
    };
    let engine = Engine::open(model, device, 1).await.map_err(|error| match (device, error) {
        (Device::Wgpu(_), error @ (Error::NoDevice { .. } | Error::SelfCheck { .. })) => Failure::NoGpu(error),
        (_, error) => Failure::Machine(error),
    })?;
    let why = engine.choice().map(ToString::to_string);
    Ok(Opened { engine, why })
}

/// What a model runs on now, as the page says it.
pub(crate) fn name(engine: &Engine) -> &'static str {
    if matches!(engine.device(), Device::Wgpu(_)) { "webgpu" } else { "cpu" }
}
